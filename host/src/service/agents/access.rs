//! Callers without a token of ours: those on the host's own machine, when the operator lets them in, and those whom an
//! authorization server names. And how often each credential may call.
//!
//! Both become a [`TokenRecord`] that is stored nowhere, so that all that follows knows one kind of caller only.
//!
//! **Invariants:** whom an issuer names is never the principal of a token minted here: their ids come from hashes of issuer
//! and subject, and so does a part of their names; a scope that is not granted opens nothing; a token for one project's endpoint
//! opens no other; by what a caller is refused nobody learns whether a project exists.

use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::{ProjectRecord, TokenRecord};
use pointsman_core::event::Provenance;
use pointsman_core::ids::{PrincipalId, TokenId};
use pointsman_core::rate::{Buckets, Rate};
use pointsman_core::time::TimeMs;

use super::Agents;
use super::tokens::FRESH_MS;
use crate::ports::issuer::{Grant, GrantError, Issuer};
use crate::ports::store::Commit;
use crate::ports::surface::{Caller, Rejected};
use crate::service::failure::{Failure, unavailable};

/// The principal of callers without a credential. A token minted under this name is theirs too.
pub const LOCAL_PRINCIPAL: &str = "local";
/// Toolsets of callers without a credential: all there are.
const LOCAL_TOOLSETS: [&str; 2] = ["files", "admin"];
/// Credentials whose calls are counted.
const COUNTED_MAX: usize = 20_000;
/// Characters of a subject that become part of its principal's name.
const NAME_CHARS_MAX: usize = 40;
/// Bytes of a hash that tell apart the names of principals whose subjects look alike.
const NAME_HASH_BYTES: usize = 5;

/// Whom the host lets in besides the tokens minted here, and how often anyone may call.
#[derive(Clone, Default)]
pub struct Access {
    /// Whether a caller without a credential acts as [`LOCAL_PRINCIPAL`], with everything open. Only for listeners that
    /// other machines cannot reach.
    pub anonymous: bool,
    /// Calls of one credential; none: without a limit.
    pub calls: Option<Rate>,
    /// The authorization server whose tokens are taken.
    pub oauth: Option<OAuth>,
}

/// An authorization server, and what its tokens open.
#[derive(Clone)]
pub struct OAuth {
    /// Checks tokens.
    pub issuer: Arc<dyn Issuer>,
    /// The audience a token must name; none: the URL of the endpoint it is used at (RFC 8707), or that of `/mcp`.
    pub audience: Option<String>,
    /// Scopes that every token needs.
    pub required_scopes: Vec<String>,
    /// What scopes open; none: a token with the required scopes opens every project with the default toolset.
    pub grants: Vec<ScopeGrant>,
}

/// What a scope opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeGrant {
    /// Which scope.
    pub scope: String,
    /// Slugs of the projects it opens; empty: all.
    pub projects: Vec<String>,
    /// Toolsets beyond the default one.
    pub toolsets: Vec<String>,
}

impl ScopeGrant {
    fn opens(&self, slug: &str) -> bool {
        self.projects.is_empty() || self.projects.iter().any(|known| known == slug)
    }
}

/// Returns the URL of an endpoint, which is its resource identifier (RFC 8707).
#[must_use]
pub fn resource(public_url: &str, slug: Option<&str>) -> String {
    slug.map_or_else(|| format!("{public_url}/mcp"), |slug| format!("{public_url}/mcp/{slug}"))
}

impl OAuth {
    fn audiences(&self, public_url: &str, slug: Option<&str>) -> Vec<String> {
        match &self.audience {
            Some(audience) => vec![audience.clone()],
            // A token for plain `/mcp` is for all of the host; which projects, its scopes say.
            None => std::iter::once(resource(public_url, None)).chain(slug.map(|slug| resource(public_url, Some(slug)))).collect(),
        }
    }

    /// Returns every scope that a caller of this endpoint needs, who has `held`: it is told all of them at once. Of an endpoint that is
    /// named only the configuration is asked, so that nobody learns which projects there are.
    fn needed(&self, slug: Option<&str>, held: &[String], projects: &[ProjectRecord]) -> Vec<String> {
        let mut needed = self.required_scopes.clone();
        let opens = |grant: &&ScopeGrant| match slug {
            Some(slug) => grant.opens(slug),
            None => projects.iter().any(|project| grant.opens(&project.slug)),
        };
        let mut opening = self.grants.iter().filter(opens);
        let best = opening.clone().find(|grant| held.contains(&grant.scope)).or_else(|| opening.next());
        needed.extend(best.map(|grant| grant.scope.clone()).filter(|scope| !self.required_scopes.contains(scope)));
        needed
    }

