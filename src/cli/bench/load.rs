//! Makes calls: one after the other, or at a rate.

use super::alarm::Alarm;
use super::record::{Recorder, Times};
use super::target::{Call, Target, Worker};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How calls follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// As soon as one has ended the next one begins: a closed loop.
    Closed,
    /// So many are due each second, whatever becomes of those before: an open loop.
    PerSecond(f64),
}

/// When no more calls begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Until {
    Calls(u64),
    Time(Duration),
}

/// What is to be done to a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) pace: Pace,
    /// The most calls at once.
    pub(super) concurrency: NonZeroUsize,
    /// Calls that do not count.
    pub(super) warm_up: Until,
    pub(super) measured: Until,
}

/// The calls of one pass, in their order, shared between all that make them. It reads no clock.
struct Round {
    began: Instant,
    pace: Pace,
    until: Until,
    next: AtomicU64,
    ended: AtomicU64,
}

impl Round {
    fn begin(pace: Pace, until: Until, now: Instant) -> Self {
        Self { began: now, pace, until, next: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    /// When the next call is due; `None` if there is no other.
    fn next(&self, now: Instant) -> Option<Instant> {
        if self.is_over(now) {
            return None;
        }
        // Relaxed: a number of its own for each is all that is needed.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.pace {
            Pace::Closed => now,
            Pace::PerSecond(rate) => self.began + Duration::try_from_secs_f64(number as f64 / rate).ok()?,
        };
        let is_left = match self.until {
            Until::Calls(calls) => number < calls,
            Until::Time(time) => due.saturating_duration_since(self.began) < time,
        };
        is_left.then_some(due)
    }

    /// Whether its time is.
    fn is_over(&self, now: Instant) -> bool {
        matches!(self.until, Until::Time(time) if now.saturating_duration_since(self.began) >= time)
    }

    /// Makes a call, which begins now.
    async fn call(&self, worker: &mut Worker, due: Instant, began: Instant) -> (Call, Times) {
        let call = worker.call().await;
        let ended = Instant::now();
        self.ended.fetch_add(1, Ordering::Relaxed);
        let [due, began, ended] = [due, began, ended].map(|at| at.saturating_duration_since(self.began));
        (call, Times { due, began, ended })
    }
}

impl Load {
    /// How many calls are due in the measured round, if that is known before.
    pub(super) fn calls_due(&self) -> Option<u64> {
        match (self.pace, self.measured) {
            (_, Until::Calls(calls)) => Some(calls),
            (Pace::PerSecond(rate), Until::Time(time)) => Some((time.as_secs_f64() * rate).ceil() as u64),
            (Pace::Closed, Until::Time(_)) => None,
        }
    }

    /// How long the measured round takes at least.
    pub(super) fn time_due(&self) -> Duration {
        match (self.pace, self.measured) {
            (_, Until::Time(time)) => time,
            (Pace::PerSecond(rate), Until::Calls(calls)) => {
                Duration::try_from_secs_f64(calls as f64 / rate).unwrap_or(Duration::MAX)
            }
            (Pace::Closed, Until::Calls(_)) => Duration::ZERO,
        }
    }

    /// Begins to make the calls.
    pub(super) fn start(self, target: &Target) -> Running {
        let threads = target.threads().min(self.concurrency.get());
        let stop = CancellationToken::new();
        let stops = stop.clone().drop_guard();
        let shared = Arc::new(Shared { load: self, together: Barrier::new(threads), rounds: Default::default(), stop });
        let mut running = JoinSet::new();
        for thread in 0..threads {
            // As many on each, but for the rest.
            let workers = (thread..self.concurrency.get()).step_by(threads).map(|_| target.worker()).collect();
            let shared = Arc::clone(&shared);
            running.spawn_blocking(move || shared.on_this_thread(workers));
        }
        Running { threads: running, shared, _stops: stops }
    }
}

/// What the threads share that make the calls.
struct Shared {
    load: Load,
    /// All begin a round at once.
    together: Barrier,
    /// The warm-up, and what is measured.
    rounds: [OnceLock<Arc<Round>>; 2],
    stop: CancellationToken,
}

/// A load as it goes on; dropped, it stops.
pub(super) struct Running {
    threads: JoinSet<anyhow::Result<Recorder>>,
    shared: Arc<Shared>,
    _stops: DropGuard,
}

impl Running {
    /// What one of the threads has recorded of the measured round; `None` when all have ended.
    ///
    /// # Errors
    /// When the system has no thread or timer for it.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Recorder>> {
        self.threads.join_next().await.transpose()?.transpose()
    }

    /// For how long calls have been measured by now, and how many have ended; `None` during the warm-up.
    pub(super) fn measured(&self) -> Option<(Duration, u64)> {
        let round = self.shared.rounds[1].get()?;
        Some((round.began.elapsed(), round.ended.load(Ordering::Relaxed)))
    }
}

impl Shared {
    /// With a runtime of its own: calls that never leave their thread cost the least.
    fn on_this_thread(&self, mut workers: Vec<Worker>) -> anyhow::Result<Recorder> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let rounds = async {
                self.round(0, self.load.warm_up, &mut workers).await?;
                self.round(1, self.load.measured, &mut workers).await
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Recorder::new(),
                recorded = rounds => recorded,
            }
        })
    }

    async fn round(&self, number: usize, until: Until, workers: &mut Vec<Worker>) -> anyhow::Result<Recorder> {
        self.together.wait().await;
        let begin = || Arc::new(Round::begin(self.load.pace, until, Instant::now()));
        let round = self.rounds[number].get_or_init(begin);
        match self.load.pace {
            Pace::Closed => closed_loop(round, workers).await,
            Pace::PerSecond(_) => open_loop(round, workers).await,
        }
    }
}

