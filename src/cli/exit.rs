//! What the program exits with (`docs/api.md` section 8, "Exit statuses").

use super::client::Refusal;
use crate::domain::Ending;

/// A verb that failed.
pub(super) const FAILED: u8 = 1;
/// A flag, a variable or a line of a file of ours that cannot be: as clap has it.
pub(super) const USAGE: u8 = 2;
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
    match (error.downcast_ref(), Refusal::of(error)) {
        (Some(Failed { status, .. }), _) => *status,
        (None, Some(refusal)) => of_refusal(refusal),
        (None, None) => FAILED,
    }
}

/// What a verb exits with that was given these names and failed so with one of them.
pub(super) fn of_one(error: &anyhow::Error, names: &[String]) -> u8 {
    if names.len() == 1 { of(error) } else { FAILED }
}

/// What it is that a server refuses, or that a call has failed (`docs/api.md` sections 1 and 4).
fn of_refusal(refusal: &Refusal) -> u8 {
    match refusal.status {
        404 | 410 => NOT_FOUND,
        504 => TIMED_OUT,
        509 => TRAPPED,
        500 => of_failed_call(&refusal.message),
        501.. => SERVER_ERROR,
        _ if refusal.lacks_image() => NOT_FOUND,
        _ => FAILED,
    }
}

/// How a call ended is told in words alone: those that section 4 defines.
fn of_failed_call(message: &str) -> u8 {
    let is = |beginning: &str| message.starts_with(beginning);
    if let Some(rest) = message.strip_prefix("exit status ") {
        let status = rest.split_once(':').map_or(rest, |(status, _)| status);
        return status.parse().map_or(SERVER_ERROR, of_guest);
    }
    if is("trap: ") || is("memory limit of ") {
        TRAPPED
    } else if is("no such image: ") {
        NOT_FOUND
    } else if is("cancelled") || is("ContainerSize: ") {
        FAILED
    } else {
        SERVER_ERROR
    }
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
    fn a_call_that_failed_has_the_status_of_its_guest() {
        for (status, message, told) in [
            (500, "exit status 3: no luck", 3),
            (500, "exit status 42", 42),
            (500, "exit status 256: : exit status 7", 255),
            (500, "exit status -1", 255),
            (500, "exit status x", SERVER_ERROR),
            (500, "trap: unreachable", TRAPPED),
            (500, "memory limit of s1 (64 MB) reached", TRAPPED),
            (509, "output limit of 1 MB reached", TRAPPED),
            (504, "timeout of 1 s reached", TIMED_OUT),
            (504, "fuel limit reached", TIMED_OUT),
            (500, "cancelled", FAILED),
            (500, "no such image: x", NOT_FOUND),
            (500, "interrupted", SERVER_ERROR),
            (500, "server error, call 01a21058-8253-7790-9b0b-56681865e47e", SERVER_ERROR),
            (500, "", SERVER_ERROR),
            (503, "the server is about to end", SERVER_ERROR),
            (404, "no such function", NOT_FOUND),
            (410, "the output of this call is not kept any more", NOT_FOUND),
            (400, "Config.Image: no such image: x", NOT_FOUND),
            (400, "ContainerSize: no", FAILED),
            (409, "a function named f exists already", FAILED),
            (403, "quota", FAILED),
        ] {
            let error = anyhow::Error::from(Refusal { status, message: message.to_owned() });
            assert_eq!(of(&error), told, "{status} {message}");
            assert_eq!(of(&error.context("whatever was done")), told, "{status} {message}");
        }
    }

    #[test]
    fn a_failure_is_never_a_success() {
        for (status, told) in [(0, 0), (3, 3), (200, 200), (255, 255), (256, 255), (257, 1), (-1, 255), (i32::MIN, 255)]
        {
            assert_eq!(of_guest(status), told, "{status}");
        }
    }
}
