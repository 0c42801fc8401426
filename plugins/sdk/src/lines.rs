//! Whole lines of bytes, their line ends included.

use std::collections::HashMap;

/// Returns the lines of a text; the last may lack a line end.
#[must_use]
pub fn split(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Returns a line without its line end.
#[must_use]
pub fn body(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Returns whether a line is empty or white space only.
#[must_use]
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// Returns the line end that a text uses: `\r\n` when its first line does, else `\n`.
#[must_use]
pub fn line_end(text: &[u8]) -> &'static [u8] {
    match split(text).first() {
        Some(line) if line.ends_with(b"\r\n") => b"\r\n",
        Some(_) | None => b"\n",
    }
}

/// Returns the lines joined; a line in the middle that lacks a line end gets one.
#[must_use]
pub fn join(lines: &[&[u8]], end: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.iter().map(|line| line.len()).sum());
    for line in lines {
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.extend_from_slice(end);
        }
        text.extend_from_slice(line);
    }
    text
}

/// Returns the lines that a side has more often than both the base and the result: what it added and the
/// result lacks. Line ends do not count.
#[must_use]
pub fn added_but_absent(base: &[u8], side: &[u8], result: &[u8]) -> Vec<u8> {
    let in_base = count(base);
    let in_result = count(result);
    let mut seen: HashMap<&[u8], usize> = HashMap::new();
    let mut absent = Vec::new();
    for line in split(side) {
        let key = body(line);
        let nth = seen.entry(key).or_insert(0);
        *nth += 1;
        let covered = in_base.get(key).max(in_result.get(key)).copied().unwrap_or(0);
        if *nth > covered {
            absent.extend_from_slice(line);
            if !absent.ends_with(b"\n") {
                absent.push(b'\n');
            }
        }
    }
    absent
}

fn count(text: &[u8]) -> HashMap<&[u8], usize> {
    let mut counts = HashMap::new();
    for line in split(text) {
        *counts.entry(body(line)).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_apart_and_together() {
        let text = b"a\nb\r\n\nc";
        assert_eq!(split(text), [&b"a\n"[..], b"b\r\n", b"\n", b"c"]);
        assert_eq!(join(&split(text), b"\n"), text);
        assert_eq!(join(&[b"a", b"b\n"], b"\n"), b"a\nb\n");
        assert_eq!(body(b"b\r\n"), b"b");
        assert_eq!(line_end(b"b\r\nc\n"), b"\r\n");
        assert!(split(b"").is_empty());
    }

    #[test]
    fn absent_lines_are_those_nobody_has() {
        assert_eq!(added_but_absent(b"a\n", b"a\nb\nc\n", b"a\nc\n"), b"b\n");
        assert_eq!(added_but_absent(b"a\n", b"a\na\n", b"a\n"), b"a\n");
        assert_eq!(added_but_absent(b"a\n", b"a\n", b""), b"");
        assert_eq!(added_but_absent(b"", b"z", b"z\n"), b"");
    }
}