/// Each worker makes one call after the other.
async fn closed_loop(round: &Arc<Round>, workers: &mut Vec<Worker>) -> anyhow::Result<Recorder> {
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    let mut loops = JoinSet::new();
    for mut worker in workers.drain(..) {
        let (round, recorder) = (Arc::clone(round), Arc::clone(&recorder));
        loops.spawn(async move {
            while let Some(due) = round.next(Instant::now()) {
                let (call, times) = round.call(&mut worker, due, due).await;
                lock(&recorder).record(call, times);
            }
            worker
        });
    }
    while let Some(worker) = loops.join_next().await {
        workers.push(worker?);
    }
    let recorded = std::mem::replace(&mut *lock(&recorder), Recorder::new()?);
    Ok(recorded)
}

/// Calls begin when they are due, each by a worker that has nothing to do; by the one that was busy last, so that no more
/// connections are open than are needed.
async fn open_loop(round: &Arc<Round>, idle: &mut Vec<Worker>) -> anyhow::Result<Recorder> {
    let (mut recorder, alarm) = (Recorder::new()?, Alarm::new()?);
    let mut calls = JoinSet::new();
    let (mut next, mut is_last) = (None, false);
    loop {
        // Not before there is an idle one: one of another thread may have nothing to do. If there is none at all, the call
        // is late, which its latency tells.
        if next.is_none() && !is_last && !idle.is_empty() {
            next = round.next(Instant::now());
            is_last = next.is_none();
        }
        tokio::select! {
            biased;
            Some(ended) = calls.join_next() => {
                let (worker, (call, times)) = ended?;
                recorder.record(call, times);
                idle.push(worker);
            }
            rung = alarm.at(next.unwrap_or(round.began)), if next.is_some() => {
                rung?;
                let due = next.take().filter(|_| !round.is_over(Instant::now()));
                let Some(due) = due else { continue };
                let Some(mut worker) = idle.pop() else { continue };
                let round_of_call = Arc::clone(round);
                calls.spawn(async move {
                    let timed = round_of_call.call(&mut worker, due, Instant::now()).await;
                    (worker, timed)
                });
            }
            else => return Ok(recorder),
        }
    }
}

fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    // What was recorded is whole after each call.
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What a single caller would record of calls that take so long each, by a clock of its own.
    fn latencies(round: &Round, took: impl Fn(u64) -> Duration) -> Vec<Duration> {
        let mut now = round.began;
        let mut latencies = Vec::new();
        while let Some(due) = round.next(now) {
            now = now.max(due) + took(latencies.len() as u64);
            latencies.push(now - due);
        }
        latencies
    }

    #[test]
    fn calls_are_due_at_their_rate_whatever_becomes_of_others() {
        let now = Instant::now();
        let round = Round::begin(Pace::PerSecond(1000.0), Until::Calls(5), now);
        let due: Vec<_> = std::iter::from_fn(|| round.next(now)).map(|due| due - now).collect();
        assert_eq!(due, [0, 1, 2, 3, 4].map(|ms| ms * MS));
    }

    #[test]
    fn one_slow_call_is_seen_in_all_that_had_to_wait_for_it() {
        let begin = |pace| Round::begin(pace, Until::Calls(1000), Instant::now());
        // One in a thousand takes half a second; 1000 a second were due.
        let took = |number| if number == 100 { 500 * MS } else { MS / 2 };
        let slow = |latencies: Vec<Duration>| latencies.iter().filter(|latency| **latency > 100 * MS).count();
        assert_eq!(slow(latencies(&begin(Pace::Closed), took)), 1);
        assert!(slow(latencies(&begin(Pace::PerSecond(1000.0)), took)) > 700);
    }

    #[test]
    fn a_round_ends_by_number_or_by_time() {
        let now = Instant::now();
        let round = Round::begin(Pace::Closed, Until::Calls(2), now);
        assert_eq!([(); 3].map(|()| round.next(now + MS).is_some()), [true, true, false]);
        let round = Round::begin(Pace::Closed, Until::Time(2 * MS), now);
        assert_eq!([1, 2].map(|ms| round.next(now + ms * MS).is_some()), [true, false]);
        // What was due within the time and could not be begun in it is not begun at all.
        let round = Round::begin(Pace::PerSecond(1000.0), Until::Time(3 * MS), now);
        assert_eq!([0, 0, 3, 3].map(|ms| round.next(now + ms * MS).is_some()), [true, true, false, false]);
        let round = Round::begin(Pace::PerSecond(1000.0), Until::Time(3 * MS), now);
        assert_eq!(std::iter::from_fn(|| round.next(now)).count(), 3);
    }

    #[test]
    fn what_is_due_is_known_before() {
        let load = |pace, measured| Load { pace, concurrency: NonZeroUsize::MIN, warm_up: Until::Calls(0), measured };
        let open = Pace::PerSecond(2.0);
        assert_eq!(load(open, Until::Time(1250 * MS)).calls_due(), Some(3));
        assert_eq!(load(open, Until::Calls(7)).time_due(), 3500 * MS);
        assert_eq!(load(Pace::Closed, Until::Time(MS)).calls_due(), None);
        assert_eq!(load(Pace::Closed, Until::Calls(7)).time_due(), Duration::ZERO);
    }
}
