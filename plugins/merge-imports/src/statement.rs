//! One import statement: where it takes names from, which names, and how it is written.

/// Languages whose imports are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `use`, `mod`, `extern crate`.
    Rust,
    /// `import`, `from … import`.
    Python,
    /// `import … from`, `import "…"`, `const … = require("…")`, `export … from`.
    JavaScript,
    /// `import "…"` and the lines of an import group.
    Go,
    /// `import …;`
    Java,
    /// `#include`.
    C,
}

impl Language {
    const EXTENSIONS: [(&'static str, Self); 21] = [
        ("rs", Self::Rust),
        ("py", Self::Python),
        ("pyi", Self::Python),
        ("js", Self::JavaScript),
        ("jsx", Self::JavaScript),
        ("mjs", Self::JavaScript),
        ("cjs", Self::JavaScript),
        ("ts", Self::JavaScript),
        ("tsx", Self::JavaScript),
        ("mts", Self::JavaScript),
        ("cts", Self::JavaScript),
        ("go", Self::Go),
        ("java", Self::Java),
        ("c", Self::C),
        ("h", Self::C),
        ("cc", Self::C),
        ("cpp", Self::C),
        ("cxx", Self::C),
        ("hh", Self::C),
        ("hpp", Self::C),
        ("hxx", Self::C),
    ];

    /// Returns the language of a path, by its ending.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let ending = path.rsplit_once('.')?.1;
        Self::EXTENSIONS.iter().find(|(known, _)| *known == ending).map(|(_, language)| *language)
    }

    /// Returns the path patterns of all languages.
    #[must_use]
    pub fn patterns() -> Vec<String> {
        Self::EXTENSIONS.iter().map(|(ending, _)| format!("*.{ending}")).collect()
    }
}

/// A list of names within a statement: `use a::{…};`, `from a import …`, `import {…} from "a"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// What stands before the names.
    pub(crate) before: String,
    /// The names, aliases included, in their order.
    pub(crate) list: Vec<String>,
    /// What stands after them.
    pub(crate) after: String,
}

/// An import statement on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Its text without white space around it.
    pub(crate) text: String,
    /// White space before it.
    pub(crate) indent: String,
    /// What it imports from, for statements with a list of names; its text for others.
    pub(crate) key: String,
    /// The names it lists, where it does.
    pub(crate) names: Option<Names>,
    /// What it binds in the file.
    pub(crate) binds: Vec<String>,
}

impl Statement {
    /// Reads a line; none when it is no whole import statement of the language.
    pub(crate) fn read(language: Language, line: &str) -> Option<Self> {
        let text = line.trim();
        let indent = line[..line.len() - line.trim_start().len()].to_owned();
        let parts = match language {
            Language::Rust => rust(text),
            Language::Python => python(text),
            Language::JavaScript => javascript(text),
            Language::Go => go(text),
            Language::Java => java(text),
            Language::C => c(text),
        }?;
        Some(Self { text: text.to_owned(), indent, key: parts.key, names: parts.names, binds: parts.binds })
    }

    /// Returns the same statement with another list of names.
    pub(crate) fn with_names(&self, list: Vec<String>) -> Option<Self> {
        let names = Names { list, ..self.names.clone()? };
        let text = format!("{}{}{}", names.before, names.list.join(", "), names.after);
        let binds = names.list.iter().map(|name| bound(name)).collect();
        Some(Self { text, indent: self.indent.clone(), key: self.key.clone(), names: Some(names), binds })
    }
}

struct Parts {
    key: String,
    names: Option<Names>,
    binds: Vec<String>,
}

impl Parts {
    /// A statement that is one with its text.
    fn whole(text: &str, binds: Vec<String>) -> Self {
        Self { key: text.to_owned(), names: None, binds }
    }

    /// A statement with a flat list of names.
    fn listed(before: &str, inner: &str, after: &str) -> Option<Self> {
        let (before, after) = (spaced_end(before, inner), spaced_start(inner, after));
        let list: Vec<String> = inner.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if list.is_empty() || list.iter().any(|name| !is_name(name)) {
            return None;
        }
        let binds = list.iter().map(|name| bound(name)).collect();
        let key = format!("{}\u{0}{}", before.trim(), after.trim());
        Some(Self { key, names: Some(Names { before, list, after }), binds })
    }
}

fn spaced_end(before: &str, inner: &str) -> String {
    let space = &inner[..inner.len() - inner.trim_start().len()];
    format!("{before}{space}")
}

fn spaced_start(inner: &str, after: &str) -> String {
    let space = &inner[inner.trim_end().len()..];
    format!("{space}{after}")
}

/// Returns whether a text is a name, perhaps with an alias or the word `type` before it.
fn is_name(text: &str) -> bool {
    let fits = |one: char| one.is_alphanumeric() || matches!(one, '_' | '$' | '*' | '#' | ' ' | ':');
    text.chars().all(fits) && text.split(' ').count() <= 4
}

/// Returns the name that an entry binds: the last word, `b` of `a as b`.
fn bound(name: &str) -> String {
    name.rsplit([' ', ':']).next().unwrap_or(name).to_owned()
}

/// Returns the last part of a path or its alias; nothing for what binds no plain name.
fn last_part(path: &str, separator: &str) -> Vec<String> {
    let last = path.rsplit(separator).next().unwrap_or(path).trim();
    let name = bound(last);
    if matches!(name.as_str(), "*" | "_" | "." | "") { Vec::new() } else { vec![name] }
}

