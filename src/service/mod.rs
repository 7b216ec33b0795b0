//! The verbs: the only room that joins engine, store and image.
//!
//! [`Service`] is a handle that is cheap to clone. Its verbs are in one file for each noun; what they
//! share is here.

pub mod audit;
pub mod backup;
pub mod calls;
mod compiler;
pub mod development;
mod directory;
mod error;
pub mod functions;
pub mod images;
mod journal;
pub mod local;
pub mod logs;
mod metrics;
mod open_calls;
mod permits;
mod phases;
mod programs;
pub mod results;
mod runner;
pub mod scheduler;
mod worker;

pub use crate::engine::CompilerThreads;
pub use crate::store::Retention;
pub use directory::Callable;
pub use error::{CallError, Error, Failure, NotRun, SERVER_ERROR};
pub use permits::Busy;
pub use phases::Phases;
pub use scheduler::Load;

use crate::domain::{AccountId, CallResult, Quota, Timestamp};
use crate::engine::Engine;
use crate::failpoint;
use crate::image::ImageFiles;
use crate::store::{Logs, Store};
use compiler::Compiler;
use development::Development;
use directory::Directory;
use metrics::Metrics;
use open_calls::OpenCalls;
use permits::{Granted, Permits};
use programs::Programs;
use results::Readings;
use runner::Runner;
use scheduler::Bounds;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

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
    /// What is kept of ended calls.
    pub retention: Retention,
}

/// What a service keeps on disk with.
pub struct Keeping {
    /// Functions, images and calls.
    pub store: Arc<dyn Store>,
    /// Modules and what was compiled of them.
    pub files: ImageFiles,
    /// What calls say.
    pub logs: Logs,
}

