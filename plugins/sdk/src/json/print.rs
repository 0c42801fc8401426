//! Writes a merged tree: untouched parts letter by letter, joined ones in the style of what they were made from.

use super::{Kind, Node};

/// A value of the result.
#[derive(Debug)]
pub(super) enum Merged<'a> {
    /// As one side has it.
    Raw(&'a str),
    /// An object joined from both sides.
    Object {
        /// What it looked like on one side.
        like: &'a Node<'a>,
        /// Keys as written, and values.
        members: Vec<(&'a str, Merged<'a>)>,
    },
    /// A list joined from both sides.
    Array {
        /// What it looked like on one side.
        like: &'a Node<'a>,
        /// Items.
        items: Vec<Merged<'a>>,
    },
}

/// How a document is laid out, read off its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    indent: &'a str,
    newline: &'static str,
    colon: &'static str,
    multiline: bool,
}

impl<'a> Layout<'a> {
    /// Returns the layout of a document.
    pub(super) fn of(text: &'a str, root: &Node<'_>) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let indent = text
            .lines()
            .map(|line| &line[..line.len() - line.trim_start_matches([' ', '\t']).len()])
            .find(|space| !space.is_empty())
            .unwrap_or("  ");
        let compact = first_colon_is_tight(root);
        Self { indent, newline, colon: if compact { ":" } else { ": " }, multiline: root.raw.contains('\n') || !compact }
    }
}

/// Returns whether a document has no space after its first colon or, where no member begins it, after no comma.
fn first_colon_is_tight(root: &Node<'_>) -> bool {
    let (Kind::Object(members), Some(open)) = (&root.kind, root.raw.strip_prefix('{')) else {
        return root.raw.contains(',') && !root.raw.contains(", ") && !root.raw.contains('\n');
    };
    members.first().is_some_and(|member| {
        let after = open.trim_start().strip_prefix(member.key_raw).map(str::trim_start).and_then(|rest| rest.strip_prefix(':'));
        after.is_some_and(|rest| !rest.starts_with([' ', '\t', '\n', '\r']))
    })
}

/// Returns the text of a merged tree.
pub(super) fn print(tree: &Merged<'_>, layout: Layout<'_>) -> String {
    let mut out = String::new();
    write(tree, layout, 0, &mut out);
    out
}

fn write(tree: &Merged<'_>, layout: Layout<'_>, depth: usize, out: &mut String) {
    match tree {
        Merged::Raw(text) => out.push_str(text),
        Merged::Object { like, members } => {
            write_all(like, layout, depth, out, ['{', '}'], members.len(), |n, out| {
                let (key, value) = &members[n];
                out.push_str(key);
                out.push_str(layout.colon);
                write(value, layout, depth + 1, out);
            });
        }
        Merged::Array { like, items } => {
            write_all(like, layout, depth, out, ['[', ']'], items.len(), |n, out| {
                write(&items[n], layout, depth + 1, out);
            });
        }
    }
}

fn write_all(
    like: &Node<'_>,
    layout: Layout<'_>,
    depth: usize,
    out: &mut String,
    [open, close]: [char; 2],
    count: usize,
    mut one: impl FnMut(usize, &mut String),
) {
    out.push(open);
    let was_empty = like.raw[1..like.raw.len() - 1].trim().is_empty();
    let multiline = like.raw.contains('\n') || (was_empty && layout.multiline);
    let padded = like.raw[1..].starts_with(' ');
    for n in 0..count {
        if n > 0 {
            out.push(',');
        }
        if multiline {
            new_line(layout, depth + 1, out);
        } else if (n == 0 && padded) || (n > 0 && layout.colon == ": ") {
            out.push(' ');
        }
        one(n, out);
    }
    if count > 0 && multiline {
        new_line(layout, depth, out);
    } else if count > 0 && padded {
        out.push(' ');
    }
    out.push(close);
}

fn new_line(layout: Layout<'_>, depth: usize, out: &mut String) {
    out.push_str(layout.newline);
    for _ in 0..depth {
        out.push_str(layout.indent);
    }
}

/// Writes a text with its quotes and escapes.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for one in text.chars() {
        match one {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            one if u32::from(one) < 0x20 => {
                let digit = |nibble: u32| char::from_digit(nibble & 0xF, 16).unwrap_or('0');
                out.push_str("\\u00");
                out.push(digit(u32::from(one) >> 4));
                out.push(digit(u32::from(one)));
            }
            one => out.push(one),
        }
    }
    out.push('"');
}
