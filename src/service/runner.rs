//! Runs one call: the same for whoever asked, and however.

use super::Failure;
use super::directory::Callable;
use super::journal::Journal;
use super::permits::Permit;
use crate::domain::{Captured, Ending, Outcome, Usage};
use crate::engine::{Engine, Invocation, Program, Weight};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long a heavy guest is waited for after its Timeout, or after it was ended: one bulk memory instruction of it cannot
/// be cut.
const HEAVY_GRACE: Duration = Duration::from_millis(100);
/// How polite the threads of heavy guests are to all others.
const HEAVY_NICE: i32 = 10;

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
    /// Ends this call alone.
    pub(super) cancelled: CancellationToken,
}

/// Where guests run: in the task of whoever asks, until they are heavy.
pub(super) struct Runner {
    engine: Engine,
    /// The threads of heavy guests. `None` only while it is dropped.
    heavy: Option<Runtime>,
}

impl Runner {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let heavy = tokio::runtime::Builder::new_multi_thread()
            .thread_name("heavy")
            .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
            .on_thread_start(|| {
                // Of this thread alone: Linux keeps a priority for each. Refused, it is only less polite.
                let _ = rustix::process::setpriority_process(None, HEAVY_NICE);
            })
            .enable_time()
            .build()?;
        Ok(Self { engine, heavy: Some(heavy) })
    }

    /// Runs a guest to its end: in the task that asks, and once it is heavy on a thread that may be held up.
    ///
    /// A light guest is stopped when this is dropped, a heavy one runs on. What is in `journal` is told as soon as the
    /// guest gives way for the first time.
    pub(super) async fn run(&self, execution: Execution, journal: &mut Journal) -> Result<Outcome, Failure> {
        let (function, cancelled) = (Arc::clone(&execution.function), execution.cancelled.clone());
        let timeout = function.definition.limits().timeout;
        let weight = Weight::default();
        let began = Instant::now();
        let guest = Box::pin(run(self.engine.clone(), execution, weight.clone()));
        let guest = match (WhileLight { guest: Some(guest), weight: &weight, journal }).await {
            Ok(ended) => return ended,
            Err(guest) => guest,
        };
        let Some(heavy) = &self.heavy else { return guest.await };
        let mut task = heavy.spawn(guest);
        let left = (timeout + HEAVY_GRACE).saturating_sub(began.elapsed());
        // It holds its slot and its memory until it stops; its caller need not wait for that.
        let ending = tokio::select! {
            biased;
            ended = &mut task => {
                let broken = |e| Err(Failure::Internal(format!("a heavy guest's task did not end: {e}")));
                return ended.unwrap_or_else(broken);
            }
            () = async {
                is_to_end(&function, &cancelled).await;
                tokio::time::sleep(HEAVY_GRACE).await;
            } => Ending::Cancelled,
            () = tokio::time::sleep(left) => Ending::TimedOut,
        };
        task.abort();
        Ok(ended_by_us(ending, began))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(heavy) = self.heavy.take() {
            heavy.shutdown_background();
        }
    }
}

/// A guest's future as long as it is light: ready with what it returns, or with itself once it is heavy.
struct WhileLight<'a, F> {
    guest: Option<Pin<Box<F>>>,
    weight: &'a Weight,
    journal: &'a mut Journal,
}

impl<F: Future> Future for WhileLight<'_, F> {
    type Output = Result<F::Output, Pin<Box<F>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut guest) = self.guest.take() else { return Poll::Pending };
        match guest.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => {
                self.journal.tell();
                if self.weight.is_heavy() {
                    return Poll::Ready(Err(guest));
                }
                self.guest = Some(guest);
                Poll::Pending
            }
        }
    }
}

async fn run(engine: Engine, execution: Execution, weight: Weight) -> Result<Outcome, Failure> {
    let Execution { permit, function, program, invocation, cancelled } = execution;
    let limits = function.definition.limits();
    let to_end = is_to_end(&function, &cancelled);
    let outcome = engine.run(&program, invocation, &limits, &weight, to_end).await;
    drop(permit);
    outcome.map_err(Failure::Engine)
}

/// Ready once somebody who may do so has ended the call, alone or with all of its function.
async fn is_to_end(function: &Callable, cancelled: &CancellationToken) {
    tokio::select! {
        () = function.cancelled() => {}
        () = cancelled.cancelled() => {}
    }
}

fn ended_by_us(ending: Ending, began: Instant) -> Outcome {
    let usage = Usage { duration: began.elapsed(), ..Usage::default() };
    Outcome { ending, stdout: Vec::new(), stderr: Captured::default(), usage }
}
