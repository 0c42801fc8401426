//! `plugins.lock` beside a configuration: which bytes each plugin may have.
//!
//! ```toml
//! lock_version = 1
//!
//! [[plugin]]
//! name = "my-router"
//! digest = "…"             # BLAKE3 of the component, hex
//! source = "my-router.wasm"
//! ```
//!
//! The lock of shipped components (`lock`) reads as one, too: of each entry only name and digest count.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// The file's name, beside the configuration.
pub const FILE: &str = "plugins.lock";
const LOCK_VERSION: i64 = 1;
const HEADER: &str = "# Written by `pointsman plugin lock`: a component with another BLAKE3 digest is refused by name.\n";

/// What is recorded of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPlugin {
    /// Its name.
    pub name: String,
    /// BLAKE3 of its component, hex.
    pub digest: String,
    /// Where that came from, for whoever reads the file.
    pub source: String,
}

/// The digests that a configuration allows, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DigestLock {
    /// One a plugin.
    pub entries: Vec<LockedPlugin>,
}

impl DigestLock {
    /// Reads a lock.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
        match document.get("lock_version").and_then(Item::as_integer) {
            Some(LOCK_VERSION) => {}
            Some(other) => return Err(format!("`lock_version` is {LOCK_VERSION} here, not {other}")),
            None => return Err("`lock_version` is missing".to_owned()),
        }
        let tables = document.get("plugin").and_then(Item::as_array_of_tables);
        let mut entries = tables.into_iter().flatten().map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(format!("`{}` stands there twice", twice[0].name));
        }
        Ok(Self { entries })
    }

    /// Returns the file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut document = DocumentMut::new();
        document["lock_version"] = value(LOCK_VERSION);
        let mut entries = self.entries.clone();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tables = ArrayOfTables::new();
        for entry in entries {
            let mut table = Table::new();
            table["name"] = value(entry.name);
            table["digest"] = value(entry.digest);
            table["source"] = value(entry.source);
            tables.push(table);
        }
        document["plugin"] = Item::ArrayOfTables(tables);
        format!("{HEADER}{document}")
    }
}

fn entry(table: &Table) -> Result<LockedPlugin, String> {
    let text = |key: &str| table.get(key).and_then(Item::as_str).map(str::to_owned);
    let must = |key: &str| text(key).ok_or_else(|| format!("an entry lacks the text `{key}`"));
    Ok(LockedPlugin { name: must("name")?, digest: must("digest")?, source: text("source").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_what_it_wrote() {
        let entry = |name: &str| LockedPlugin { name: name.to_owned(), digest: "ab".repeat(32), source: "embedded".to_owned() };
        let lock = DigestLock { entries: vec![entry("b"), entry("a")] };
        let read = DigestLock::parse(&lock.to_text()).expect("it reads");
        assert_eq!(read.entries, [entry("a"), entry("b")]);
        for (text, what) in [
            ("", "`lock_version` is missing"),
            ("lock_version = 9", "not 9"),
            ("lock_version = 1\n[[plugin]]\nname = \"a\"", "lacks the text `digest`"),
            ("lock_version = 1\n[[plugin]]\nname = \"a\"\ndigest = \"x\"\n[[plugin]]\nname = \"a\"\ndigest = \"x\"", "twice"),
        ] {
            assert!(DigestLock::parse(text).expect_err(text).contains(what), "{text}");
        }
    }
}
