//! How far a run is, for whoever sits before it.

use super::load::{Load, Running, Until};
use super::record::Recorder;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::time::Duration;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Waits for a load to end, and returns what was recorded of it.
///
/// # Errors
/// When the system has no threads or timers for it.
pub(super) async fn watched(mut running: Running, load: &Load) -> anyhow::Result<Recorder> {
    const TEMPLATE: &str = "{prefix:>9} [{wide_bar}] {msg}";
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let length = match load.measured {
        Until::Calls(calls) => calls,
        Until::Time(time) => millis(time),
    };
    // On a terminal only.
    let bar = ProgressBar::new(length).with_style(style).with_finish(ProgressFinish::AndClear).with_prefix("warm-up");
    let mut ticks = tokio::time::interval(TICK);
    let mut all = Recorder::new()?;
    loop {
        tokio::select! {
            biased;
            recorded = running.next() => match recorded? {
                Some(recorded) => all.add(recorded),
                None => return Ok(all),
            },
            _ = ticks.tick() => {}
        }
        let Some((time, calls)) = running.measured() else {
            bar.tick();
            continue;
        };
        bar.set_prefix("measuring");
        // The first look may come when no time is over.
        let seconds = time.max(Duration::from_millis(1)).as_secs_f64();
        bar.set_message(format!("{calls} calls, {:.0}/s", calls as f64 / seconds));
        bar.set_position(if matches!(load.measured, Until::Calls(_)) { calls } else { millis(time).min(length) });
    }
}
