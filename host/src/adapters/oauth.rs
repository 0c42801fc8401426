//! Access tokens of an OAuth 2.1 authorization server: signed JWTs (RFC 9068), checked by the keys it publishes.
//!
//! Owns the keys, their discovery (RFC 8414, OpenID Connect Discovery) and their rotation. Must not know what a scope opens.
//!
//! **Invariants:** a token is good only by a key the issuer published, for its issuer, for an audience that was asked for,
//! and within its time; whoever sends unknown key ids makes the host ask the issuer once per interval, not once per call.

mod fetch;
mod keys;
mod signature;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, get_current_timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::fetch::{FetchError, Fetcher, PlainHttp};
use self::keys::{Key, KeySet, Wanted};
use crate::ports::clock::System;
use crate::ports::issuer::{Grant, GrantError, Issuer};

/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Milliseconds that a checked token is believed without looking at its signature again.
const CHECKED_MS: u128 = 10_000;
/// Checked tokens that are remembered; beyond that all are checked again.
const CHECKED_MAX: usize = 10_000;
/// Milliseconds after which keys are fetched again although nobody asked for another one.
const REFRESH_MS: u64 = 15 * 60 * 1_000;
/// Milliseconds until the next try when keys could not be fetched.
const RETRY_MS: u64 = 10_000;

/// Which authorization server, and how its tokens are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthOptions {
    /// Its issuer identifier, exactly as its tokens name it.
    pub issuer: String,
    /// Where its keys are; none: its metadata says so.
    pub jwks_uri: Option<String>,
    /// Seconds that the clocks may differ.
    pub leeway_s: u64,
    /// Milliseconds between two fetches that tokens with unknown keys cause.
    pub refresh_min_ms: u64,
}

/// Why keys were not had.
#[derive(Debug, Error)]
enum KeysError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{url} is the metadata of `{found}`, not of `{expected}`")]
    AnotherIssuer { url: String, found: String, expected: String },
    #[error("{url} names no `jwks_uri`")]
    NoKeysUri { url: String },
    #[error("{url} holds no key for RS256, ES256 or EdDSA")]
    NoKeys { url: String },
}

/// Why no verifier can be made.
#[derive(Debug, Error)]
#[error("TLS to the authorization server cannot be set up")]
pub struct OAuthSetupError(#[from] rustls::Error);

/// What of a token is looked at. RFC 9068, section 2.2; `scp` and `azp` are what some servers write instead.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    exp: Option<f64>,
    aud: Option<OneOrMany>,
    scope: Option<OneOrMany>,
    scp: Option<OneOrMany>,
    client_id: Option<String>,
    azp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl Claims {
    fn into_grant(self) -> Grant {
        let scopes = [self.scope, self.scp].into_iter().flatten().flat_map(OneOrMany::into_vec);
        let scopes = scopes.flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
        #[expect(clippy::cast_possible_truncation, reason = "a float that is no time saturates, and is checked before")]
        let expires_at_ms = (self.exp.unwrap_or_default() * 1_000.0) as i64;
        Grant {
            subject: self.sub.unwrap_or_default(),
            client: self.client_id.or(self.azp),
            scopes,
            audiences: self.aud.map(OneOrMany::into_vec).unwrap_or_default(),
            expires_at_ms,
        }
    }
}

/// When keys were asked for last, and how that went.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    failed: bool,
}

/// The tokens of one issuer.
pub struct OAuthIssuer {
    options: OAuthOptions,
    fetcher: Fetcher,
    system: Arc<dyn System>,
    keys: ArcSwap<KeySet>,
    asked: tokio::sync::Mutex<Asked>,
    checked: Mutex<HashMap<[u8; 32], (Instant, Grant)>>,
}

impl OAuthIssuer {
    /// Returns the issuer; nothing is fetched yet.
    ///
    /// # Errors
    /// [`OAuthSetupError`].
    pub fn new(options: OAuthOptions, system: Arc<dyn System>) -> Result<Self, OAuthSetupError> {
        signature::install();
        let plain = if options.issuer.starts_with("http://") { PlainHttp::Loopback } else { PlainHttp::Never };
        let fetcher = Fetcher::new(plain)?;
        Ok(Self { options, fetcher, system, keys: ArcSwap::default(), asked: tokio::sync::Mutex::default(), checked: Mutex::default() })
    }

    /// Fetches the keys now, and again from time to time, until `stop`.
    pub async fn keep_keys(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let failed = {
                let mut asked = self.asked.lock().await;
                self.refresh(&mut asked).await;
                asked.failed
            };
            let wait_ms = if failed { RETRY_MS } else { REFRESH_MS };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn refresh(&self, asked: &mut Asked) {
        let fetched = self.fetch_keys().await;
        *asked = Asked { at: Some(self.system.instant()), failed: fetched.is_err() };
        match fetched {
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(issuer = self.options.issuer, %error, cause, "the authorization server's keys could not be fetched");
            }
        }
    }

