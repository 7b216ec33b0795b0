//! What every test needs: a server, a client that sees every byte, and small guests.

pub mod alone;
pub mod calls;
pub mod fields;
pub mod guests;
mod http;
pub mod logs;
pub mod program;
mod server;
pub mod terminal;

pub use http::{Connection, Reply, Request};
pub use server::{Server, binary};

use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a test waits for what must come: far longer than it takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not in [`PATIENCE`]; `what` says what was waited for.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The call that a function's JSON is the address of.
pub fn address(function: &Value) -> String {
    let text = |key: &str| function[key].as_str().unwrap_or_else(|| panic!("no {key} in {function}"));
    format!("/call/{}/{}/sync", text("Name"), text("UUID"))
}
