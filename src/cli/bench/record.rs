//! What is kept of calls: counts and distributions, in a space that does not grow with their number.

use super::target::{Call, PHASES};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Three significant digits.
const DIGITS: u8 = 3;
/// The most ways to fail that are told apart.
const FAILURES_MAX: usize = 32;
/// What all other ways are called.
const OTHER: &str = "others";
/// A call that begins so long after it was due was kept waiting.
const LATE: Duration = Duration::from_millis(1);
/// The most slices of a run. With half as many they are twice as long.
const SLICES_MAX: usize = 40;
/// How long a slice is at first.
const SLICE: Duration = Duration::from_millis(10);

/// When a call was due, began and ended, from the beginning of its round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) due: Duration,
    pub(super) began: Duration,
    pub(super) ended: Duration,
}

/// All that is known of the calls of a round.
pub(super) struct Recorder {
    /// From when they were due, of those that succeeded, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Of all that were told, in nanoseconds.
    pub(super) phases: [Histogram<u64>; PHASES.len()],
    pub(super) slices: Slices,
    /// How many calls have failed in which way, and their latencies.
    pub(super) failures: BTreeMap<String, Histogram<u64>>,
    pub(super) received_bytes: u64,
    /// Those that were kept waiting, and the longest time that one was.
    pub(super) late: u64,
    pub(super) latest: Duration,
    /// When the last one ended.
    pub(super) ended: Duration,
}

impl Recorder {
    /// # Errors
    /// Never, with digits that the histogram has.
    pub(super) fn new() -> anyhow::Result<Self> {
        let empty = Histogram::new(DIGITS)?;
        Ok(Self {
            phases: std::array::from_fn(|_| empty.clone()),
            slices: Slices { length: SLICE, each: Vec::new(), empty: empty.clone() },
            latency: empty,
            failures: BTreeMap::new(),
            received_bytes: 0,
            late: 0,
            latest: Duration::ZERO,
            ended: Duration::ZERO,
        })
    }

    pub(super) fn record(&mut self, call: Call, Times { due, began, ended }: Times) {
        let latency = nanoseconds(ended.saturating_sub(due));
        for (histogram, duration) in self.phases.iter_mut().zip(call.phases) {
            if let Some(duration) = duration {
                count(histogram, nanoseconds(duration));
            }
        }
        match call.failure {
            None => {
                count(&mut self.latency, latency);
                self.slices.record(ended, latency);
            }
            Some(failure) => count(self.failures_like(failure), latency),
        }
        self.received_bytes += call.received_bytes;
        let kept_waiting = began.saturating_sub(due);
        self.late += u64::from(kept_waiting > LATE);
        self.latest = self.latest.max(kept_waiting);
        self.ended = self.ended.max(ended);
    }

    fn failures_like(&mut self, failure: String) -> &mut Histogram<u64> {
        let is_known = self.failures.len() < FAILURES_MAX || self.failures.contains_key(&failure);
        let failure = if is_known { failure } else { OTHER.to_owned() };
        self.failures.entry(failure).or_insert_with(|| self.slices.empty.clone())
    }

    /// Takes over what another has recorded in the same round.
    pub(super) fn add(&mut self, other: Self) {
        add(&mut self.latency, &other.latency);
        self.phases.iter_mut().zip(&other.phases).for_each(|(mine, other)| add(mine, other));
        self.slices.add(other.slices);
        for (failure, latencies) in other.failures {
            add(self.failures_like(failure), &latencies);
        }
        self.received_bytes += other.received_bytes;
        self.late += other.late;
        self.latest = self.latest.max(other.latest);
        self.ended = self.ended.max(other.ended);
    }

    pub(super) fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(Histogram::len).sum()
    }
}

/// The calls that succeeded, by the slice of time in which they ended: how much the machine's noise moves them.
#[derive(Clone)]
pub(super) struct Slices {
    /// Of each.
    pub(super) length: Duration,
    pub(super) each: Vec<Histogram<u64>>,
    empty: Histogram<u64>,
}

impl Slices {
    fn record(&mut self, ended: Duration, latency: u64) {
        while self.index(ended) >= SLICES_MAX {
            self.double();
        }
        let index = self.index(ended);
        while self.each.len() <= index {
            self.each.push(self.empty.clone());
        }
        count(&mut self.each[index], latency);
    }