fn rust(text: &str) -> Option<Parts> {
    let statement = text.strip_suffix(';')?;
    let rest = without_visibility(statement);
    if let Some(name) = rest.strip_prefix("mod ").or_else(|| rest.strip_prefix("extern crate ")) {
        return is_path(name, "_ ").then(|| Parts::whole(text, last_part(name, "::")));
    }
    let path = rest.strip_prefix("use ")?;
    match path.split_once('{') {
        None => is_path(path, "_:* #").then(|| Parts::whole(text, last_part(path, "::"))),
        Some((module, inner)) => {
            let inner = inner.strip_suffix('}')?;
            if !is_path(module, "_:#") {
                return None;
            }
            let open = statement.find('{')? + 1;
            // A list within a list is a statement of its own kind: alike or not, never joined.
            Parts::listed(&statement[..open], inner, "};").or_else(|| {
                let closed = inner.matches('{').count() == inner.matches('}').count();
                (closed && is_path(inner, "_:*#{}, ")).then(|| Parts::whole(text, Vec::new()))
            })
        }
    }
}

fn without_visibility(statement: &str) -> &str {
    let Some(rest) = statement.strip_prefix("pub") else { return statement };
    if let Some(rest) = rest.strip_prefix('(') {
        return rest.split_once(')').map_or(statement, |(_, rest)| rest.trim_start());
    }
    rest.strip_prefix(' ').unwrap_or(statement)
}

fn python(text: &str) -> Option<Parts> {
    if let Some(modules) = text.strip_prefix("import ") {
        let bind = |module: &str| match module.split_once(" as ") {
            Some((_, alias)) => alias.trim().to_owned(),
            // `import a.b` binds `a`, as does `import a.c`: that is no clash.
            None => format!("module {}", module.trim()),
        };
        return is_path(modules, "_., ").then(|| Parts::whole(text, modules.split(',').map(bind).collect()));
    }
    let (module, names) = text.strip_prefix("from ")?.split_once(" import ")?;
    if !is_path(module, "_.") {
        return None;
    }
    let before = format!("from {module} import ");
    match names.strip_prefix('(') {
        Some(inner) => Parts::listed(&format!("{before}("), inner.strip_suffix(')')?, ")"),
        None => Parts::listed(&before, names, ""),
    }
}

fn javascript(text: &str) -> Option<Parts> {
    let quoted = |module: &str| {
        let module = module.trim().trim_end_matches(';').trim_end();
        let quote = module.chars().next().filter(|one| matches!(one, '"' | '\'' | '`'))?;
        (module.len() > 2 && module.ends_with(quote) && module.matches(quote).count() == 2).then_some(())
    };
    if let Some((left, right)) = text.split_once('=').filter(|_| text.contains("require(")) {
        let target = ["const ", "let ", "var "].iter().find_map(|word| left.strip_prefix(word))?.trim();
        let call = right.trim().trim_end_matches(';').strip_prefix("require(")?.strip_suffix(')')?;
        quoted(call)?;
        return match target.strip_prefix('{') {
            Some(inner) => {
                let open = text.find('{')? + 1;
                let close = text.find('}')?;
                inner.trim().strip_suffix('}')?;
                Parts::listed(&text[..open], &text[open..close], &text[close..])
            }
            None => is_path(target, "_$").then(|| Parts::whole(text, vec![target.to_owned()])),
        };
    }
    let (rest, exported) = match text.strip_prefix("import ") {
        Some(rest) => (rest, false),
        None => (text.strip_prefix("export ")?, true),
    };
    if !exported && quoted(rest).is_some() {
        return Some(Parts::whole(text, Vec::new()));
    }
    let (what, module) = rest.rsplit_once(" from ")?;
    quoted(module)?;
    match (text.find('{'), text.find('}')) {
        (Some(open), Some(close)) if open < close => Parts::listed(&text[..=open], &text[open + 1..close], &text[close..]),
        (None, None) => {
            let binds = if exported { Vec::new() } else { last_part(what, ",") };
            is_path(what, "_$*, ").then(|| Parts::whole(text, binds))
        }
        _ => None,
    }
}

fn go(text: &str) -> Option<Parts> {
    let rest = text.strip_prefix("import ").unwrap_or(text).trim();
    let (alias, path) = rest.split_once('"')?;
    let path = path.strip_suffix('"')?;
    let alias = alias.trim();
    if path.is_empty() || path.contains(['"', ' ', '\\']) || !is_path(alias, "_.") {
        return None;
    }
    let binds = match alias {
        "" => last_part(path, "/"),
        "_" | "." => Vec::new(),
        name => vec![name.to_owned()],
    };
    Some(Parts::whole(text, binds))
}

fn java(text: &str) -> Option<Parts> {
    let path = text.strip_prefix("import ")?.strip_suffix(';')?;
    let name = path.strip_prefix("static ").unwrap_or(path);
    is_path(name, "_.*$").then(|| {
        // Static imports may share a name: they are overloads.
        let binds = if name.len() == path.len() { last_part(name, ".") } else { Vec::new() };
        Parts::whole(text, binds)
    })
}

fn c(text: &str) -> Option<Parts> {
    let file = text.strip_prefix('#')?.trim_start().strip_prefix("include")?.trim();
    let inner = file.strip_prefix('<').and_then(|file| file.strip_suffix('>'));
    let inner = inner.or_else(|| file.strip_prefix('"').and_then(|file| file.strip_suffix('"')))?;
    (!inner.is_empty() && !inner.contains(['<', '>', '"'])).then(|| Parts::whole(text, Vec::new()))
}

/// Returns whether a text is made of letters, digits and the given others.
fn is_path(text: &str, others: &str) -> bool {
    text.chars().all(|one| one.is_alphanumeric() || others.contains(one))
}
