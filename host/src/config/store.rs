//! `[store]`: where everything stands, unless that is the data folder.

use std::path::PathBuf;

use serde::Deserialize;

/// What `store.url` is without a Redis.
pub(super) const EMBEDDED: &str = "embedded";

/// `[store]`: a Redis instead of the embedded store.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub url: String,
    /// User, where the URL names none.
    pub user: Option<String>,
    /// Password, where the URL names none.
    pub password: Option<String>,
    /// Password of the Sentinels.
    pub sentinel_password: Option<String>,
    /// The certificate that its servers are signed by; none: the system's own.
    pub root_certificate: Option<PathBuf>,
    /// What all keys begin with.
    pub prefix: String,
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password, too.
        f.debug_struct("StoreConfig").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
pub(super) struct RawStore {
    url: String,
    user: Option<String>,
    password: Option<String>,
    sentinel_password: Option<String>,
    root_certificate: Option<PathBuf>,
    prefix: String,
}

impl RawStore {
    pub(super) fn into_config(self) -> Option<StoreConfig> {
        let Self { url, user, password, sentinel_password, root_certificate, prefix } = self;
        (url != EMBEDDED).then_some(StoreConfig { url, user, password, sentinel_password, root_certificate, prefix })
    }
}