    /// Returns the projects and toolsets that these scopes open, the oldest project first.
    fn opened<'a>(&self, scopes: &[String], projects: &'a [ProjectRecord]) -> (Vec<&'a ProjectRecord>, Vec<String>) {
        if self.grants.is_empty() {
            return (projects.iter().collect(), Vec::new());
        }
        let held: Vec<&ScopeGrant> = self.grants.iter().filter(|grant| scopes.contains(&grant.scope)).collect();
        let open = projects.iter().filter(|project| held.iter().any(|grant| grant.opens(&project.slug))).collect();
        (open, held.iter().flat_map(|grant| grant.toolsets.iter().cloned()).collect())
    }
}

/// What is remembered of callers.
#[derive(Default)]
pub(super) struct Gate {
    access: Access,
    calls: Option<Mutex<Buckets<TokenId>>>,
    projects: Mutex<Option<(TimeMs, Arc<[ProjectRecord]>)>>,
    local: Mutex<Option<PrincipalId>>,
}

impl Gate {
    pub(super) fn new(access: Access) -> Self {
        let calls = access.calls.map(|rate| Mutex::new(Buckets::new(rate, COUNTED_MAX)));
        Self { access, calls, ..Self::default() }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// `TooMany`.
    pub(super) fn count(&self, token: TokenId, now: TimeMs) -> Result<(), Rejected> {
        let Some(calls) = &self.calls else { return Ok(()) };
        calls.lock().take(token, now).map_err(|retry_after_ms| Rejected::TooMany { retry_after_ms })
    }
}

impl Agents {
    /// Returns the service with other rules of access; without them only tokens minted here are good.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.gate = Gate::new(access);
        self
    }

    /// Counts a call beyond the one that a caller was admitted for.
    ///
    /// # Errors
    /// `TooMany`.
    pub fn count(&self, caller: &Caller) -> Result<(), Rejected> {
        self.gate.count(caller.token.id, self.kit.now())
    }

    /// Returns the record of callers without a credential.
    ///
    /// # Errors
    /// `Missing` when there are none such.
    pub(super) async fn anonymous(&self) -> Result<Arc<TokenRecord>, Rejected> {
        if !self.gate.access.anonymous {
            return Err(Rejected::Missing);
        }
        let principal = self.local_principal().await.map_err(|failure| unavailable(&failure))?;
        let projects = self.known_projects().await?;
        Ok(Arc::new(TokenRecord {
            id: TokenId::from_bytes(digest(&["anonymous"])),
            principal,
            principal_name: LOCAL_PRINCIPAL.to_owned(),
            provenance: Provenance::Agent,
            projects: projects.iter().map(|project| project.id).collect(),
            capabilities: Vec::new(),
            toolsets: LOCAL_TOOLSETS.map(str::to_owned).to_vec(),
            created_at: TimeMs(0),
            expires_at: None,
            revoked_at: None,
        }))
    }

    async fn local_principal(&self) -> Result<PrincipalId, Failure> {
        if let Some(known) = *self.gate.local.lock() {
            return Ok(known);
        }
        let decided = self.kit.decide(|| async {
            let mut commit = Commit::default();
            let principal = self.principal(LOCAL_PRINCIPAL, &mut commit).await?;
            Ok((commit, principal))
        });
        let (principal, _) = decided.await?;
        *self.gate.local.lock() = Some(principal);
        Ok(principal)
    }

    /// Returns all projects as they were a moment ago.
    async fn known_projects(&self) -> Result<Arc<[ProjectRecord]>, Rejected> {
        let now = self.kit.now();
        if let Some((at, known)) = &*self.gate.projects.lock()
            && now.since_ms(*at) < FRESH_MS
        {
            return Ok(Arc::clone(known));
        }
        let found: Arc<[ProjectRecord]> = self.projects().await.map_err(|failure| unavailable(&failure))?.into();
        *self.gate.projects.lock() = Some((now, Arc::clone(&found)));
        Ok(found)
    }

    /// Returns the scopes that a caller who has none needs for an endpoint; none without an authorization server.
    pub async fn scopes_needed(&self, slug: Option<&str>) -> Vec<String> {
        let Some(oauth) = &self.gate.access.oauth else { return Vec::new() };
        // What cannot be found out now is asked for later, by a 403.
        let known = self.known_projects().await.unwrap_or_else(|_| Arc::from([]));
        oauth.needed(slug, &[], &known)
    }

