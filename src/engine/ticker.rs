//! The thread that makes guests stop and look up: it advances the epoch of every engine while guests run.

use super::Error;
use super::flavour::{Flavour, Flavoured};
use super::turns::Turns;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// How long a guest runs before it gives way.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// After so many ticks without a guest the thread rests: 100 ms. An idle server then costs nothing; without this it
/// takes 1.5 % of a core.
const REST_AFTER_TICKS: u32 = 50;

/// What wakes a resting ticker: the guests that run.
#[derive(Default)]
pub(super) struct Pulse {
    running: AtomicUsize,
    resting: AtomicBool,
    ticker: OnceLock<Thread>,
}

impl Pulse {
    /// A guest begins.
    pub(super) fn begin(&self) {
        // Sequential: either this sees that the ticker rests, or the ticker sees this guest.
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// A guest has ended.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&self) {
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
    }

    /// Waits, on the ticker's thread, until a guest runs or the ticker is to end.
    fn rest(&self, ended: &AtomicBool) {
        self.resting.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !ended.load(Ordering::SeqCst) {
            thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}

/// Ticks while guests run, until it is dropped; then its thread has ended.
pub(super) struct Ticker {
    pulse: Arc<Pulse>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(
        flavours: Arc<[OnceLock<Flavoured>; Flavour::ALL.len()]>,
        turns: [Arc<Turns>; 2],
        pulse: Arc<Pulse>,
    ) -> Result<Self, Error> {
        let ended = Arc::new(AtomicBool::new(false));
        let (beating, ending) = (Arc::clone(&pulse), Arc::clone(&ended));
        let thread = thread::Builder::new()
            .name("epoch".into())
            .spawn(move || {
                let mut idle_ticks = 0;
                while !ending.load(Ordering::SeqCst) {
                    // Not `sleep`: whoever drops the ticker waits for this thread.
                    thread::park_timeout(TICK);
                    flavours.iter().filter_map(OnceLock::get).for_each(|made| made.engine.increment_epoch());
                    turns.iter().for_each(|turns| turns.tick());
                    idle_ticks = if beating.running.load(Ordering::Relaxed) == 0 { idle_ticks + 1 } else { 0 };
                    if idle_ticks >= REST_AFTER_TICKS {
                        beating.rest(&ending);
                        idle_ticks = 0;
                    }
                }
            })
            .map_err(|e| Error::Start(format!("thread: {e}")))?;
        let _ = pulse.ticker.set(thread.thread().clone());
        Ok(Self { pulse, ended, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.pulse.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::turns::Turn;
    use super::super::weight::Weight;
    use super::*;
    use std::time::Instant;

    fn ticker() -> (Ticker, Arc<Pulse>, Arc<Turns>) {
        let pulse = Arc::new(Pulse::default());
        let turns = Arc::new(Turns::new(2, Arc::clone(&pulse)));
        let ticker = Ticker::start(Arc::default(), [Arc::clone(&turns), Arc::clone(&turns)], Arc::clone(&pulse));
        (ticker.unwrap(), pulse, turns)
    }

    fn eventually(condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(30));
            thread::yield_now();
        }
    }

    #[test]
    fn it_rests_without_guests_and_wakes_for_one() {
        let (_ticker, pulse, turns) = ticker();
        for _ in 0..3 {
            eventually(|| pulse.resting.load(Ordering::SeqCst));
            let turn = Turn::begin(&turns, &turns, &Weight::default());
            eventually(|| !pulse.resting.load(Ordering::SeqCst));
            drop(turn);
        }
    }

    #[test]
    fn it_ends_when_it_is_dropped_whether_it_rests_or_not() {
        drop(ticker());
        let (resting, pulse, _turns) = ticker();
        eventually(|| pulse.resting.load(Ordering::SeqCst));
        drop(resting);
    }
}
