//! `[traces]`: where traces are sent.

use serde::Deserialize;

use crate::ports::fetch::FetchUrl;

/// Where traces are sent, and how many.
#[derive(Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// Where they are taken.
    pub url: FetchUrl,
    /// Sent with each batch: names and values.
    pub headers: Vec<(String, String)>,
    /// Of a thousand traces that begin here, so many are kept; one that a caller began is kept where the caller keeps it.
    pub share_permille: u16,
}

/// What goes along may be secret.
impl std::fmt::Debug for TracesConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        let Self { url, share_permille, .. } = self;
        f.debug_struct("TracesConfig").field("url", url).field("headers", &names).field("share_permille", share_permille).finish()
    }
}

#[derive(Deserialize)]
pub(super) struct RawTraces {
    endpoint: Option<String>,
    share: f64,
    headers: Vec<String>,
}

impl RawTraces {
    pub(super) fn into_config(self) -> Option<TracesConfig> {
        let url = url(&self.endpoint?)?;
        let headers = self.headers.iter().filter_map(|text| header(text)).collect();
        Some(TracesConfig { url, headers, share_permille: super::permille(self.share) })
    }
}

/// Returns where a server takes spans (OTLP's specification, "Endpoint URLs for OTLP/HTTP").
pub(super) fn url(endpoint: &str) -> Option<FetchUrl> {
    FetchUrl::parse(&format!("{}/v1/traces", endpoint.trim_end_matches('/'))).ok()
}

/// Reads `NAME: VALUE`.
pub(super) fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let fits = !name.is_empty() && name.bytes().all(token) && value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
    fits.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
}
