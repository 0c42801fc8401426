//! Projects, and the tokens that open them.
//!
//! **Invariants:** the secret is stored nowhere, only its BLAKE3 hash; a revoked token opens nothing after
//! [`FRESH_MS`] on every host, and at once on the one that revoked it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pointsman_core::agent::{ProjectRecord, TokenRecord};
use pointsman_core::event::{Actor, NewEvent, Provenance};
use pointsman_core::ids::{PrincipalId, ProjectId, TokenId};
use pointsman_core::message::check_agent_name;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Agents;
use crate::ports::store::Commit;
use crate::ports::surface::{Caller, Rejected};
use crate::service::failure::{Failure, unavailable};
use crate::service::kit::CommitExt;

/// Milliseconds a checked token is believed.
pub(super) const FRESH_MS: u64 = 1_000;
/// Milliseconds for which a token that this host saw good is believed while the store is away: one that another host revoked since then
/// is good so long on this one, for what can be done without the store.
const KNOWN_WHILE_AWAY_MS: u64 = 5 * 60 * 1_000;
/// Checked tokens kept; beyond that all are checked again.
const CHECKED_MAX: usize = 10_000;
/// What a secret starts with.
const SECRET_PREFIX: &str = "pmt_";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Characters of a slug.
const SLUG_CHARS_MAX: usize = 40;
/// Projects of one host.
const PROJECTS_MAX: usize = 10_000;

const PROJECTS: &str = "project/";
const TOKENS: &str = "token/";

fn slug_key(slug: &str) -> String {
    format!("project-slug/{slug}")
}

fn token_key(hash: &str) -> String {
    format!("{TOKENS}{hash}")
}

fn token_id_key(id: TokenId) -> String {
    format!("token-id/{id}")
}

fn principal_key(name: &str) -> String {
    format!("principal-name/{name}")
}

/// Which project has a slug.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Slugged(ProjectId);

impl Stored for Slugged {
    const NAME: &'static str = "slug";
}

/// Which principal has a name.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Principal(PrincipalId);

impl Stored for Principal {
    const NAME: &'static str = "principal";
}

/// Where a token stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TokenHash(String);

impl Stored for TokenHash {
    const NAME: &'static str = "token hash";
}

/// A token to mint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// Whom it names; tokens of one name belong to one principal.
    pub principal_name: String,
    /// Human or agent.
    pub provenance: Provenance,
    /// What it opens; the first is the one behind plain `/mcp`.
    pub projects: Vec<ProjectId>,
    /// Capability names its agents may claim; empty means any.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Toolsets beyond the default one.
    #[serde(default)]
    pub toolsets: Vec<String>,
    /// Milliseconds it works; none: until it is revoked.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// A token and when it was read.
type Checked = (TimeMs, Arc<TokenRecord>);

/// Tokens checked a moment ago, by their hashes and by their ids.
#[derive(Default)]
struct Fresh {
    by_hash: HashMap<[u8; 32], Checked>,
    by_id: HashMap<TokenId, Checked>,
    /// Grows with each: what was read before one may be what it revoked.
    revocations: u64,
}

impl Fresh {
    /// Keeps a token that was read when there had been so many revocations.
    fn keep(&mut self, read_at: u64, now: TimeMs, hash: Option<[u8; 32]>, token: &Arc<TokenRecord>) {
        if read_at != self.revocations {
            return;
        }
        if self.by_hash.len() >= CHECKED_MAX {
            self.by_hash.clear();
        }
        if self.by_id.len() >= CHECKED_MAX {
            self.by_id.clear();
        }
        if let Some(hash) = hash {
            self.by_hash.insert(hash, (now, Arc::clone(token)));
        }
        self.by_id.insert(token.id, (now, Arc::clone(token)));
    }

    fn revoked(&mut self, id: TokenId) {
        self.revocations += 1;
        self.by_hash.retain(|_, (_, token)| token.id != id);
        self.by_id.remove(&id);
    }
}

