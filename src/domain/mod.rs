//! The nouns of the product and their rules: pure, no I/O, no clock, no wire format.
//!
//! A value of a type in here is valid: what comes from outside becomes one of these through a
//! checking constructor, or is answered with an [`Invalid`] that names the field.

mod call;
mod event;
mod function;
mod host;
mod ids;
mod limits;
mod module;
mod outcome;
mod size;

pub use call::{
    CRASHES_MAX, CallKey, CallRequest, CallResult, CallState, IdempotencyKey, Listed, Place, Tally, Variable, Verdict,
    Waiting,
};
pub use event::{Called, Entry, Event, EventKind, Gap, Output, Record, Short, Started, Stopped};
pub use function::{Change, Command, Config, ConfigChange, Definition, Env, Function, Timeout, Timestamp};
pub use host::{HostChange, HostConfig, Json, NetworkMode, PortBinding, PortBindings};
pub use ids::{AccountId, CallId, Digest, FunctionName, FunctionUuid, ImageReference};
pub use limits::{
    Limits, MB, Quota, QuotaKind, STDERR_HEAD_BYTES, STDERR_TAIL_BYTES, STDIN_BYTES_MAX, STDOUT_BYTES_MAX,
};
pub use module::{Image, ImageConfig, MemoryKind, ModuleInfo};
pub use outcome::{Captured, Ending, Outcome, Trap, Usage};
pub use size::ContainerSize;

use std::borrow::Cow;

/// A value that the contract does not allow, and the field it stood in.
///
/// Shown to the user as `field: problem`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field as the user wrote it, such as `Config.Env`.
    pub field: Cow<'static, str>,
    /// What is wrong with it, in one line.
    pub problem: String,
}

impl Invalid {
    /// An error about `field`.
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// How a value that came from outside is quoted in a message: on one line and not for ever.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
