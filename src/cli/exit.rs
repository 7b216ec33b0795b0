//! What the program exits with (`docs/api.md` section 8, "Exit statuses").

use crate::domain::Ending;

/// A verb that failed.
pub(super) const FAILED: u8 = 1;
/// A guest that ran past its timeout, or out of fuel: as `timeout` has it.
pub(super) const TIMED_OUT: u8 = 124;
/// The server, or we, failed: as `docker run` has it.
pub(super) const SERVER_ERROR: u8 = 125;
/// A module that is not one that we run: a shell's command that cannot be executed.
pub(super) const NOT_RUNNABLE: u8 = 126;
/// Something that is not there: a shell's command that is not found.
pub(super) const NOT_FOUND: u8 = 127;
/// Ctrl-C: 128 and the number of SIGINT.
pub(super) const INTERRUPTED: u8 = 130;
/// A guest that trapped: 128 and the number of SIGABRT.
pub(super) const TRAPPED: u8 = 134;

/// A failure that has an exit status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Failed {
    pub(super) status: u8,
    reason: String,
}

/// Fails with a status.
pub(super) fn with(status: u8, reason: impl std::fmt::Display) -> anyhow::Error {
    Failed { status, reason: reason.to_string() }.into()
}

/// What a verb exits with that failed so.
pub(super) fn of(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failed>().map_or(FAILED, |failed| failed.status)
}

/// What a guest's end is to whoever started it as a program.
pub(super) fn of_ending(ending: Ending) -> u8 {
    match ending {
        Ending::Finished => 0,
        Ending::ExitStatus(status) => of_guest(status),
        Ending::Trapped(_) | Ending::MemoryLimit | Ending::StdoutLimit => TRAPPED,
        Ending::TimedOut | Ending::OutOfFuel => TIMED_OUT,
        Ending::MemoryBudget | Ending::Cancelled => SERVER_ERROR,
    }
}

/// A guest's own status. Of it a process can tell only eight bits, and a failure stays one.
pub(super) fn of_guest(status: i32) -> u8 {
    match status.to_le_bytes()[0] {
        0 if status != 0 => u8::MAX,
        low => low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_a_success() {
        for (status, told) in [(0, 0), (3, 3), (200, 200), (255, 255), (256, 255), (257, 1), (-1, 255), (i32::MIN, 255)]
        {
            assert_eq!(of_guest(status), told, "{status}");
        }
    }
}
