//! Bytes in, an [`Outcome`] out: the only room that names wasmtime.
//!
//! [`Engine`] compiles a module, loads what was compiled, and runs it, each time in a sandbox that
//! nothing else has used. It knows no HTTP, no names and no store. What a guest may hold and how long
//! it may take come in as [`Limits`]; every way to end is a [`Ending`](crate::domain::Ending).

mod budget;
mod compiled;
mod ending;
mod error;
mod flavour;
mod inspect;
mod limiter;
mod sandbox;
mod stdio;
mod text;
mod ticker;
mod turns;
mod weight;

pub use budget::{MemoryBudget, SetAside};
pub use error::{CompileError, Error, Rejected};
pub use flavour::Flavour;
pub use sandbox::{Invocation, SharedDir, Stdio};
pub use text::module_bytes;
pub use weight::Weight;

use crate::domain::{Limits, ModuleInfo, Outcome};
use flavour::Flavoured;
use inspect::KnownImports;
use sandbox::Sandbox;
use std::fs::File;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use ticker::{Pulse, Ticker};
use turns::{Turn, Turns};

/// What an [`Engine`] is made with.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Instances that may live at once, of one flavour.
    pub instances_max: NonZeroU32,
    /// What all instances together may hold, in bytes.
    pub memory_budget_bytes: u64,
    /// Threads that guests run on: what is shared out between those that run long.
    pub threads: usize,
    /// Who compiles.
    pub compiler: CompilerThreads,
    /// Tells the time: this room reads no clock by itself.
    pub clock: Clock,
}

/// Tells the time.
pub type Clock = fn() -> Instant;

/// How many threads compile a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompilerThreads {
    /// The one that asks: calls run on the others.
    One,
    /// One for each core: somebody waits for this module, and for nothing else.
    EachCore,
    /// The same, and the module is one in development: a function that was compiled before is not compiled again.
    Incremental,
}

/// The compiler and the runtime. A cheap clone of one shared engine.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    settings: Settings,
    /// Made when first asked for: a pool reserves address space.
    flavours: Arc<[OnceLock<Flavoured>; Flavour::ALL.len()]>,
    known_imports: KnownImports,
    budget: Arc<MemoryBudget>,
    light: Arc<Turns>,
    heavy: Arc<Turns>,
    /// Owned, so that its thread ends with the engine.
    _ticker: Ticker,
}

/// A compiled module, linked and ready: all that does not change from call to call. A cheap clone.
#[derive(Clone)]
pub struct Program(Arc<Linked>);

struct Linked {
    pre: wasmtime::InstancePre<Sandbox>,
    start: wasmtime::ModuleExport,
}

