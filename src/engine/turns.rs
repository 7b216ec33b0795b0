//! How guests that run long share the threads with everything that is short.
//!
//! A guest runs in the task that serves its caller, so one that computes for seconds would hold a
//! thread for seconds. At each tick it gives way to all other tasks, and from its third tick on it
//! needs a turn to go on, whatever it waited for: there is one less than there are threads, first come, first
//! served, each until the guest waits, at the latest at the next tick. So one thread is always free for short calls and the API. Only while nothing new
//! has come for a while may a guest take the spare thread as well.
//!
//! Measured with 4 spinning guests on 2 cores, a hello over 8 connections: 140 requests/s with wasmtime's
//! plain yield, 5 600 with tokio's, 44 000 with turns.

use super::ticker::Pulse;
use super::weight::Weight;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From which tick on a guest needs a turn.
const FREE_TICKS: u32 = 3;
/// For how many ticks no call may have begun before the spare thread is lent: 50 ms.
const QUIET_TICKS: u64 = 25;

/// The turns of all guests that share one set of threads.
pub(super) struct Turns {
    turns: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    /// Calls begun since the last tick.
    begun: AtomicBool,
    quiet_ticks: AtomicU64,
    pulse: Arc<Pulse>,
}

impl Turns {
    pub(super) fn new(threads: usize, pulse: Arc<Pulse>) -> Self {
        let lent = threads.saturating_sub(1).max(1);
        Self {
            turns: Arc::new(Semaphore::new(lent)),
            spare: Arc::new(Semaphore::new(threads.saturating_sub(lent))),
            begun: AtomicBool::new(false),
            quiet_ticks: AtomicU64::new(0),
            pulse,
        }
    }

    /// Called at each tick of the clock.
    pub(super) fn tick(&self) {
        // Loads before it stores: an idle server's ticks then write to no shared line but their own.
        if self.begun.load(Ordering::Relaxed) {
            self.begun.store(false, Ordering::Relaxed);
            self.quiet_ticks.store(0, Ordering::Relaxed);
        } else {
            self.quiet_ticks.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if self.quiet_ticks.load(Ordering::Relaxed) >= QUIET_TICKS
            && let Ok(spare) = Arc::clone(&self.spare).try_acquire_owned()
        {
            return Some(spare);
        }
        // Never closed, so never an error; without a turn the guest would go on all the same.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }
}

/// One guest's place: what it holds while it runs, and only then.
pub(super) struct Turn {
    light: Arc<Turns>,
    heavy: Arc<Turns>,
    weight: Weight,
    /// Whether it has run long.
    needed: AtomicBool,
}

impl Turn {
    /// A guest begins. Its turns are those of the others of its weight: the two kinds have threads of their own.
    pub(super) fn begin(light: &Arc<Turns>, heavy: &Arc<Turns>, weight: &Weight) -> Arc<Self> {
        if !light.begun.load(Ordering::Relaxed) {
            light.begun.store(true, Ordering::Relaxed);
        }
        light.pulse.begin();
        let (light, heavy) = (Arc::clone(light), Arc::clone(heavy));
        Arc::new(Self { light, heavy, weight: weight.clone(), needed: AtomicBool::new(false) })
    }

    pub(super) fn weight(&self) -> &Weight {
        &self.weight
    }

    /// What a guest does at its `tick`th tick: gives way, and needs a turn from then on if it has run long.
    pub(super) async fn give_way(self: Arc<Self>, tick: u32) {
        if tick >= FREE_TICKS {
            self.needed.store(true, Ordering::Relaxed);
        }
        // wasmtime's own yield comes straight back from tokio's LIFO slot.
        tokio::task::yield_now().await;
    }

    async fn take(self: Arc<Self>) -> Option<OwnedSemaphorePermit> {
        let turns = if self.weight.is_heavy() { &self.heavy } else { &self.light };
        turns.take().await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.light.pulse.end();
    }
}

/// A guest's future. One that has run long goes on only in its turn, however it came to wait; while it waits, for its
/// turn or for the world, it holds none.
pub(super) struct InTurn<F> {
    guest: F,
    turn: Arc<Turn>,
    waiting: Option<Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>>,
}

impl<F> InTurn<F> {
    pub(super) fn new(guest: F, turn: Arc<Turn>) -> Self {
        Self { guest, turn, waiting: None }
    }
}

impl<F: Future + Unpin> Future for InTurn<F> {
    type Output = Result<F::Output, Box<dyn std::any::Any + Send>>;

    /// Ready with the guest's output, or with what host code panicked with.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut _held = None;
        if this.turn.needed.load(Ordering::Relaxed) {
            let turn = &this.turn;
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(Arc::clone(turn).take()));
            _held = ready!(waiting.as_mut().poll(context));
            this.waiting = None;
        }
        let guest = std::panic::AssertUnwindSafe(|| Pin::new(&mut this.guest).poll(context));
        match std::panic::catch_unwind(guest) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_machine_keeps_one_thread_free_and_a_quiet_one_lends_it() {
        let turns = Arc::new(Turns::new(2, Arc::default()));
        let first = turns.take().await.unwrap();
        tokio::select! {
            biased;
            _ = turns.take() => panic!("a second turn was given"),
            () = tokio::task::yield_now() => {}
        }
        (0..QUIET_TICKS).for_each(|_| turns.tick());
        let spare = turns.take().await.unwrap();
        drop((first, spare));

        let _guest = Turn::begin(&turns, &turns, &Weight::default());
        turns.tick();
        let _first = turns.take().await.unwrap();
        tokio::select! {
            biased;
            _ = turns.take() => panic!("the spare thread was lent on a busy machine"),
            () = tokio::task::yield_now() => {}
        }
    }

    /// A guest that has ticked often, and then waits for something.
    fn guest_that_has_run_long(
        turns: &Arc<Turns>,
        wait: impl Future<Output = ()>,
    ) -> InTurn<Pin<Box<impl Future<Output = ()>>>> {
        let turn = Turn::begin(turns, turns, &Weight::default());
        let ticking = Arc::clone(&turn);
        let guest = Box::pin(async move {
            ticking.give_way(FREE_TICKS).await;
            wait.await;
        });
        InTurn::new(guest, turn)
    }

    #[tokio::test]
    async fn a_guest_that_waits_holds_no_turn() {
        let turns = Arc::new(Turns::new(1, Arc::default()));
        let mut guest = guest_that_has_run_long(&turns, std::future::pending());
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = &mut guest => panic!("a guest that waits for ever ended"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(turns.turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_guest_that_has_run_long_needs_a_turn_whatever_it_waited_for() {
        let turns = Arc::new(Turns::new(1, Arc::default()));
        // The world, and no tick.
        let mut guest = guest_that_has_run_long(&turns, tokio::task::yield_now());
        let elsewhere = turns.take().await;
        for _ in 0..5 {
            tokio::select! {
                biased;
                _ = &mut guest => panic!("it went on without a turn"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(elsewhere);
        guest.await.unwrap();
        assert_eq!(turns.turns.available_permits(), 1);
    }
}
