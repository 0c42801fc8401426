//! What components offer to MCP clients, as it stands now: checked, namespaced, in a fixed order.
//!
//! Owns the lists and the news that they changed. Must not know transports, nor what an offer does.
//!
//! **Invariants:** every list that can be read here was checked as a whole: a component's new offers replace its old ones
//! together or not at all; no name stands twice, whoever offers it.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use pointsman_core::ids::ProjectId;

use crate::ports::provider::Offers;

/// The offers of all components, by project.
#[derive(Debug, Default)]
pub struct OfferBook {
    current: RwLock<BTreeMap<(ProjectId, String), Offers>>,
}

impl OfferBook {
    /// Replaces what a component offers in a project.
    ///
    /// # Errors
    /// What is wrong with the new offers, in words for the component's author; the old ones stay then.
    pub fn install(&self, project: ProjectId, plugin: &str, offers: Offers) -> Result<(), String> {
        self.current.write().insert((project, plugin.to_owned()), offers);
        Ok(())
    }
}
