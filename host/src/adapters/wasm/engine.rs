//! The engine: what components may use, and how their instances are laid out in memory.
//!
//! Owns the settings and nothing else. **Invariant:** they are the same for every component of a process, so that one
//! compatibility hash stands for the whole code cache.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::ports::plugins::Meter;

/// Component instances alive at once, over all plugins.
const INSTANCES_MAX: u32 = 256;
/// Core instances and tables alive at once: a component has a few core modules.
const CORE_INSTANCES_MAX: u32 = 512;
/// What one component may have of each: `wit-component` makes three modules of a guest's one, with a memory and two tables.
const CORE_INSTANCES_EACH_MAX: u32 = 8;
const MEMORIES_EACH_MAX: u32 = 2;
const TABLES_EACH_MAX: u32 = 8;
/// The most one memory may grow to, whatever a binding allows.
pub(super) const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Elements of all tables of an instance.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Address space of one memory: with the whole 32-bit range reserved, compiled code checks no bounds.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// Unmapped space behind each memory, so that an access with a constant offset needs no check either.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// Stack of a call. It runs on a thread of the host, whose stack is 2 MiB.
const STACK_BYTES_MAX: usize = 256 << 10;
/// Slots of unused memory that keep their page tables.
const UNUSED_WARM_SLOTS_MAX: u32 = 64;

/// Bytes of a table that are cleared by hand between instances.
const TABLE_KEPT_BYTES: usize = 4 << 10;

/// Returns an engine.
///
/// # Errors
/// The machine cannot reserve the address space, or lacks a feature that compiled code needs.
pub(super) fn engine(meter: Meter) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(CORE_INSTANCES_MAX)
        .total_memories(INSTANCES_MAX)
        .total_tables(CORE_INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_EACH_MAX)
        .max_memories_per_component(MEMORIES_EACH_MAX)
        .max_tables_per_component(TABLES_EACH_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(UNUSED_WARM_SLOTS_MAX)
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
        .max_wasm_stack(STACK_BYTES_MAX)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
