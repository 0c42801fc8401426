//! The engines: what components may use, and how their instances are laid out in memory.
//!
//! There are two: a tight one for compiled guests, and a roomy one, made when the first such component is loaded, for those that
//! bring an interpreter along. Owns the settings and nothing else. **Invariant:** what is compiled for one layout is the same for
//! every component of a process, so that one compatibility hash stands for its part of the code cache.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::ports::plugins::Meter;

/// The most one memory may grow to, whatever a binding allows.
pub(super) const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Address space of one memory: with the whole 32-bit range reserved, compiled code checks no bounds.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// Unmapped space behind each memory, so that an access with a constant offset needs no check either.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// Components from this size on bring an interpreter along, whatever their modules need.
const INTERPRETER_BYTES_MIN: usize = 4 << 20;

/// What kind of guests an engine is laid out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Compiled ones: a few hundred kilobytes, a memory, two tables.
    Compiled,
    /// Those of JavaScript and Python: megabytes, many modules, large tables, deep stacks.
    Interpreted,
}

/// The sizes of a layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Component instances alive at once, over all plugins.
    instances: u32,
    /// Core instances alive at once: a component has a few core modules.
    core_instances: u32,
    memories: u32,
    tables: u32,
    /// What one component may have of each.
    core_instances_each: u32,
    memories_each: u32,
    tables_each: u32,
    /// Elements of all tables of an instance.
    pub(super) table_elements: usize,
    /// Stack of a call. It runs on a thread of the host, whose stack is 2 MiB.
    stack_bytes: usize,
    /// Slots of unused memory that keep their page tables.
    unused_warm_slots: u32,
}

/// `wit-component` makes three modules of a guest's one, with a memory and two tables.
const COMPILED: Sizes = Sizes {
    instances: 256,
    core_instances: 512,
    memories: 256,
    tables: 512,
    core_instances_each: 8,
    memories_each: 2,
    tables_each: 8,
    table_elements: 20_000,
    stack_bytes: 256 << 10,
    unused_warm_slots: 64,
};

/// What `componentize-js` and `componentize-py` make.
const INTERPRETED: Sizes = Sizes {
    instances: 64,
    core_instances: 2_048,
    memories: 256,
    tables: 1_024,
    core_instances_each: 64,
    memories_each: 32,
    tables_each: 64,
    table_elements: 100_000,
    stack_bytes: 1 << 20,
    unused_warm_slots: 8,
};

/// What a component takes of the pools, counted from its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Core instances.
    pub(super) core_instances: usize,
    /// Memories of its own.
    pub(super) memories: usize,
    /// Tables of its own.
    pub(super) tables: usize,
    /// Elements of these at the start.
    pub(super) table_elements: u64,
    /// Bytes of the component.
    pub(super) bytes: usize,
}

impl Layout {
    /// Returns the sizes.
    pub(super) const fn sizes(self) -> Sizes {
        match self {
            Self::Compiled => COMPILED,
            Self::Interpreted => INTERPRETED,
        }
    }

    /// Returns the layout for a component: the tight one where it fits.
    pub(super) fn of(needs: &Needs) -> Self {
        let sizes = COMPILED;
        let within = |count: usize, max: u32| u32::try_from(count).is_ok_and(|count| count <= max);
        let fits = within(needs.core_instances, sizes.core_instances_each)
            && within(needs.memories, sizes.memories_each)
            && within(needs.tables, sizes.tables_each)
            && usize::try_from(needs.table_elements).is_ok_and(|elements| elements <= sizes.table_elements)
            && needs.bytes < INTERPRETER_BYTES_MIN;
        if fits { Self::Compiled } else { Self::Interpreted }
    }
}

/// Bytes of a table that are cleared by hand between instances.
const TABLE_KEPT_BYTES: usize = 4 << 10;

/// Returns an engine.
///
/// # Errors
/// The machine cannot reserve the address space, or lacks a feature that compiled code needs.
pub(super) fn engine(layout: Layout, meter: Meter) -> wasmtime::Result<Engine> {
    let sizes = layout.sizes();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(sizes.instances)
        .total_core_instances(sizes.core_instances)
        .total_memories(sizes.memories)
        .total_tables(sizes.tables)
        .max_core_instances_per_component(sizes.core_instances_each)
        .max_memories_per_component(sizes.memories_each)
        .max_tables_per_component(sizes.tables_each)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(sizes.table_elements)
        .max_unused_warm_slots(sizes.unused_warm_slots)
        // Kept pages make instantiation four times slower; scanning page maps misses pages that were swapped out.
        .linear_memory_keep_resident(0)
        // Tables are another matter: a few hundred bytes, cleared faster than unmapped.
        .table_keep_resident(TABLE_KEPT_BYTES)
        .pagemap_scan(wasmtime::Enabled::No)
        .decommit_batch_size(1);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        // One unit of fuel is about one instruction; nobody runs out of it.
        .consume_fuel(meter == Meter::On)
        .gc_support(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        // The same bits from the same question on every machine: decisions are replayed.
        .cranelift_nan_canonicalization(true)
        .memory_init_cow(true)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_reservation_for_growth(0)
        .memory_may_move(false)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .max_wasm_stack(sizes.stack_bytes)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_tight_layout_gets_the_roomy_one() {
        let small = Needs { core_instances: 3, memories: 1, tables: 2, table_elements: 300, bytes: 150_000 };
        assert_eq!(Layout::of(&small), Layout::Compiled);
        for large in [
            Needs { core_instances: 9, ..small },
            Needs { memories: 3, ..small },
            Needs { tables: 9, ..small },
            Needs { table_elements: 20_001, ..small },
            Needs { bytes: INTERPRETER_BYTES_MIN, ..small },
        ] {
            assert_eq!(Layout::of(&large), Layout::Interpreted, "{large:?}");
        }
    }
}
