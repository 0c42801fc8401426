//! JSON that stays as it was written: a tree of slices of the text, and a structural three-way merge over it.
//!
//! Numbers are never converted, members keep their order, and whatever a merge does not touch is copied
//! letter by letter. **Invariant:** no change that one side alone made is lost.

use std::collections::BTreeSet;
use std::fmt;

mod merge;
mod print;

pub use merge::{ArrayRule, Conflict, Rules, merge};

/// How deep a document may nest.
pub const DEPTH_MAX: usize = 128;

/// A value and the text it was read from.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// The text, without white space around it.
    pub raw: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
}

/// The kinds of values.
#[derive(Debug, Clone)]
pub enum Kind<'a> {
    /// `null`, `true`, `false` or a number: the text says it all.
    Plain,
    /// A text, unescaped.
    Text(String),
    /// A list.
    Array(Vec<Node<'a>>),
    /// Members in the order they were written; no key twice.
    Object(Vec<Member<'a>>),
}

/// A member of an object.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// The key as written, quotes included.
    pub key_raw: &'a str,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Node<'a>,
}

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// The line, from 1.
    pub line: usize,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for JsonError {}

impl<'a> Node<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// The text is not JSON (RFC 8259), has a key twice in one object, or nests deeper than [`DEPTH_MAX`].
    pub fn parse(text: &'a str) -> Result<Self, JsonError> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        reader.skip_space();
        let node = reader.value()?;
        reader.skip_space();
        if reader.at < text.len() {
            return Err(reader.error("something stands after the value"));
        }
        Ok(node)
    }

    /// Returns whether two values are the same: members in any order, numbers letter by letter.
    #[must_use]
    pub fn same(&self, other: &Node<'_>) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Plain, Kind::Plain) => self.raw == other.raw,
            (Kind::Text(a), Kind::Text(b)) => a == b,
            (Kind::Array(a), Kind::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Kind::Object(a), Kind::Object(b)) => a.len() == b.len() && self.canonical() == other.canonical(),
            _ => false,
        }
    }

    /// Returns the value in one fixed wording: compact, members sorted by key.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut out = String::with_capacity(self.raw.len());
        self.write_canonical(&mut out);
        out
    }

    /// Returns a member's value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        match &self.kind {
            Kind::Object(members) => members.iter().find(|member| member.key == key).map(|member| &member.value),
            Kind::Plain | Kind::Text(_) | Kind::Array(_) => None,
        }
    }

    fn write_canonical(&self, out: &mut String) {
        match &self.kind {
            Kind::Plain => out.push_str(self.raw),
            Kind::Text(text) => print::quote(text, out),
            Kind::Array(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Kind::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for (n, member) in sorted.into_iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    print::quote(&member.key, out);
                    out.push(':');
                    member.value.write_canonical(out);
                }
                out.push('}');
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, what: impl Into<String>) -> JsonError {
        let before = &self.text.as_bytes()[..self.at.min(self.text.len())];
        JsonError { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), what: what.into() }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.error(format!("expected `{}`", char::from(byte))))
    }

    fn value(&mut self) -> Result<Node<'a>, JsonError> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Kind::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            Some(_) => return Err(self.error("expected a value")),
            None => return Err(self.error("the text ends where a value should stand")),
        };
        Ok(Node { raw: &self.text[start..self.at], kind })
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Kind<'a>, JsonError>) -> Result<Kind<'a>, JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let kind = read(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn word(&mut self, word: &str) -> Result<Kind<'a>, JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(Kind::Plain);
        }
        Err(self.error("expected a value"))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Kind<'a>, JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Plain)
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            let start = self.at;
            while matches!(self.peek(), Some(byte) if byte != b'"' && byte != b'\\' && byte >= 0x20) {
                self.at += 1;
            }
            text.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.error("a control character in a text")),
                None => return Err(self.error("a text without an end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let byte = self.peek();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.error("an unknown escape in a text")),
        })
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.hex()?;
        let code = if (0xD800..0xDC00).contains(&high) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.hex()?;
            if !(0xDC00..0xE000).contains(&low) {
                return Err(self.error("half a surrogate pair"));
            }
            0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| self.error("half a surrogate pair"))
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at = (self.at + 4).min(self.text.len());
        code.ok_or_else(|| self.error("`\\u` wants four hexadecimal digits"))
    }

    fn array(&mut self) -> Result<Kind<'a>, JsonError> {
        self.expect(b'[')?;
        self.skip_space();
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Kind::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?);
            self.skip_space();
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            self.expect(b']')?;
            return Ok(Kind::Array(items));
        }
    }

    fn object(&mut self) -> Result<Kind<'a>, JsonError> {
        self.expect(b'{')?;
        self.skip_space();
        let mut members = Vec::new();
        let mut keys = BTreeSet::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Kind::Object(members));
        }
        loop {
            self.skip_space();
            let start = self.at;
            let key = self.string()?;
            let key_raw = &self.text[start..self.at];
            if !keys.insert(key.clone()) {
                return Err(self.error(format!("the key {key:?} stands twice in one object")));
            }
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value()?;
            members.push(Member { key_raw, key, value });
            self.skip_space();
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            self.expect(b'}')?;
            return Ok(Kind::Object(members));
        }
    }
}

#[cfg(test)]
mod tests;
