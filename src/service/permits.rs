//! The scheduler behind a lock: a call waits here for its permit, and holds it while it runs.

use super::directory::Callable;
use super::scheduler::{Admission, Bounds, Request, Scheduler, Ticket};
use crate::domain::{AccountId, Function, FunctionName};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Why a call got no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Too many calls of the account wait.
    PendingFull,
    /// It waited as long as a synchronous call may.
    WaitedTooLong,
    /// The server is about to end.
    Draining,
    /// The function was removed while the call waited.
    Removed,
}

/// What the permits know of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub pending: usize,
}

/// All permits of the machine. A cheap clone.
#[derive(Clone)]
pub(super) struct Permits(Arc<Mutex<State>>);

struct State {
    scheduler: Scheduler,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    draining: bool,
}

impl Permits {
    /// No call runs or waits.
    pub(super) fn new(bounds: Bounds) -> Self {
        let scheduler = Scheduler::new(bounds);
        Self(Arc::new(Mutex::new(State { scheduler, waiting: HashMap::new(), draining: false })))
    }

    /// Waits until a call of `function` may run, at most `wait_max`. Dropped while it waits, the call is forgotten.
    ///
    /// # Errors
    /// Why there is no permit; the call has then left no trace.
    pub(super) async fn acquire(
        &self,
        function: &Arc<Callable>,
        bytes: u64,
        wait_max: Duration,
    ) -> Result<Permit, Busy> {
        let (mut permit, granted) = {
            let mut state = self.lock();
            if state.draining {
                return Err(Busy::Draining);
            }
            // The body was long on its way.
            if function.is_removed() {
                return Err(Busy::Removed);
            }
            let permit = |held| Permit { permits: self.clone(), function: Arc::clone(function), held, waited: false };
            match state.scheduler.request(Request {
                account: &function.account,
                function: &function.name,
                max_concurrency: function.definition.max_concurrency,
                bytes,
            }) {
                Admission::Runs => return Ok(permit(Held::Slot)),
                Admission::Refused => return Err(Busy::PendingFull),
                Admission::Waits(ticket) => {
                    let (grant, granted) = oneshot::channel();
                    state.waiting.insert(ticket, grant);
                    (permit(Held::Place(ticket)), granted)
                }
            }
        };
        let granted = tokio::time::timeout(wait_max, granted);
        let granted = tokio::select! {
            // The removal of a function ends its running calls, and their slots go to those of it that wait.
            biased;
            () = function.removed() => return Err(Busy::Removed),
            granted = granted => granted,
        };
        match granted {
            Ok(Ok(())) => {
                permit.held = Held::Slot;
                permit.waited = true;
                Ok(permit)
            }
            Ok(Err(_closed)) => Err(Busy::Draining),
            Err(_elapsed) => Err(Busy::WaitedTooLong),
        }
    }

    /// A function's `MaxConcurrency` has changed.
    pub(super) fn set_max_concurrency(&self, account: &AccountId, function: &FunctionName, max: Option<NonZeroU32>) {
        let mut state = self.lock();
        state.scheduler.set_max_concurrency(account, function, max);
        state.grant();
    }

    /// Lets nothing start any more; what waits is told so.
    pub(super) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.waiting.clear();
    }

    /// Whether the server is about to end.
    pub(super) fn draining(&self) -> bool {
        self.lock().draining
    }

    /// How many calls of one function run.
    pub(super) fn running_of(&self, account: &AccountId, function: &FunctionName) -> usize {
        self.lock().scheduler.running_of(account, function)
    }

    /// How many calls run and wait.
    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load { running: state.scheduler.running(), pending: state.scheduler.pending() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Starts all that may start.
    fn grant(&mut self) {
        if self.draining {
            return;
        }
        while let Some(ticket) = self.scheduler.start_next() {
            // A grant that nobody takes any more is given back by the dropped permit.
            if let Some(grant) = self.waiting.remove(&ticket) {
                let _ = grant.send(());
            }
        }
    }
}

/// The right of one call to run; dropped, it goes to whoever is next.
pub(super) struct Permit {
    permits: Permits,
    function: Arc<Callable>,
    held: Held,
    waited: bool,
}

impl Permit {
    /// Whether the call had to wait for it: what it calls may have changed meanwhile.
    pub(super) fn waited(&self) -> bool {
        self.waited
    }
}

enum Held {
    /// A place among the waiting. It may have become a slot that was not noticed yet.
    Place(Ticket),
    Slot,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Function { account, name, .. } = &**self.function;
        let mut state = self.permits.lock();
        if let Held::Place(ticket) = self.held
            && state.scheduler.cancel(account, name, ticket)
        {
            state.waiting.remove(&ticket);
            return;
        }
        state.scheduler.release(account, name);
        state.grant();
    }
}
