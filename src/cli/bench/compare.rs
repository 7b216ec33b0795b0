//! Whether one run was faster than another, as far as the noise within them lets anybody say.
//!
//! A run is cut into slices of time, and each gives a value. All values of one run over all of the other are so many
//! ratios, and their median is the ratio of the runs (Hodges and Lehmann). Between which two of the ratios it lies with a
//! certainty of 99 % follows from their number alone (Mann and Whitney), however the values are distributed.

use super::report::{LoadMade, Report, SliceValues};
use crate::cli::exit::{self, USAGE};
use anyhow::{Context as _, bail};
use serde::Serialize;
use std::path::Path;

/// The least slices of a run that say anything about noise.
const SLICES_MIN: usize = 10;
/// Beyond it lies one in a hundred of the normal distribution, on both sides together.
const QUANTILE_99: f64 = 2.576;
/// Neighbours that are more alike than that are so by chance, with so few slices.
const CORRELATION_MAX: f64 = 0.8;
/// A run with so many slices without a call more than the other stood still.
const STANDSTILL_MIN: usize = 3;
/// Calls with which a run has some in each slice, unless it stands still.
const CALLS_MIN: f64 = 100.0;
/// What two starts of one program differ by, and no run sees by itself.
const RATIO_MIN: f64 = 1.02;

/// What a run was compared with, and how it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Comparison {
    /// When the other ran.
    pub(super) with: String,
    /// What it called, and how.
    #[serde(skip)]
    pub(super) with_what: String,
    pub(super) p50: Verdict,
    pub(super) p99: Verdict,
    pub(super) throughput: Verdict,
}

