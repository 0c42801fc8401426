//! Agents and providers, governed as those who only decide are: by a breaker each, and counted.
//!
//! **Invariant:** who takes notice of a call that is over, or of an agent's first offers, is asked whatever its breaker says.

use std::sync::Arc;

use async_trait::async_trait;

use super::Governor;
use crate::ports::lookups::Lookups;
use crate::ports::plugins::PluginFailure;
use crate::ports::provider::{Emit, Offers, ProviderCall, ProviderContext, ProviderOutcome, Providers};
use crate::ports::resident::{Action, ResidentDescription, ResidentEvent, ResidentMemory, Residents};

/// Providers, governed.
pub struct GovernedProviders {
    governor: Arc<Governor>,
    inner: Arc<dyn Providers>,
}

/// Agents that live in the host, governed.
pub struct GovernedResidents {
    governor: Arc<Governor>,
    inner: Arc<dyn Residents>,
}

impl GovernedProviders {
    /// Puts providers under a governor.
    #[must_use]
    pub fn new(governor: Arc<Governor>, inner: Arc<dyn Providers>) -> Self {
        Self { governor, inner }
    }
}

impl GovernedResidents {
    /// Puts agents under a governor.
    #[must_use]
    pub fn new(governor: Arc<Governor>, inner: Arc<dyn Residents>) -> Self {
        Self { governor, inner }
    }
}

#[async_trait]
impl Providers for GovernedProviders {
    fn providers(&self) -> Vec<String> {
        self.inner.providers()
    }

    async fn initial_offers(&self, plugin: &str) -> Result<Offers, PluginFailure> {
        self.inner.initial_offers(plugin).await
    }

    async fn provide(
        &self,
        plugin: &str,
        context: ProviderContext,
        call: ProviderCall,
        emit: Arc<dyn Emit>,
        lookups: Arc<dyn Lookups>,
    ) -> Result<ProviderOutcome, PluginFailure> {
        let read = Arc::clone(&lookups);
        let call = self.inner.provide(plugin, context, call, emit, lookups);
        self.governor.guarded(plugin, "provide", call, || read.is_broken()).await
    }

    async fn complete(&self, plugin: &str, reference: String, argument: String, typed: String) -> Result<Vec<String>, PluginFailure> {
        self.governor.guarded(plugin, "complete", self.inner.complete(plugin, reference, argument, typed), || false).await
    }

    async fn cancelled(&self, plugin: &str, call_id: String, state: Vec<u8>) -> Result<(), PluginFailure> {
        self.inner.cancelled(plugin, call_id, state).await
    }
}

#[async_trait]
impl Residents for GovernedResidents {
    fn residents(&self) -> Vec<(String, ResidentDescription)> {
        self.inner.residents()
    }

    async fn handle(
        &self,
        plugin: &str,
        event: ResidentEvent,
        memory: Arc<dyn ResidentMemory>,
    ) -> Result<Result<Vec<Action>, String>, PluginFailure> {
        let read = Arc::clone(&memory);
        self.governor.guarded(plugin, "handle", self.inner.handle(plugin, event, memory), || read.is_broken()).await
    }
}
