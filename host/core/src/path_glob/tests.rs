use proptest::prelude::*;

use super::{GLOB_BYTES_MAX, PathGlob, PathGlobError};

fn glob(text: &str) -> PathGlob {
    PathGlob::parse(text).expect("the test spells a glob")
}

#[test]
fn what_a_glob_means() {
    let table = [
        ("src", "src", true),
        ("src", "src/a/b.rs", true),
        ("src", "srcs", false),
        ("src", "lib/src", false),
        ("src/", "src", false),
        ("src/", "src/a/b.rs", true),
        ("src/**", "src", false),
        ("src/**", "src/a", true),
        ("src/*", "src/a", true),
        ("src/*", "src/a/b", false),
        ("src/*/", "src/a", false),
        ("src/*/", "src/a/b/c", true),
        ("*.rs", "a.rs", true),
        ("*.rs", "a/a.rs", false),
        ("**/*.rs", "a.rs", true),
        ("**/*.rs", "a/b/c.rs", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/x/y/b/c", false),
        ("**", "anything/at/all", true),
        ("?.c", "é.c", true),
        ("?.c", "ab.c", false),
        ("a**b", "axxb", true),
        ("a**b", "a/b", false),
        ("app/[id]/page.tsx", "app/[id]/page.tsx", true),
        ("app/[id]/page.tsx", "app/i/page.tsx", false),
        ("src", "", false),
        ("**", "a//b", false),
    ];
    for (pattern, path, meant) in table {
        assert_eq!(glob(pattern).matches(path), meant, "{pattern} on {path}");
    }
}

#[test]
fn which_globs_overlap() {
    let table = [
        ("src", "src/a.rs", true),
        ("src", "src", true),
        ("src/a", "src/b", false),
        ("src/a", "src/ab", false),
        ("**/*.rs", "src", true),
        ("**/*.rs", "src/*.md", false),
        ("*.rs", "a*", true),
        ("a*b", "*c", false),
        ("a*b", "b*a", false),
        ("a/**/z", "a/*/y/*", true),
        ("a/?", "a/bb", false),
        ("a/", "a", true),
        ("a/*", "a/b/", false),
        ("**/x/**", "**/y/**", true),
        ("x/**/a", "x/**/b", false),
    ];
    for (left, right, overlap) in table {
        assert_eq!(glob(left).overlaps(&glob(right)), overlap, "{left} and {right}");
        assert_eq!(glob(right).overlaps(&glob(left)), overlap, "{right} and {left}");
    }
}

#[test]
fn bad_globs_are_refused_by_name() {
    let name = |text: &str| PathGlob::parse(text).expect_err("the test spells no glob");
    let with = |text: &str| text.to_owned();
    assert_eq!(name(""), PathGlobError::Empty);
    assert_eq!(name("/etc"), PathGlobError::Absolute { glob: with("/etc") });
    assert_eq!(name("/"), PathGlobError::Absolute { glob: with("/") });
    assert_eq!(name("a/../b"), PathGlobError::Parent { glob: with("a/../b") });
    assert_eq!(name("a//b"), PathGlobError::Blank { glob: with("a//b") });
    assert_eq!(name("a//"), PathGlobError::Blank { glob: with("a//") });
    assert_eq!(name("./a"), PathGlobError::Blank { glob: with("./a") });
    assert_eq!(name(".Git/config"), PathGlobError::GitFolder { glob: with(".Git/config") });
    assert_eq!(name("a\0b"), PathGlobError::Nul);
    assert!(PathGlob::parse(&"a".repeat(GLOB_BYTES_MAX)).is_ok());
    assert_eq!(name(&"a".repeat(GLOB_BYTES_MAX + 1)), PathGlobError::TooLong { bytes: GLOB_BYTES_MAX + 1 });
}

#[test]
fn a_glob_travels_as_its_text() {
    let wire = serde_json::to_string(&glob("src/**")).expect("a glob is a string");
    assert_eq!(wire, "\"src/**\"");
    let back: PathGlob = serde_json::from_str(&wire).expect("its own text");
    assert_eq!(back, glob("src/**"));
    assert_eq!(back.to_string(), "src/**");
    let refused = serde_json::from_str::<PathGlob>("\"../x\"").expect_err("leads out");
    assert!(refused.to_string().contains("`..`"), "{refused}");
}

#[test]
fn the_longest_globs_are_decided_at_once() {
    let stars = "*a".repeat(GLOB_BYTES_MAX / 2);
    let deep = format!("{}b", "**/".repeat(GLOB_BYTES_MAX / 3));
    assert!(!glob(&stars).overlaps(&glob(&format!("{}b", "a*".repeat(255)))));
    assert!(glob(&deep).overlaps(&glob(&"?/".repeat(256))));
    assert!(!glob(&stars).matches(&"a".repeat(200)));
}

/// Spells out what the syntax promises, segment by segment, by trying everything.
fn oracle(pattern: &str, path: &str) -> bool {
    let below = pattern.ends_with('/');
    let stem = pattern.strip_suffix('/').unwrap_or(pattern);
    let plain = !stem.contains(['*', '?']);
    let segments: Vec<&str> = stem.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    if below || plain {
        let least = usize::from(below);
        return (0..=path.len() - least).any(|taken| naive(&segments, &path[..taken], true));
    }
    naive(&segments, &path, false)
}

/// `inner`: more segments follow, so that a last `**` may stand for none.
fn naive(pattern: &[&str], path: &[&str], inner: bool) -> bool {
    match pattern {
        [] => path.is_empty(),
        ["**"] if !inner => !path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|taken| naive(rest, &path[taken..], inner)),
        [first, rest @ ..] => path.split_first().is_some_and(|(name, below)| {
            let first: Vec<char> = first.chars().collect();
            let name: Vec<char> = name.chars().collect();
            naive_segment(&first, &name) && naive(rest, below, inner)
        }),
    }
}

