//! The one thread that compiles: modules wait for each other, and calls do not wait for modules.

use crate::engine::{CompileError, CompilerThreads, Engine, Error, Flavour};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Modules that may wait to be compiled.
const WAITING_MAX: usize = 64;
/// How low the thread's priority is: the most polite that a process may choose.
const NICE: i32 = 19;

struct Job {
    wasm: Arc<[u8]>,
    flavour: Flavour,
    done: oneshot::Sender<Result<Vec<u8>, CompileError>>,
}

/// Compiles one module at a time, at low priority unless somebody waits for it and for nothing else.
pub(super) struct Compiler {
    /// Closed when this is dropped: the thread ends then, after the module at hand. It is not waited
    /// for, since nothing that it still does is wanted.
    jobs: mpsc::Sender<Job>,
}

impl Compiler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING_MAX);
        std::thread::Builder::new().name("compiler".into()).spawn(move || {
            if engine.compiler_threads() == CompilerThreads::One {
                // Of this thread alone: Linux keeps a priority for each. Refused, it is only less polite.
                let _ = rustix::process::setpriority_process(None, NICE);
            }
            while let Some(job) = waiting.blocking_recv() {
                if job.done.is_closed() {
                    continue;
                }
                let compiled =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.compile(&job.wasm, job.flavour)))
                        .unwrap_or_else(|_| Err(Error::Panicked("the compiler".to_owned()).into()));
                // Whoever asked may have left: what was compiled is then compiled again when it is needed.
                let _ = job.done.send(compiled);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Compiles a module when those before it are done. Dropped, it is skipped if it was not begun.
    ///
    /// # Errors
    /// As [`Engine::compile`].
    pub(super) async fn compile(&self, wasm: Arc<[u8]>, flavour: Flavour) -> Result<Vec<u8>, CompileError> {
        let gone = || CompileError::from(Error::Panicked("the compiler's thread has ended".to_owned()));
        let (done, compiled) = oneshot::channel();
        self.jobs.send(Job { wasm, flavour, done }).await.map_err(|_| gone())?;
        compiled.await.map_err(|_| gone())?
    }
}
