//! Capabilities and the expressions that ask for them.
//!
//! An agent offers `name[@version][{k=v,…}]`; an address asks with the same form, where the version is a semver
//! requirement, joined by `all(…)`, `any(…)` and `not(…)`:
//!
//! ```text
//! rust
//! rust@^1.80{async=yes}
//! all(rust, any(review, security), not(frontend))
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use semver::{Version, VersionReq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 1024;
/// How deep `all`, `any` and `not` may nest.
pub const DEPTH_MAX: usize = 8;

/// Why a text is not a capability or an expression.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{given}` is not a capability expression: {problem} at byte {at}; write `name`, `name@^1.2`, `name{{key=value}}`, `all(…)`, `any(…)` or `not(…)`"
)]
pub struct CapabilityError {
    /// What was read, cut to 80 characters.
    pub given: String,
    /// What is wrong.
    pub problem: &'static str,
    /// Where.
    pub at: usize,
}

/// Something an agent can do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// Lower case letters, digits, `-`, `_`, `.` and `/`.
    pub name: String,
    /// In which version.
    pub version: Option<Version>,
    /// With which attributes.
    pub attributes: BTreeMap<String, String>,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, "@{version}")?;
        }
        write_attributes(f, &self.attributes)
    }
}

fn write_attributes(f: &mut fmt::Formatter<'_>, attributes: &BTreeMap<String, String>) -> fmt::Result {
    for (i, (key, value)) in attributes.iter().enumerate() {
        write!(f, "{}{key}={value}", if i == 0 { "{" } else { "," })?;
    }
    if attributes.is_empty() { Ok(()) } else { f.write_str("}") }
}

/// What an address asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CapabilityExpr {
    /// One capability.
    Has {
        /// Its name.
        name: String,
        /// Which versions will do; none: any, or unversioned.
        version: Option<VersionReq>,
        /// Attributes that must be equal.
        attributes: BTreeMap<String, String>,
    },
    /// Every one of these.
    All(Vec<CapabilityExpr>),
    /// At least one of these.
    Any(Vec<CapabilityExpr>),
    /// Not this.
    Not(Box<CapabilityExpr>),
}

impl CapabilityExpr {
    /// Returns whether an agent with these capabilities satisfies the expression.
    #[must_use]
    pub fn is_satisfied_by(&self, offered: &[Capability]) -> bool {
        match self {
            Self::Has { name, version, attributes } => offered.iter().any(|capability| {
                capability.name == *name
                    && version.as_ref().is_none_or(|req| capability.version.as_ref().is_some_and(|v| req.matches(v)))
                    && attributes.iter().all(|(key, value)| capability.attributes.get(key) == Some(value))
            }),
            Self::All(parts) => parts.iter().all(|part| part.is_satisfied_by(offered)),
            Self::Any(parts) => parts.iter().any(|part| part.is_satisfied_by(offered)),
            Self::Not(part) => !part.is_satisfied_by(offered),
        }
    }

    /// Returns the names the expression mentions, in order, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        fn collect<'a>(expr: &'a CapabilityExpr, names: &mut Vec<&'a str>) {
            match expr {
                CapabilityExpr::Has { name, .. } => {
                    if !names.contains(&name.as_str()) {
                        names.push(name);
                    }
                }
                CapabilityExpr::All(parts) | CapabilityExpr::Any(parts) => parts.iter().for_each(|part| collect(part, names)),
                CapabilityExpr::Not(part) => collect(part, names),
            }
        }
        let mut names = Vec::new();
        collect(self, &mut names);
        names
    }
}

