//! Which keys there are, what each takes, and which plugins are shipped. One table for the check, the suggestions,
//! the environment's names and the tests.
//!
//! **Invariant:** every leaf of fixed tables has exactly one environment variable: its path in capitals, joined by `_`.

use std::net::SocketAddr;

use pointsman_core::context::rules::Who;
use pointsman_core::path_glob::PathGlob;

use crate::ports::fetch::FetchUrl;
use crate::ports::plugins::World;
use crate::ports::registry::{CAPABILITIES, is_digest};

/// A kind of text.
#[derive(Debug)]
pub(super) struct Form {
    /// What is expected, after "expected".
    pub(super) expected: &'static str,
    /// Whether a text has the form.
    pub(super) fits: fn(&str) -> bool,
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Shape {
    /// A text of a form.
    Text(&'static Form),
    /// A path; relative ones start from the file's folder, or from the working folder outside a file.
    Path,
    /// `embedded`, a path, or a URL.
    PluginSource,
    /// A part of a whole: a number from 0 to 1.
    Share,
    /// A whole number within a range, both ends included.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// `true` or `false`.
    Switch,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A table with fixed keys.
    Table(&'static [Key]),
    /// Any number of tables: `[[key]]`.
    Tables(&'static [Key]),
    /// Tables under names the operator chooses: `[key.NAME]`.
    Named(&'static [Key]),
    /// A table that is none of the host's business.
    Any,
}

/// Whether a table is whole without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// There is no sense in leaving it out.
    Must,
    /// It may be left out.
    May,
}

/// A key and what it takes.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) shape: Shape,
    /// Whether it may be left out.
    pub(super) need: Need,
}

const fn may(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, need: Need::May }
}

const fn must(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, need: Need::Must }
}

const fn integer(min: i64, max: i64) -> Shape {
    Shape::Integer { min, max }
}

/// The version of the configuration's shape this host reads.
pub(super) const CONFIG_VERSION: i64 = 1;

const HOUR_MS: i64 = 60 * 60 * 1_000;
const DAY_S: i64 = 24 * 60 * 60;

static ADDRESS: Form = Form {
    expected: "an address and a port such as \"127.0.0.1:7420\", or \"[::1]:7420\"",
    fits: |text| text.parse::<SocketAddr>().is_ok(),
};
static URL: Form = Form { expected: "a URL such as \"https://pointsman.example.com\", without query or fragment", fits: is_url };
static ORIGIN: Form =
    Form { expected: "an origin such as \"https://tools.example.com\": scheme, host, port if any, and no path", fits: is_origin };
static LOG_LEVEL: Form = Form {
    expected: "a level (off, error, warn, info, debug, trace), then overrides such as \"info,pointsman=debug\"",
    fits: is_log_level,
};
static SLUG: Form = Form { expected: "1 to 40 of a-z, 0-9 and `-`, starting with a letter or digit", fits: is_slug };
static NAME: Form = Form { expected: "1 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit", fits: is_name };
static BRANCH: Form = Form { expected: "a branch name such as \"main\", without `refs/heads/`", fits: is_branch };
static GLOB: Form = Form { expected: "a glob relative to the repository's root, such as \"src/**\" or \"CHANGELOG.md\"", fits: is_glob };
static KEY_GLOB: Form = Form { expected: "a glob of document keys, such as \"decisions/**\" or \"plan\"", fits: is_glob };
/// Whom a rule of access names.
pub(super) static WHO: Form = Form {
    expected: "\"all\", \"agent:NAME\", \"principal:NAME\", \"plugin:NAME\", \"role:human\", \"role:agent\", \"role:plugin\", or a capability expression such as \"all(rust, review)\"",
    fits: |text| text.parse::<Who>().is_ok(),
};
/// Those of them that are fixed words.
pub(super) const WHO_WORDS: [&str; 4] = ["all", "role:human", "role:agent", "role:plugin"];
static HOST: Form = Form {
    expected: "a host such as \"example.com\", or with its port \"127.0.0.1:8080\"; an IPv6 address in brackets",
    fits: |text| !text.contains(['/', '@', '#', '?']) && FetchUrl::parse(&format!("http://{text}")).is_ok(),
};
static AUDIENCE: Form = Form {
    expected: "the audience of access tokens, such as \"https://pointsman.example.com/mcp\"",
    fits: |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
};
static SCOPE: Form = Form { expected: "one OAuth scope, such as \"pointsman:files\", without spaces and quotes", fits: is_scope };
static KIND: Form =
    Form { expected: "a kind of messages or tasks, such as \"review_request\": 1 to 64 visible ASCII characters", fits: is_kind };
static DIGEST: Form =
    Form { expected: "the BLAKE3 digest of a component: 64 hex digits, as `pointsman plugin list` shows it", fits: is_digest };
static PUBLIC_KEY: Form =
    Form { expected: "a public key such as \"ed25519:BASE64\", as `pointsman plugin keygen` prints it", fits: |text| is_ed25519(text, 32) };
static SIGNATURE: Form =
    Form { expected: "a signature \"ed25519:BASE64\", as `pointsman plugin sign` writes it", fits: |text| is_ed25519(text, 64) };
static STORE_URL: Form = Form {
    expected: "\"embedded\", or where Redis is: \"redis://HOST:PORT\", \"redis+sentinel://HOST,HOST/MASTER\" or \"redis+cluster://HOST,HOST\" (rediss… for TLS)",
    fits: is_store_url,
};
static SECRET: Form =
    Form { expected: "a text of visible characters", fits: |text| !text.is_empty() && !text.chars().any(char::is_control) };
static COMMAND: Form = Form { expected: "a shell command", fits: |text| !text.trim().is_empty() && !text.contains('\0') };

static COLLECTOR: Form = Form {
    expected: "the URL of a collector such as \"http://127.0.0.1:4318\"",
    fits: |text| super::traces::url(text).is_some() && is_url(text),
};
static HEADER: Form =
    Form { expected: "a header field such as \"authorization: Bearer …\"", fits: |text| super::traces::header(text).is_some() };

static GLOBS: Shape = Shape::Text(&GLOB);
static KEY_GLOBS: Shape = Shape::Text(&KEY_GLOB);
static WHOM: Shape = Shape::Text(&WHO);
static HEADERS: Shape = Shape::Text(&HEADER);
static ORIGINS: Shape = Shape::Text(&ORIGIN);
static NAMES: Shape = Shape::Text(&NAME);
static HOSTS: Shape = Shape::Text(&HOST);
static SCOPES: Shape = Shape::Text(&SCOPE);
static SLUGS: Shape = Shape::Text(&SLUG);
static KINDS: Shape = Shape::Text(&KIND);
static PUBLIC_KEYS: Shape = Shape::Text(&PUBLIC_KEY);
static GATES: Shape = Shape::Choice(&["claim", "review", "submit", "land", "grant"]);
static CAPABILITY_NAMES: Shape = Shape::Choice(&CAPABILITIES);
static TOOLSETS: Shape = Shape::Choice(&["files", "admin"]);

static LIMITS: [Key; 4] = [
    may("memory_bytes_max", integer(1 << 16, 4 << 30)),
    may("deadline_ms", integer(1, 10 * 60 * 1_000)),
    may("result_bytes_max", integer(1, 1 << 30)),
    may("concurrency_max", integer(1, 1_000)),
];

static TLS: [Key; 2] = [must("cert", Shape::Path), must("key", Shape::Path)];
static SERVER: [Key; 13] = [
    may("bind", Shape::Text(&ADDRESS)),
    may("public_url", Shape::Text(&URL)),
    may("sibling_url", Shape::Text(&URL)),
    may("body_bytes_max", integer(64 << 10, 1 << 30)),
    may("connections_max", integer(1, 100_000)),
    may("header_timeout_ms", integer(100, HOUR_MS)),
    may("drain_ms", integer(0, HOUR_MS)),
    may("allowed_origins", Shape::List(&ORIGINS)),
    may("connections_per_peer_max", integer(1, 100_000)),
    may("body_timeout_ms", integer(100, HOUR_MS)),
    may("write_timeout_ms", integer(100, HOUR_MS)),
    may("anonymous", Shape::Switch),
    may("tls", Shape::Table(&TLS)),
];
static CALL_LIMITS: [Key; 5] = [
    may("requests_per_s", integer(0, 1_000_000)),
    may("burst", integer(1, 1_000_000)),
    may("failures_per_min", integer(0, 1_000_000)),
    may("failures_burst", integer(1, 1_000_000)),
    may("json_depth_max", integer(8, 100)),
];
static AUTH_GRANT: [Key; 3] =
    [must("scope", Shape::Text(&SCOPE)), may("projects", Shape::List(&SLUGS)), may("toolsets", Shape::List(&TOOLSETS))];
static AUTH: [Key; 7] = [
    may("issuer", Shape::Text(&URL)),
    may("audience", Shape::Text(&AUDIENCE)),
    may("required_scopes", Shape::List(&SCOPES)),
    may("jwks_uri", Shape::Text(&URL)),
    may("leeway_s", integer(0, 600)),
    may("keys_interval_s", integer(0, 3_600)),
    may("grant", Shape::Tables(&AUTH_GRANT)),
];
static STORE: [Key; 6] = [
    may("url", Shape::Text(&STORE_URL)),
    may("user", Shape::Text(&SECRET)),
    may("password", Shape::Text(&SECRET)),
    may("sentinel_password", Shape::Text(&SECRET)),
    may("root_certificate", Shape::Path),
    may("prefix", Shape::Text(&NAME)),
];
static DATA: [Key; 2] = [may("dir", Shape::Path), may("keys", Shape::Path)];
static TRACES: [Key; 3] = [may("endpoint", Shape::Text(&COLLECTOR)), may("share", Shape::Share), may("headers", Shape::List(&HEADERS))];
static LOG: [Key; 2] = [may("level", Shape::Text(&LOG_LEVEL)), may("format", Shape::Choice(&["auto", "text", "json"]))];
static PROJECT: [Key; 3] = [must("slug", Shape::Text(&SLUG)), may("source", Shape::Path), may("target", Shape::Text(&BRANCH))];
static AGENTS: [Key; 3] = [
    may("claim_lease_s", integer(10, 7 * DAY_S)),
    may("delivery_lease_s", integer(1, DAY_S)),
    may("delivery_attempts_max", integer(1, 1_000)),
];
/// A stored answer names its message for a week: that one is kept as long.
static MESSAGES: [Key; 2] = [may("kept_days", integer(7, 36_500)), may("dead_letters_kept_days", integer(7, 36_500))];
static DECISIONS: [Key; 1] = [may("kept_max", integer(0, 1_000_000))];
static KIND_BINDING: [Key; 3] =
    [must("plugin", Shape::Text(&NAME)), may("projects", Shape::List(&SLUGS)), may("kinds", Shape::List(&KINDS))];
static POLICY_BINDING: [Key; 4] = [
    must("plugin", Shape::Text(&NAME)),
    may("projects", Shape::List(&SLUGS)),
    may("gates", Shape::List(&GATES)),
    may("kinds", Shape::List(&KINDS)),
];
static ROUTING: [Key; 2] = [may("plugins", Shape::List(&NAMES)), may("binding", Shape::Tables(&KIND_BINDING))];
static STRATEGY: [Key; 3] = [may("paths", Shape::List(&GLOBS)), must("plugin", Shape::Text(&NAME)), may("projects", Shape::List(&SLUGS))];
static MERGING: [Key; 1] = [may("strategy", Shape::Tables(&STRATEGY))];
static RECONCILER: [Key; 3] =
    [may("keys", Shape::List(&KEY_GLOBS)), must("plugin", Shape::Text(&NAME)), may("projects", Shape::List(&SLUGS))];
static CONTEXT_RULE: [Key; 10] = [
    must("keys", Shape::List(&KEY_GLOBS)),
    may("projects", Shape::List(&SLUGS)),
    may("read", Shape::List(&WHOM)),
    may("write", Shape::List(&WHOM)),
    may("resolve", Shape::List(&WHOM)),
    may("administer", Shape::List(&WHOM)),
    may("owners", Shape::List(&WHOM)),
    may("stale", Shape::Choice(&["merge", "refuse", "last-writer", "owner-wins"])),
    may("versions_max", integer(1, 100_000)),
    may("expires_s", integer(60, 10 * 365 * DAY_S)),
];
static CONTEXT: [Key; 5] = [
    may("shared", Shape::List(&KEY_GLOBS)),
    may("quota_mib", integer(1, 1 << 20)),
    may("documents_max", integer(1, 10_000_000)),
    may("rule", Shape::Tables(&CONTEXT_RULE)),
    may("reconciler", Shape::Tables(&RECONCILER)),
];
static WORKFLOW: [Key; 2] = [may("plugin", Shape::Text(&NAME)), may("binding", Shape::Tables(&KIND_BINDING))];
static POLICY: [Key; 2] = [may("plugin", Shape::Text(&NAME)), may("binding", Shape::Tables(&POLICY_BINDING))];
static CHECK: [Key; 3] = [must("name", Shape::Text(&NAME)), must("command", Shape::Text(&COMMAND)), may("limit_s", integer(1, DAY_S))];
static AGENT: [Key; 3] =
    [must("plugin", Shape::Text(&NAME)), may("projects", Shape::List(&SLUGS)), may("fetch_hosts", Shape::List(&HOSTS))];
static PROVIDER: [Key; 3] =
    [must("plugin", Shape::Text(&NAME)), may("projects", Shape::List(&SLUGS)), may("allow_empty_namespace", Shape::Switch)];
static PLUGIN_TRUST: [Key; 2] = [may("required", Shape::Switch), may("keys", Shape::List(&PUBLIC_KEYS))];
static PLUGIN: [Key; 12] = [
    may("source", Shape::PluginSource),
    may("digest", Shape::Text(&DIGEST)),
    may("signature", Shape::Text(&SIGNATURE)),
    may("mode", Shape::Choice(&["live", "shadow", "off"])),
    may("shadow_of", Shape::Text(&NAME)),
    may("share", Shape::Share),
    may("on_failure", Shape::Choice(&["fall-back", "refuse", "defer"])),
    may("capabilities", Shape::List(&CAPABILITY_NAMES)),
    may("world", Shape::Choice(&["router", "merger", "reconciler", "workflow", "policy", "agent", "mcp-provider"])),
    may("instances", Shape::Choice(&["warm", "fresh"])),
    may("limits", Shape::Table(&LIMITS)),
    may("config", Shape::Any),
];
static GIT: [Key; 5] = [
    may("repositories", Shape::Path),
    may("workers", integer(1, 64)),
    may("command_timeout_ms", integer(100, HOUR_MS)),
    may("merge_timeout_ms", integer(100, HOUR_MS)),
    may("transfer_timeout_ms", integer(1_000, 24 * HOUR_MS)),
];

/// The whole configuration.
pub(super) static ROOT: [Key; 23] = [
    must("config_version", integer(CONFIG_VERSION, CONFIG_VERSION)),
    may("server", Shape::Table(&SERVER)),
    may("limits", Shape::Table(&CALL_LIMITS)),
    may("auth", Shape::Table(&AUTH)),
    may("data", Shape::Table(&DATA)),
    may("store", Shape::Table(&STORE)),
    may("log", Shape::Table(&LOG)),
    may("traces", Shape::Table(&TRACES)),
    may("project", Shape::Tables(&PROJECT)),
    may("agents", Shape::Table(&AGENTS)),
    may("messages", Shape::Table(&MESSAGES)),
    may("decisions", Shape::Table(&DECISIONS)),
    may("routing", Shape::Table(&ROUTING)),
    may("merging", Shape::Table(&MERGING)),
    may("context", Shape::Table(&CONTEXT)),
    may("workflow", Shape::Table(&WORKFLOW)),
    may("policy", Shape::Table(&POLICY)),
    may("check", Shape::Tables(&CHECK)),
    may("agent", Shape::Tables(&AGENT)),
    may("provider", Shape::Tables(&PROVIDER)),
    may("plugins", Shape::Named(&PLUGIN)),
    may("plugin_trust", Shape::Table(&PLUGIN_TRUST)),
    may("git", Shape::Table(&GIT)),
];

/// The plugins that come with the host, and what each decides.
pub const SHIPPED: [(&str, World); 10] = [
    ("routing-capability", World::Router),
    ("routing-rules", World::Router),
    ("merge-union", World::Merger),
    ("merge-imports", World::Merger),
    ("merge-json", World::Merger),
    ("merge-text", World::Merger),
    ("context-json", World::Reconciler),
    ("context-text", World::Reconciler),
    ("workflow-default", World::Workflow),
    ("policy-default", World::Policy),
];

/// A key that an environment variable can set.
#[derive(Debug)]
pub(super) struct Leaf {
    /// `server.bind`.
    pub(super) path: Vec<&'static str>,
    /// What it takes.
    pub(super) shape: &'static Shape,
}

impl Leaf {
    /// Returns the variable's name.
    pub(super) fn variable(&self) -> String {
        let mut name = String::from(super::VARIABLE_PREFIX);
        name.push_str(&self.path.join("_").to_ascii_uppercase());
        name
    }
}

/// Returns every key that an environment variable can set: texts, numbers, switches and lists of fixed tables.
pub(super) fn leaves() -> Vec<Leaf> {
    fn collect(keys: &'static [Key], above: &[&'static str], leaves: &mut Vec<Leaf>) {
        for key in keys {
            let path = [above, &[key.name]].concat();
            if let Shape::Table(inner) = &key.shape {
                collect(inner, &path, leaves);
            } else if is_leaf(&key.shape) {
                leaves.push(Leaf { path, shape: &key.shape });
            }
        }
    }
    let mut leaves = Vec::new();
    collect(&ROOT, &[], &mut leaves);
    leaves
}

