//! The program without a server: on a data directory.

use super::binary;
use super::program::ended;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The command line of a verb that works on a data directory.
pub fn on(data: &Path, arguments: &[&str]) -> Command {
    let mut program = binary();
    program.args(&arguments[..1]).arg("--data").arg(data).args(&arguments[1..]);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

/// Runs a verb on a data directory.
pub fn run_on(data: &Path, arguments: &[&str]) -> Output {
    ended(on(data, arguments).spawn().unwrap())
}
