//! Lines that differ in a version number only, which both sides raised: the higher one holds, the lower is named.

use std::cmp::Ordering;

use pointsman_sdk::merger::{Discard, Resolution, Side};
use semver::Version;

/// Merges a hunk; none when a line differs in anything but a raised version.
pub(crate) fn merge(base: &str, ours: &str, theirs: &str) -> Option<Resolution> {
    let split = |text| -> Vec<&str> { str::split_inclusive(text, '\n').collect() };
    let (base, ours, theirs) = (split(base), split(ours), split(theirs));
    if base.is_empty() || base.len() != ours.len() || base.len() != theirs.len() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut discards = Vec::new();
    for ((base, our), their) in base.iter().zip(&ours).zip(&theirs) {
        let line = if our == their || base == their {
            our
        } else if base == our {
            their
        } else {
            let (higher, lower, side) = higher(base, our, their)?;
            discards.push(Discard {
                side,
                text: lower.line.as_bytes().to_vec(),
                reason: format!("{} is higher than {}", higher.text, lower.text),
            });
            higher.line
        };
        bytes.extend_from_slice(line.as_bytes());
    }
    // A hunk of one-sided changes is not this merger's to judge.
    (!discards.is_empty()).then_some(Resolution { bytes, discards })
}

/// A line around its version.
struct Versioned<'a> {
    line: &'a str,
    before: &'a str,
    text: &'a str,
    after: &'a str,
    version: Version,
}

/// Returns the side with the higher version, the other one, and which that is; none unless both raised the base's.
fn higher<'a>(base: &str, ours: &'a str, theirs: &'a str) -> Option<(Versioned<'a>, Versioned<'a>, Side)> {
    let (base, our, their) = (read(base)?, read(ours)?, read(theirs)?);
    let alike = |one: &Versioned<'_>| one.before == base.before && one.after == base.after && one.version > base.version;
    if !alike(&our) || !alike(&their) {
        return None;
    }
    match our.version.cmp_precedence(&their.version) {
        Ordering::Greater => Some((our, their, Side::Theirs)),
        Ordering::Less => Some((their, our, Side::Ours)),
        Ordering::Equal => None,
    }
}

/// Reads a line with one version in it. Two numbers are a version only where the line says so.
fn read(line: &str) -> Option<Versioned<'_>> {
    let says_so = line.to_ascii_lowercase().contains("version");
    let mut found = None;
    let mut rest = 0;
    while let Some(start) = line[rest..].find(|one: char| one.is_ascii_digit()).map(|at| rest + at) {
        let tail = &line[start..];
        let end = start + tail.find(|one: char| !(one.is_ascii_alphanumeric() || matches!(one, '.' | '-' | '+'))).unwrap_or(tail.len());
        let text = line[start..end].trim_end_matches(['.', '-', '+']);
        rest = end;
        // The middle of a word or number is no version; a `v` before one is.
        let before = line[..start].chars().next_back();
        let word = line[..start].chars().rev().nth(1);
        let begins = match before {
            Some('v' | 'V') => !word.is_some_and(char::is_alphanumeric),
            Some(one) => !(one.is_alphanumeric() || matches!(one, '.' | '_' | '-')),
            None => true,
        };
        let Some(version) = parse(text, says_so).filter(|_| begins) else { continue };
        if found.is_some() {
            return None;
        }
        found = Some(Versioned { line, before: &line[..start], text, after: &line[start + text.len()..], version });
    }
    found
}

fn parse(text: &str, says_so: bool) -> Option<Version> {
    Version::parse(text).ok().or_else(|| {
        let two = says_so && text.split('.').count() == 2;
        two.then(|| Version::parse(&format!("{text}.0")).ok()).flatten()
    })
}
