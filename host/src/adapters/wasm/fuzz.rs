//! What a fuzzer calls: any bytes, where a component's bytes are read before anything trusts them. Panics when a promise is
//! broken.
//!
//! Not an interface: for the tests, and for whoever lets a fuzzer run longer than they do.

use std::collections::BTreeSet;

use wit_parser::WorldItem;
use wit_parser::decoding::DecodedWasm;

use super::admission::{self, Shape};
use super::pool::Guest;
use super::{agent, bounds, merger, policy, provider, reconciler, router, workflow};
use crate::ports::plugins::Grant;

/// The shape of every world.
const SHAPES: [Shape; 8] = [
    router::bindings::Router::SHAPE,
    merger::bindings::Merger::SHAPE,
    reconciler::bindings::Reconciler::SHAPE,
    workflow::bindings::Workflow::SHAPE,
    policy::bindings::Policy::SHAPE,
    provider::bindings::McpProvider::SHAPE,
    agent::SHAPE,
    agent::SHAPE_WITH_PROVIDER,
];

/// A component: what is admitted to a world imports nothing that the world does not give, by whoever reads it. Returns
/// whether some world admits it, and it would be compiled.
pub fn admission(component: &[u8]) -> bool {
    let cheap = bounds::check(component).is_ok();
    let fits: Vec<&Shape> = SHAPES.iter().filter(|shape| admission::admit(component, shape, Grant::Given).is_ok()).collect();
    if fits.is_empty() {
        return false;
    }
    // Another reader, which also refuses what does not validate. It gives up by a panic now and then; the host never asks it.
    let decoded = std::panic::catch_unwind(|| wit_parser::decoding::decode(component));
    if let Ok(Ok(DecodedWasm::Component(resolve, world))) = decoded {
        let imports = resolve.worlds[world].imports.iter().filter(|(_, item)| !matches!(item, WorldItem::Type { .. }));
        let imports: BTreeSet<String> = imports.map(|(key, _)| resolve.name_world_key(key)).collect();
        for shape in fits {
            let given = |name: &String| shape.imports.iter().chain(&admission::OF_ALL_WORLDS).any(|own| admission::same(own, name));
            let foreign = imports.iter().find(|name| !given(name));
            assert_eq!(foreign, None, "the world `{}` admits it", shape.world);
        }
    }
    cheap
}
