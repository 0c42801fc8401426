//! Interned texts: the host's table of lasting ones, and what one instance sees on top of it.
//!
//! Facts of candidates and the names a plugin was configured with last; they share one bounded table. The texts of a
//! message (paths, labels) come and go: one that is not in the table gets a number that only its instance knows.
//!
//! **Invariant:** within the life of an instance equal texts have equal numbers. The table only grows; an instance
//! whose own numbers may have been overtaken by it is retired before its next call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::ports::plugins::Symbol;

/// Lasting texts, over all plugins.
pub(super) const TABLE_TEXTS_MAX: usize = 1 << 18;
/// Bytes of a lasting text.
pub(super) const TEXT_BYTES_MAX: usize = 256;
/// Lasting texts one loaded plugin may add by `symbol-of`.
pub(super) const PLUGIN_TEXTS_MAX: u32 = 4_096;
/// Texts of its own after which an instance is retired.
const OWN_TEXTS_MAX: usize = 1_024;
/// Numbers of an instance's own texts start here, above any of the table. They stay below 2^31: guests of componentize-js hand
/// larger ones back as another number.
const OWN_FIRST: u32 = 1 << 30;

#[derive(Debug)]
struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

/// The lasting texts of a host.
#[derive(Debug)]
pub(super) struct SymbolTable {
    texts: RwLock<Texts>,
    /// Length of the table, readable without the lock.
    len: AtomicUsize,
}

impl SymbolTable {
    /// Returns a table that holds the empty text as 0.
    pub(super) fn new() -> Self {
        let empty: Arc<str> = Arc::from("");
        let texts = Texts { numbers: HashMap::from([(Arc::clone(&empty), 0)]), texts: vec![empty] };
        Self { texts: RwLock::new(texts), len: AtomicUsize::new(1) }
    }

    /// Returns the number of a text, which is added when it is new, short enough and there is room.
    pub(super) fn intern(&self, text: &str) -> Symbol {
        if let Some(number) = self.find(text) {
            return Symbol(number);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Symbol::NONE;
        }
        let mut texts = self.texts.write();
        if let Some(number) = texts.numbers.get(text) {
            return Symbol(*number);
        }
        let next = texts.texts.len();
        if next >= TABLE_TEXTS_MAX {
            return Symbol::NONE;
        }
        if next + 1 == TABLE_TEXTS_MAX {
            tracing::warn!(texts = TABLE_TEXTS_MAX, "the table of symbols is full; routers see new names as empty");
        }
        let number = u32::try_from(next).expect("the table is bounded far below 2^30");
        let text: Arc<str> = Arc::from(text);
        texts.texts.push(Arc::clone(&text));
        texts.numbers.insert(text, number);
        self.len.store(next + 1, Ordering::Release);
        Symbol(number)
    }

    /// Returns the text of a number.
    pub(super) fn text(&self, number: u32) -> Arc<str> {
        let texts = self.texts.read();
        let position = usize::try_from(number).unwrap_or(usize::MAX);
        texts.texts.get(position).map_or_else(|| Arc::clone(&texts.texts[0]), Arc::clone)
    }

    fn find(&self, text: &str) -> Option<u32> {
        self.texts.read().numbers.get(text).copied()
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }
}

/// What a plugin may still add to the table.
#[derive(Debug, Default)]
pub(super) struct Quota(AtomicU32);

impl Quota {
    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < PLUGIN_TEXTS_MAX).then_some(used + 1)).is_ok()
    }
}

/// Whether the plugin is being configured: what it names then lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// In `configure`.
    Configuring,
    /// In any other call.
    Asked,
}

/// The texts as one instance sees them.
#[derive(Debug)]
pub(super) struct Scope {
    table: Arc<SymbolTable>,
    quota: Arc<Quota>,
    pub(super) phase: Phase,
    own: HashMap<Arc<str>, u32>,
    own_texts: Vec<Arc<str>>,
    /// The table's length when the first own text was added.
    table_len: usize,
}

impl Scope {
    /// Returns the scope of a new instance.
    pub(super) fn new(table: Arc<SymbolTable>, quota: Arc<Quota>) -> Self {
        Self { table, quota, phase: Phase::Configuring, own: HashMap::new(), own_texts: Vec::new(), table_len: 0 }
    }

    /// Returns whether the numbers of this instance still mean what they meant.
    pub(super) fn holds(&self) -> bool {
        self.own_texts.is_empty() || (self.own_texts.len() <= OWN_TEXTS_MAX && self.table_len == self.table.len())
    }