    fn index(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.length.as_nanos()).unwrap_or(usize::MAX)
    }

    /// Makes slices twice as long.
    fn double(&mut self) {
        self.length *= 2;
        let joined = self.each.chunks(2).map(|two| {
            let mut joined = two[0].clone();
            two[1..].iter().for_each(|second| add(&mut joined, second));
            joined
        });
        self.each = joined.collect();
    }

    fn add(&mut self, mut other: Self) {
        while self.length < other.length {
            self.double();
        }
        while other.length < self.length {
            other.double();
        }
        let more = other.each.len().saturating_sub(self.each.len());
        self.each.extend(std::iter::repeat_n(self.empty.clone(), more));
        self.each.iter_mut().zip(&other.each).for_each(|(mine, other)| add(mine, other));
    }

    /// The slices that are over, and so many or more; longer ones if there are too few calls in one.
    pub(super) fn over(&self, elapsed: Duration, calls_min: u64, slices_min: usize) -> Self {
        let mut over = self.clone();
        while over.index(elapsed) > SLICES_MAX {
            over.double();
        }
        // Those behind the last call that succeeded are empty, and count.
        over.each.resize(over.index(elapsed), self.empty.clone());
        while over.each.iter().any(|slice| slice.len() < calls_min) && over.each.len() >= 2 * slices_min {
            over.each.truncate(over.each.len() / 2 * 2);
            over.double();
        }
        over
    }
}

// Neither can fail: histograms grow as they must.

fn count(to: &mut Histogram<u64>, nanoseconds: u64) {
    let _ = to.record(nanoseconds);
}

fn add(to: &mut Histogram<u64>, other: &Histogram<u64>) {
    let _ = to.add(other);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn times(due: u32, began: u32, ended: u32) -> Times {
        Times { due: due * MS, began: began * MS, ended: ended * MS }
    }

    #[test]
    fn failures_are_counted_apart_and_by_kind() {
        let failed = |failure: &str| Call { failure: Some(failure.to_owned()), ..Call::default() };
        let mut recorder = Recorder::new().unwrap();
        recorder.record(Call { received_bytes: 3, ..Call::default() }, times(0, 2, 5));
        recorder.record(failed("500 exit status 3"), times(0, 0, 900));
        (0..100).for_each(|number| recorder.record(failed(&format!("kind {number}")), times(0, 0, 1)));
        assert_eq!((recorder.succeeded(), recorder.failed(), recorder.late), (1, 101, 1));
        assert_eq!((recorder.latency.max() / 100_000, recorder.latest), (50, 2 * MS));
        assert_eq!((recorder.failures.len(), recorder.failures[OTHER].len()), (FAILURES_MAX + 1, 69));

        let mut both = Recorder::new().unwrap();
        both.add(recorder);
        both.record(failed("500 exit status 3"), times(0, 0, 1));
        assert_eq!((both.failed(), both.failures["500 exit status 3"].len(), both.received_bytes), (102, 2, 3));
        assert_eq!(both.ended, 900 * MS);
    }

    #[test]
    fn slices_are_few_and_lose_no_call() {
        let mut first = Recorder::new().unwrap();
        let mut second = Recorder::new().unwrap();
        (0..10_000).for_each(|ms| first.record(Call::default(), times(ms, ms, ms + 1)));
        (0..500).for_each(|ms| second.record(Call::default(), times(ms, ms, ms + 1)));
        second.add(first);
        let slices = &second.slices;
        assert_eq!(slices.length, 320 * MS);
        assert_eq!(slices.each.iter().map(Histogram::len).sum::<u64>(), 10_500);
        let over = slices.over(10_000 * MS, 300, 10);
        assert_eq!((over.each.len(), over.each[0].len(), over.each[30].len()), (31, 638, 320));
        let over = slices.over(10_000 * MS, 400, 10);
        assert_eq!((over.length, over.each.len(), over.each[14].len()), (640 * MS, 15, 640));
        // A run that goes on without a call that succeeds has slices to its end.
        assert_eq!(slices.over(20_000 * MS, 0, 10).each.iter().filter(|slice| slice.is_empty()).count(), 15);
        // So many slices there are at least.
        assert_eq!(slices.over(10_000 * MS, u64::MAX, 10).each.len(), 15);
    }
}