fn if_fresh(checked: Option<&Checked>, now: TimeMs) -> Option<Arc<TokenRecord>> {
    checked.filter(|(at, _)| now.since_ms(*at) < FRESH_MS).map(|(_, token)| Arc::clone(token))
}

/// Tokens checked a moment ago, and projects, whose slugs never change.
#[derive(Default)]
pub(super) struct Admissions {
    checked: Mutex<Fresh>,
    projects: Mutex<HashMap<String, Arc<ProjectRecord>>>,
}

impl Agents {
    /// Makes the project of a repository that was made under this id. `target` is the branch that work lands on.
    ///
    /// # Errors
    /// `bad_argument`, `slug_taken`.
    pub async fn create_project(&self, id: ProjectId, slug: &str, target: &str) -> Result<ProjectRecord, Failure> {
        let form = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=SLUG_CHARS_MAX).contains(&slug.len()) && slug.chars().all(form) && !slug.starts_with('-');
        if !fits || target.is_empty() {
            let why = if fits { "the target branch is empty".to_owned() } else { format!("`{}` is no slug", slug.escape_default()) };
            let advice = format!("A slug is 1 to {SLUG_CHARS_MAX} characters of a-z, 0-9, `-`; the target is a branch's name.");
            return Err(Failure::refused("bad_argument", why, advice));
        }
        let decided = self.kit.decide(|| async {
            if self.kit.load::<Slugged>(None, &slug_key(slug)).await?.is_some() {
                return Err(Failure::refused("slug_taken", format!("there is a project `{slug}`"), "Choose another slug."));
            }
            let now = self.kit.now();
            let record = ProjectRecord { id, slug: slug.to_owned(), target: target.to_owned(), created_at: now };
            let mut commit = Commit::default();
            commit.replace(slug_key(slug), None, &Slugged(id));
            commit.replace(format!("{PROJECTS}{id}"), None, &record);
            let data = json!({"slug": slug, "target": target});
            commit.events.push(NewEvent::new("project.created", Actor::host(), id, data));
            Ok((commit, record))
        });
        Ok(decided.await?.0)
    }

    /// Returns the project of a slug.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn project_by_slug(&self, slug: &str) -> Result<ProjectRecord, Failure> {
        if let Some(known) = self.admissions.projects.lock().get(slug) {
            return Ok(ProjectRecord::clone(known));
        }
        let found = match self.kit.load::<Slugged>(None, &slug_key(slug)).await? {
            Some(slugged) => self.kit.load::<ProjectRecord>(None, &format!("{PROJECTS}{}", slugged.value.0)).await?,
            None => None,
        };
        let Some(found) = found else {
            let shown: String = slug.chars().take(SLUG_CHARS_MAX).collect();
            return Err(Failure::refused("not_found", format!("there is no project `{shown}`"), "Check the endpoint's path."));
        };
        self.admissions.projects.lock().insert(slug.to_owned(), Arc::new(found.value.clone()));
        Ok(found.value)
    }

    /// Returns a project.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn project(&self, id: ProjectId) -> Result<ProjectRecord, Failure> {
        let found = self.kit.load::<ProjectRecord>(None, &format!("{PROJECTS}{id}")).await?;
        found.map(|found| found.value).ok_or_else(|| Failure::refused("not_found", format!("there is no project {id}"), "Check the id."))
    }

    /// Returns all projects, the oldest first.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn projects(&self) -> Result<Vec<ProjectRecord>, Failure> {
        let all = self.kit.load_all::<ProjectRecord>(None, PROJECTS, PROJECTS_MAX).await?;
        Ok(all.into_iter().map(|(_, found)| found.value).collect())
    }

    /// Mints a token and returns its secret, which is kept nowhere else.
    ///
    /// # Errors
    /// `bad_argument`, `not_found`.
    pub async fn mint_token(&self, new: &NewToken) -> Result<(String, TokenRecord), Failure> {
        let wrong = |why: String| Failure::refused("bad_argument", why, "Correct it and mint again.");
        check_agent_name(&new.principal_name).map_err(|error| wrong(format!("`principal_name`: {error}")))?;
        if new.projects.is_empty() {
            return Err(wrong("a token opens at least one project".to_owned()));
        }
        if matches!(new.provenance, Provenance::Plugin | Provenance::Host) {
            return Err(wrong("a token names a human or an agent".to_owned()));
        }
        for &project in &new.projects {
            self.project(project).await?;
        }
        let mut random = [0; SECRET_BYTES];
        self.kit.system.random(&mut random);
        let digits = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
        let secret = format!("{SECRET_PREFIX}{digits}");
        let hash = blake3::hash(secret.as_bytes()).to_hex().to_string();
        let (record, _) = self.kit.decide(|| self.decide_mint(new, &hash)).await?;
        Ok((secret, record))
    }

    async fn decide_mint(&self, new: &NewToken, hash: &str) -> Result<(Commit, TokenRecord), Failure> {
        let now = self.kit.now();
        let mut commit = Commit::default();
        let principal = self.principal(&new.principal_name, &mut commit).await?;
        let record = TokenRecord {
            id: TokenId::new(now, self.kit.system.id_bytes()),
            principal,
            principal_name: new.principal_name.clone(),
            provenance: new.provenance,
            projects: new.projects.clone(),
            capabilities: new.capabilities.clone(),
            toolsets: new.toolsets.clone(),
            created_at: now,
            expires_at: new.ttl_ms.map(|ms| now + ms),
            revoked_at: None,
        };
        commit.replace(token_key(hash), None, &record);
        commit.replace(token_id_key(record.id), None, &TokenHash(hash.to_owned()));
        let data = json!({
            "principal": principal, "principal_name": record.principal_name, "projects": record.projects,
            "capabilities": record.capabilities, "toolsets": record.toolsets,
        });
        commit.events.push(NewEvent::new("token.minted", Actor::host(), record.id, data));
        Ok((commit, record))
    }

    /// Returns the principal of a name; one that is not there yet is made by the commit.
    pub(super) async fn principal(&self, name: &str, commit: &mut Commit) -> Result<PrincipalId, Failure> {
        if let Some(known) = self.kit.load::<Principal>(None, &principal_key(name)).await? {
            return Ok(known.value.0);
        }
        let id = PrincipalId::new(self.kit.now(), self.kit.system.id_bytes());
        commit.replace(principal_key(name), None, &Principal(id));
        Ok(id)
    }

    /// Revokes a token. Revoking it again changes nothing.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn revoke_token(&self, id: TokenId) -> Result<TokenRecord, Failure> {
        let decided = self.kit.decide(|| async {
            let missing = || Failure::refused("not_found", format!("there is no token {id}"), "Check the id; list the tokens.");
            let hash = self.kit.load::<TokenHash>(None, &token_id_key(id)).await?.ok_or_else(missing)?;
            let key = token_key(&hash.value.0);
            let mut found = self.kit.load::<TokenRecord>(None, &key).await?.ok_or_else(missing)?;
            let mut commit = Commit::default();
            if found.value.revoked_at.is_none() {
                found.value.revoked_at = Some(self.kit.now());
                commit.replace(key, Some(found.version), &found.value);
                let data = json!({"principal": found.value.principal});
                commit.events.push(NewEvent::new("token.revoked", Actor::host(), id, data));
            }
            Ok((commit, found.value))
        });
        let decided = decided.await;
        // Also where nothing is known of the outcome: it may have happened.
        self.admissions.checked.lock().revoked(id);
        Ok(decided?.0)
    }

    /// Returns all tokens, without their secrets.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, Failure> {
        let all = self.kit.load_all::<TokenRecord>(None, TOKENS, usize::MAX).await?;
        let mut all: Vec<TokenRecord> = all.into_iter().map(|(_, found)| found.value).collect();
        all.sort_by_key(|token| token.created_at);
        Ok(all)
    }

    /// Checks a credential, with or without its word `Bearer`, for a project: by its slug, or the token's first.
    ///
    /// # Errors
    /// [`Rejected`].
    pub async fn admit(&self, bearer: Option<&str>, slug: Option<&str>, trace: String) -> Result<Caller, Rejected> {
        let counted = |token: Arc<TokenRecord>| self.gate.count(token.id, self.kit.now()).map(|()| token);
        let token = match bearer {
            None => counted(self.anonymous().await?)?,
            Some(text) => match secret(text)? {
                ours if ours.starts_with(SECRET_PREFIX) => counted(self.token(ours).await?)?,
                foreign => self.granted(foreign, slug).await?,
            },
        };
        let project = match slug {
            None => token.projects.first().copied().ok_or(Rejected::Forbidden { slug: String::new() })?,
            Some(slug) => {
                let forbidden = || Rejected::Forbidden { slug: slug.chars().take(SLUG_CHARS_MAX).collect() };
                let record = match self.project_by_slug(slug).await {
                    Ok(record) => record,
                    // Whether a project exists is told only to those it is open to.
                    Err(Failure::Refused(_)) => return Err(forbidden()),
                    Err(failure) => return Err(unavailable(&failure)),
                };
                if !token.projects.contains(&record.id) {
                    return Err(forbidden());
                }
                record.id
            }
        };
        Ok(Caller { token, project, handle: None, trace })
    }

    async fn token(&self, secret: &str) -> Result<Arc<TokenRecord>, Rejected> {
        let invalid = |why: &str| Rejected::Invalid { why: why.to_owned() };
        let hash = blake3::hash(secret.as_bytes());
        let now = self.kit.now();
        let (known, read_at) = {
            let checked = self.admissions.checked.lock();
            (if_fresh(checked.by_hash.get(hash.as_bytes()), now), checked.revocations)
        };
        let token = match known {
            Some(token) => token,
            None => {
                let found = self.kit.load::<TokenRecord>(None, &token_key(hash.to_hex().as_str())).await;
                match (found, self.known_while_away(hash.as_bytes(), now)) {
                    (Ok(found), _) => {
                        let token = Arc::new(found.ok_or_else(|| invalid("this host knows no such token"))?.value);
                        self.admissions.checked.lock().keep(read_at, now, Some(*hash.as_bytes()), &token);
                        token
                    }
                    (Err(_), Some(token)) => token,
                    (Err(failure), None) => return Err(unavailable(&failure)),
                }
            }
        };
        match (token.is_live(now), token.revoked_at) {
            (true, _) => Ok(token),
            (false, Some(_)) => Err(invalid("it was revoked")),
            (false, None) => Err(invalid("it has expired")),
        }
    }

    /// Returns a token that this host saw good not long ago, while the store is away.
    fn known_while_away(&self, hash: &[u8; 32], now: TimeMs) -> Option<Arc<TokenRecord>> {
        if !self.kit.store.is_away() {
            return None;
        }
        let checked = self.admissions.checked.lock();
        let (at, token) = checked.by_hash.get(hash)?;
        (now.since_ms(*at) < KNOWN_WHILE_AWAY_MS).then(|| Arc::clone(token))
    }

    /// Returns whether a credential that was admitted is good still. What cannot be found out now changes nothing: it is asked again.
    pub async fn is_good(&self, credential: &TokenRecord) -> bool {
        let now = self.kit.now();
        let (known, read_at) = {
            let checked = self.admissions.checked.lock();
            (if_fresh(checked.by_id.get(&credential.id), now), checked.revocations)
        };
        if let Some(token) = known {
            return token.is_live(now);
        }
        match self.stored(credential.id).await {
            Ok(Some(token)) => {
                let token = Arc::new(token);
                self.admissions.checked.lock().keep(read_at, now, None, &token);
                token.is_live(now)
            }
            // Stored nowhere: an issuer's, which says how long it is good, or that of callers without one.
            Ok(None) => credential.is_live(now),
            Err(_) => true,
        }
    }

    async fn stored(&self, id: TokenId) -> Result<Option<TokenRecord>, Failure> {
        let Some(hash) = self.kit.load::<TokenHash>(None, &token_id_key(id)).await? else { return Ok(None) };
        Ok(self.kit.load::<TokenRecord>(None, &token_key(&hash.value.0)).await?.map(|found| found.value))
    }
}

