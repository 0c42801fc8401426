//! Who comes in, put together from the configuration: limits, certificate, authorization server.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::adapters::http::{Entry, HttpLimits, ProtectedResource, Tls};
use crate::adapters::oauth::{OAuthIssuer, OAuthOptions};
use crate::adapters::system::{raise_open_files, wall_clock_ms};
use crate::config::{AuthConfig, Config};
use crate::ports::clock::System;
use crate::service::agents::{Access, OAuth, ScopeGrant};
use crate::service::kit::chain;

/// Milliseconds between two looks at the certificate's files.
const CERTIFICATE_LOOK_MS: u64 = 5_000;
/// Files that the host has open besides connections: store, code cache, repositories, git's pipes.
const FILES_BESIDES: u64 = 512;

/// What of the configuration is made ready before the listener's first answer.
#[derive(Default)]
pub(super) struct Gate {
    /// The certificate.
    pub(super) tls: Option<Arc<Tls>>,
    /// The authorization server.
    pub(super) issuer: Option<Arc<OAuthIssuer>>,
}

impl Gate {
    /// Reads the certificate and sets up the issuer; nothing is fetched yet.
    pub(super) fn open(config: &Config, system: &Arc<dyn System>) -> Result<Self, AppError> {
        let tls = config.server.tls.as_ref().map(|tls| Tls::open(&tls.cert, &tls.key)).transpose()?.map(Arc::new);
        let issuer = config.auth.as_ref().map(|auth| OAuthIssuer::new(options(auth), Arc::clone(system), wall_clock_ms)).transpose()?;
        Ok(Self { tls, issuer: issuer.map(Arc::new) })
    }

    /// Returns the rules by which the services let callers in.
    pub(super) fn access(&self, config: &Config) -> Access {
        let oauth = config.auth.as_ref().zip(self.issuer.as_ref()).map(|(auth, issuer)| OAuth {
            issuer: Arc::clone(issuer) as _,
            audience: auth.audience.clone(),
            required_scopes: auth.required_scopes.clone(),
            grants: auth
                .grants
                .iter()
                .map(|grant| ScopeGrant { scope: grant.scope.clone(), projects: grant.projects.clone(), toolsets: grant.toolsets.clone() })
                .collect(),
        });
        Access { anonymous: config.server.anonymous, calls: config.limits.calls, oauth }
    }

    /// Returns how clients come in, for a host that they reach at `public_url`.
    pub(super) fn entry(&self, config: &Config, public_url: &str) -> Entry {
        let resource = config.auth.as_ref().map(|auth| {
            let mut scopes_supported = auth.required_scopes.clone();
            let granted = auth.grants.iter().map(|grant| grant.scope.clone());
            scopes_supported.extend(granted.filter(|scope| !auth.required_scopes.contains(scope)));
            ProtectedResource { public_url: public_url.to_owned(), issuer: auth.issuer.clone(), scopes_supported }
        });
        Entry { tls: self.tls.clone(), resource }
    }
}

fn options(auth: &AuthConfig) -> OAuthOptions {
    OAuthOptions {
        issuer: auth.issuer.clone(),
        jwks_uri: auth.jwks_uri.clone(),
        leeway_s: auth.leeway_s,
        refresh_min_ms: auth.keys_interval_ms,
    }
}

/// Returns the server's limits, having made room for as many connections.
pub(super) fn limits(config: &Config) -> HttpLimits {
    let server = &config.server;
    let wanted = u64::try_from(server.connections_max).unwrap_or(u64::MAX).saturating_add(FILES_BESIDES);
    match raise_open_files() {
        Ok(Some(files_max)) if files_max < wanted => {
            tracing::warn!(files_max, wanted, "the system lets this process open too few files for `server.connections_max`");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the number of open files could not be raised"),
    }
    HttpLimits {
        connections_max: server.connections_max,
        connections_per_peer_max: server.connections_per_peer_max,
        header_read_ms: server.header_timeout_ms,
        body_read_ms: server.body_timeout_ms,
        write_ms: server.write_timeout_ms,
        body_bytes_max: server.body_bytes_max,
        json_depth_max: config.limits.json_depth_max,
        failures: config.limits.failures,
        drain_ms: server.drain_ms,
        ..HttpLimits::default()
    }
}

/// Reads the certificate again when its files change, and on each hang-up signal.
pub(super) async fn keep_certificate(tls: Arc<Tls>, mut hang_up: Signal, stop: CancellationToken) {
    loop {
        let is_asked = tokio::select! {
            () = stop.cancelled() => return,
            signalled = hang_up.recv() => signalled.is_some(),
            () = tokio::time::sleep(Duration::from_millis(CERTIFICATE_LOOK_MS)) => false,
        };
        if !is_asked && !tls.has_changed() {
            continue;
        }
        // A few small files, rarely: not worth a thread of its own.
        match tls.reload() {
            Ok(()) => tracing::info!("the certificate was read again"),
            Err(error) => tracing::error!(error = chain(&error), "the new certificate cannot be used; the last one stays"),
        }
    }
}
