//! URI templates (RFC 6570) as far as finding out whose resource a URI is: fixed text, and variables between it.
//!
//! A plain variable stands for one or more characters other than `/`; `{+name}`, `{/name}` and `{name*}` for any. **Invariant:**
//! matching takes linear time for the number of variables a template may have.

use std::str::FromStr;

/// Variables of a template.
const VARIABLES_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Segment,
    Any,
}

/// What URIs of a template look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    parts: Vec<Part>,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or("a `{` is not closed")?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            if name.trim_matches(['+', '#', '/', '*']).is_empty() {
                return Err("a variable has no name".to_owned());
            }
            let is_any = name.starts_with(['+', '#', '/', '.', '?', '&', ';']) || name.ends_with('*');
            parts.push(if is_any { Part::Any } else { Part::Segment });
            rest = tail;
        }
        if rest.contains('}') {
            return Err("a `}` was never opened".to_owned());
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        match parts.iter().filter(|part| !matches!(part, Part::Text(_))).count() {
            0 => Err("it has no variable: offer it as a resource".to_owned()),
            many if many > VARIABLES_MAX => Err(format!("{many} variables, at most {VARIABLES_MAX} are allowed")),
            _ => Ok(Self { parts }),
        }
    }
}

impl Pattern {
    /// Returns whether a URI is one of these.
    pub(super) fn fits(&self, uri: &str) -> bool {
        fits(&self.parts, uri)
    }
}

fn fits(parts: &[Part], uri: &str) -> bool {
    let Some((part, rest)) = parts.split_first() else { return uri.is_empty() };
    match part {
        Part::Text(text) => uri.strip_prefix(text.as_str()).is_some_and(|tail| fits(rest, tail)),
        Part::Segment | Part::Any => {
            let longest = if matches!(part, Part::Any) { uri.len() } else { uri.find('/').unwrap_or(uri.len()) };
            match rest.first() {
                None => longest == uri.len() && !uri.is_empty(),
                // The first place where the text after the variable stands is as good as any later one for a plain variable.
                Some(Part::Text(text)) => {
                    uri.match_indices(text.as_str()).take_while(|(at, _)| *at <= longest).any(|(at, _)| at > 0 && fits(rest, &uri[at..]))
                }
                Some(Part::Segment | Part::Any) => (1..=longest).filter(|at| uri.is_char_boundary(*at)).any(|at| fits(rest, &uri[at..])),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_fit_their_uris() {
        for (template, uri, expected) in [
            ("test://template/{id}/data", "test://template/7/data", true),
            ("test://template/{id}/data", "test://template//data", false),
            ("test://template/{id}/data", "test://template/7/8/data", false),
            ("file:///{+path}", "file:///a/b/c.txt", true),
            ("file:///{path*}", "file:///a/b", true),
            ("a://{x}-{y}", "a://1-2-3", true),
            ("a://{x}", "b://1", false),
        ] {
            let pattern: Pattern = template.parse().expect(template);
            assert_eq!(pattern.fits(uri), expected, "{template} {uri}");
        }
        for wrong in ["a://b", "a://{b", "a://b}", "a://{}"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }
}
