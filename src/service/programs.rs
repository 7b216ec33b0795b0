//! Modules that are loaded and ready to run: a bounded cache, filled once however many calls ask at once.

use super::compiler::Compiler;
use super::error::Failure;
use crate::domain::Digest;
use crate::engine::{CompileError, Engine, Flavour, Program};
use crate::image::ImageFiles;
use dashmap::DashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::OnceCell;

/// The most programs that are kept loaded. Each holds a few mappings, of which the kernel gives 65 530.
const LOADED_MAX: usize = 4096;

type Key = (Digest, Flavour);

/// All programs that are loaded.
pub(super) struct Programs {
    engine: Engine,
    files: Arc<ImageFiles>,
    compiler: Compiler,
    loaded: DashMap<Key, Arc<Slot>>,
    /// Counts the uses: what was used longest ago goes first.
    clock: AtomicU64,
}

#[derive(Default)]
struct Slot {
    /// Or why it cannot be loaded: whoever waited for it hears the same.
    program: OnceCell<Result<Program, Arc<Failure>>>,
    used: AtomicU64,
}

impl Programs {
    /// None is loaded yet.
    pub(super) fn new(engine: Engine, files: Arc<ImageFiles>, compiler: Compiler) -> Self {
        Self { engine, files, compiler, loaded: DashMap::new(), clock: AtomicU64::new(0) }
    }

    /// The program of a module: as loaded, else from its artifact, else compiled.
    ///
    /// # Errors
    /// When the module cannot be read, or does not compile.
    pub(super) async fn get(&self, digest: Digest, flavour: Flavour) -> Result<Program, Failure> {
        let key = (digest, flavour);
        let known = self.loaded.get(&key).map(|slot| Arc::clone(&slot));
        let slot = match known {
            Some(slot) => slot,
            None => {
                self.make_room();
                Arc::clone(&self.loaded.entry(key).or_default())
            }
        };
        // Relaxed: it orders nothing but evictions.
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let load = || async { self.load(digest, flavour).await.map_err(Arc::new) };
        match slot.program.get_or_init(load).await {
            Ok(program) => Ok(program.clone()),
            Err(failure) => {
                // Whoever comes later tries again.
                self.loaded.remove_if(&key, |_, kept| Arc::ptr_eq(kept, &slot));
                Err(Failure::Loading(Arc::clone(failure)))
            }
        }
    }

    /// Compiles a module that has just come in, and keeps the artifact.
    ///
    /// # Errors
    /// When it does not compile.
    pub(super) async fn compile(&self, digest: Digest, wasm: Arc<[u8]>, flavour: Flavour) -> Result<(), Failure> {
        let artifact = self.artifact_of(wasm, flavour).await?;
        self.keep(digest, flavour, artifact).await
    }

    async fn artifact_of(&self, wasm: Arc<[u8]>, flavour: Flavour) -> Result<Arc<Vec<u8>>, Failure> {
        let artifact = self.compiler.compile(wasm, flavour).await.map_err(|e| match e {
            CompileError::Rejected(rejected) => Failure::Rejected(rejected),
            CompileError::Engine(error) => Failure::Engine(error),
        })?;
        Ok(Arc::new(artifact))
    }

    async fn keep(&self, digest: Digest, flavour: Flavour, artifact: Arc<Vec<u8>>) -> Result<(), Failure> {
        let files = Arc::clone(&self.files);
        super::blocking(move || files.keep_artifact(digest, flavour.name(), &artifact)).await
    }

    /// Whether there is an artifact that this server has written and can load.
    pub(super) async fn is_compiled(&self, digest: Digest, flavour: Flavour) -> bool {
        self.load_artifact(digest, flavour).await.is_ok_and(|program| program.is_some())
    }

    /// Forgets a module. Calls that run it go on.
    pub(super) fn forget(&self, digest: Digest) {
        self.loaded.retain(|(loaded, _), _| *loaded != digest);
    }

    async fn load(&self, digest: Digest, flavour: Flavour) -> Result<Program, Failure> {
        if let Some(program) = self.load_artifact(digest, flavour).await? {
            return Ok(program);
        }
        tracing::info!(%digest, flavour = flavour.name(), "compiling: there is no artifact that this version can load");
        let files = Arc::clone(&self.files);
        let wasm = super::blocking(move || files.module(digest)).await?;
        let artifact = self.artifact_of(wasm.into(), flavour).await?;
        if let Err(failure) = self.keep(digest, flavour, Arc::clone(&artifact)).await {
            tracing::warn!(%digest, %failure, "what was compiled cannot be kept: it is compiled again when it is needed");
        }
        let engine = self.engine.clone();
        // SAFETY: the compiler has just written these bytes.
        super::blocking(move || unsafe { engine.load(&artifact, flavour) }.map_err(Failure::Engine)).await
    }

    async fn load_artifact(&self, digest: Digest, flavour: Flavour) -> Result<Option<Program>, Failure> {
        let (files, engine) = (Arc::clone(&self.files), self.engine.clone());
        super::blocking(move || {
            let Some(artifact) = files.artifact(digest, flavour.name()) else { return Ok(None) };
            // SAFETY: its seal says that this server's compiler wrote these bytes, and this copy is ours alone.
            Ok::<_, Failure>(unsafe { engine.load(&artifact, flavour) }.ok())
        })
        .await
    }

    /// Makes room for one more: drops the eighth that was used longest ago, so that this is rare.
    fn make_room(&self) {
        if self.loaded.len() < LOADED_MAX {
            return;
        }
        let mut uses: Vec<u64> = self.loaded.iter().map(|entry| entry.used.load(Ordering::Relaxed)).collect();
        // Others may be making room as well.
        if uses.is_empty() {
            return;
        }
        let dropped = uses.len() / 8;
        let (_, &mut oldest_kept, _) = uses.select_nth_unstable(dropped);
        self.loaded.retain(|_, slot| slot.used.load(Ordering::Relaxed) >= oldest_kept);
    }
}