impl Engine {
    /// Makes an engine and starts its ticker.
    ///
    /// # Errors
    /// When the host cannot run it: no address space for the pool, or no thread.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let budget = Arc::new(MemoryBudget::new(settings.memory_budget_bytes));
        let flavours: Arc<[OnceLock<Flavoured>; Flavour::ALL.len()]> = Arc::default();
        let plain = Flavoured::new(Flavour::ALL[0], &settings)?;
        let known_imports = KnownImports::of(&plain)?;
        let _ = flavours[0].set(plain);
        let pulse = Arc::new(Pulse::default());
        let light = Arc::new(Turns::new(settings.threads, Arc::clone(&pulse)));
        let heavy = Arc::new(Turns::new(settings.threads, Arc::clone(&pulse)));
        let ticker = Ticker::start(Arc::clone(&flavours), [Arc::clone(&light), Arc::clone(&heavy)], pulse)?;
        Ok(Self(Arc::new(Shared { settings, flavours, known_imports, budget, light, heavy, _ticker: ticker })))
    }

    /// Reads what a module is, without compiling it.
    ///
    /// # Errors
    /// Why it is not a module that this engine runs; names the import or export that is missing or unknown.
    pub fn inspect(&self, wasm: &[u8]) -> Result<ModuleInfo, Rejected> {
        inspect::inspect(wasm, &self.0.known_imports)
    }

    /// Compiles a module that [`Engine::inspect`] has accepted, on the calling thread, for seconds if it is
    /// large, and makes sure that it can be loaded. The bytes are native code: they go back to [`Engine::load`] and
    /// nowhere else.
    ///
    /// # Errors
    /// [`CompileError::Rejected`] is the author's fault, [`CompileError::Engine`] ours.
    pub fn compile(&self, wasm: &[u8], flavour: Flavour) -> Result<Vec<u8>, CompileError> {
        let flavoured = self.flavoured(flavour)?;
        let rejected = |e: &wasmtime::Error| CompileError::Rejected(Rejected::from_compiler(e));
        let artifact = flavoured.engine.precompile_module(wasm).map_err(|e| rejected(&e))?;
        // What the pool has no room for shows only now.
        // SAFETY: the compiler has just written these bytes.
        unsafe { wasmtime::Module::deserialize(&flavoured.engine, &artifact) }.map_err(|e| rejected(&e))?;
        Ok(artifact)
    }

    /// Makes a program of compiled bytes.
    ///
    /// # Errors
    /// [`Error::Artifact`] when the bytes are of another version of the engine.
    ///
    /// # Safety
    /// The bytes are executed: they must be what [`Engine::compile`] returned, unchanged.
    pub unsafe fn load(&self, artifact: &[u8], flavour: Flavour) -> Result<Program, Error> {
        let flavoured = self.flavoured(flavour)?;
        // SAFETY: the caller's promise is the one that wasmtime asks for.
        program(flavoured, unsafe { wasmtime::Module::deserialize(&flavoured.engine, artifact) })
    }

    /// The same of a file, which may go on behind the artifact: its pages are used as they are, without a copy.
    ///
    /// # Errors
    /// As [`Engine::load`].
    ///
    /// # Safety
    /// As of [`Engine::load`], for as long as the program lives: nobody may write to the file.
    pub unsafe fn load_file(&self, artifact: File, flavour: Flavour) -> Result<Program, Error> {
        let flavoured = self.flavoured(flavour)?;
        // SAFETY: the caller's promise is the one that wasmtime asks for.
        program(flavoured, unsafe { wasmtime::Module::deserialize_open_file(&flavoured.engine, artifact) })
    }

    /// Runs a program once, in a sandbox of its own, and takes the sandbox down.
    ///
    /// A guest that fails is an [`Outcome`], and so is one that is ended because `to_end` is ready: what it has left by
    /// then is kept. The future may be dropped at any await: the guest is then
    /// stopped and its memory given back. Once `weight` is heavy it should be polled where it holds nobody up, and
    /// may be moved to another thread or runtime for that.
    ///
    /// # Errors
    /// When the engine itself failed: the guest is not to blame, and may not have run.
    pub async fn run(
        &self,
        program: &Program,
        invocation: Invocation,
        limits: &Limits,
        weight: &Weight,
        to_end: impl Future<Output = ()>,
    ) -> Result<Outcome, Error> {
        let turn = Turn::begin(&self.0.light, &self.0.heavy, weight);
        sandbox::run(&program.0, invocation, limits, &self.0.budget, turn, self.0.settings.clock, to_end).await
    }

    /// Who compiles.
    pub fn compiler_threads(&self) -> CompilerThreads {
        self.0.settings.compiler
    }

    /// What all running guests hold, and may hold.
    pub fn memory_budget(&self) -> &Arc<MemoryBudget> {
        &self.0.budget
    }

    fn flavoured(&self, flavour: Flavour) -> Result<&Flavoured, Error> {
        let slot = &self.0.flavours[flavour.index()];
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        // Two threads may both make one; the second is dropped.
        let made = Flavoured::new(flavour, &self.0.settings)?;
        Ok(slot.get_or_init(|| made))
    }
}

fn program(flavoured: &Flavoured, loaded: wasmtime::Result<wasmtime::Module>) -> Result<Program, Error> {
    let artifact = |e: wasmtime::Error| Error::Artifact(format!("{e:#}"));
    let module = loaded.map_err(artifact)?;
    let start = module
        .get_export_index(inspect::START)
        .ok_or_else(|| Error::Artifact(format!("no export {}", inspect::START)))?;
    let pre = flavoured.linker.instantiate_pre(&module).map_err(artifact)?;
    Ok(Program(Arc::new(Linked { pre, start })))
}
