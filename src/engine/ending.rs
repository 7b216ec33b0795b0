//! wasmtime's ways to end, as the domain's: the one table.

use super::Error;
use crate::domain::{Ending, Trap};

/// Why we stop a guest ourselves: raised as a trap from where the limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("output limit")]
    StdoutLimit,
    #[error("memory budget")]
    MemoryBudget,
}

/// The instance was not made: unless the guest is to blame for that, we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("instantiation")]
pub(super) struct NotInstantiated;

/// How a guest ended that returned `result` from its start or its instantiation.
///
/// `refused` says whether a growth past its cap was refused: a failure after one is put down to it.
pub(super) fn ending(result: wasmtime::Result<()>, refused: bool) -> Result<Ending, Error> {
    let Err(error) = result else { return Ok(Ending::Finished) };
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return Ok(match stop {
            Stop::StdoutLimit => Ending::StdoutLimit,
            Stop::MemoryBudget => Ending::MemoryBudget,
        });
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return Err(Error::Sandbox(format!("{error:#}")));
    }
    let exit_status = error.downcast_ref::<wasmtime_wasi::I32Exit>().map(|exit| exit.0);
    let trap = error.downcast_ref::<wasmtime::Trap>().copied();
    Ok(match (exit_status, trap) {
        (Some(0), _) => Ending::Finished,
        (_, Some(wasmtime::Trap::OutOfFuel)) => Ending::OutOfFuel,
        _ if refused => Ending::MemoryLimit,
        (Some(status), _) => Ending::ExitStatus(status),
        (None, Some(trap)) => Ending::Trapped(domain_trap(trap)),
        (None, None) if error.is::<NotInstantiated>() => return Err(Error::Sandbox(format!("{error:#}"))),
        // An error of a host call, such as too many random bytes at once.
        (None, None) => Ending::Trapped(Trap::HostCall),
    })
}

fn domain_trap(trap: wasmtime::Trap) -> Trap {
    use wasmtime::Trap as T;
    match trap {
        T::UnreachableCodeReached => Trap::Unreachable,
        T::MemoryOutOfBounds => Trap::MemoryOutOfBounds,
        T::TableOutOfBounds => Trap::TableOutOfBounds,
        T::IndirectCallToNull => Trap::IndirectCallToNull,
        T::BadSignature => Trap::BadSignature,
        T::IntegerOverflow => Trap::IntegerOverflow,
        T::IntegerDivisionByZero => Trap::IntegerDivisionByZero,
        T::BadConversionToInteger => Trap::BadConversionToInteger,
        T::StackOverflow => Trap::StackOverflow,
        T::HeapMisaligned => Trap::HeapMisaligned,
        // wasmtime's enum is not ours and grows: the rest belongs to proposals that are off.
        _ => Trap::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_before_the_guest_begins_is_ours_unless_it_trapped() {
        let failed = |error: wasmtime::Error| ending(Err(error.context(NotInstantiated)), false);
        assert!(matches!(failed(wasmtime::Error::msg("mmap")), Err(Error::Sandbox(_))));
        let trapped = failed(wasmtime::Trap::UnreachableCodeReached.into());
        assert_eq!(trapped.unwrap(), Ending::Trapped(Trap::Unreachable));
    }

    #[test]
    fn every_end_has_its_case() {
        let exit = |status| Err(wasmtime::Error::from(wasmtime_wasi::I32Exit(status)));
        let trap = |trap: wasmtime::Trap| Err(wasmtime::Error::from(trap));
        for (result, refused, expected) in [
            (Ok(()), false, Ending::Finished),
            (Ok(()), true, Ending::Finished),
            (exit(0), true, Ending::Finished),
            (exit(3), false, Ending::ExitStatus(3)),
            (exit(3), true, Ending::MemoryLimit),
            (trap(wasmtime::Trap::UnreachableCodeReached), false, Ending::Trapped(Trap::Unreachable)),
            (trap(wasmtime::Trap::UnreachableCodeReached), true, Ending::MemoryLimit),
            (trap(wasmtime::Trap::OutOfFuel), true, Ending::OutOfFuel),
            (Err(Stop::StdoutLimit.into()), true, Ending::StdoutLimit),
            (Err(Stop::MemoryBudget.into()), true, Ending::MemoryBudget),
            (Err(wasmtime::Error::msg("random")), false, Ending::Trapped(Trap::HostCall)),
        ] {
            assert_eq!(ending(result, refused).unwrap(), expected);
        }
    }
}