    /// Returns the record of whoever an access token names, its call counted.
    ///
    /// # Errors
    /// `Invalid`, `InsufficientScope`, `Forbidden`, `TooMany`, `Unavailable`.
    pub(super) async fn granted(&self, token: &str, slug: Option<&str>) -> Result<Arc<TokenRecord>, Rejected> {
        let Some(oauth) = &self.gate.access.oauth else {
            let why = if is_jwt(token) {
                "it is an access token of an authorization server, and this host has none configured: its own tokens start with `pmt_`"
            } else {
                "tokens of this host start with `pmt_`"
            };
            return Err(Rejected::Invalid { why: why.to_owned() });
        };
        if !is_jwt(token) {
            let why = "it is neither a token of this host, which starts with `pmt_`, nor a signed access token (JWT)";
            return Err(Rejected::Invalid { why: why.to_owned() });
        }
        let audiences = oauth.audiences(&self.kit.settings.public_url, slug);
        let grant = oauth.issuer.check(token, &audiences).await.map_err(|error| match error {
            GrantError::Invalid { why } => Rejected::Invalid { why },
            GrantError::Unavailable { retry_after_ms } => Rejected::Unavailable { retry_after_ms },
        })?;
        // A token that opens nothing costs as much as one that opens all.
        self.gate.count(token_id(oauth.issuer.id(), &grant), self.kit.now())?;
        let known = self.known_projects().await?;
        let (open, toolsets) = oauth.opened(&grant.scopes, &known);
        let needed = oauth.needed(slug, &grant.scopes, &known);
        if needed.iter().any(|scope| !grant.scopes.contains(scope)) {
            return Err(Rejected::InsufficientScope { scopes: needed });
        }
        // What is still not open no scope opens: the project is another's, or is not there.
        Ok(Arc::new(record(oauth.issuer.id(), &grant, &open, toolsets)))
    }
}

/// Returns the id of whom a grant names. A refreshed token of the same client is the same credential: its sessions go on.
fn token_id(issuer: &str, grant: &Grant) -> TokenId {
    TokenId::from_bytes(digest(&["token", issuer, &grant.subject, grant.client.as_deref().unwrap_or_default()]))
}

fn record(issuer: &str, grant: &Grant, open: &[&ProjectRecord], mut toolsets: Vec<String>) -> TokenRecord {
    toolsets.sort_unstable();
    toolsets.dedup();
    TokenRecord {
        id: token_id(issuer, grant),
        principal: PrincipalId::from_bytes(digest(&["principal", issuer, &grant.subject])),
        principal_name: name(issuer, &grant.subject),
        provenance: Provenance::Agent,
        projects: open.iter().map(|project| project.id).collect(),
        capabilities: Vec::new(),
        toolsets,
        created_at: TimeMs(0),
        expires_at: Some(TimeMs(grant.expires_at_ms)),
        revoked_at: None,
    }
}

/// Returns half of a hash over parts, each with its length, so that no two lists of parts are alike.
fn digest(parts: &[&str]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("pointsman 2026-11 callers without a stored token");
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    half
}

/// Returns a subject as a principal's name: what a name may hold of it, then a piece of a hash, since others' subjects and the names of
/// the host's own tokens may look the same, and components tell principals apart by their names.
fn name(issuer: &str, subject: &str) -> String {
    let fitting = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = subject.chars().map(fitting).skip_while(|c| !c.is_ascii_alphanumeric()).take(NAME_CHARS_MAX).collect();
    let shown = if name.is_empty() { "user" } else { &name };
    format!("{shown}-{}", data_encoding::HEXLOWER.encode(&digest(&["name", issuer, subject])[..NAME_HASH_BYTES]))
}

