//! Access tokens of an OAuth 2.1 authorization server: signed JWTs (RFC 9068), checked by the keys it publishes.
//!
//! Owns the keys, their discovery (RFC 8414, OpenID Connect Discovery) and their rotation. Must not know what a scope opens.
//!
//! **Invariants:** a token is good only by a key the issuer published, for its issuer, for an audience that was asked for,
//! and within its time; whoever sends unknown key ids makes the host ask the issuer once per interval, not once per call.

mod fetch;
mod keys;
mod token;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pointsman_core::time::TimeMs;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::fetch::{FetchError, Fetcher, PlainHttp};
use self::keys::KeySet;
use self::token::{Expected, PublicKey, Token, TokenError};
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
    now: fn() -> TimeMs,
    keys: ArcSwap<KeySet>,
    asked: tokio::sync::Mutex<Asked>,
    checked: Mutex<HashMap<[u8; 32], (Instant, Grant)>>,
}

impl OAuthIssuer {
    /// Returns the issuer; nothing is fetched yet. `now` is the wall clock, by which issuers judge too.
    ///
    /// # Errors
    /// [`OAuthSetupError`].
    pub fn new(options: OAuthOptions, system: Arc<dyn System>, now: fn() -> TimeMs) -> Result<Self, OAuthSetupError> {
        let plain = if options.issuer.starts_with("http://") { PlainHttp::Loopback } else { PlainHttp::Never };
        let fetcher = Fetcher::new(plain)?;
        let (keys, asked, checked) = (ArcSwap::default(), tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { options, fetcher, system, now, keys, asked, checked })
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
    async fn key(&self, token: &Token<'_>) -> Result<PublicKey, GrantError> {
        let find = || self.keys.load().find(token.key_id(), token.algorithm());
        if let Some(key) = find() {
            return Ok(key);
        }
        let mut asked = self.asked.lock().await;
        // Whoever held the lock may have fetched it.
        if let Some(key) = find() {
            return Ok(key);
        }
        let passed_ms = asked.at.map(|at| self.system.instant().saturating_duration_since(at).as_millis());
        if passed_ms.is_none_or(|ms| ms >= u128::from(self.options.refresh_min_ms)) {
            self.refresh(&mut asked).await;
        }
        match find() {
            Some(key) => Ok(key),
            None if asked.failed => Err(GrantError::Unavailable { retry_after_ms: RETRY_MS }),
            None => Err(invalid("no key of the authorization server signed it")),
        }
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Grant> {
        let checked = self.checked.lock();
        let (at, grant) = checked.get(hash)?;
        let is_fresh = self.system.instant().saturating_duration_since(*at).as_millis() < CHECKED_MS;
        (is_fresh && (self.now() - self.leeway_ms()).0 < grant.expires_at_ms).then(|| grant.clone())
    }

    fn now(&self) -> TimeMs {
        (self.now)()
    }

    fn leeway_ms(&self) -> u64 {
        self.options.leeway_s * 1_000
    }

    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Grant, GrantError> {
        let token = Token::read(token)?;
        let key = self.key(&token).await?;
        let expected = Expected { issuer: &self.options.issuer, audiences, now: self.now(), leeway_ms: self.leeway_ms() };
        Ok(token.check(&key, expected)?)
    }
}

impl From<TokenError> for GrantError {
    fn from(error: TokenError) -> Self {
        Self::Invalid { why: error.to_string() }
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
            return if is_meant { Ok(grant) } else { Err(TokenError::AnotherAudience { expected: audiences.to_vec() }.into()) };
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
}