    /// Returns the number of a text of a message.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(number) = self.own_number(text) {
            return number;
        }
        let found = self.table.find(text);
        found.unwrap_or_else(|| self.add_own(text))
    }

    /// Answers the guest's `symbol-of`.
    pub(super) fn symbol_of(&mut self, text: &str) -> u32 {
        if text.len() > TEXT_BYTES_MAX {
            return self.own_number(text).unwrap_or(0);
        }
        match self.phase {
            Phase::Configuring => match self.table.find(text) {
                Some(number) => number,
                None if self.quota.take() => self.table.intern(text).0,
                None => 0,
            },
            Phase::Asked if self.own_texts.len() < OWN_TEXTS_MAX => self.number(text),
            Phase::Asked => self.own_number(text).or_else(|| self.table.find(text)).unwrap_or(0),
        }
    }

    /// Answers the guest's `symbol-name`.
    pub(super) fn symbol_name(&self, number: u32) -> Arc<str> {
        if number < OWN_FIRST {
            return self.table.text(number);
        }
        let position = usize::try_from(number - OWN_FIRST).unwrap_or(usize::MAX);
        self.own_texts.get(position).map_or_else(|| self.table.text(0), Arc::clone)
    }

    fn own_number(&self, text: &str) -> Option<u32> {
        if self.own.is_empty() { None } else { self.own.get(text).copied() }
    }

    fn add_own(&mut self, text: &str) -> u32 {
        if self.own_texts.is_empty() {
            self.table_len = self.table.len();
        }
        let Ok(position) = u32::try_from(self.own_texts.len()) else { return 0 };
        let text: Arc<str> = Arc::from(text);
        self.own_texts.push(Arc::clone(&text));
        self.own.insert(text, OWN_FIRST + position);
        OWN_FIRST + position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(table: &Arc<SymbolTable>) -> Scope {
        Scope::new(Arc::clone(table), Arc::default())
    }

    #[test]
    fn equal_texts_have_equal_numbers() {
        let table = Arc::new(SymbolTable::new());
        assert_eq!(table.intern(""), Symbol::NONE);
        let rust = table.intern("rust");
        assert_eq!(table.intern("rust"), rust);
        assert_ne!(table.intern("sql"), rust);
        assert_eq!(&*table.text(rust.0), "rust");
        assert_eq!(&*table.text(9_999), "");
        assert_eq!(table.intern(&"x".repeat(TEXT_BYTES_MAX + 1)), Symbol::NONE);

        let mut scope = scope(&table);
        assert_eq!(scope.number("rust"), rust.0);
        assert_eq!(scope.symbol_of("rust"), rust.0);
        scope.phase = Phase::Asked;
        let path = scope.number("src/lib.rs");
        assert!(path >= OWN_FIRST);
        assert_eq!(scope.number("src/lib.rs"), path);
        assert_eq!(scope.symbol_of("src/lib.rs"), path);
        assert_eq!(&*scope.symbol_name(path), "src/lib.rs");
        assert_eq!(&*scope.symbol_name(path + 1), "");
        assert_eq!(scope.number(""), 0);
    }

    #[test]
    fn a_scope_is_done_once_the_table_may_have_overtaken_it() {
        let table = Arc::new(SymbolTable::new());
        let mut one = scope(&table);
        table.intern("a");
        assert!(one.holds());
        one.number("own");
        assert!(one.holds());
        table.intern("own");
        assert!(!one.holds());
        let mut many = scope(&table);
        for n in 0..=OWN_TEXTS_MAX {
            many.number(&format!("path/{n}"));
        }
        assert!(!many.holds());
    }

    #[test]
    fn a_plugin_cannot_fill_the_table() {
        let table = Arc::new(SymbolTable::new());
        let mut one = scope(&table);
        for n in 0..PLUGIN_TEXTS_MAX {
            assert_ne!(one.symbol_of(&format!("name-{n}")), 0);
        }
        assert_eq!(one.symbol_of("one-more"), 0);
        assert_ne!(one.symbol_of("name-7"), 0);
        one.phase = Phase::Asked;
        for n in 0..2 * OWN_TEXTS_MAX {
            one.symbol_of(&format!("later-{n}"));
        }
        assert!(one.own_texts.len() <= OWN_TEXTS_MAX);
    }
}
