//! The numbers of a run: what `--json` prints, and what is shown and compared of it.

use super::load::{Load, Pace};
use super::record::Recorder;
use super::target::{Kind, PHASES};
use crate::cli::output;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The bars of the histogram, without the one of the slowest calls.
const BARS: u32 = 10;
/// The least slices that are left when they are joined to have more calls each.
const SLICES_MIN: usize = 10;
/// Calls without which a slice has no p99.
const CALLS_OF_P99: u64 = 100;

/// A run. The names have the units.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Report {
    pub(super) what: What,
    /// When it ended.
    pub(super) when: String,
    /// Of this program.
    pub(super) version: String,
    pub(super) machine: Machine,
    pub(super) load: LoadMade,
    pub(super) calls: Calls,
    /// From the first call to the end of the last.
    pub(super) elapsed_s: f64,
    /// Calls that succeeded.
    pub(super) calls_per_s: f64,
    /// Of the calls that succeeded; `None` if none did.
    pub(super) latency_us: Option<Latency>,
    pub(super) histogram: Vec<Bar>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) failures: Vec<Failure>,
    /// By name.
    pub(super) phases_us: serde_json::Map<String, serde_json::Value>,
    pub(super) slices: SliceValues,
}

/// What was called.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct What {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) args: Vec<String>,
}

impl What {
    /// As a person would name it.
    pub(super) fn shown(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.args).map(|word| output::one_line(word));
        words.collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Machine {
    pub(super) cores: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LoadMade {
    pub(super) concurrency: usize,
    /// `None` if each call began when the one before had ended.
    pub(super) rate_per_s: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Calls {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Began more than 1 ms after they were due.
    pub(super) late: u64,
    /// How late the latest of them was.
    pub(super) latest_us: f64,
    /// Were due, and the time was over before they could begin.
    pub(super) not_sent: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Latency {
    pub(super) mean: f64,
    pub(super) stddev: f64,
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "P99.9")]
    pub(super) p99_9: f64,
    pub(super) max: f64,
}

/// So many calls took so long, and longer than those of the bar before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Bar {
    pub(super) up_to_us: f64,
    pub(super) calls: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failure {
    pub(super) kind: String,
    pub(super) calls: u64,
    pub(super) p50_us: f64,
}

/// Values of each slice of the run, for comparisons: none that have too few calls for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SliceValues {
    pub(super) length_s: f64,
    pub(super) calls_per_s: Vec<f64>,
    pub(super) p50_us: Vec<f64>,
    pub(super) p99_us: Vec<f64>,
}

impl Report {
    pub(super) fn of(what: What, load: &Load, sent_bytes_each: u64, recorded: &Recorder) -> Self {
        let (succeeded, failed) = (recorded.succeeded(), recorded.failed());
        let elapsed = recorded.ended.max(load.time_due());
        let calls = Calls {
            succeeded,
            failed,
            late: recorded.late,
            latest_us: microseconds(nanoseconds(recorded.latest)),
            not_sent: load.calls_due().map_or(0, |due| due.saturating_sub(succeeded + failed)),
        };
        let failures = recorded.failures.iter().map(|(kind, latencies)| Failure {
            kind: kind.clone(),
            calls: latencies.len(),
            p50_us: quantile(latencies, 0.5),
        });
        let mut failures: Vec<Failure> = failures.collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.calls));
        Self {
            what,
            when: format!("{:.3}", jiff::Timestamp::now()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine { cores: std::thread::available_parallelism().map_or(1, usize::from) },
            load: LoadMade::of(load),
            calls,
            elapsed_s: elapsed.as_secs_f64(),
            calls_per_s: succeeded as f64 / elapsed.as_secs_f64(),
            latency_us: (succeeded > 0).then(|| Latency::of(&recorded.latency)),
            histogram: bars(&recorded.latency),
            sent_bytes: sent_bytes_each * (succeeded + failed),
            received_bytes: recorded.received_bytes,
            failures,
            phases_us: phases(&recorded.phases),
            slices: SliceValues::of(recorded, elapsed),
        }
    }
}

impl LoadMade {
    pub(super) fn of(load: &Load) -> Self {
        let rate_per_s = match load.pace {
            Pace::Closed => None,
            Pace::PerSecond(rate) => Some(rate),
        };
        Self { concurrency: load.concurrency.get(), rate_per_s }
    }

    /// The options that ask for it.
    pub(super) fn options(&self) -> String {
        let rate = self.rate_per_s.map(|rate| format!("--rate {rate} ")).unwrap_or_default();
        format!("{rate}-c {}", self.concurrency)
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            mean: histogram.mean() / 1e3,
            stddev: histogram.stdev() / 1e3,
            min: microseconds(histogram.min()),
            p50: quantile(histogram, 0.5),
            p90: quantile(histogram, 0.9),
            p99: quantile(histogram, 0.99),
            p99_9: quantile(histogram, 0.999),
            max: microseconds(histogram.max()),
        }
    }
}

impl SliceValues {
    fn of(recorded: &Recorder, elapsed: Duration) -> Self {
        let slices = recorded.slices.over(elapsed, CALLS_OF_P99, SLICES_MIN);
        let (length, slices) = (slices.length, slices.each);
        let quantiles = |q, calls_min| {
            let values = slices.iter().map(|slice| quantile(slice, q));
            if slices.iter().all(|slice| slice.len() >= calls_min) { values.collect() } else { Vec::new() }
        };
        Self {
            length_s: length.as_secs_f64(),
            calls_per_s: slices.iter().map(|slice| slice.len() as f64 / length.as_secs_f64()).collect(),
            p50_us: quantiles(0.5, 1),
            p99_us: quantiles(0.99, CALLS_OF_P99),
        }
    }
}

/// Equally wide bars up to the slowest hundredth, which would make them all too wide, and that.
fn bars(latencies: &Histogram<u64>) -> Vec<Bar> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let (min, p99) = (latencies.min(), latencies.value_at_quantile(0.99));
    let width = (p99 - min) / u64::from(BARS);
    let mut calls = BTreeMap::new();
    for value in latencies.iter_recorded() {
        let at = value.value_iterated_to();
        let up_to = if at > p99 {
            latencies.max()
        } else {
            let bar = at.saturating_sub(min).checked_div(width).unwrap_or_default().min(u64::from(BARS) - 1);
            if bar + 1 == u64::from(BARS) { p99 } else { min + width * (bar + 1) }
        };
        *calls.entry(up_to).or_insert(0) += value.count_at_value();
    }
    calls.into_iter().map(|(up_to, calls)| Bar { up_to_us: microseconds(up_to), calls }).collect()
}

fn phases(histograms: &[Histogram<u64>; PHASES.len()]) -> serde_json::Map<String, serde_json::Value> {
    let told = PHASES.iter().zip(histograms).filter(|(_, histogram)| !histogram.is_empty());
    let value = |histogram| serde_json::json!({ "P50": quantile(histogram, 0.5), "P99": quantile(histogram, 0.99) });
    told.map(|(name, histogram)| ((*name).to_owned(), value(histogram))).collect()
}

fn quantile(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    microseconds(histogram.value_at_quantile(quantile))
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