    async fn fetch_keys(&self) -> Result<KeySet, KeysError> {
        let url = match &self.options.jwks_uri {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let keys = KeySet::read(&self.fetcher.json(&url).await?);
        if keys.is_empty() { Err(KeysError::NoKeys { url }) } else { Ok(keys) }
    }

    /// Returns where the keys are, by the first metadata document that is there.
    async fn discover(&self) -> Result<String, KeysError> {
        let issuer = &self.options.issuer;
        let mut last = FetchError::BadUrl { url: issuer.clone() };
        for url in metadata_urls(issuer) {
            let document = match self.fetcher.json(&url).await {
                Ok(document) => document,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            // RFC 8414, section 3.3.
            let found = document["issuer"].as_str().unwrap_or_default();
            if found != issuer {
                return Err(KeysError::AnotherIssuer { url, found: found.to_owned(), expected: issuer.clone() });
            }
            return document["jwks_uri"].as_str().map(str::to_owned).ok_or(KeysError::NoKeysUri { url });
        }
        Err(last.into())
    }

    /// Returns the key a token asks for; one that is not known is looked for at the issuer, at most once per interval.
    async fn key(&self, wanted: &Wanted<'_>) -> Result<Key, GrantError> {
        if let Some(key) = self.keys.load().find(wanted) {
            return Ok(key.clone());
        }
        let mut asked = self.asked.lock().await;
        // Whoever held the lock may have fetched it.
        if let Some(key) = self.keys.load().find(wanted) {
            return Ok(key.clone());
        }
        let passed_ms = asked.at.map(|at| self.system.instant().saturating_duration_since(at).as_millis());
        if passed_ms.is_none_or(|ms| ms >= u128::from(self.options.refresh_min_ms)) {
            self.refresh(&mut asked).await;
        }
        match self.keys.load().find(wanted) {
            Some(key) => Ok(key.clone()),
            None if asked.failed => Err(GrantError::Unavailable { retry_after_ms: RETRY_MS }),
            None => Err(invalid("no key of the authorization server signed it")),
        }
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Grant> {
        let checked = self.checked.lock();
        let (at, grant) = checked.get(hash)?;
        let is_fresh = self.system.instant().saturating_duration_since(*at).as_millis() < CHECKED_MS;
        let ends_s = u64::try_from(grant.expires_at_ms / 1_000).unwrap_or(0).saturating_add(self.options.leeway_s);
        (is_fresh && get_current_timestamp() <= ends_s).then(|| grant.clone())
    }

    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Grant, GrantError> {
        let header = decode_header(token).map_err(|_| invalid("its header cannot be read, or its algorithm is not known"))?;
        check_header(&header)?;
        let key = self.key(&Wanted { id: header.kid.as_deref(), algorithm: header.alg }).await?;
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.options.leeway_s;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(audiences);
        let decoded = decode::<Claims>(token, &key.key, &validation).map_err(|error| refused(error.kind(), audiences))?;
        // The library also takes a list of issuers, which no standard has.
        if decoded.claims.iss.as_ref() != Some(&self.options.issuer) {
            return Err(invalid("another authorization server issued it"));
        }
        match &decoded.claims.sub {
            Some(subject) if !subject.is_empty() => Ok(decoded.claims.into_grant()),
            Some(_) | None => Err(invalid("it has no `sub`")),
        }
    }
}

#[async_trait]
impl Issuer for OAuthIssuer {
    fn id(&self) -> &str {
        &self.options.issuer
    }

    async fn check(&self, token: &str, audiences: &[String]) -> Result<Grant, GrantError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(grant) = self.remembered(&hash) {
            let is_meant = grant.audiences.iter().any(|audience| audiences.contains(audience));
            return if is_meant { Ok(grant) } else { Err(not_meant(audiences)) };
        }
        let grant = self.verify(token, audiences).await?;
        let mut checked = self.checked.lock();
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(hash, (self.system.instant(), grant.clone()));
        Ok(grant)
    }
}

fn invalid(why: &str) -> GrantError {
    GrantError::Invalid { why: why.to_owned() }
}

fn not_meant(audiences: &[String]) -> GrantError {
    GrantError::Invalid { why: format!("it is not meant for this endpoint: its audience is not {}", audiences.join(" or ")) }
}

fn check_header(header: &Header) -> Result<(), GrantError> {
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
        return Err(invalid("it is not signed by RS256, ES256 or EdDSA"));
    }
    // RFC 7515, section 4.1.11: what must be understood and is not is a reason to refuse.
    if header.crit.is_some() {
        return Err(invalid("its header has extensions that are not known here"));
    }
    // RFC 9068, section 4; `JWT` is what many servers still write.
    let form = header.typ.as_deref().map(|form| form.rsplit('/').next().unwrap_or(form));
    if form.is_some_and(|form| !form.eq_ignore_ascii_case("at+jwt") && !form.eq_ignore_ascii_case("jwt")) {
        return Err(invalid("it is a signed token for another use than access"));
    }
    Ok(())
}

fn refused(kind: &ErrorKind, audiences: &[String]) -> GrantError {
    let why = if matches!(kind, ErrorKind::ExpiredSignature) {
        "it has expired"
    } else if matches!(kind, ErrorKind::ImmatureSignature) {
        "it is not valid yet"
    } else if matches!(kind, ErrorKind::InvalidIssuer) {
        "another authorization server issued it"
    } else if matches!(kind, ErrorKind::InvalidSignature) {
        "its signature is wrong"
    } else if matches!(kind, ErrorKind::InvalidAudience) {
        return not_meant(audiences);
    } else if let ErrorKind::MissingRequiredClaim(claim) = kind {
        return GrantError::Invalid { why: format!("it has no `{claim}`") };
    } else {
        "its claims cannot be read"
    };
    invalid(why)
}

/// Returns where an issuer's metadata may be, in the order of MCP's authorization server discovery.
fn metadata_urls(issuer: &str) -> Vec<String> {
    let bare = issuer.trim_end_matches('/');
    let path_at = bare.find("://").and_then(|at| bare[at + 3..].find('/').map(|slash| at + 3 + slash)).unwrap_or(bare.len());
    let (origin, path) = bare.split_at(path_at);
    let mut urls =
        vec![format!("{origin}/.well-known/oauth-authorization-server{path}"), format!("{origin}/.well-known/openid-configuration{path}")];
    if !path.is_empty() {
        urls.push(format!("{bare}/.well-known/openid-configuration"));
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn metadata_is_looked_for_where_the_standards_put_it() {
        assert_eq!(
            metadata_urls("https://as.example.org"),
            ["https://as.example.org/.well-known/oauth-authorization-server", "https://as.example.org/.well-known/openid-configuration"]
        );
        assert_eq!(metadata_urls("https://as.example.org/"), metadata_urls("https://as.example.org"));
        assert_eq!(
            metadata_urls("https://as.example.org/t/1"),
            [
                "https://as.example.org/.well-known/oauth-authorization-server/t/1",
                "https://as.example.org/.well-known/openid-configuration/t/1",
                "https://as.example.org/t/1/.well-known/openid-configuration"
            ]
        );
    }

    #[test]
    fn scopes_are_read_in_each_form() {
        let grant = |claims: Value| serde_json::from_value::<Claims>(claims).expect("claims").into_grant();
        let base = serde_json::json!({"sub": "ana", "exp": 1_790_000_000.5, "aud": ["a", "b"]});
        let with = |name: &str, value: Value| {
            let mut claims = base.clone();
            claims[name] = value;
            grant(claims)
        };
        assert_eq!(grant(base.clone()).scopes, Vec::<String>::new());
        assert_eq!(grant(base.clone()).audiences, ["a", "b"]);
        assert_eq!(grant(base.clone()).expires_at_ms, 1_790_000_000_500);
        assert_eq!(with("scope", "x  y".into()).scopes, ["x", "y"]);
        assert_eq!(with("scp", serde_json::json!(["x", "y"])).scopes, ["x", "y"]);
        assert_eq!(with("azp", "app".into()).client.as_deref(), Some("app"));
    }

    #[test]
    fn headers_that_should_not_be_are_refused() {
        let mut header = Header::new(Algorithm::RS256);
        assert!(check_header(&header).is_ok());
        header.typ = Some("application/at+jwt".to_owned());
        assert!(check_header(&header).is_ok());
        header.typ = Some("logout+jwt".to_owned());
        assert!(check_header(&header).is_err());
        header.typ = None;
        header.crit = Some(vec!["b64".to_owned()]);
        assert!(check_header(&header).is_err());
        for algorithm in [Algorithm::HS256, Algorithm::RS512, Algorithm::PS256] {
            assert!(check_header(&Header::new(algorithm)).is_err(), "{algorithm:?}");
        }
        assert!(decode_header("eyJhbGciOiJub25lIn0.e30.").is_err(), "`none` is no algorithm");
    }
}
