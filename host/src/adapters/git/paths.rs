//! Which paths a commit may hold: those every clone can check out, on every file system, without leaving its folder.
//!
//! **Invariant:** a path accepted here has no component that git, HFS+ or NTFS would read as `.git` or as a way out.

use super::fault::{Fault, refused};

/// Bytes of a path.
pub(super) const PATH_BYTES_MAX: usize = 4_096;
/// Bytes of one component: what Linux file systems take.
pub(super) const COMPONENT_BYTES_MAX: usize = 255;

/// Checks a path that is about to be written.
pub(super) fn validate(path: &str) -> Result<(), Fault> {
    let shown: String = path.chars().take(120).flat_map(char::escape_default).collect();
    if path.is_empty() {
        return Err(refused("path_empty", "a path is empty: name the file, relative to the repository's root"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(refused("path_too_long", format!("`{shown}…` has {} bytes; at most {PATH_BYTES_MAX} are taken", path.len())));
    }
    if path.chars().any(char::is_control) {
        return Err(refused("path_control", format!("`{shown}` has a control character")));
    }
    let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    if path.starts_with('/') || drive || path.contains('\\') {
        let why = format!("`{shown}` is absolute or has a backslash; write it relative to the repository's root, with `/`");
        return Err(refused("path_escapes", why));
    }
    for component in path.split('/') {
        if component.is_empty() {
            return Err(refused("path_empty", format!("`{shown}` has an empty component: leave out doubled or trailing `/`")));
        }
        if component == "." || component == ".." {
            return Err(refused("path_escapes", format!("`{shown}` has a `{component}` component; write the path it leads to")));
        }
        if component.len() > COMPONENT_BYTES_MAX {
            let why = format!("a component of `{shown}` has {} bytes; at most {COMPONENT_BYTES_MAX} are taken", component.len());
            return Err(refused("path_too_long", why));
        }
        if is_dot_git(component) {
            return Err(refused("path_escapes", format!("`{shown}` names git's own folder, or does on some file system")));
        }
    }
    Ok(())
}

/// Returns whether some file system reads this component as `.git`: case, HFS+'s ignored code points, NTFS's trailing
/// dots and spaces, alternate streams and the short name.
fn is_dot_git(component: &str) -> bool {
    let ignored = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let seen: String = component.chars().filter(|c| !ignored(c)).collect();
    let stem = seen.split(':').next().unwrap_or("").trim_end_matches(['.', ' ']);
    stem.eq_ignore_ascii_case(".git") || stem.eq_ignore_ascii_case("git~1")
}

/// Returns what two names must not share in one folder: equal here, they are one file where case does not count.
pub(super) fn folded(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(text) => text.chars().flat_map(char::to_lowercase).collect::<String>().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::repository::RepositoryError;

    fn rule(path: &str) -> Option<&'static str> {
        match validate(path) {
            Ok(()) => None,
            Err(Fault::Port(RepositoryError::Refused { rule, .. })) => Some(rule),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn hostile_paths_are_refused_by_rule() {
        let long = "a/".repeat(2_048) + "b";
        let wide = "a".repeat(256);
        for (path, expected) in [
            ("", "path_empty"),
            ("a//b", "path_empty"),
            ("a/", "path_empty"),
            ("/etc/passwd", "path_escapes"),
            ("../x", "path_escapes"),
            ("a/../../x", "path_escapes"),
            ("./a", "path_escapes"),
            ("C:/x", "path_escapes"),
            ("a\\b", "path_escapes"),
            (".git/config", "path_escapes"),
            ("a/.GIT/hooks/x", "path_escapes"),
            (".git /config", "path_escapes"),
            (".git.../config", "path_escapes"),
            (".git::$INDEX_ALLOCATION/config", "path_escapes"),
            ("git~1/config", "path_escapes"),
            ("GIT~1", "path_escapes"),
            (".g\u{200c}it/config", "path_escapes"),
            ("a\0b", "path_control"),
            ("a\nb", "path_control"),
            ("a\u{7f}", "path_control"),
            (long.as_str(), "path_too_long"),
            (wide.as_str(), "path_too_long"),
        ] {
            assert_eq!(rule(path), Some(expected), "{path:?}");
        }
        for path in ["a", ".gitignore", ".github/x.yml", "a/.gitattributes", "git~10", "ä/ö ü.rs", "a b/c:d", "..a/b..", "..."] {
            assert_eq!(rule(path), None, "{path:?}");
        }
    }

    #[test]
    fn names_fold_by_case_in_any_script() {
        assert_eq!(folded("README.md".as_bytes()), folded("ReadMe.MD".as_bytes()));
        assert_eq!(folded("Ärger".as_bytes()), folded("ärger".as_bytes()));
        assert_ne!(folded(b"a"), folded(b"b"));
        assert_eq!(folded(b"\xffA"), folded(b"\xffa"));
    }
}