impl fmt::Display for CapabilityExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, word: &str, parts: &[Self]| {
            write!(f, "{word}(")?;
            for (i, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if i == 0 { "" } else { ", " })?;
            }
            f.write_str(")")
        };
        match self {
            Self::Has { name, version, attributes } => {
                f.write_str(name)?;
                if let Some(version) = version {
                    write!(f, "@{}", version.to_string().replace(", ", "&"))?;
                }
                write_attributes(f, attributes)
            }
            Self::All(parts) => list(f, "all", parts),
            Self::Any(parts) => list(f, "any", parts),
            Self::Not(part) => write!(f, "not({part})"),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn error(&self, problem: &'static str) -> CapabilityError {
        CapabilityError { given: self.text.chars().take(80).collect(), problem, at: self.at }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn eat(&mut self, token: char) -> bool {
        self.spaces();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len_utf8();
        }
        found
    }

    fn take(&mut self, accepted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !accepted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn word(&mut self) -> Result<&'a str, CapabilityError> {
        self.spaces();
        let word = self.take(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/'));
        if word.is_empty() { Err(self.error("a name of a-z, 0-9, `-`, `_`, `.`, `/` is missing")) } else { Ok(word) }
    }

    fn version_text(&mut self) -> Option<&'a str> {
        self.eat('@')
            .then(|| self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '^' | '~' | '=' | '<' | '>' | '*' | '&')))
    }

    fn attributes(&mut self) -> Result<BTreeMap<String, String>, CapabilityError> {
        let mut attributes = BTreeMap::new();
        if !self.eat('{') {
            return Ok(attributes);
        }
        loop {
            let key = self.word()?;
            if !self.eat('=') {
                return Err(self.error("`=` is missing"));
            }
            let value = self.take(|c| !matches!(c, ',' | '}' | '{' | '(' | ')') && !c.is_control());
            if attributes.insert(key.to_owned(), value.trim().to_owned()).is_some() {
                return Err(self.error("an attribute is named twice"));
            }
            if self.eat('}') {
                return Ok(attributes);
            }
            if !self.eat(',') {
                return Err(self.error("`,` or `}` is missing"));
            }
        }
    }

    fn capability(&mut self) -> Result<Capability, CapabilityError> {
        let name = self.word()?.to_owned();
        let version = match self.version_text() {
            Some(text) => Some(Version::parse(text).map_err(|_| self.error("the version is not `MAJOR.MINOR.PATCH`"))?),
            None => None,
        };
        Ok(Capability { name, version, attributes: self.attributes()? })
    }

    fn expression(&mut self, depth: usize) -> Result<CapabilityExpr, CapabilityError> {
        if depth > DEPTH_MAX {
            return Err(self.error("it nests too deep"));
        }
        let name = self.word()?;
        if matches!(name, "all" | "any" | "not") && self.eat('(') {
            let mut parts = vec![self.expression(depth + 1)?];
            while self.eat(',') {
                parts.push(self.expression(depth + 1)?);
            }
            if !self.eat(')') {
                return Err(self.error("`)` is missing"));
            }
            return match (name, parts.pop()) {
                ("not", Some(only)) if parts.is_empty() => Ok(CapabilityExpr::Not(Box::new(only))),
                ("not", _) => Err(self.error("`not` takes one expression")),
                (_, last) => {
                    parts.extend(last);
                    Ok(if name == "all" { CapabilityExpr::All(parts) } else { CapabilityExpr::Any(parts) })
                }
            };
        }
        let version = match self.version_text() {
            Some(text) => {
                let required = VersionReq::parse(&text.replace('&', ","));
                Some(required.map_err(|_| self.error("the version is not a semver requirement"))?)
            }
            None => None,
        };
        Ok(CapabilityExpr::Has { name: name.to_owned(), version, attributes: self.attributes()? })
    }

    fn end<T>(&mut self, parsed: T) -> Result<T, CapabilityError> {
        self.spaces();
        if self.rest().is_empty() { Ok(parsed) } else { Err(self.error("something follows the end")) }
    }
}

fn checked(text: &str) -> Result<Parser<'_>, CapabilityError> {
    let parser = Parser::new(text);
    if text.len() > EXPRESSION_BYTES_MAX { Err(parser.error("it is longer than 1024 bytes")) } else { Ok(parser) }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let mut parser = checked(text)?;
        let capability = parser.capability()?;
        parser.end(capability)
    }
}

impl FromStr for CapabilityExpr {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let mut parser = checked(text)?;
        let expression = parser.expression(0)?;
        parser.end(expression)
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Capability);
serde_as_text!(CapabilityExpr);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offers(texts: &[&str]) -> Vec<Capability> {
        texts.iter().map(|text| text.parse().expect("a capability")).collect()
    }

    #[test]
    fn expressions_judge_names_versions_and_attributes() {
        let offered = offers(&["rust@1.95.0{async=yes}", "review"]);
        for (expression, expected) in [
            ("rust", true),
            ("rust@^1.80", true),
            ("rust@>=1.90&<1.95", false),
            ("rust{async=yes}", true),
            ("rust{async=no}", false),
            ("review@1", false),
            ("all(rust, review)", true),
            ("any(go, review)", true),
            ("not(go)", true),
            ("all(rust, not(review))", false),
            ("any( all(rust,go) , review )", true),
        ] {
            let parsed: CapabilityExpr = expression.parse().expect(expression);
            assert_eq!(parsed.is_satisfied_by(&offered), expected, "{expression}");
        }
    }

    #[test]
    fn wrong_texts_say_where() {
        for wrong in [
            "",
            " ",
            "Rust",
            "rust@",
            "rust@x.y",
            "all()",
            "not(a,b)",
            "all(a",
            "a b",
            "rust{k}",
            "rust{k=1",
            "rust{k=1,k=2}",
            "not(not(not(not(not(not(not(not(not(not(a))))))))))",
        ] {
            assert!(wrong.parse::<CapabilityExpr>().is_err(), "{wrong}");
        }
    }

    fn expression() -> impl Strategy<Value = CapabilityExpr> {
        let leaf =
            ("[a-z][a-z0-9-]{0,6}", proptest::option::of(0u64..9), proptest::collection::btree_map("[a-z]{1,3}", "[a-z0-9]{0,4}", 0..3))
                .prop_map(|(name, major, attributes)| CapabilityExpr::Has {
                    name: format!("c{name}"),
                    version: major.and_then(|m| VersionReq::parse(&format!("^{m}.1")).ok()),
                    attributes,
                });
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..4).prop_map(CapabilityExpr::All),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(CapabilityExpr::Any),
                inner.prop_map(|part| CapabilityExpr::Not(Box::new(part))),
            ]
        })
    }

    proptest! {
        #[test]
        fn written_expressions_read_back(expr in expression()) {
            prop_assert_eq!(expr.to_string().parse::<CapabilityExpr>(), Ok(expr));
        }

        #[test]
        fn any_text_gives_an_expression_or_an_error(text in "\\PC{0,60}") {
            let _ = text.parse::<CapabilityExpr>();
            let _ = text.parse::<Capability>();
        }
    }
}
