//! A run for people.

use super::compare::{Comparison, Interval, Outcome, Verdict};
use super::report::{Bar, Latency, Report};
use super::target::Kind;
use crate::cli::output;
use std::time::Duration;

/// The longest bar, in characters.
const BAR_CHARS: usize = 40;

/// Prints a run, and how it compares.
///
/// # Errors
/// When stdout cannot be written.
pub(super) fn print(report: &Report, comparison: Option<&Comparison>) -> std::io::Result<()> {
    let mut lines = vec![title(report), String::new()];
    lines.push(row("calls", &calls(report)));
    if let Some(latency) = &report.latency_us {
        lines.extend(latencies(latency));
    }
    let [sent, received] = [report.sent_bytes, report.received_bytes].map(output::bytes);
    lines.push(row("bytes", &format!("{sent} in, {received} out")));
    if !report.histogram.is_empty() {
        lines.push(String::new());
        lines.extend(histogram(&report.histogram));
    }
    if !report.phases_us.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:<14}{:>10}{:>12}", "PHASE", "P50", "P99"));
        lines.extend(report.phases_us.iter().map(|(name, values)| {
            let shown = if report.what.kind == Kind::File { time } else { whole };
            let [p50, p99] = ["P50", "P99"].map(|key| shown(values[key].as_f64().unwrap_or_default()));
            format!("{name:<14}{p50:>10}{p99:>12}")
        }));
    }
    if !report.failures.is_empty() {
        lines.push(String::new());
        lines.push(format!("{:<14}{:>10}   FAILED WITH", "CALLS", "P50"));
        lines.extend(
            report
                .failures
                .iter()
                .map(|failure| format!("{:<14}{:>10}   {}", failure.calls, time(failure.p50_us), failure.kind)),
        );
    }
    if let Some(comparison) = comparison {
        lines.push(String::new());
        lines.extend(compared(comparison));
    }
    lines.iter().try_for_each(|text| output::line(text.trim_end()))
}

fn title(report: &Report) -> String {
    let what = &report.what;
    let name = what.shown();
    let place = match what.kind {
        Kind::File => " in this process",
        Kind::Function | Kind::Url => "",
    };
    let concurrency = report.load.concurrency;
    let how = match report.load.rate_per_s {
        Some(rate) => format!("{rate} calls/s, at most {concurrency} at once"),
        None => format!("{concurrency} at once"),
    };
    format!("{name}{place}: {how}, {:.1} s", report.elapsed_s)
}

fn calls(report: &Report) -> String {
    let calls = &report.calls;
    let mut text = format!("{} succeeded, {:.1}/s", calls.succeeded, report.calls_per_s);
    if calls.failed > 0 {
        text += &format!("; {} FAILED", calls.failed);
    }
    if calls.late > 0 {
        text += &format!("; {} began late, by {} at most", calls.late, time(calls.latest_us));
    }
    if calls.not_sent > 0 {
        text += &format!("; {} could not be sent in time", calls.not_sent);
    }
    text
}

fn latencies(latency: &Latency) -> [String; 3] {
    let Latency { mean, stddev, min, p50, p90, p99, p99_9, max } = latency;
    let values = |named: &[(&str, &f64)]| {
        let value = |(name, us): &(&str, &f64)| format!("{name} {:<10}", time(**us));
        named.iter().map(value).collect::<Vec<_>>().join("  ")
    };
    [
        row("latency", &format!("mean {} ± {}", time(*mean), time(*stddev))),
        row("", &values(&[("min", min), ("p50", p50), ("p90", p90)])),
        row("", &values(&[("max", max), ("p99", p99), ("p99.9", p99_9)])),
    ]
}

fn histogram(bars: &[Bar]) -> impl Iterator<Item = String> {
    let most = bars.iter().map(|bar| bar.calls).max().unwrap_or_default().max(1);
    bars.iter().map(move |bar| {
        // One that is not empty is seen.
        let chars = (bar.calls as f64 / most as f64 * BAR_CHARS as f64).ceil() as usize;
        format!("{:>12} {:<BAR_CHARS$} {}", time(bar.up_to_us), "■".repeat(chars), bar.calls)
    })
}

fn compared(comparison: &Comparison) -> Vec<String> {
    let Comparison { with, with_what, p50, p99, throughput } = comparison;
    let mut lines = vec![format!("compared with {with_what}, of {}:", output::one_line(with))];
    lines
        .extend([("p50", p50), ("p99", p99), ("calls/s", throughput)].map(|(name, verdict)| row(name, &told(verdict))));
    lines
}

/// `faster by 1.12x (1.08 to 1.17)`
fn told(verdict: &Verdict) -> String {
    let Some(Interval { ratio, low, high }) = verdict.times_better else {
        return "the runs had too few calls to say".to_owned();
    };
    match verdict.outcome {
        Outcome::Faster => format!("faster by {ratio:.2}x ({low:.2} to {high:.2})"),
        Outcome::Slower => format!("slower by {:.2}x ({:.2} to {:.2})", 1.0 / ratio, 1.0 / high, 1.0 / low),
        Outcome::NoDifference | Outcome::TooFewCalls => {
            format!("no difference that so many calls could show: {ratio:.2}x ({low:.2} to {high:.2})")
        }
    }
}

fn row(name: &str, text: &str) -> String {
    format!("{name:<9}{text}")
}

/// A server tells whole microseconds: more digits would be made up here.
fn whole(us: f64) -> String {
    match us.round() {
        us if us < 1.0 => "<1 µs".to_owned(),
        us if us < 1e3 => format!("{us} µs"),
        us => time(us),
    }
}

fn time(us: f64) -> String {
    output::duration(Duration::try_from_secs_f64(us / 1e6).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_of_a_server_has_the_digits_that_the_server_told() {
        assert_eq!([0.0, 1.0, 9.007, 999.9].map(whole), ["<1 µs", "1 µs", "9 µs", &time(1000.0)]);
    }
}