fn is_leaf(shape: &Shape) -> bool {
    matches!(
        shape,
        Shape::Text(_)
            | Shape::Path
            | Shape::PluginSource
            | Shape::Share
            | Shape::Integer { .. }
            | Shape::Switch
            | Shape::Choice(_)
            | Shape::List(_)
    )
}

/// Returns the tables that have a key of this name, as they are written in a file: `[server]`.
pub(super) fn homes_of(name: &str) -> Vec<String> {
    fn search(keys: &'static [Key], header: &str, name: &str, found: &mut Vec<String>) {
        for key in keys {
            let below = |dots: &str| if header.is_empty() { key.name.to_owned() } else { format!("{header}{dots}{}", key.name) };
            match &key.shape {
                Shape::Table(inner) => report(inner, &below("."), ["[", "]"], name, found),
                Shape::Tables(inner) => report(inner, &below("."), ["[[", "]]"], name, found),
                Shape::Named(inner) => report(inner, &format!("{}.NAME", below(".")), ["[", "]"], name, found),
                Shape::Text(_)
                | Shape::Path
                | Shape::PluginSource
                | Shape::Share
                | Shape::Integer { .. }
                | Shape::Switch
                | Shape::Choice(_)
                | Shape::List(_)
                | Shape::Any => {}
            }
        }
    }
    fn report(keys: &'static [Key], header: &str, [open, close]: [&str; 2], name: &str, found: &mut Vec<String>) {
        if keys.iter().any(|key| key.name == name) {
            found.push(format!("{open}{header}{close}"));
        }
        search(keys, header, name, found);
    }
    let mut found = Vec::new();
    search(&ROOT, "", name, &mut found);
    found
}