/// The function runtime, without a wire.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    settings: Settings,
    store: Arc<dyn Store>,
    files: Arc<ImageFiles>,
    logs: Arc<Logs>,
    log_readers: logs::Readers,
    engine: Engine,
    directory: Directory,
    open_calls: OpenCalls,
    readings: Readings,
    permits: Permits,
    programs: Programs,
    runner: Runner,
    /// Held by whoever changes the store and the directory, so that both change in one order.
    changes: tokio::sync::Mutex<()>,
    /// Places for modules on their way in.
    loads: Arc<Semaphore>,
    /// Room for bodies of calls on their way in, in KB.
    bodies: Semaphore,
    metrics: Metrics,
    /// When this process began.
    started: Timestamp,
    /// What goes on although whoever asked for it has left.
    tasks: TaskTracker,
    /// Why what is in memory cannot be trusted any more.
    broken: watch::Sender<Option<String>>,
    /// Cancelled when the server is about to end: whoever waits for a call is told so.
    ending: CancellationToken,
    /// Cancelled when asynchronous calls that run must go back to the queue.
    giving_back: CancellationToken,
    /// The one function whose module is being developed.
    development: OnceLock<Development>,
    /// What goes on as long as the service is there.
    background: OnceLock<[AbortOnDropHandle<()>; 2]>,
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
    /// Starts the service on what there is on disk: reads it, sweeps what nothing names, and goes on with the calls that
    /// wait or were interrupted.
    ///
    /// # Errors
    /// When the store cannot be read or written, files cannot be swept, or a thread cannot be started.
    pub async fn start(settings: Settings, keeping: Keeping, engine: Engine) -> Result<Self, Failure> {
        let Keeping { store, files, logs } = keeping;
        let directory = Directory::default();
        for function in store.functions().await? {
            let log = logs.function(&function.account, &function.name);
            directory.put_function(Callable::new(function, log));
        }
        for image in store.images().await? {
            directory.put_image(image, None);
        }
        let files = Arc::new(files);
        let (sweeping, named) = (Arc::clone(&files), directory.named_modules());
        blocking(move || sweeping.sweep(&named)).await?;
        // Logs are not promised: a server that cannot tidy them up starts all the same.
        if let Err(error) = logs.sweep(&directory.names()) {
            tracing::warn!(%error, "logs of functions that are gone stay");
        }
        let thread = |e: std::io::Error| Failure::Internal(format!("no thread: {e}"));
        let compiler = Compiler::start(engine.clone()).map_err(thread)?;
        let (permits, grants) = Permits::new(settings.bounds, Arc::clone(engine.memory_budget()));
        let service = Self(Arc::new(Shared {
            settings,
            store,
            logs: Arc::new(logs),
            log_readers: logs::Readers::new(),
            engine: engine.clone(),
            directory,
            open_calls: OpenCalls::default(),
            readings: Readings::default(),
            permits,
            programs: Programs::new(engine.clone(), Arc::clone(&files), compiler),
            runner: Runner::start(engine).map_err(thread)?,
            files,
            changes: tokio::sync::Mutex::new(()),
            loads: Arc::new(Semaphore::new(images::LOADS_MAX)),
            bodies: Semaphore::new(calls::BODIES_KB_MAX),
            metrics: Metrics::new(),
            started: now(),
            tasks: TaskTracker::new(),
            broken: watch::Sender::new(None),
            ending: CancellationToken::new(),
            giving_back: CancellationToken::new(),
            development: OnceLock::new(),
            background: OnceLock::new(),
        }));
        service.recover().await?;
        service.begin_background(grants);
        Ok(service)
    }

    /// Takes up the calls of the server before this one.
    async fn recover(&self) -> Result<(), Failure> {
        const INTERRUPTED: &str = "interrupted";
        let keep = &self.0.settings.retention;
        let (waiting, failed) = self.0.store.recover(CallResult::failed(INTERRUPTED), now(), keep).await?;
        failpoint::hit("recover.after_commit");
        for key in failed {
            if let Some(function) = self.0.directory.function(&key.account, &key.function) {
                let mut journal = journal::Journal::going_on(&function, key.call_id);
                journal.ended(Some(INTERRUPTED.to_owned()), None);
            }
        }
        for call in waiting {
            let function = self.0.directory.function(&call.key.account, &call.key.function);
            let function = function.ok_or_else(|| {
                Failure::Internal(format!(
                    "call {} waits for {}, which is not there",
                    call.key.call_id, call.key.function
                ))
            })?;
            let call = self.0.open_calls.open(call, &function);
            self.0.permits.restore(call, &function);
        }
        Ok(())
    }

    fn begin_background(&self, grants: mpsc::Receiver<Granted>) {
        let shared = || Arc::downgrade(&self.0);
        let _ = self.0.background.set([
            AbortOnDropHandle::new(tokio::spawn(Self::go_on(shared(), Self::work(shared(), grants)))),
            AbortOnDropHandle::new(tokio::spawn(Self::go_on(
                shared(),
                Self::expire(shared(), self.0.settings.retention),
            ))),
        ]);
    }

    /// Work without which a server would go on and do less than it promises.
    async fn go_on(service: Weak<Shared>, work: impl Future<Output = ()>) {
        if calls::unless_it_panics(work).await.is_none()
            && let Some(service) = service.upgrade().map(Self)
        {
            service.distrust("work in the background broke off in a panic, told on stderr");
        }
    }

    /// Lets what is kept of ended calls expire, again and again.
    async fn expire(service: Weak<Shared>, keep: Retention) {
        const EVERY_MIN: Duration = Duration::from_millis(500);
        const EVERY_MAX: Duration = Duration::from_secs(30);
        let every = (keep.result_ttl / 10).clamp(EVERY_MIN, EVERY_MAX);
        loop {
            tokio::time::sleep(every).await;
            let Some(service) = service.upgrade().map(Self) else { return };
            loop {
                match service.0.store.expire(now(), &keep).await {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "what is kept of ended calls does not expire");
                        break;
                    }
                }
            }
        }
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

    /// Ready, with the reason, once what is on disk or in memory cannot be trusted any more: nothing is promised by this
    /// process then.
    pub async fn failed(&self) -> String {
        let mut broken = self.0.broken.subscribe();
        tokio::select! {
            // What a store has failed of is the reason, and what its users make of it a consequence.
            biased;
            reason = self.0.store.failed() => reason,
            reason = self.0.files.failed() => reason,
            // The sender is in here: this is ready only with a reason.
            broken = broken.wait_for(Option::is_some) => broken.ok().and_then(|reason| reason.clone()).unwrap_or_default(),
        }
    }

    /// Memory and disk may be in different states, by a bug of ours or by damage: the next start reads what is true.
    fn distrust(&self, why: impl Into<String>) {
        self.0.broken.send_replace(Some(why.into()));
    }

    /// Lets no call start any more. Synchronous ones that wait end with [`Busy::Draining`], and so does whoever waits
    /// for an asynchronous one; those that wait are on disk.
    pub fn drain(&self) {
        self.0.permits.drain();
        self.0.ending.cancel();
    }

    /// Breaks off the asynchronous calls that run: they wait again, on disk, and start anew under the next server.
    pub fn give_back_calls(&self) {
        self.0.giving_back.cancel();
    }

    /// Whether [`Service::drain`] was called.
    pub fn draining(&self) -> bool {
        self.0.permits.draining()
    }

    /// Waits until no call runs and nothing is left behind by clients that went away. Ask for a drain first.
    pub async fn idle(&self) {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        self.0.tasks.close();
        loop {
            self.0.tasks.wait().await;
            // Of a call that was granted, the task may still have to begin; of one whose guest has ended, to end.
            if self.0.permits.load().running == 0 && self.0.tasks.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Runs a change to its end, even if whoever asked for it leaves half way: the store and the directory must agree.
    async fn change<T, E>(&self, change: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
    {
        let service = self.clone();
        let change = async move {
            let ended = calls::unless_it_panics(change).await;
            if ended.is_none() {
                service.distrust("a change broke off in a panic, told on stderr");
            }
            ended.ok_or_else(|| Failure::Internal("a panic, told on stderr".to_owned()))
        };
        let ended = self.0.tasks.spawn(change).await;
        ended.unwrap_or_else(|e| Err(Failure::Internal(format!("a change did not end: {e}"))))?
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
    Timestamp(jiff::Timestamp::now().as_millisecond() + failpoint::clock_offset_ms())
}

/// Bytes of the operating system's random source, for capabilities.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Failure::Internal(format!("no random bytes: {e}")))?;
    Ok(bytes)
}
