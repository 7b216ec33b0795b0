//! Places at which a test may break this program, as a bug of ours, a bad disk or a `kill -9` would.
//!
//! A place has a name: what is done there, and just before or after which step. `FAILPOINTS` says what happens at which:
//!
//! ```text
//! FAILPOINTS='accept.before_commit=return(abort);claim.after_commit=2*off->panic'
//! ```
//!
//! | action | what it stands for |
//! |---|---|
//! | `return(abort)` | a `kill -9`: nothing more is written, answered or tidied up |
//! | `return(error)` | an I/O error of the step that is next, where that can have one |
//! | `panic` | a bug of ours |
//! | `sleep(ms)` | a step that takes long |
//! | `2*off->panic` | the same, but the first two pass |
//!
//! All of it is there with the cargo feature `failpoints` alone. `tests/faults` plays it.

#[cfg(feature = "failpoints")]
pub use armed::{check, clock_offset_ms, hit, set_up};
#[cfg(not(feature = "failpoints"))]
pub use disarmed::{check, clock_offset_ms, hit, set_up};

#[cfg(feature = "failpoints")]
mod armed {
    use std::io;

    /// Takes what `FAILPOINTS` says, for the whole life of the process.
    ///
    /// # Panics
    /// When that cannot be read.
    pub fn set_up() {
        std::mem::forget(fail::FailScenario::setup());
    }

    /// Passes a place at which nothing can fail.
    ///
    /// # Panics
    /// When that is the place's action, or the action is an error.
    pub fn hit(place: &str) {
        if let Err(error) = check(place) {
            panic!("{error}, and nothing there can fail");
        }
    }

    /// Passes a place whose next step can fail.
    ///
    /// # Errors
    /// When that is the place's action.
    ///
    /// # Panics
    /// When that is the place's action, or the action is none.
    pub fn check(place: &str) -> io::Result<()> {
        fail::fail_point!(place, |action| match action.as_deref() {
            Some("abort") => std::process::abort(),
            Some("error") => Err(io::Error::other(format!("an error that was injected at {place}"))),
            other => panic!("{place}: {other:?} is no action"),
        });
        Ok(())
    }

    /// How far off the clock on the wall is: the number in the file that `FAILPOINT_CLOCK` names, at every look.
    pub fn clock_offset_ms() -> i64 {
        let offset = || std::fs::read_to_string(std::env::var_os("FAILPOINT_CLOCK")?).ok()?.trim().parse().ok();
        offset().unwrap_or(0)
    }
}

#[cfg(not(feature = "failpoints"))]
mod disarmed {
    /// Nothing is ever broken.
    pub fn set_up() {}

    /// Passes a place.
    #[inline(always)]
    pub fn hit(_place: &str) {}

    /// Passes a place.
    ///
    /// # Errors
    /// Never.
    #[inline(always)]
    pub fn check(_place: &str) -> std::io::Result<()> {
        Ok(())
    }

    /// The clock on the wall is right.
    #[inline(always)]
    pub fn clock_offset_ms() -> i64 {
        0
    }
}
