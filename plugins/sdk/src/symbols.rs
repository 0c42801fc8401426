//! Interned text. In a component the host keeps the table; natively this module does.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A text by its number. Comparing two is comparing numbers; a name costs a call, so ask for it late.
///
/// A symbol means nothing beyond the life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Symbol(u32);

impl Symbol {
    /// The empty text: "none".
    pub const NONE: Self = Self(0);

    /// Returns the symbol with a number that the host gave.
    #[must_use]
    pub const fn from_raw(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Returns whether this is the empty text.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns the symbol of a text. Meant for the making of a plugin, to compare with later.
    ///
    /// # Errors
    /// The text is empty or over 256 bytes, or the table is full.
    pub fn intern(text: &str) -> Result<Self, String> {
        match table::symbol_of(text) {
            0 if text.is_empty() => Err("an empty name cannot be compared with".to_owned()),
            0 => Err(format!("the name {text:?} is too long, or one too many")),
            number => Ok(Self(number)),
        }
    }

    /// Returns the symbols of several texts.
    ///
    /// # Errors
    /// As [`Symbol::intern`], for the first that fails.
    pub fn intern_all<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Self>, String> {
        texts.iter().map(|text| Self::intern(text.as_ref())).collect()
    }

    /// Returns the text.
    #[must_use]
    pub fn name(self) -> String {
        table::symbol_name(self.0)
    }
}

/// In a configuration a symbol is written as its text, and interned as it is read.
impl<'de> Deserialize<'de> for Symbol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::intern(&text).map_err(D::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Symbol {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Name")
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "minLength": 1})
    }
}

#[cfg(target_arch = "wasm32")]
mod table {
    pub(super) fn symbol_of(text: &str) -> u32 {
        crate::bindings::router::pointsman::types::symbols::symbol_of(text)
    }

    pub(super) fn symbol_name(symbol: u32) -> String {
        crate::bindings::router::pointsman::types::symbols::symbol_name(symbol)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod table {
    use std::collections::HashMap;
    use std::sync::{Arc, LazyLock, Mutex, PoisonError};

    /// The longest text the host interns on a plugin's behalf.
    const TEXT_BYTES_MAX: usize = 256;

    #[derive(Default)]
    struct Interner {
        numbers: HashMap<Arc<str>, u32>,
        texts: Vec<Arc<str>>,
    }

    static INTERNER: LazyLock<Mutex<Interner>> = LazyLock::new(Mutex::default);

    pub(super) fn symbol_of(text: &str) -> u32 {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return 0;
        }
        let mut interner = INTERNER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = interner.numbers.get(text) {
            return *number;
        }
        let shared: Arc<str> = Arc::from(text);
        interner.texts.push(Arc::clone(&shared));
        let number = u32::try_from(interner.texts.len()).unwrap_or(0);
        interner.numbers.insert(shared, number);
        number
    }

    pub(super) fn symbol_name(symbol: u32) -> String {
        let interner = INTERNER.lock().unwrap_or_else(PoisonError::into_inner);
        let position = usize::try_from(symbol).unwrap_or(usize::MAX).wrapping_sub(1);
        interner.texts.get(position).map_or_else(String::new, |text| text.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_equal_symbols() {
        let ana = Symbol::intern("ana").expect("short");
        assert_eq!(Symbol::intern("ana"), Ok(ana));
        assert_ne!(Symbol::intern("bob"), Ok(ana));
        assert_eq!(ana.name(), "ana");
        assert_eq!(Symbol::NONE.name(), "");
        assert!(Symbol::intern("").is_err());
        assert!(Symbol::intern(&"x".repeat(257)).is_err());
        assert_eq!(Symbol::from_raw(u32::MAX).name(), "");
        assert_eq!(serde_json::from_str::<Vec<Symbol>>(r#"["ana", "\u0061na"]"#).expect("texts"), [ana, ana]);
        assert!(serde_json::from_str::<Symbol>("\"\"").is_err());
    }
}