/// Returns whether a credential has the form of a signed token: three parts in base64url (RFC 7515, section 3.1).
fn is_jwt(token: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    token.split('.').count() == 3 && token.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::ids::ProjectId;
    use pointsman_core::message::check_agent_name;

    fn project(n: u8, slug: &str) -> ProjectRecord {
        ProjectRecord { id: ProjectId::from_bytes([n; 16]), slug: slug.to_owned(), target: "main".to_owned(), created_at: TimeMs(0) }
    }

    struct Nobody;

    #[async_trait::async_trait]
    impl Issuer for Nobody {
        fn id(&self) -> &str {
            "https://as.example"
        }

        async fn check(&self, _: &str, _: &[String]) -> Result<Grant, GrantError> {
            Err(GrantError::Unavailable { retry_after_ms: 1 })
        }
    }

    fn oauth(grants: &[(&str, &[&str], &[&str])]) -> OAuth {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        OAuth {
            issuer: Arc::new(Nobody),
            audience: None,
            required_scopes: texts(&["mcp"]),
            grants: grants
                .iter()
                .map(|(scope, projects, toolsets)| ScopeGrant {
                    scope: (*scope).to_owned(),
                    projects: texts(projects),
                    toolsets: texts(toolsets),
                })
                .collect(),
        }
    }

    #[test]
    fn scopes_open_projects_and_toolsets() {
        let projects = [project(1, "a"), project(2, "b")];
        let slugs = |oauth: &OAuth, scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let (open, toolsets) = oauth.opened(&scopes, &projects);
            (open.iter().map(|project| project.slug.clone()).collect::<Vec<_>>().join(" "), toolsets.join(" "))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(slugs(&oauth(&[]), &["mcp"]), pair("a b", ""));
        let some = oauth(&[("read:a", &["a"], &[]), ("write", &[], &["files"])]);
        assert_eq!(slugs(&some, &["mcp"]), pair("", ""));
        assert_eq!(slugs(&some, &["read:a"]), pair("a", ""));
        assert_eq!(slugs(&some, &["write", "read:a"]), pair("a b", "files"));
        let needed = |slug: Option<&str>, held: &[&str]| {
            let held: Vec<String> = held.iter().map(|scope| (*scope).to_owned()).collect();
            some.needed(slug, &held, &projects)
        };
        assert_eq!(needed(Some("a"), &[]), ["mcp", "read:a"]);
        assert_eq!(needed(Some("b"), &[]), ["mcp", "write"]);
        assert_eq!(needed(Some("nothing-here"), &[]), ["mcp", "write"], "as if it were there");
        assert_eq!(needed(None, &[]), ["mcp", "read:a"]);
        assert_eq!(needed(Some("a"), &["write"]), ["mcp", "write"], "one that opens it is enough");
    }

    #[test]
    fn no_scope_is_asked_for_that_opens_nothing() {
        let oauth = oauth(&[("read:gone", &["gone"], &[]), ("write", &[], &[])]);
        assert_eq!(oauth.needed(None, &[], &[project(1, "a")]), ["mcp", "write"], "the first would open no project that there is");
        assert_eq!(oauth.needed(None, &[], &[]), ["mcp"]);
        assert_eq!(
            oauth.needed(Some("gone"), &["read:gone".to_owned()], &[]),
            ["mcp", "read:gone"],
            "all of it may be held, and then asking again would not help"
        );
    }

    #[test]
    fn an_audience_is_the_endpoint_or_the_host() {
        let mut oauth = oauth(&[]);
        assert_eq!(oauth.audiences("https://h", Some("a")), ["https://h/mcp", "https://h/mcp/a"]);
        assert_eq!(oauth.audiences("https://h", None), ["https://h/mcp"]);
        oauth.audience = Some("urn:pointsman".to_owned());
        assert_eq!(oauth.audiences("https://h", Some("a")), ["urn:pointsman"]);
    }

    #[test]
    fn subjects_become_names_and_ids_that_no_other_has() {
        for (subject, expected) in [("ana", "ana"), ("auth0|5f7c", "auth0-5f7c"), ("ana@example.org", "ana-example.org"), ("|x", "x")] {
            let named = name("i", subject);
            assert_eq!(named.rsplit_once('-').map(|(shown, hash)| (shown, hash.len())), Some((expected, 10)), "{named}");
        }
        let alike = [name("i", "auth0|5f7c"), name("i", "auth0-5f7c"), name("j", "auth0|5f7c"), "auth0-5f7c".to_owned()];
        assert_eq!(std::collections::BTreeSet::from(alike).len(), 4);
        assert!(check_agent_name(&name("i", &"x".repeat(500))).is_ok());
        assert!(check_agent_name(&name("i", "世界")).is_ok(), "{}", name("i", "世界"));
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&["principal", "i", "a"]), digest(&["token", "i", "a"]));
    }

    #[test]
    fn signed_tokens_are_known_by_their_form() {
        assert!(is_jwt("eyJh.eyJp.c2ln"));
        for other in ["", "a.b", "a..c", "a.b.c.d", "pmt_abc", "a.b.c=", "a.b.ü"] {
            assert!(!is_jwt(other), "{other}");
        }
    }
}
