//! Behaviours that are promised in milliseconds and megabytes: each test here has the machine for itself.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test fails by panicking")]

#[allow(dead_code, unused_imports, reason = "`tests/it` uses the rest")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod hostile;
mod space;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whoever holds this has the machine for itself.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed has no say about the next.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
