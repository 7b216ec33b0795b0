//! Modules of files, run here and now: the engine of the server, without a server.

use super::calls::put_stronger;
use super::directory::Overrides;
use super::{Failure, blocking, random};
use crate::domain::{CallId, Digest, Env, Limits, MemoryKind, Outcome, Variable};
use crate::engine::{self, CompilerThreads, Engine, Flavour, Program, Rejected, Weight};
use crate::image::ArtifactCache;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use crate::engine::{Invocation, SharedDir, Stdio};

/// Runs modules of files. A cheap clone of one shared engine.
#[derive(Clone)]
pub struct Local {
    engine: Engine,
    /// `None` where there is no place for one: every run compiles then.
    cache: Option<Arc<ArtifactCache>>,
}

/// A module that is compiled and ready to run.
#[derive(Clone)]
pub struct LocalModule(Program);

/// Whether fuel is counted. Counting costs a guest some of its speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metering {
    /// [`Limits::fuel`] bounds it, and [`Usage::fuel`](crate::domain::Usage::fuel) tells it.
    Fuel,
    /// [`Limits::fuel`] must be `None`.
    None,
}

/// Why a file is not run.
#[derive(Debug, thiserror::Error)]
pub enum NotLoaded {
    /// It is not a module that we run.
    #[error(transparent)]
    Rejected(Rejected),
    /// We failed.
    #[error(transparent)]
    Failure(Failure),
}

impl Local {
    /// Starts an engine for so many guests at once, which may hold so much together. What is compiled is kept below
    /// `cache`.
    ///
    /// # Errors
    /// When the host cannot run an engine. A cache that cannot be used is none.
    pub fn start(instances_max: NonZeroU32, memory_bytes: u64, cache: Option<&Path>) -> Result<Self, Failure> {
        let engine = Engine::new(engine::Settings {
            instances_max,
            memory_budget_bytes: memory_bytes,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            compiler: CompilerThreads::EachCore,
            clock: Instant::now,
        });
        Ok(Self { engine: engine.map_err(Failure::Engine)?, cache: cache.and_then(open_cache) })
    }

    /// Makes a module ready, given its bytes or its text: from the cache, or by compiling it on every core.
    ///
    /// # Errors
    /// Why it is not a module that we run, or that we failed.
    pub async fn load(&self, file: Vec<u8>, metering: Metering) -> Result<LocalModule, NotLoaded> {
        let local = self.clone();
        let loaded = blocking(move || Ok::<_, Failure>(local.load_blocking(&file, metering))).await;
        loaded.unwrap_or_else(|failure| Err(NotLoaded::Failure(failure)))
    }

    fn load_blocking(&self, file: &[u8], metering: Metering) -> Result<LocalModule, NotLoaded> {
        // blake3 and not sha256: an interpreter of 26 MB is hashed at every run.
        let module = Digest::new(*blake3::hash(file).as_bytes());
        let flavours = [MemoryKind::Narrow, MemoryKind::Wide].map(|memory| metering.flavour(memory));
        if let Some(program) = flavours.into_iter().find_map(|flavour| self.cached(module, flavour)) {
            return Ok(LocalModule(program));
        }
        let wasm = engine::module_bytes(file).map_err(NotLoaded::Rejected)?;
        let info = self.engine.inspect(&wasm).map_err(NotLoaded::Rejected)?;
        let flavour = metering.flavour(info.memory);
        let artifact = self.engine.compile(&wasm, flavour).map_err(|e| match e {
            engine::CompileError::Rejected(rejected) => NotLoaded::Rejected(rejected),
            engine::CompileError::Engine(error) => NotLoaded::Failure(Failure::Engine(error)),
        })?;
        if let Some(cache) = &self.cache {
            // It is compiled again the next time.
            let _ = cache.keep(module, flavour.name(), &artifact, SystemTime::now());
        }
        // SAFETY: the compiler has just written these bytes.
        let program = unsafe { self.engine.load(&artifact, flavour) };
        Ok(LocalModule(program.map_err(|e| NotLoaded::Failure(Failure::Engine(e)))?))
    }

    fn cached(&self, module: Digest, flavour: Flavour) -> Option<Program> {
        let artifact = self.cache.as_ref()?.get(module, flavour.name(), SystemTime::now())?;
        // SAFETY: its seal says that this user's compiler wrote these bytes. Nothing writes to the file again: only this
        // user may, who could as well write to this process.
        unsafe { self.engine.load_file(artifact, flavour) }.ok()
    }

    /// Runs a module once, in a sandbox of its own. Dropped, the guest is stopped, but for one bulk memory instruction.
    ///
    /// # Errors
    /// When the engine failed, or a directory that the guest is to have cannot be opened.
    pub async fn run(
        &self,
        LocalModule(program): &LocalModule,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, Failure> {
        let weight = Weight::default();
        let run = self.engine.run(program, invocation, limits, &weight, std::future::pending());
        run.await.map_err(Failure::Engine)
    }
}

/// The environment of a call that no server has taken, of a bare module (`docs/api.md` section 4, "The guest's
/// environment"): its request's, what we say of it, the function's own.
pub fn environment(function: &str, request: Vec<Variable>, call_id: CallId, own: &Env) -> Vec<Variable> {
    const FIRST: u32 = 1;
    let mut environment = request;
    put_stronger(&mut environment, function, call_id, FIRST, &Overrides::of(own));
    environment
}

/// What this user's runs have compiled before; `None` if there is no place for it.
pub(super) fn open_cache(dir: &Path) -> Option<Arc<ArtifactCache>> {
    ArtifactCache::open(dir, random().ok()?).ok().map(Arc::new)
}

impl Metering {
    fn flavour(self, memory: MemoryKind) -> Flavour {
        match self {
            Self::Fuel => Flavour::metered(memory),
            Self::None => Flavour::unmetered(memory),
        }
    }
}
