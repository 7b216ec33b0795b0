//! What the server counts of itself, in Prometheus' form. The names that have one in OpenTelemetry's conventions for
//! functions (`faas.*`) have that.

use super::Service;
use crate::domain::{Outcome, Verdict};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Instant;

/// Bounds of the durations, in seconds: from 50 µs to the longest Timeout that is usual.
const DURATIONS: [f64; 20] = [
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0, 300.0,
];

/// What is counted as it happens; the rest is looked up when somebody asks.
pub(super) struct Metrics {
    invocations: Counter,
    errors: Counter,
    timeouts: Counter,
    durations: Histogram,
    output_bytes: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            invocations: Counter::default(),
            errors: Counter::default(),
            timeouts: Counter::default(),
            durations: Histogram::new(DURATIONS),
            output_bytes: Counter::default(),
        }
    }

    /// An execution has ended.
    pub(super) fn ended(&self, outcome: &Outcome) {
        self.invocations.inc();
        self.durations.observe(outcome.usage.duration.as_secs_f64());
        self.output_bytes.inc_by(outcome.stdout.len() as u64);
        match Verdict::from(outcome.ending) {
            Verdict::Finished => {}
            Verdict::Failed | Verdict::OutputLimit => drop(self.errors.inc()),
            Verdict::TimedOut => drop(self.timeouts.inc()),
        }
    }

    /// A call has failed without an execution, or we broke it off.
    pub(super) fn not_run(&self) {
        self.invocations.inc();
        self.errors.inc();
    }
}

impl Service {
    /// All of it now, as text: OpenMetrics 1.0.
    pub fn metrics(&self) -> String {
        let Metrics { invocations, errors, timeouts, durations, output_bytes } = &self.0.metrics;
        let load = self.load();
        let oldest = self.0.open_calls.oldest_pending().map(|since| Instant::now() - since);
        let budget = self.0.engine.memory_budget();
        let mut registry = Registry::default();
        let faas = registry.sub_registry_with_prefix("faas");
        faas.register("invocations", "Calls that ran to an end, or could not run", invocations.clone());
        faas.register("errors", "Calls that failed", errors.clone());
        faas.register("timeouts", "Calls that ran past their Timeout or Fuel", timeouts.clone());
        faas.register_with_unit("invoke_duration", "Time of an execution", Unit::Seconds, durations.clone());
        let ours = registry.sub_registry_with_prefix("hyperfunc");
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        ours.register("running", "Calls that run", gauge(load.running));
        ours.register("queue_depth", "Calls that wait", gauge(load.pending));
        let age = ConstGauge::new(oldest.map_or(0.0, |age| age.as_secs_f64()));
        ours.register_with_unit("queue_oldest_age", "How long the oldest asynchronous call waits", Unit::Seconds, age);
        let bytes = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let (charged, ceiling) = (bytes(budget.charged()), bytes(budget.ceiling()));
        ours.register_with_unit("memory_charged", "What running guests hold", Unit::Bytes, charged);
        ours.register_with_unit("memory_budget", "What running guests may hold", Unit::Bytes, ceiling);
        ours.register(
            "store_fsyncs",
            "Commits of the store, each synced once",
            ConstCounter::new(self.0.store.syncs()),
        );
        let corruptions = ConstCounter::new(self.0.store.corruptions() + self.0.files.corruptions());
        ours.register("corruptions", "Rows and modules that were not what was written, and not served", corruptions);
        ours.register_with_unit("output", "What guests wrote to stdout", Unit::Bytes, output_bytes.clone());
        let logged = ConstCounter::new(self.0.logs.bytes_written());
        ours.register_with_unit("log", "What was written to logs of functions", Unit::Bytes, logged);
        let lost = ConstCounter::new(self.0.logs.records_lost());
        ours.register("log_records_lost", "Records that no log had room for", lost);
        let mut text = String::new();
        // A String takes everything.
        let _ = encode(&mut text, &registry);
        text
    }
}
