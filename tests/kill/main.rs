//! Kills a server again and again at random moments while clients do all that clients can do, keeps a journal of every
//! answer, and compares: what was promised must hold (`docs/api.md` section 5).
//!
//! ```text
//! cargo test --locked --test kill -- --kills 1000
//! cargo test --locked --test kill -- --minutes 3
//! ```
//!
//! The seed decides what clients do and when the server is killed; how far it is by then, it does not.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test fails by panicking")]

#[allow(dead_code, unused_imports, reason = "`tests/it` uses the rest")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod changes;
mod dice;
mod journal;
mod load;
mod rounds;

use clap::Parser as _;
use rounds::{Run, Until};
use std::path::PathBuf;
use std::time::Duration;

/// Kills a server at random moments, and checks that nothing that it has promised is lost.
#[derive(clap::Parser)]
struct Args {
    /// How often it is killed
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// Goes on for so long instead
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// What chance begins with [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Where the server's data is, and stays [default: a temporary directory, which stays if something is wrong]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leaves the program's own audit of its data out
    #[arg(long)]
    no_audit: bool,
}

fn main() {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(journal::wall_ns);
    let data = args.data.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("hyperfunc-kill-{seed}")));
    println!("--seed {seed} --data {}", data.display());
    let until = match args.minutes {
        Some(minutes) => Until::Passed(Duration::from_secs(60 * minutes)),
        None => Until::Kills(args.kills),
    };
    match Run::begin(seed, &data, !args.no_audit).go(until) {
        Ok(figures) => {
            println!("{figures}");
            if args.data.is_none() {
                std::fs::remove_dir_all(&data).unwrap();
            }
        }
        Err(what) => {
            eprintln!("\nviolated: {what}\n\n--seed {seed}; its data is in {}", data.display());
            std::process::exit(1);
        }
    }
}
