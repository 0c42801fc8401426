//! Access tokens of an OAuth 2.1 authorization server: signed JWTs (RFC 9068), checked by the keys it publishes.
//!
//! Owns the keys, their discovery (RFC 8414, OpenID Connect Discovery) and their rotation. Must not know what a scope opens.
//!
//! **Invariants:** a token is good only by a key the issuer published, for its issuer, for an audience that was asked for,
//! and within its time; whoever sends unknown key ids makes the host ask the issuer once per interval, not once per call, nor once
//! per hang-up; a key that the issuer no longer publishes is good for nothing once that is known.

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
    #[error("{url} holds no list of keys")]
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

/// What is known of an issuer.
struct Known {
    options: OAuthOptions,
    fetcher: Fetcher,
    system: Arc<dyn System>,
    keys: ArcSwap<KeySet>,
    asked: Arc<tokio::sync::Mutex<Asked>>,
    checked: Mutex<HashMap<[u8; 32], (Instant, Grant)>>,
}

/// The tokens of one issuer.
pub struct OAuthIssuer {
    known: Arc<Known>,
    now: fn() -> TimeMs,
}

impl OAuthIssuer {
    /// Returns the issuer; nothing is fetched yet. `now` is the wall clock, by which issuers judge too.
    ///
    /// # Errors
    /// [`OAuthSetupError`].
    pub fn new(options: OAuthOptions, system: Arc<dyn System>, now: fn() -> TimeMs) -> Result<Self, OAuthSetupError> {
        // What is asked first is what the operator wrote; nothing that it names may be less safe.
        let first = options.jwks_uri.as_deref().unwrap_or(&options.issuer);
        let plain = if first.starts_with("http://") { PlainHttp::Loopback } else { PlainHttp::Never };
        let fetcher = Fetcher::new(plain)?;
        let (keys, asked, checked) = (ArcSwap::default(), Arc::default(), Mutex::default());
        Ok(Self { known: Arc::new(Known { options, fetcher, system, keys, asked, checked }), now })
    }

    /// Fetches the keys now, and again from time to time, until `stop`.
    pub async fn keep_keys(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let failed = {
                let mut asked = self.known.asked.lock().await;
                self.known.refresh(&mut asked).await;
                asked.failed
            };
            let wait_ms = if failed { RETRY_MS } else { REFRESH_MS };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn now(&self) -> TimeMs {
        (self.now)()
    }
}

impl Known {
    async fn refresh(&self, asked: &mut Asked) {
        let fetched = self.fetch_keys().await;
        *asked = Asked { at: Some(self.system.instant()), failed: fetched.is_err() };
        match fetched {
            Ok(keys) => {
                let mut checked = self.checked.lock();
                if keys.is_empty() {
                    tracing::warn!(issuer = self.options.issuer, "the authorization server publishes no key for RS256, ES256 or EdDSA");
                }
                self.keys.store(Arc::new(keys));
                // What was checked by a key that is gone is checked again.
                checked.clear();
            }
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
        KeySet::read(&self.fetcher.json(&url).await?).ok_or(KeysError::NoKeys { url })
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
    async fn key(self: &Arc<Self>, token: &Token<'_>) -> Result<PublicKey, GrantError> {
        if let Some(key) = self.find(token) {
            return Ok(key);
        }
        let mut asked = Arc::clone(&self.asked).lock_owned().await;
        // Whoever held the lock may have fetched it.
        if let Some(key) = self.find(token) {
            return Ok(key);
        }
        let unavailable = || GrantError::Unavailable { retry_after_ms: RETRY_MS };
        let passed_ms = asked.at.map(|at| self.system.instant().saturating_duration_since(at).as_millis());
        if passed_ms.is_none_or(|ms| ms >= u128::from(self.options.refresh_min_ms)) {
            let known = Arc::clone(self);
            // The fetch belongs to no request: who hangs up while it lasts would else make the next one ask again.
            let fetching = tokio::spawn(async move {
                known.refresh(&mut asked).await;
                asked
            });
            asked = fetching.await.map_err(|_| unavailable())?;
        }
        match self.find(token) {
            Some(key) => Ok(key),
            None if asked.failed || self.keys.load().is_empty() => Err(unavailable()),
            None => Err(invalid("no key of the authorization server signed it")),
        }
    }

    fn find(&self, token: &Token<'_>) -> Option<PublicKey> {
        self.keys.load().find(token.key_id(), token.algorithm())
    }

    fn remembered(&self, hash: &[u8; 32], now: TimeMs) -> Option<Grant> {
        let checked = self.checked.lock();
        let (at, grant) = checked.get(hash)?;
        let is_fresh = self.system.instant().saturating_duration_since(*at).as_millis() < CHECKED_MS;
        (is_fresh && now.0 < grant.expires_at_ms).then(|| grant.clone())
    }

    /// Remembers a grant, unless the key it was checked by is gone meanwhile.
    fn remember(&self, hash: [u8; 32], token: &Token<'_>, key: &PublicKey, grant: &Grant) {
        let mut checked = self.checked.lock();
        if self.find(token).as_ref() != Some(key) {
            return;
        }
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(hash, (self.system.instant(), grant.clone()));
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
        &self.known.options.issuer
    }

    async fn check(&self, token: &str, audiences: &[String]) -> Result<Grant, GrantError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(grant) = self.known.remembered(&hash, self.now()) {
            let is_meant = grant.audiences.iter().any(|audience| audiences.contains(audience));
            return if is_meant { Ok(grant) } else { Err(TokenError::AnotherAudience { expected: audiences.to_vec() }.into()) };
        }
        let token = Token::read(token)?;
        let key = self.known.key(&token).await?;
        let OAuthOptions { issuer, leeway_s, .. } = &self.known.options;
        let grant = token.check(&key, Expected { issuer, audiences, now: self.now(), leeway_ms: leeway_s * 1_000 })?;
        self.known.remember(hash, &token, &key, &grant);
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
mod tests;
