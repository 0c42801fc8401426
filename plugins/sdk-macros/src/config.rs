//! `#[config]`: a type that is read from JSON and has a schema.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Result};

/// Returns the type with what it derives.
pub(crate) fn expand(arguments: &TokenStream, item: &TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "this attribute takes no arguments"));
    }
    let parsed: syn::Item = syn::parse2(item.clone())?;
    if !matches!(parsed, syn::Item::Struct(_) | syn::Item::Enum(_)) {
        return Err(Error::new_spanned(parsed, "a configuration is made of structs and enums"));
    }
    Ok(quote! {
        #[derive(::pointsman_sdk::serde::Deserialize, ::pointsman_sdk::schemars::JsonSchema)]
        #[serde(crate = "::pointsman_sdk::serde", deny_unknown_fields)]
        #[schemars(crate = "::pointsman_sdk::schemars")]
        #item
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_are_configurations() {
        let error = expand(&TokenStream::new(), &quote! { fn f() {} }).expect_err("a function");
        assert_eq!(error.to_string(), "a configuration is made of structs and enums");
        assert!(expand(&quote! { default }, &quote! { struct A; }).is_err());
        let expanded = expand(&TokenStream::new(), &quote! { struct A { b: u8 } }).expect("a struct").to_string();
        assert!(expanded.contains("deny_unknown_fields") && expanded.ends_with("struct A { b : u8 }"), "{expanded}");
    }
}
