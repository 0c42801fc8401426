//! The router `nop-router`: no opinion, at once. Benches measure with it what a call costs before any rule.

use pointsman_sdk::router::{Candidates, Message, Router, Verdict};
use pointsman_sdk::{NoConfig, Plugin};

/// The router.
#[derive(Debug, Clone, Copy)]
pub struct NopRouter;

impl Plugin for NopRouter {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Router for NopRouter {
    fn route(&self, _: &Message<'_>, _: &Candidates<'_>) -> Verdict {
        Verdict::pass("")
    }
}

pointsman_sdk::export_router!(NopRouter);