/// How one value of a run is to that of another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// How many times better, and between which two numbers that lies; `None` if there are too few slices to say.
    pub(super) times_better: Option<Interval>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) enum Outcome {
    Faster,
    Slower,
    /// None that so many calls could show.
    NoDifference,
    /// The runs were too short.
    TooFewCalls,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Interval {
    pub(super) ratio: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// A run that was written by `--json`.
///
/// # Errors
/// When the file cannot be read, or is something else.
pub(super) fn read(file: &Path) -> anyhow::Result<Report> {
    let shown = file.display();
    let text = std::fs::read(file).with_context(|| format!("--compare: {shown}"))?;
    serde_json::from_slice(&text).with_context(|| format!("--compare: {shown} is not what bench --json writes"))
}

/// # Errors
/// When the two cannot be compared: another load has other latencies, of the same program too.
pub(super) fn check_alike(old: &Report, new_kind: super::target::Kind, new_load: &LoadMade) -> anyhow::Result<()> {
    if old.what.kind != new_kind {
        let [old, new] = [old.what.kind, new_kind].map(super::target::Kind::told);
        bail!("--compare: the old run was of {old}, and this is {new}: they cannot be compared");
    }
    if old.load != *new_load {
        let [old, new] = [&old.load, new_load].map(LoadMade::options);
        let problem =
            format_args!("--compare: the old run was made with {old}, and this is {new}: they cannot be compared");
        return Err(exit::with(USAGE, problem));
    }
    Ok(())
}

impl Comparison {
    pub(super) fn of(old: &Report, new: &Report) -> Self {
        let (before, now) = (&old.slices, &new.slices);
        Self {
            with: old.when.clone(),
            with_what: format!("{}, {}", old.what.shown(), old.load.options()),
            p50: Verdict::of(times_better(&now.p50_us, &before.p50_us)),
            p99: Verdict::of(times_better(&now.p99_us, &before.p99_us)),
            throughput: Verdict::of(throughput(before, now)),
        }
    }
}

/// How many times more calls succeed now; `None` if there are too few to say.
fn throughput(before: &SliceValues, now: &SliceValues) -> Option<Interval> {
    let empty = [before, now].map(|run| run.calls_per_s.iter().filter(|calls| **calls <= 0.0).count());
    let calls = [before, now].map(|run| run.calls_per_s.iter().sum::<f64>() * run.length_s);
    // With so few, slices without one are chance.
    if empty != [0, 0] && calls[0].max(calls[1]) < CALLS_MIN {
        return None;
    }
    // A slice without any is taken for one with a single one, so that nothing is divided by zero.
    let least = 1.0 / before.length_s.max(now.length_s);
    let [old, new] = [before, now].map(|run| run.calls_per_s.iter().map(|calls| calls.max(least)).collect::<Vec<_>>());
    let interval = times_better(&old, &new)?;
    if empty[0].abs_diff(empty[1]) < STANDSTILL_MIN {
        return Some(interval);
    }
    // A standstill is no noise around a median, which would not see it: all calls are counted.
    let [old, new] = [&old, &new].map(|run| run.iter().sum::<f64>() / run.len() as f64);
    let ratio = new / old;
    Some(Interval { ratio, low: ratio, high: ratio })
}

impl Verdict {
    fn of(times_better: Option<Interval>) -> Self {
        let outcome = match times_better {
            None => Outcome::TooFewCalls,
            Some(Interval { ratio, low, .. }) if low > 1.0 && ratio >= RATIO_MIN => Outcome::Faster,
            Some(Interval { ratio, high, .. }) if high < 1.0 && ratio <= 1.0 / RATIO_MIN => Outcome::Slower,
            Some(_) => Outcome::NoDifference,
        };
        Self { outcome, times_better }
    }
}

/// How many times less `new` is than `old`; `None` if there are too few to say.
fn times_better(new: &[f64], old: &[f64]) -> Option<Interval> {
    let (few, many) = (new.len() as f64, old.len() as f64);
    let is_enough = |values: &[f64]| values.len() >= SLICES_MIN && values.iter().all(|value| *value > 0.0);
    if !is_enough(new) || !is_enough(old) {
        return None;
    }
    let mut ratios: Vec<f64> = old.iter().flat_map(|old| new.iter().map(move |new| old / new)).collect();
    ratios.sort_by(f64::total_cmp);
    let alone = QUANTILE_99 * (few * many * (few + many + 1.0) / 12.0).sqrt();
    let spread = alone * f64::midpoint(clustering(new), clustering(old)).sqrt();
    let outside = (few * many / 2.0 - spread).max(0.0) as usize;
    let middle = ratios.len() / 2;
    let ratio = if ratios.len() % 2 == 1 { ratios[middle] } else { f64::midpoint(ratios[middle - 1], ratios[middle]) };
    Some(Interval { ratio, low: ratios[outside], high: ratios[ratios.len() - 1 - outside] })
}

/// How many slices tell as much as one would that is independent of its neighbours: a machine that is busy for a while slows
/// several in a row. From the correlation of each slice with the next.
fn clustering(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let product = |(one, other): (&f64, &f64)| (one - mean) * (other - mean);
    let variance: f64 = values.iter().zip(values).map(product).sum();
    let with_next: f64 = values.iter().zip(&values[1..]).map(product).sum();
    let correlation = if variance > 0.0 { (with_next / variance).clamp(0.0, CORRELATION_MAX) } else { 0.0 };
    (1.0 + correlation) / (1.0 - correlation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices of a run around a value: most near it, some far above, as a busy machine has them.
    fn slices(around: f64, seed: u64, count: usize) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut uniform = move || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let slice = |_| {
            let near = (uniform() + uniform() + uniform() - 1.5) * 0.1;
            let far = if uniform() < 0.1 { uniform() } else { 0.0 };
            around * (1.0 + near + far)
        };
        (0..count).map(slice).collect()
    }

    /// How many of a thousand pairs of runs have that outcome, the second of which takes `factor` as long.
    fn share(factor: f64, outcome: Outcome) -> usize {
        let pair = |seed: u64| {
            let (old, new) = (slices(100.0, 2 * seed, 20), slices(100.0 * factor, 2 * seed + 1, 30));
            Verdict::of(times_better(&new, &old)).outcome
        };
        (0..1000).filter(|seed| pair(*seed) == outcome).count()
    }

    #[test]
    fn runs_that_are_alike_have_no_verdict() {
        assert!(share(1.0, Outcome::NoDifference) >= 980);
    }

    /// A machine that is busy for a third of each run.
    #[test]
    fn what_slows_slices_in_a_row_is_not_taken_for_a_difference() {
        let busy = |seed: u64| {
            let mut slices = slices(100.0, seed, 30);
            let begin = (seed % 20) as usize;
            slices[begin..begin + 10].iter_mut().for_each(|slice| *slice *= 1.5);
            slices
        };
        let is_taken = |seed: &u64| {
            let verdict = Verdict::of(times_better(&busy(seed * 7), &slices(100.0, seed * 7 + 3, 30)));
            verdict.outcome != Outcome::NoDifference
        };
        assert!((1..1000).filter(is_taken).count() <= 100);
    }

    #[test]
    fn a_fifth_more_or_less_has_one() {
        assert!(share(1.2, Outcome::Slower) >= 990);
        assert!(share(1.0 / 1.2, Outcome::Faster) >= 990);
    }

    #[test]
    fn the_interval_holds_the_true_ratio() {
        let holds = |seed: u64| {
            let (old, new) = (slices(150.0, 2 * seed, 20), slices(100.0, 2 * seed + 1, 20));
            times_better(&new, &old).is_some_and(|Interval { low, high, .. }| low <= 1.5 && 1.5 <= high)
        };
        assert!((0..1000).filter(|seed| holds(*seed)).count() >= 980);
    }

    #[test]
    fn the_two_runs_are_alike_to_it() {
        let (old, new) = (slices(100.0, 1, 20), slices(80.0, 2, 25));
        let (there, back) = (times_better(&new, &old).unwrap(), times_better(&old, &new).unwrap());
        for (one, other) in [(there.low, back.high), (there.high, back.low), (there.ratio, back.ratio)] {
            assert!((one * other - 1.0).abs() < 0.01, "{there:?} {back:?}");
        }
    }

    #[test]
    fn a_server_that_dies_half_way_has_slower_calls() {
        let run = |calls_per_s| SliceValues { length_s: 0.5, calls_per_s, p50_us: vec![], p99_us: vec![] };
        let whole = run(slices(100.0, 1, 20));
        let half = run([slices(100.0, 2, 10), vec![0.0; 10]].concat());
        assert_eq!(Verdict::of(throughput(&whole, &half)).outcome, Outcome::Slower);
        assert_eq!(Verdict::of(throughput(&half, &whole)).outcome, Outcome::Faster);
        assert_eq!(Verdict::of(throughput(&half, &half)).outcome, Outcome::NoDifference);
        let dead = run(vec![0.0; 20]);
        assert_eq!(Verdict::of(throughput(&whole, &dead)).outcome, Outcome::Slower);
        assert_eq!(throughput(&dead, &dead), None);
    }

    #[test]
    fn too_few_slices_or_one_without_calls_say_nothing() {
        let enough = slices(100.0, 1, 10);
        assert_eq!(times_better(&enough, &enough[1..]), None);
        assert_eq!(times_better(&[0.0; 10], &enough), None);
        assert_eq!(times_better(&enough, &[]), None);
        assert_eq!(Verdict::of(times_better(&enough, &enough)).outcome, Outcome::NoDifference);
    }
}