fn naive_segment(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|taken| naive_segment(rest, &name[taken..])),
        ['?', rest @ ..] => !name.is_empty() && naive_segment(rest, &name[1..]),
        [char, rest @ ..] => name.first() == Some(char) && naive_segment(rest, &name[1..]),
    }
}

/// Every path of up to three segments of up to two letters of `a` and `b`, and a few longer ones.
fn small_paths() -> Vec<String> {
    let names = ["a", "b", "aa", "ab", "ba", "bb", "aab", "abab"];
    let mut paths: Vec<String> = names.map(str::to_owned).to_vec();
    let mut longest = paths.clone();
    for _ in 0..3 {
        longest = longest.iter().flat_map(|path| names.map(|name| format!("{path}/{name}"))).collect();
        paths.extend_from_slice(&longest);
    }
    paths
}

fn patterns() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        3 => "[ab]{1,2}",
        2 => "[ab*?]{1,3}",
        2 => Just("**".to_owned()),
    ];
    (prop::collection::vec(segment, 1..4), any::<bool>()).prop_map(|(segments, below)| segments.join("/") + if below { "/" } else { "" })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matching_agrees_with_trying_everything(pattern in patterns()) {
        let compiled = glob(&pattern);
        for path in small_paths() {
            prop_assert_eq!(compiled.matches(&path), oracle(&pattern, &path), "{} on {}", pattern, path);
        }
    }

    /// Patterns of at most three segments of at most three symbols meet, if at all, on a path this short:
    /// at most six segments, but with `**` on either side always on one of at most four.
    #[test]
    fn overlap_agrees_with_looking_for_a_path(left in patterns(), right in patterns()) {
        let (one, other) = (glob(&left), glob(&right));
        let met = small_paths().into_iter().find(|path| oracle(&left, path) && oracle(&right, path));
        if one.overlaps(&other) != met.is_some() {
            // The short paths may miss a long witness, never invent one.
            prop_assert!(one.overlaps(&other), "{} and {} meet on {:?}", left, right, met);
            prop_assert!(witness(&left, &right), "{} and {} meet nowhere", left, right);
        }
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
    }
}

/// Looks for a common path among longer ones: walks both patterns by what is left of them.
fn witness(left: &str, right: &str) -> bool {
    let names: Vec<String> = (1..=5)
        .flat_map(|length| {
            (0..1_u32 << length).map(move |bits| (0..length).map(|place| if bits >> place & 1 == 0 { 'a' } else { 'b' }).collect())
        })
        .collect();
    // The segment names that matter are those some segment of either pattern tells apart.
    let mut frontier = vec![String::new()];
    let stems: Vec<&str> = left.split('/').chain(right.split('/')).collect();
    let mut seen = std::collections::BTreeSet::new();
    let telling: Vec<&String> = names
        .iter()
        .filter(|name| {
            let name: Vec<char> = name.chars().collect();
            let told: Vec<bool> = stems.iter().map(|stem| naive_segment(&stem.chars().collect::<Vec<_>>(), &name)).collect();
            seen.insert(told)
        })
        .collect();
    for _ in 0..7 {
        let mut longer = Vec::new();
        for path in &frontier {
            for name in &telling {
                let next = if path.is_empty() { (*name).clone() } else { format!("{path}/{name}") };
                if oracle(left, &next) && oracle(right, &next) {
                    return true;
                }
                longer.push(next);
            }
        }
        longer.truncate(20_000);
        frontier = longer;
    }
    false
}