/// Returns what follows the word `Bearer`.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// Returns the secret in what a client sent, or names the mistake its configuration seems to have.
fn secret(bearer: &str) -> Result<&str, Rejected> {
    let invalid = |why: &str| Err(Rejected::Invalid { why: why.to_owned() });
    let text = bearer.trim();
    let text = after_scheme(text).unwrap_or(text);
    if after_scheme(text).is_some() {
        return invalid("the word `Bearer` stands there twice");
    }
    if text.is_empty() {
        return invalid("it is empty: the environment variable for it seems to be unset");
    }
    if text.contains("${") || text.starts_with('$') || (text.starts_with('%') && text.ends_with('%')) {
        return invalid("it is the name of an environment variable that the client did not replace");
    }
    if (text.starts_with('"') && text.ends_with('"')) || (text.starts_with('\'') && text.ends_with('\'')) {
        return invalid("it is in quotes");
    }
    if text.starts_with('<') && text.ends_with('>') {
        return invalid("it is a placeholder from an example");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u8) -> Arc<TokenRecord> {
        Arc::new(TokenRecord {
            id: TokenId::from_bytes([id; 16]),
            principal: PrincipalId::from_bytes([id; 16]),
            principal_name: "ana".to_owned(),
            provenance: Provenance::Agent,
            projects: Vec::new(),
            capabilities: Vec::new(),
            toolsets: Vec::new(),
            created_at: TimeMs(0),
            expires_at: None,
            revoked_at: None,
        })
    }

    #[test]
    fn what_was_read_before_a_revocation_is_not_kept_after_it() {
        let (mut fresh, ana, ben, now) = (Fresh::default(), token(1), token(2), TimeMs(10));
        let read_at = fresh.revocations;
        fresh.keep(read_at, now, Some([1; 32]), &ana);
        assert!(if_fresh(fresh.by_hash.get(&[1; 32]), now).is_some() && if_fresh(fresh.by_id.get(&ana.id), now).is_some());
        fresh.keep(read_at, now, Some([2; 32]), &ben);
        fresh.revoked(ana.id);
        assert!(!fresh.by_hash.contains_key(&[1; 32]) && !fresh.by_id.contains_key(&ana.id));
        assert!(fresh.by_hash.contains_key(&[2; 32]), "another's stays");
        fresh.keep(read_at, now, Some([1; 32]), &ana);
        assert!(!fresh.by_hash.contains_key(&[1; 32]) && !fresh.by_id.contains_key(&ana.id), "it was read before it was revoked");
        fresh.keep(fresh.revocations, now, Some([1; 32]), &ana);
        assert!(fresh.by_hash.contains_key(&[1; 32]));
        assert!(if_fresh(fresh.by_hash.get(&[1; 32]), now + FRESH_MS).is_none());
    }

    #[test]
    fn mistakes_of_client_configurations_are_named() {
        assert_eq!(secret("pmt_abc"), Ok("pmt_abc"));
        assert_eq!(secret("Bearer pmt_abc"), Ok("pmt_abc"));
        for (given, word) in [
            ("", "empty"),
            ("Bearer ", "empty"),
            ("Bearer Bearer pmt_abc", "twice"),
            ("${POINTSMAN_TOKEN}", "environment variable"),
            ("Bearer $POINTSMAN_TOKEN", "environment variable"),
            ("%POINTSMAN_TOKEN%", "environment variable"),
            ("\"pmt_abc\"", "quotes"),
            ("<token>", "placeholder"),
        ] {
            let Err(Rejected::Invalid { why }) = secret(given) else { panic!("{given} was accepted") };
            assert!(why.contains(word), "{given}: {why}");
        }
    }
}
