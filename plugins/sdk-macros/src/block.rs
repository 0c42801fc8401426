//! An attribute on `impl TRAIT for CONFIG`: the configuration is the plugin.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemImpl, Result};

use crate::arguments::Arguments;
use crate::function::World;

/// Returns the block, and the plugin that its type is.
pub(crate) fn expand(world: World, arguments: Arguments, block: &ItemImpl) -> Result<TokenStream> {
    arguments.finish("")?;
    let wanted = world.trait_name();
    let named = block.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
    if named.is_none_or(|segment| segment.ident != wanted) {
        return Err(Error::new_spanned(
            block.self_ty.as_ref(),
            format!("write `impl {wanted} for …`, the configuration's type in its place"),
        ));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new_spanned(&block.generics, "a plugin is of one type: this block cannot be generic"));
    }
    let plugin = &block.self_ty;
    let export = world.export();
    Ok(quote! {
        #block

        impl ::pointsman_sdk::Plugin for #plugin {
            type Config = Self;
            fn new(config: Self) -> ::core::result::Result<Self, ::std::string::String> {
                ::core::result::Result::Ok(config)
            }
        }

        ::pointsman_sdk::#export!(#plugin);
    })
}
