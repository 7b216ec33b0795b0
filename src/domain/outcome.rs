//! How an execution ends, and what it leaves.

use super::{ContainerSize, Timeout};
use std::time::Duration;

/// Why a guest was stopped by the machine that runs it: WebAssembly's traps, one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// The `unreachable` instruction: what a panic or an abort compiles to.
    Unreachable,
    /// An access past the end of a memory.
    MemoryOutOfBounds,
    /// An access past the end of a table.
    TableOutOfBounds,
    /// An indirect call through an empty table entry.
    IndirectCallToNull,
    /// An indirect call of a function of another type.
    BadSignature,
    /// A signed division that does not fit.
    IntegerOverflow,
    /// A division by zero.
    IntegerDivisionByZero,
    /// A float that is no integer.
    BadConversionToInteger,
    /// Calls nested too deep.
    StackOverflow,
    /// An atomic access that is not aligned.
    HeapMisaligned,
    /// A host call was given what the host refuses.
    HostCall,
    /// Any other trap that the engine knows.
    Other,
}

impl Trap {
    /// The words that a user sees.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::MemoryOutOfBounds => "out of bounds memory access",
            Self::TableOutOfBounds => "out of bounds table access",
            Self::IndirectCallToNull => "call of an empty table entry",
            Self::BadSignature => "indirect call of a function of another type",
            Self::IntegerOverflow => "integer overflow",
            Self::IntegerDivisionByZero => "integer divide by zero",
            Self::BadConversionToInteger => "invalid conversion to integer",
            Self::StackOverflow => "call stack exhausted",
            Self::HeapMisaligned => "misaligned atomic access",
            Self::HostCall => "a host call was refused its arguments",
            Self::Other => "wasm trap",
        }
    }
}

/// The one way in which an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Returned from `_start`, or exit status 0.
    Finished,
    /// Any other exit status.
    ExitStatus(i32),
    /// Trapped.
    Trapped(Trap),
    /// Ran past the function's `Timeout`.
    TimedOut,
    /// Spent the function's `Fuel`.
    OutOfFuel,
    /// Wrote more to stdout than a call may.
    StdoutLimit,
    /// Trapped, or exited with another status than 0, after a growth past the size was refused.
    MemoryLimit,
    /// Grew when the machine's memory budget had no room left.
    MemoryBudget,
    /// Somebody who may do so ended it.
    Cancelled,
}

/// What an execution used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Wall clock from instantiation to exit.
    pub duration: Duration,
    /// The part of it until the guest's first instruction.
    pub instantiation: Duration,
    /// The most that memories and tables held together, in bytes.
    pub memory_peak_bytes: u64,
    /// Fuel spent; `None` if the function is unmetered.
    pub fuel: Option<u64>,
}

/// A guest's stderr, as far as it is kept: its beginning and its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes, when there were more than `head` holds.
    pub tail: Vec<u8>,
    /// How many bytes between the two are not kept.
    pub lost: u64,
}

impl Captured {
    /// All that is kept.
    pub fn kept(self) -> Vec<u8> {
        let mut kept = self.head;
        kept.extend_from_slice(&self.tail);
        kept
    }

    /// The last line that is not blank, made fit for one line of text: control characters become
    /// spaces, and a long line keeps its beginning.
    pub fn last_line(&self) -> Option<String> {
        const CHARS_MAX: usize = 255;
        // What is kept is contiguous exactly when nothing between the two parts was lost.
        let kept = if self.lost == 0 { [self.head.as_slice(), &self.tail].concat() } else { self.tail.clone() };
        let text = String::from_utf8_lossy(&kept);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect())
    }
}

/// What an execution left behind. A guest that fails is a value of this type, never an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote to stdout, at most the limit.
    pub stdout: Vec<u8>,
    /// What is kept of stderr.
    pub stderr: Captured,
    /// What it used.
    pub usage: Usage,
}

impl Outcome {
    /// Why the call failed, in one line (`docs/api.md` section 4); `None` if it finished.
    pub fn message(&self, size: ContainerSize, timeout: Timeout) -> Option<String> {
        Some(match self.ending {
            Ending::Finished => return None,
            Ending::ExitStatus(status) => match self.stderr.last_line() {
                Some(line) => format!("exit status {status}: {line}"),
                None => format!("exit status {status}"),
            },
            Ending::Trapped(trap) => format!("trap: {}", trap.text()),
            Ending::TimedOut => format!("timeout of {} s reached", timeout.seconds()),
            Ending::OutOfFuel => "fuel limit reached".to_owned(),
            Ending::StdoutLimit => "output limit of 1 MB reached".to_owned(),
            Ending::MemoryLimit => format!("memory limit of {size} reached"),
            Ending::MemoryBudget => "the server has no memory left for this call".to_owned(),
            Ending::Cancelled => "cancelled".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending, stderr: &[u8]) -> Outcome {
        let stderr = Captured { head: stderr.to_vec(), ..Captured::default() };
        Outcome { ending, stdout: Vec::new(), stderr, usage: Usage::default() }
    }

    #[test]
    fn messages_are_the_contracts() {
        let text = |ending, stderr: &[u8]| outcome(ending, stderr).message(ContainerSize::S1, Timeout::default());
        assert_eq!(text(Ending::Finished, b"x"), None);
        assert_eq!(
            text(Ending::ExitStatus(3), b"a\nbad \x1b[31m thing\n\n").unwrap(),
            "exit status 3: bad  [31m thing"
        );
        assert_eq!(text(Ending::ExitStatus(1), b"\n").unwrap(), "exit status 1");
        assert_eq!(text(Ending::Trapped(Trap::Unreachable), b"").unwrap(), "trap: unreachable");
        assert_eq!(text(Ending::MemoryLimit, b"").unwrap(), "memory limit of s1 (64 MB) reached");
        assert_eq!(text(Ending::TimedOut, b"").unwrap(), "timeout of 300 s reached");
    }

    #[test]
    fn the_last_line_comes_from_the_end() {
        let captured = Captured { head: b"first\n".to_vec(), tail: b"ut off\nlast\n".to_vec(), lost: 9 };
        assert_eq!(captured.last_line().unwrap(), "last");
        let whole = Captured { head: b"one li".to_vec(), tail: b"ne".to_vec(), lost: 0 };
        assert_eq!(whole.last_line().unwrap(), "one line");
    }
}
