//! `[context]`: who may do what with which documents, what becomes of their versions, how much is kept.

use pointsman_core::context::rules::{Rule, Rules, Stale, Who};
use pointsman_core::path_glob::PathGlob;
use serde::Deserialize;

use crate::service::settings::ContextSettings;

#[derive(Deserialize)]
pub(super) struct RawContext {
    shared: Vec<PathGlob>,
    quota_mib: u64,
    documents_max: u64,
    #[serde(default)]
    rule: Vec<RawRule>,
    #[serde(default)]
    reconciler: Vec<RawReconciler>,
}

#[derive(Deserialize)]
struct RawRule {
    keys: Vec<PathGlob>,
    #[serde(default)]
    projects: Vec<String>,
    read: Option<Vec<Who>>,
    write: Option<Vec<Who>>,
    resolve: Option<Vec<Who>>,
    administer: Option<Vec<Who>>,
    owners: Option<Vec<Who>>,
    stale: Option<Stale>,
    versions_max: Option<u64>,
    expires_s: Option<u64>,
}

/// A `[[context.reconciler]]`.
#[derive(Deserialize)]
pub(super) struct RawReconciler {
    #[serde(default)]
    pub(super) keys: Vec<PathGlob>,
    pub(super) plugin: String,
    #[serde(default)]
    pub(super) projects: Vec<String>,
}

impl RawContext {
    /// Returns the reconcilers in their order, and the rest.
    pub(super) fn into_parts(self) -> (Vec<RawReconciler>, ContextSettings) {
        let Self { shared, quota_mib, documents_max, rule, reconciler } = self;
        let rules = Rules { shared, rules: rule.into_iter().map(RawRule::into_rule).collect() };
        (reconciler, ContextSettings { rules, bytes_max: quota_mib << 20, documents_max })
    }
}

impl RawRule {
    fn into_rule(self) -> Rule {
        let Self { keys, projects, read, write, resolve, administer, owners, stale, versions_max, expires_s } = self;
        let expires_ms = expires_s.map(|seconds| seconds * 1_000);
        Rule { keys, projects, read, write, resolve, administer, owners, stale, versions_max, expires_ms }
    }
}
