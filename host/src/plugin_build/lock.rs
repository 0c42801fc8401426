//! `plugins.lock`: which bytes each shipped component has and which compiler made them.
//!
//! ```toml
//! lock_version = 1
//!
//! [[plugin]]
//! name = "routing-capability"
//! version = "0.1.0"
//! world = "router"
//! digest = "…"            # BLAKE3 of the file, in hex
//! size_bytes = 70123
//! linker = "LLD 22.1.2"
//! rustc = """
//! rustc 1.96.0 …"""       # `rustc -vV`, or the tool that made a component of another language
//! ```

use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// The file's name, next to the components.
pub const FILE: &str = "plugins.lock";
/// The version of the file's form.
pub const LOCK_VERSION: i64 = 1;

const HEADER: &str = "# Written by `pointsman plugin build`. Digests are BLAKE3 of the component's bytes.\n";

/// What is recorded of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its world.
    pub world: String,
    /// BLAKE3 of the file, in hex.
    pub digest: String,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// What `rustc -vV` said; of another language, which tool made the component.
    pub rustc: String,
    /// What the linker says of its version.
    pub linker: String,
}

/// The lock of a folder of components, entries in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    entries: Vec<Entry>,
}

impl Lock {
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
        Ok(Self { entries })
    }

    /// Reads the lock of a folder; empty where there is none yet.
    ///
    /// # Errors
    /// The file cannot be read, or what is wrong with it.
    pub fn read(dist: &Path) -> Result<Self, String> {
        match std::fs::read_to_string(dist.join(FILE)) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns the entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the entry of a plugin.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Puts an entry in, in place of one of that name.
    pub fn put(&mut self, entry: Entry) {
        self.entries.retain(|other| other.name != entry.name);
        self.entries.push(entry);
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Returns the file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut document = DocumentMut::new();
        document["lock_version"] = value(LOCK_VERSION);
        let mut tables = ArrayOfTables::new();
        for entry in &self.entries {
            let mut table = Table::new();
            table["name"] = value(&entry.name);
            table["version"] = value(&entry.version);
            table["world"] = value(&entry.world);
            table["digest"] = value(&entry.digest);
            table["size_bytes"] = value(i64::try_from(entry.size_bytes).unwrap_or(i64::MAX));
            table["linker"] = value(&entry.linker);
            table["rustc"] = value(&entry.rustc);
            tables.push(table);
        }
        document["plugin"] = Item::ArrayOfTables(tables);
        format!("{HEADER}{document}")
    }
}

fn entry(table: &Table) -> Result<Entry, String> {
    let text = |key: &str| {
        let found = table.get(key).and_then(Item::as_str);
        found.map(str::to_owned).ok_or_else(|| format!("an entry lacks the text `{key}`"))
    };
    let size = table.get("size_bytes").and_then(Item::as_integer).and_then(|size| u64::try_from(size).ok());
    Ok(Entry {
        name: text("name")?,
        version: text("version")?,
        world: text("world")?,
        digest: text("digest")?,
        size_bytes: size.ok_or("an entry lacks the number `size_bytes`")?,
        rustc: text("rustc")?,
        linker: text("linker")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(name: &str, size_bytes: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            world: "router".to_owned(),
            digest: "ab".repeat(32),
            size_bytes,
            rustc: "rustc 1.96.0 (x)\nhost: y".to_owned(),
            linker: "LLD 22.1.2".to_owned(),
        }
    }

    #[test]
    fn a_lock_reads_what_it_wrote() {
        let mut lock = Lock::default();
        lock.put(entry_of("b", 1));
        lock.put(entry_of("a", 2));
        lock.put(entry_of("b", 3));
        let text = lock.to_text();
        assert_eq!(Lock::parse(&text), Ok(lock.clone()));
        assert_eq!(lock.entries().iter().map(|entry| (entry.name.as_str(), entry.size_bytes)).collect::<Vec<_>>(), [("a", 2), ("b", 3)]);
        assert!(lock.get("c").is_none());
        assert_eq!(Lock::parse(&Lock::default().to_text()), Ok(Lock::default()));
    }

    #[test]
    fn a_wrong_lock_says_why() {
        for (text, what) in [
            ("", "`lock_version` is missing"),
            ("lock_version = 9", "not 9"),
            ("lock_version = 1\n[[plugin]]\nname = 3", "an entry lacks"),
            ("lock_version = ", "line 1"),
        ] {
            let error = Lock::parse(text).expect_err(text);
            assert!(error.contains(what), "{text:?}: {error}");
        }
    }
}
