//! What stands between an attribute's brackets: words, and values under names.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Ident, Result, Token};

/// `word` or `name = value`.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) value: Option<Expr>,
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        let value = if input.parse::<Option<Token![=]>>()?.is_some() { Some(input.parse()?) } else { None };
        Ok(Self { name, value })
    }
}

/// The arguments of one attribute, taken out one by one.
pub(crate) struct Arguments(Vec<Argument>);

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Self(Punctuated::<Argument, Token![,]>::parse_terminated(input)?.into_iter().collect()))
    }
}

impl Arguments {
    /// Takes the value of a name.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<Expr>> {
        match self.take(name) {
            Some(Argument { value: Some(value), .. }) => Ok(Some(value)),
            Some(Argument { name, .. }) => Err(Error::new(name.span(), format!("write `{name} = …`"))),
            None => Ok(None),
        }
    }

    /// Takes a word.
    pub(crate) fn word(&mut self, name: &str) -> Result<bool> {
        match self.take(name) {
            Some(Argument { value: None, .. }) => Ok(true),
            Some(Argument { name, .. }) => Err(Error::new(name.span(), format!("`{name}` takes no value"))),
            None => Ok(false),
        }
    }

    /// Refuses what was not taken.
    pub(crate) fn finish(self, known: &str) -> Result<()> {
        let Some(left) = self.0.first() else { return Ok(()) };
        let advice = if known.is_empty() { "this attribute takes none here".to_owned() } else { format!("there is {known}") };
        Err(Error::new(left.name.span(), format!("there is no argument `{}`, or it stands twice: {advice}", left.name)))
    }

    fn take(&mut self, name: &str) -> Option<Argument> {
        let at = self.0.iter().position(|argument| argument.name == name)?;
        Some(self.0.remove(at))
    }
}
