//! The scheduler behind a lock: a call waits here for its permit, and holds it while it runs.
//!
//! A synchronous call waits in the task of whoever asks. An asynchronous one waits as an entry, and is handed to the
//! workers with its permit when its turn has come.

use super::directory::Callable;
use super::open_calls::OpenCall;
use super::scheduler::{Admission, Bounds, Lane, Load, Request, Scheduler, Ticket};
use crate::domain::{AccountId, FunctionName};
use crate::engine::{MemoryBudget, SetAside};
// The lock of the tests in here, which play the ways in which threads can meet at it. It works in a scene of theirs alone.
#[cfg(test)]
use shuttle::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};

/// Why there is no room for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Too many calls of the account wait.
    #[error("too many calls are waiting already")]
    PendingFull,
    /// As many idempotency keys of the function are remembered as may be.
    #[error("too many idempotency keys of this function are remembered already")]
    KeysFull,
    /// As many logs are read as may be at once.
    #[error("too many logs are being read already")]
    TooManyReaders,
    /// It waited as long as a synchronous call may.
    #[error("the call has waited too long for others to end")]
    WaitedTooLong,
    /// The server is about to end.
    #[error("the server is about to end")]
    Draining,
    /// The function was removed while the call waited.
    #[error("no such function")]
    Removed,
}

/// An asynchronous call whose turn has come.
pub(super) struct Granted {
    pub(super) call: Arc<OpenCall>,
    /// Memory that is kept for it, since it was short of it before. Dropped before the permit, which looks for whoever
    /// could use it.
    pub(super) aside: Option<SetAside>,
    pub(super) permit: Permit,
}

/// All permits of the machine. A cheap clone.
#[derive(Clone)]
pub(super) struct Permits(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// To the workers. It has room for all that may run.
    granted: mpsc::Sender<Granted>,
    budget: Arc<MemoryBudget>,
}

struct State {
    scheduler: Scheduler,
    waiting: HashMap<Ticket, Waiter>,
    draining: bool,
}

impl State {
    /// Nothing starts any more, and nobody is left waiting for that.
    fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
    }
}

enum Waiter {
    Sync(oneshot::Sender<()>),
    Async(Arc<OpenCall>),
}

impl Permits {
    /// No call runs or waits. The receiver is for the workers.
    pub(super) fn new(bounds: Bounds, budget: Arc<MemoryBudget>) -> (Self, mpsc::Receiver<Granted>) {
        let scheduler = Scheduler::new(bounds);
        let (granted, grants) = mpsc::channel(bounds.running.get());
        let state = Mutex::new(State { scheduler, waiting: HashMap::new(), draining: false });
        (Self(Arc::new(Shared { state, granted, budget })), grants)
    }

