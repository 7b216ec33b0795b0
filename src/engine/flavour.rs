//! The ways in which wasmtime is set up. A module is compiled for one of them.

use super::compiled::CompiledFunctions;
use super::sandbox::Sandbox;
use super::{CompilerThreads, Error, Settings};
use crate::domain::{Definition, MemoryKind};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

/// The most elements one table may have.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// The most tables one module may have.
pub(super) const TABLES_MAX: u32 = 4;
/// The native stack of a guest, for its own frames, in bytes.
const WASM_STACK_BYTES: usize = 512 << 10;
/// The native stack of a guest and of the host calls it makes, in bytes.
const STACK_BYTES: usize = 2 << 20;
/// The address space of a 32-bit memory.
const NARROW_MEMORY_BYTES_MAX: usize = 4 << 30;
/// How much of a memory stays mapped for the next guest, set to zero by hand: cheaper than giving
/// pages back to the kernel as long as it covers what a guest usually touches.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 256 << 10;
/// The same for a stack: what is above is given back to the kernel, which is slow if it was touched.
const STACK_KEEP_RESIDENT_BYTES: usize = 32 << 10;
/// The same for a table.
const TABLE_KEEP_RESIDENT_BYTES: usize = 4 << 10;
/// What an instance itself may take, its memories and tables apart, in bytes: 32 for each function that is in a table.
const INSTANCE_BYTES_MAX: usize = 16 << 20;
/// Pools shard by thread from this many slots on.
const SLOTS_MIN: u32 = 128;

/// One way to set up the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flavour {
    /// Fuel is counted.
    metered: bool,
    /// Memories have 64-bit addresses.
    wide: bool,
}

impl Flavour {
    /// Every flavour, the usual one first.
    pub const ALL: [Self; 4] = [
        Self { metered: false, wide: false },
        Self { metered: true, wide: false },
        Self { metered: false, wide: true },
        Self { metered: true, wide: true },
    ];

    /// The flavour of a module by itself: nobody has asked for its fuel to be counted.
    pub fn unmetered(memory: MemoryKind) -> Self {
        Self { metered: false, wide: memory == MemoryKind::Wide }
    }

    /// The flavour of a module whose fuel is counted.
    pub fn metered(memory: MemoryKind) -> Self {
        Self { metered: true, ..Self::unmetered(memory) }
    }

    /// The flavour in which a function runs a module.
    pub fn of(definition: &Definition, memory: MemoryKind) -> Self {
        if definition.fuel.is_some() { Self::metered(memory) } else { Self::unmetered(memory) }
    }

    /// A word for file names and messages.
    pub fn name(self) -> &'static str {
        match (self.metered, self.wide) {
            (false, false) => "plain",
            (true, false) => "metered",
            (false, true) => "wide",
            (true, true) => "wide-metered",
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.metered) + 2 * usize::from(self.wide)
    }
}

/// wasmtime, set up in one flavour.
pub(super) struct Flavoured {
    pub(super) engine: wasmtime::Engine,
    pub(super) linker: wasmtime::Linker<Sandbox>,
}

impl Flavoured {
    pub(super) fn new(flavour: Flavour, settings: &Settings) -> Result<Self, Error> {
        let start = |e: wasmtime::Error| Error::Start(format!("{e:#}"));
        let engine = wasmtime::Engine::new(&config(flavour, settings).map_err(start)?).map_err(start)?;
        let mut linker = wasmtime::Linker::new(&engine);
        // The asynchronous functions: the others would sleep on the thread.
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, Sandbox::wasi).map_err(start)?;
        // The library's own takes a status of 126 or more for a mistake, and traps.
        linker.allow_shadowing(true);
        let exit = |status: i32| -> wasmtime::Result<()> { Err(wasmtime_wasi::I32Exit(status).into()) };
        linker.func_wrap("wasi_snapshot_preview1", "proc_exit", exit).map_err(start)?;
        Ok(Self { engine, linker })
    }
}

fn config(flavour: Flavour, settings: &Settings) -> wasmtime::Result<wasmtime::Config> {
    let mut config = wasmtime::Config::new();
    config
        // Winch, the other compiler, let guests out of their sandbox in 2026.
        .strategy(wasmtime::Strategy::Cranelift)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .parallel_compilation(settings.compiler != CompilerThreads::One)
        .wasm_backtrace_max_frames(NonZeroUsize::new(4))
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        // A pooled stack must not show one guest's spilled registers to the next.
        .async_stack_zeroing(true)
        .epoch_interruption(true)
        .consume_fuel(flavour.metered)
        .memory_init_cow(true)
        // Only WASI 0.3 asks for it.
        .concurrency_support(false)
        .relaxed_simd_deterministic(true)
        // What no guest has needed yet is off.
        .wasm_memory64(flavour.wide)
        .wasm_multi_memory(false)
        .wasm_threads(false)
        .shared_memory(false)
        // `externref` too: each guest that has one would take a second memory of the pool.
        .gc_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false);
    if settings.compiler == CompilerThreads::Incremental {
        config.enable_incremental_compilation(Arc::new(CompiledFunctions::default()))?;
    }
    if flavour.wide {
        // A pool's slots are 4 GiB apart: no room for larger memories.
        config.allocation_strategy(wasmtime::InstanceAllocationStrategy::OnDemand);
    } else {
        config.allocation_strategy(pool(settings.instances_max));
    }
    Ok(config)
}

fn pool(instances_max: NonZeroU32) -> wasmtime::PoolingAllocationConfig {
    let slots = instances_max.get().max(SLOTS_MIN);
    let mut pool = wasmtime::PoolingAllocationConfig::new();
    pool.total_core_instances(slots)
        .total_memories(slots)
        .total_tables(slots.saturating_mul(TABLES_MAX))
        .total_stacks(slots)
        .max_unused_warm_slots(slots)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(NARROW_MEMORY_BYTES_MAX)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
        .async_stack_keep_resident(STACK_KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        // Faster, but in 48.0.8 it can leave another guest's swapped page readable.
        .pagemap_scan(wasmtime::Enabled::No);
    pool
}
