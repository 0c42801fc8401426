//! URI templates (RFC 6570) as far as finding out whose resource a URI is: fixed text, and variables between it.
//!
//! A plain variable stands for one or more characters other than `/`; `{+name}`, `{/name}` and `{name*}` for any. **Invariant:**
//! matching looks at each offset of a URI once for each part of the template, whatever both are.

use std::str::FromStr;

use pointsman_core::limits::URI_BYTES_MAX;

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
        self.walk(uri, |_| {})
    }

    /// Follows the set of offsets that the parts so far can end at; `step` hears of each offset that is looked at.
    fn walk(&self, uri: &str, mut step: impl FnMut(usize)) -> bool {
        if uri.len() > URI_BYTES_MAX {
            return false;
        }
        let mut reached = vec![false; uri.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            let mut next = vec![false; uri.len() + 1];
            let mut is_running = false;
            for at in 0..=uri.len() {
                step(at);
                match part {
                    Part::Text(text) if reached[at] && uri.as_bytes()[at..].starts_with(text.as_bytes()) => next[at + text.len()] = true,
                    Part::Text(_) => {}
                    Part::Segment | Part::Any => {
                        next[at] = is_running && uri.is_char_boundary(at);
                        let ends = *part == Part::Segment && uri.as_bytes().get(at) == Some(&b'/');
                        is_running = (is_running || reached[at]) && !ends;
                    }
                }
            }
            reached = next;
        }
        reached[uri.len()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Says what a template means, and nothing of how long that takes.
    fn means(parts: &[Part], uri: &[char]) -> bool {
        let Some((part, rest)) = parts.split_first() else { return uri.is_empty() };
        match part {
            Part::Text(text) => {
                let text: Vec<char> = text.chars().collect();
                uri.starts_with(&text) && means(rest, &uri[text.len()..])
            }
            Part::Segment => (1..=uri.len()).any(|len| !uri[..len].contains(&'/') && means(rest, &uri[len..])),
            Part::Any => (1..=uri.len()).any(|len| means(rest, &uri[len..])),
        }
    }

    fn part() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("{x}"), Just("{+x}"), Just("a"), Just("/"), Just("aé"), Just("-")]
    }

    proptest! {
        #[test]
        fn a_pattern_fits_what_it_means(parts in proptest::collection::vec(part(), 0..6), uri in "[aé/-]{0,8}") {
            let template = format!("{{x}}{}", parts.concat());
            let pattern: Pattern = template.parse().expect("a template");
            let chars: Vec<char> = uri.chars().collect();
            prop_assert_eq!(pattern.fits(&uri), means(&pattern.parts, &chars), "{} {}", template, uri);
        }
    }

    #[test]
    fn a_long_uri_costs_its_length_once_for_each_part() {
        let pattern: Pattern = "{+a}-{+b}-{+c}-{+d}-{+e}-{+f}-{+g}-{+h}!".parse().expect("a template");
        let uri = "-".repeat(URI_BYTES_MAX);
        let mut steps = 0;
        assert!(!pattern.walk(&uri, |_| steps += 1));
        assert_eq!(steps, pattern.parts.len() * (uri.len() + 1));
        assert!(pattern.fits(&format!("{}!", "-".repeat(100))));
        let any: Pattern = "a{+x}".parse().expect("a template");
        assert!(any.fits(&"a".repeat(URI_BYTES_MAX)) && !any.fits(&"a".repeat(URI_BYTES_MAX + 1)), "longer ones fit nothing");
    }

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
