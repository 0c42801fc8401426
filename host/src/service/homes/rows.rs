//! What stands about hosts and homes in the hosts' own space of the store.

use pointsman_core::ids::ProjectId;
use pointsman_core::time::TimeMs;
use pointsman_core::value::Stored;
use serde::{Deserialize, Serialize};

/// Where leases stand, in the hosts' own space.
pub(super) const HOSTS: &str = "host/";
/// Where projects' homes stand, there too.
pub(super) const HOMES: &str = "home/";
/// Where it stands which keys the hosts of this store have.
pub(super) const KEYS: &str = "host-keys";

/// A host that serves the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// Its name, which it keeps over restarts.
    pub(super) host: String,
    /// Of this run of it.
    pub(super) boot: String,
    /// Where siblings reach it.
    pub(super) url: String,
    /// The volume that its repositories are on.
    pub(super) volume: String,
    /// Until when, unless it is renewed.
    pub(super) until: TimeMs,
}

impl Stored for Lease {
    const NAME: &'static str = "host's lease";
}

/// Where a project's repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Home {
    /// Which host has it.
    pub(super) host: String,
    /// Rises with each host that takes it.
    pub(super) epoch: u64,
    /// The volume it is on.
    pub(super) volume: String,
    /// Since when.
    pub(super) since: TimeMs,
}

impl Stored for Home {
    const NAME: &'static str = "project's home";
}

/// Which keys the hosts of a store have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostKeys {
    /// What only the holder of the root key can say.
    pub(super) fingerprint: String,
    /// Verifies receipts, in hexadecimal.
    pub(super) receipts: String,
}

impl Stored for HostKeys {
    const NAME: &'static str = "fingerprint of the hosts' keys";
}

pub(super) fn host_key(host: &str) -> String {
    format!("{HOSTS}{host}")
}

pub(super) fn home_key(project: ProjectId) -> String {
    format!("{HOMES}{project}")
}
