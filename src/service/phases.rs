//! What a synchronous call has spent its time on.

use crate::domain::Usage;
use std::time::{Duration, Instant};

/// From the acceptance of a call to its answer, without a gap (`docs/api.md` section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// Until it might run.
    pub queue: Duration,
    /// Until its module was loaded and its environment made.
    pub load: Duration,
    /// Until the first instruction of its guest.
    pub instantiate: Duration,
    /// Until its guest had ended and was taken down.
    pub run: Duration,
    /// Until its output was ready to be sent, and its end told to the log.
    pub output: Duration,
}

impl Phases {
    /// The phases of a call that was accepted, permitted, loaded and answered at these times.
    pub(super) fn of([accepted, permitted, loaded, answered]: [Instant; 4], usage: &Usage) -> Self {
        Self {
            queue: permitted - accepted,
            load: loaded - permitted,
            instantiate: usage.instantiation,
            run: usage.duration.saturating_sub(usage.instantiation),
            output: (answered - loaded).saturating_sub(usage.duration),
        }
    }

    /// All, by their names.
    pub fn named(&self) -> [(&'static str, Duration); 5] {
        let Self { queue, load, instantiate, run, output } = *self;
        [("queue", queue), ("load", load), ("instantiate", instantiate), ("run", run), ("output", output)]
    }
}
