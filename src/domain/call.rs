//! A call that was accepted, from its acceptance to its end.
//!
//! ```text
//!           claim              finish
//!  PENDING ───────▶ RUNNING ─────────▶ FINISHED, FAILED ──▶ read or discarded: nothing is left
//!     ▲                │                      │
//!     └── give back ───┘                      └──▶ gone: rotated out or expired, remembered for a while
//!         recover
//! ```
//!
//! A claim begins a new start, which has a number. Only the start that runs now may finish a call or give it back: what
//! comes late from an earlier one changes nothing (`docs/api.md` section 5).

use super::{AccountId, CallId, Ending, FunctionName, Outcome, Timestamp};
use bytes::Bytes;
use std::borrow::Cow;

/// How many starts of a call may end because the server crashed.
pub const CRASHES_MAX: u32 = 3;

/// The place of a call in the order of acceptance. A call that comes back to the queue keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u64);

/// Names a call: an id alone does not open a call of another function or account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// Whose it is.
    pub account: AccountId,
    /// What is called.
    pub function: FunctionName,
    /// Which call.
    pub call_id: CallId,
}

/// A variable of a guest's environment that comes from its request.
pub type Variable = (Cow<'static, str>, String);

/// What a call brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallRequest {
    /// stdin.
    pub body: Bytes,
    /// What the request says of itself: RFC 3875, `docs/api.md` section 4.
    pub variables: Vec<Variable>,
}

impl CallRequest {
    /// What counts of it while the call waits, in bytes. Its variables have a limit of their own.
    pub fn bytes(&self) -> u64 {
        self.body.len() as u64
    }
}

/// What a client calls a call of its own, so that it may ask twice: `Idempotency-Key`, as its sha256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 32]);

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// It waits.
    Pending,
    /// It runs.
    Running,
    /// It has ended well.
    Finished,
    /// It has ended in another way.
    Failed,
}

impl CallState {
    /// The contract's word.
    pub fn text(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
        }
    }
}

/// What a caller is told of an end: each has one answer (`docs/api.md` section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// stdout is the answer.
    Finished,
    /// It failed.
    Failed,
    /// It ran past its Timeout or its Fuel.
    TimedOut,
    /// It wrote more than a call may.
    OutputLimit,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Finished, Self::Failed, Self::TimedOut, Self::OutputLimit];

    /// The state of a call that ended so.
    pub fn state(self) -> CallState {
        match self {
            Self::Finished => CallState::Finished,
            Self::Failed | Self::TimedOut | Self::OutputLimit => CallState::Failed,
        }
    }
}

impl From<Ending> for Verdict {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Finished => Self::Finished,
            Ending::TimedOut | Ending::OutOfFuel => Self::TimedOut,
            Ending::StdoutLimit => Self::OutputLimit,
            Ending::ExitStatus(_)
            | Ending::Trapped(_)
            | Ending::MemoryLimit
            | Ending::MemoryBudget
            | Ending::Cancelled => Self::Failed,
        }
    }
}

/// What an ended call leaves for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallResult {
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed, in one line; `None` if it finished.
    pub message: Option<String>,
    /// What the function says that its output is.
    pub content_type: Option<String>,
    /// The output; of a call that failed, nothing.
    pub stdout: Bytes,
    /// What is kept of stderr.
    pub stderr: Bytes,
}

impl CallResult {
    /// What is left of an execution. `message` is [`Outcome::message`], `content_type` what the function says of its
    /// output.
    pub fn of(outcome: Outcome, message: Option<String>, content_type: Option<&str>) -> Self {
        let verdict = Verdict::from(outcome.ending);
        let stdout = if message.is_none() { outcome.stdout.into() } else { Bytes::new() };
        let content_type = content_type.map(str::to_owned);
        Self { verdict, message, content_type, stdout, stderr: outcome.stderr.kept().into() }
    }

    /// What is left of a call that has no outcome.
    pub fn failed(message: impl Into<String>) -> Self {
        let message = Some(message.into());
        let (content_type, stdout, stderr) = (None, Bytes::new(), Bytes::new());
        Self { verdict: Verdict::Failed, message, content_type, stdout, stderr }
    }

    /// What it counts for among the ended calls of its function, in bytes.
    pub fn kept_bytes(&self) -> u64 {
        (self.stdout.len() + self.stderr.len()) as u64
    }
}

/// A call that waits, as the scheduler needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which call.
    pub key: CallKey,
    /// Where it stands in the order of acceptance.
    pub place: Place,
    /// When it was accepted.
    pub created: Timestamp,
    /// What it holds while it waits, in bytes.
    pub bytes: u64,
}

/// The calls of a function that are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// They wait.
    pub pending: u64,
    /// They run.
    pub running: u64,
    /// They ended well, and their output is kept.
    pub finished: u64,
    /// They failed, and that is kept.
    pub failed: u64,
}

impl Tally {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.pending + self.running + self.finished + self.failed
    }
}

/// A call in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which call.
    pub call_id: CallId,
    /// When it was accepted.
    pub created: Timestamp,
    /// Where it stands.
    pub state: CallState,
    /// Why it failed.
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Captured, ContainerSize, Timeout, Trap, Usage};

    fn result(ending: Ending) -> CallResult {
        let stderr = Captured { head: b"why".to_vec(), tail: b"\nnot".to_vec(), lost: 9 };
        let outcome = Outcome { ending, stdout: b"out".to_vec(), stderr, usage: Usage::default() };
        let message = outcome.message(ContainerSize::S1, Timeout::default());
        CallResult::of(outcome, message, Some("text/html"))
    }

    #[test]
    fn only_a_finished_call_has_an_output() {
        let finished = result(Ending::Finished);
        assert_eq!((finished.verdict, finished.message.as_deref()), (Verdict::Finished, None));
        assert_eq!((&finished.stdout[..], &finished.stderr[..]), (&b"out"[..], &b"why\nnot"[..]));
        assert_eq!(finished.kept_bytes(), 10);
        let failed = result(Ending::Trapped(Trap::Unreachable));
        assert_eq!(failed.message.as_deref(), Some("trap: unreachable"));
        assert_eq!((failed.stdout.len(), failed.kept_bytes()), (0, 7));
    }

    #[test]
    fn each_verdict_has_its_state() {
        let states = Verdict::ALL.map(|verdict| verdict.state().text());
        assert_eq!(states, ["FINISHED", "FAILED", "FAILED", "FAILED"]);
    }
}
