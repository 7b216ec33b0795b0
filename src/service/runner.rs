//! Runs one call: the same for whoever asked, and however.

use super::Failure;
use super::directory::Callable;
use super::permits::Permit;
use crate::domain::{Captured, Ending, Limits, Outcome, Usage};
use crate::engine::{Engine, Invocation, LARGE_MEMORY_BYTES, Program};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How long after its Timeout a large guest is waited for: one bulk memory instruction of it cannot be cut.
const LARGE_GRACE: Duration = Duration::from_millis(100);

/// What one execution needs.
pub(super) struct Execution {
    /// The right to run, given back when the guest has ended.
    pub(super) permit: Permit,
    /// What runs.
    pub(super) function: Arc<Callable>,
    /// Its module.
    pub(super) program: Program,
    /// What it is given.
    pub(super) invocation: Invocation,
}

/// Where guests run.
pub(super) struct Runner {
    engine: Engine,
    /// The threads of large functions. `None` only while it is dropped.
    large: Option<Runtime>,
}

impl Runner {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let large = tokio::runtime::Builder::new_multi_thread()
            .thread_name("large")
            .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
            .enable_time()
            .build()?;
        Ok(Self { engine, large: Some(large) })
    }

    /// Runs a guest to its end: in the task that asks if it is small, beside it if it is large.
    ///
    /// A small guest is stopped when this is dropped, a large one runs on.
    pub(super) async fn run(&self, execution: Execution) -> Result<Outcome, Failure> {
        let limits = execution.function.definition.limits();
        let Some(large) = self.large.as_ref().filter(|_| limits.memory_bytes >= LARGE_MEMORY_BYTES) else {
            return run(&self.engine, execution, &limits).await;
        };
        let engine = self.engine.clone();
        let (begin, begun) = oneshot::channel();
        let mut task = large.spawn(async move {
            // Whoever waits may be gone; the guest runs all the same.
            let _ = begin.send(());
            run(&engine, execution, &limits).await
        });
        // Waiting for a thread is no part of the Timeout. Without a beginning the task has an end to tell.
        let _ = begun.await;
        let began = Instant::now();
        match tokio::time::timeout(limits.timeout + LARGE_GRACE, &mut task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(e)) => Err(Failure::Internal(format!("a large guest's task did not end: {e}"))),
            // It holds its slot and its memory until it stops; its caller need not wait for that.
            Err(_elapsed) => {
                task.abort();
                Ok(ended_by_us(Ending::TimedOut, began))
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(large) = self.large.take() {
            large.shutdown_background();
        }
    }
}

async fn run(engine: &Engine, execution: Execution, limits: &Limits) -> Result<Outcome, Failure> {
    let Execution { permit, function, program, invocation } = execution;
    let began = Instant::now();
    let outcome = tokio::select! {
        biased;
        outcome = engine.run(&program, invocation, limits) => outcome.map_err(Failure::Engine),
        () = function.cancelled() => Ok(ended_by_us(Ending::Cancelled, began)),
    };
    drop(permit);
    outcome.map(|mut outcome| {
        outcome.usage.duration = began.elapsed();
        outcome
    })
}

fn ended_by_us(ending: Ending, began: Instant) -> Outcome {
    let usage = Usage { duration: began.elapsed(), ..Usage::default() };
    Outcome { ending, stdout: Vec::new(), stderr: Captured::default(), usage }
}