    /// Waits until a synchronous call of `function` may run, at most until `too_long` is ready, which is begun when it
    /// must; `on_wait` hears of that. Dropped while it waits, the call is forgotten.
    ///
    /// # Errors
    /// Why there is no permit; the call has then left no trace.
    pub(super) async fn acquire(
        &self,
        function: &Arc<Callable>,
        bytes: u64,
        too_long: impl Future<Output = ()>,
        on_wait: impl FnOnce(),
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
            let whose = Whose::Function(Arc::clone(function));
            let permit = |held| Permit { permits: self.clone(), whose, held, waited: false };
            match state.scheduler.request(request(function, bytes)) {
                Admission::Runs => return Ok(permit(Held::Slot)),
                Admission::Refused => return Err(Busy::PendingFull),
                Admission::Waits(ticket) => {
                    let (grant, granted) = oneshot::channel();
                    state.waiting.insert(ticket, Waiter::Sync(grant));
                    (permit(Held::Place(ticket)), granted)
                }
            }
        };
        on_wait();
        tokio::select! {
            // The removal of a function ends its running calls, and their slots go to those of it that wait.
            biased;
            () = function.removed() => Err(Busy::Removed),
            granted = granted => {
                if granted.is_err() {
                    return Err(Busy::Draining);
                }
                permit.held = Held::Slot;
                permit.waited = true;
                Ok(permit)
            }
            () = too_long => Err(Busy::WaitedTooLong),
        }
    }

    /// Counts an asynchronous call as waiting while it is on its way to disk.
    ///
    /// # Errors
    /// Why it may not wait.
    pub(super) fn reserve(&self, function: &Callable, bytes: u64) -> Result<Reservation, Busy> {
        let mut state = self.lock();
        if state.draining {
            return Err(Busy::Draining);
        }
        if function.is_removed() {
            return Err(Busy::Removed);
        }
        if !state.scheduler.reserve(&function.account, bytes) {
            return Err(Busy::PendingFull);
        }
        Ok(Reservation { permits: self.clone(), account: function.account.clone(), bytes, used: false })
    }

    /// Lets a call wait that was found on disk, whatever the bounds say.
    pub(super) fn restore(&self, call: Arc<OpenCall>, function: &Callable) {
        self.wait(call, function, |scheduler, request, call| {
            scheduler.restore(request, call.waiting.place);
        });
    }

    /// Lets a call wait again whose start has ended without a result. With `memory` it starts when so many bytes can be
    /// set aside for it.
    pub(super) fn put_back(&self, call: Arc<OpenCall>, function: &Callable, memory: Option<u64>) {
        self.wait(call, function, |scheduler, request, call| {
            scheduler.put_back(request, call.waiting.place, memory);
        });
    }

    fn wait(
        &self,
        call: Arc<OpenCall>,
        function: &Callable,
        enter: impl FnOnce(&mut Scheduler, Request<'_>, &OpenCall),
    ) {
        let mut state = self.lock();
        enter(&mut state.scheduler, request(function, call.waiting.bytes), &call);
        state.waiting.insert(Ticket::Async(call.waiting.place), Waiter::Async(call));
        self.grant(state);
    }

    /// Takes an asynchronous call out that waits. `false` if it does not wait any more: it is about to run.
    pub(super) fn withdraw(&self, call: &OpenCall) -> bool {
        let mut state = self.lock();
        let ticket = Ticket::Async(call.waiting.place);
        let key = call.key();
        let waits = matches!(state.waiting.get(&ticket), Some(Waiter::Async(waiting)) if waiting.key() == key)
            && state.scheduler.cancel(&key.account, &key.function, ticket);
        if waits {
            state.waiting.remove(&ticket);
        }
        waits
    }

    /// Takes all waiting asynchronous calls of a function out.
    pub(super) fn withdraw_all(&self, account: &AccountId, function: &FunctionName) -> Vec<Arc<OpenCall>> {
        let mut state = self.lock();
        let places = state.scheduler.take_waiting_async(account, function);
        let withdrawn = places.into_iter().filter_map(|place| match state.waiting.remove(&Ticket::Async(place)) {
            Some(Waiter::Async(call)) => Some(call),
            Some(Waiter::Sync(_)) | None => None,
        });
        withdrawn.collect()
    }

    /// A function's `MaxConcurrency` is to be what its definition says.
    pub(super) fn take_max_concurrency(&self, function: &Callable) {
        let mut state = self.lock();
        let max = function.take_max_concurrency();
        state.scheduler.set_max_concurrency(&function.account, &function.name, max);
        self.grant(state);
    }

    /// Lets nothing start any more. Synchronous calls that wait are told so; asynchronous ones are on disk.
    pub(super) fn drain(&self) {
        self.lock().drain();
    }

    /// Whether the server is about to end.
    pub(super) fn draining(&self) -> bool {
        self.lock().draining
    }

    /// How many calls of one function run.
    pub(super) fn running_of(&self, account: &AccountId, function: &FunctionName) -> usize {
        self.lock().scheduler.running_of(account, function)
    }

    /// How many synchronous calls of one function run and wait.
    pub(super) fn sync_load(&self, account: &AccountId, function: &FunctionName) -> Load {
        self.lock().scheduler.sync_load(account, function)
    }

    /// How many calls run and wait.
    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load { running: state.scheduler.running(), pending: state.scheduler.pending() }
    }

    /// Starts all that may start.
    fn grant(&self, mut state: MutexGuard<'_, State>) {
        // Dropped behind the lock, which they ask for then.
        let mut untaken = Vec::new();
        while !state.draining
            && let Some(started) = state.scheduler.start_next(self.0.budget.free())
        {
            match state.waiting.remove(&started.ticket) {
                // A grant that nobody takes any more is given back by the dropped permit.
                Some(Waiter::Sync(grant)) => drop(grant.send(())),
                Some(Waiter::Async(call)) => {
                    let whose = Whose::Call(Arc::clone(&call));
                    let permit = Permit { permits: self.clone(), whose, held: Held::Slot, waited: true };
                    let aside = (started.memory > 0).then(|| self.0.budget.set_aside(started.memory)).flatten();
                    // In the order of their starts, hence under the lock.
                    if let Err(e) = self.0.granted.try_send(Granted { call, permit, aside }) {
                        // The workers are gone: the server ends.
                        state.drain();
                        untaken.push(e.into_inner());
                    }
                }
                None => {}
            }
        }
        drop(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To be made under the lock: `MaxConcurrency` may have changed since anybody has looked at the function.
fn request(function: &Callable, bytes: u64) -> Request<'_> {
    let max_concurrency = function.max_concurrency();
    Request { account: &function.account, function: &function.name, max_concurrency, bytes }
}

/// A place among the waiting for a call that is on its way to disk. Dropped, it is free again.
pub(super) struct Reservation {
    permits: Permits,
    account: AccountId,
    bytes: u64,
    used: bool,
}

impl Reservation {
    /// The call is on disk: it waits.
    pub(super) fn wait(mut self, call: Arc<OpenCall>, function: &Callable) {
        self.used = true;
        self.permits.wait(call, function, |scheduler, request, call| {
            scheduler.enqueue(request, call.waiting.place);
        });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.used {
            self.permits.lock().scheduler.unreserve(&self.account, self.bytes);
        }
    }
}

/// The right of one call to run; dropped, it goes to whoever is next.
pub(super) struct Permit {
    permits: Permits,
    whose: Whose,
    held: Held,
    waited: bool,
}

/// What a permit was given for, and with it its lane.
enum Whose {
    Function(Arc<Callable>),
    Call(Arc<OpenCall>),
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
        let (account, function, lane) = match &self.whose {
            Whose::Function(function) => (&function.account, &function.name, Lane::Sync),
            Whose::Call(call) => (&call.key().account, &call.key().function, Lane::Async),
        };
        let mut state = self.permits.lock();
        if let Held::Place(ticket) = self.held
            && state.scheduler.cancel(account, function, ticket)
        {
            state.waiting.remove(&ticket);
            return;
        }
        state.scheduler.release(account, function, lane);
        self.permits.grant(state);
    }
}

#[cfg(test)]
mod tests;
