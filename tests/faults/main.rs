//! What is promised (`docs/api.md` section 5) when the server is broken at any of its steps, as by a `kill -9`, a bad
//! disk, or a bug of ours: `cargo test --features failpoints --test faults`.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test fails by panicking")]

#[allow(dead_code, unused_imports, reason = "`tests/it` uses the rest")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod breaking;

mod calls;
mod clock;
mod definitions;
mod panics;
mod places;
mod results;
mod starting;