/// What the address of a store on Redis begins with.
const STORE_SCHEMES: [&str; 6] = ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"];

fn is_store_url(text: &str) -> bool {
    let is_redis =
        |(scheme, rest): (&str, &str)| STORE_SCHEMES.contains(&scheme) && !rest.is_empty() && !rest.contains(char::is_whitespace);
    text == super::store::EMBEDDED || text.split_once("://").is_some_and(is_redis)
}

fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else { return false };
    let host = rest.split('/').next().unwrap_or("");
    !host.is_empty() && !rest.contains(['?', '#', ' ', '@', '\\']) && text.is_ascii()
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
        && !rest.is_empty()
        && rest.is_ascii()
        && !rest.contains(['/', '?', '#', ' ', '@', '\\'])
}

/// The characters of a scope (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn is_log_level(text: &str) -> bool {
    let is_level = |word: &str| LEVELS.contains(&word);
    let is_target = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'));
    text.split(',').all(|part| match part.trim().split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(part.trim()),
    })
}

/// Returns whether a text can name a project.
pub(super) fn is_slug(text: &str) -> bool {
    text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().next().is_some_and(|b| b != b'-')
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

fn is_kind(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_ed25519(text: &str, bytes: usize) -> bool {
    let decoded = text.strip_prefix("ed25519:").and_then(|text| data_encoding::BASE64.decode(text.as_bytes()).ok());
    decoded.is_some_and(|decoded| decoded.len() == bytes)
}

/// The rules of `git check-ref-format --branch`, apart from those on ref components that no branch of people has.
fn is_branch(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.starts_with("refs/")
        && text != "HEAD"
        && !text.contains("..")
        && !text.contains("//")
        && !text.contains("@{")
        && !text.contains([' ', '~', '^', ':', '?', '*', '[', '\\'])
        && !text.contains(|c: char| c.is_control())
        && text.split('/').all(|part| {
            !part.starts_with('.') && !std::path::Path::new(part).extension().is_some_and(|ext| ext.eq_ignore_ascii_case("lock"))
        })
}

fn is_glob(text: &str) -> bool {
    !text.is_empty() && serde_json::from_value::<PathGlob>(serde_json::Value::String(text.to_owned())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_unique() {
        let mut names: Vec<String> = leaves().iter().map(Leaf::variable).collect();
        for name in ["POINTSMAN_SERVER_BODY_BYTES_MAX", "POINTSMAN_SERVER_TLS_CERT", "POINTSMAN_AUTH_ISSUER"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "two keys share a variable");
    }

    #[test]
    fn forms_take_what_they_say_and_nothing_else() {
        for (form, good, bad) in [
            (&ADDRESS, vec!["127.0.0.1:0", "[::1]:7420"], vec!["localhost:7420", "127.0.0.1", ":80", ""]),
            (&URL, vec!["http://h", "https://h:1/base/"], vec!["h", "ftp://h", "http://", "http://h?q", "http://user@h"]),
            (&ORIGIN, vec!["https://h", "vscode-file://app"], vec!["https://h/", "h", "https://"]),
            (&LOG_LEVEL, vec!["info", "off", "info,pointsman::service=debug"], vec!["", "inof", "pointsman=", "info;debug"]),
            (&SCOPE, vec!["files", "pointsman:files", "https://h/x"], vec!["", "a b", "a\"b", "ü"]),
            (&AUDIENCE, vec!["https://h/mcp", "urn:x"], vec!["", "a b"]),
            (&KIND, vec!["review_request", "bug"], vec!["", "a b"]),
            (&PUBLIC_KEY, vec!["ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], vec!["", "AAAA", "ed25519:AAAA", "ed25519:%"]),
            (&SLUG, vec!["a", "my-repo-2"], vec!["", "-a", "My", "a_b"]),
            (&HOST, vec!["example.com", "127.0.0.1:8080", "[::1]:1"], vec!["", "http://a", "a/b", "a:b", "a@b", "::1"]),
            (&BRANCH, vec!["main", "release/1.x"], vec!["", "-x", "a b", "refs/heads/main", "a..b", "x.lock", "/a", "a/"]),
        ] {
            for text in good {
                assert!((form.fits)(text), "{text} is {}", form.expected);
            }
            for text in bad {
                assert!(!(form.fits)(text), "{text} is not {}", form.expected);
            }
        }
    }

    #[test]
    fn a_key_is_found_where_it_belongs() {
        assert_eq!(homes_of("bind"), ["[server]"]);
        assert_eq!(
            homes_of("plugin"),
            [
                "[[routing.binding]]",
                "[[merging.strategy]]",
                "[[context.reconciler]]",
                "[workflow]",
                "[[workflow.binding]]",
                "[policy]",
                "[[policy.binding]]",
                "[[agent]]",
                "[[provider]]"
            ]
        );
        assert_eq!(homes_of("deadline_ms"), ["[plugins.NAME.limits]"]);
    }
}
