//! Behaviours that are promised in milliseconds and megabytes: each test here has the machine for itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    dead_code,
    reason = "the harness is the other tests' too"
)]

#[allow(dead_code, reason = "`tests/it` uses the rest")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod hostile;
