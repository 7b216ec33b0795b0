//! The verbs: the only room that joins engine, store and image.
//!
//! [`Service`] is a handle that is cheap to clone. Its verbs are in one file for each noun; what they
//! share is here.

pub mod calls;
mod compiler;
mod directory;
mod error;
pub mod functions;
pub mod images;
mod permits;
mod programs;
mod runner;
pub mod scheduler;

pub use directory::Callable;
pub use error::{CallError, Error, Failure, NotRun};
pub use permits::{Busy, Load};

use crate::domain::{AccountId, Quota, Timestamp};
use crate::engine::Engine;
use crate::image::ImageFiles;
use crate::store::Store;
use compiler::Compiler;
use directory::Directory;
use permits::Permits;
use programs::Programs;
use runner::Runner;
use scheduler::Bounds;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// What a service is made with.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The bounds of running and waiting.
    pub bounds: Bounds,
    /// How long a synchronous call may wait to start.
    pub sync_wait: Duration,
    /// What one account may own.
    pub quota: Quota,
    /// The largest module, in bytes.
    pub image_bytes_max: u64,
}

/// The function runtime, without a wire.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    settings: Settings,
    store: Arc<dyn Store>,
    files: Arc<ImageFiles>,
    engine: Engine,
    directory: Directory,
    permits: Permits,
    programs: Programs,
    runner: Runner,
    /// Held by whoever changes the store and the directory, so that both change in one order.
    changes: tokio::sync::Mutex<()>,
    /// Places for modules on their way in.
    loads: Arc<Semaphore>,
    /// Room for bodies of calls on their way in, in KB.
    bodies: Semaphore,
    /// What goes on although whoever asked for it has left.
    tasks: TaskTracker,
}

/// What `GET /info` tells of an account and the machine.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// Functions of the account.
    pub functions: usize,
    /// Images of the account.
    pub images: usize,
    /// Calls of the machine.
    pub load: Load,
    /// Bytes that running guests hold.
    pub memory_charged: u64,
    /// Bytes that they may hold.
    pub memory_budget: u64,
}

impl Service {
    /// Starts the service on an opened store and opened files: reads what there is, and sweeps files that nothing names.
    ///
    /// # Errors
    /// When the store cannot be read, files cannot be swept, or a thread cannot be started.
    pub async fn start(
        settings: Settings,
        store: Arc<dyn Store>,
        files: ImageFiles,
        engine: Engine,
    ) -> Result<Self, Failure> {
        let directory = Directory::default();
        for function in store.functions().await? {
            directory.put_function(Callable::new(function));
        }
        for image in store.images().await? {
            directory.put_image(image, None);
        }
        let files = Arc::new(files);
        let (sweeping, named) = (Arc::clone(&files), directory.named_modules());
        blocking(move || sweeping.sweep(&named)).await?;
        let thread = |e: std::io::Error| Failure::Internal(format!("no thread: {e}"));
        let compiler = Compiler::start(engine.clone()).map_err(thread)?;
        Ok(Self(Arc::new(Shared {
            settings,
            store,
            engine: engine.clone(),
            directory,
            permits: Permits::new(settings.bounds),
            programs: Programs::new(engine.clone(), Arc::clone(&files), compiler),
            runner: Runner::start(engine).map_err(thread)?,
            files,
            changes: tokio::sync::Mutex::new(()),
            loads: Arc::new(Semaphore::new(images::LOADS_MAX)),
            bodies: Semaphore::new(calls::BODIES_KB_MAX),
            tasks: TaskTracker::new(),
        })))
    }

    /// What the service was made with.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What is there and what is going on.
    pub fn counts(&self, account: &AccountId) -> Counts {
        let budget = self.0.engine.memory_budget();
        Counts {
            functions: self.0.directory.functions(account).len(),
            images: self.0.directory.images(account).len(),
            load: self.0.permits.load(),
            memory_charged: budget.charged(),
            memory_budget: budget.ceiling(),
        }
    }

    /// How many calls run and wait.
    pub fn load(&self) -> Load {
        self.0.permits.load()
    }

    /// Ready, with the reason, once the store cannot be trusted any more: nothing is promised by this process then.
    pub async fn failed(&self) -> String {
        self.0.store.failed().await
    }

    /// Lets no call start any more. Those that wait end with [`Busy::Draining`].
    pub fn drain(&self) {
        self.0.permits.drain();
    }

    /// Whether [`Service::drain`] was called.
    pub fn draining(&self) -> bool {
        self.0.permits.draining()
    }

    /// Waits until no call runs and nothing is left behind by clients that went away. Ask for a drain first.
    pub async fn idle(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        self.0.tasks.close();
        self.0.tasks.wait().await;
        while self.0.permits.load().running > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Runs a change to its end, even if whoever asked for it leaves half way: the store and the directory must agree.
    async fn change<T, E>(&self, change: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
    {
        let ended = self.0.tasks.spawn(change).await;
        ended.unwrap_or_else(|e| Err(Failure::Internal(format!("a change did not end: {e}")).into()))
    }
}

/// Runs what blocks on the disk or the processor where it holds nobody up.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(e) => Err(Failure::Internal(format!("blocking work did not end: {e}"))),
    }
}

/// The wall clock: only what people see is taken from it, never an order or a wait.
fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Bytes of the operating system's random source, for capabilities.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Failure::Internal(format!("no random bytes: {e}")))?;
    Ok(bytes)
}
