//! A clock on the wall that is wrong, and jumps: nothing that is waited for or put in order is taken from it.

use crate::breaking::armed;
use crate::harness::Server;
use crate::harness::calls::{A_YEAR, Tally};
use crate::harness::guests::{self, Stamped};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// A server whose clock can be set.
struct Clocked {
    server: Server,
    file: PathBuf,
    dir: TempDir,
}

impl Clocked {
    fn start(offset_ms: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::on(dir, offset_ms)
    }

    fn on(dir: TempDir, offset_ms: i64) -> Self {
        let file = dir.path().join("clock");
        set(&file, offset_ms);
        let mut binary = armed("");
        binary.env("FAILPOINT_CLOCK", &file);
        let data = dir.path().join("data");
        let server = Server::try_as(binary, &data, &["--max-running", "1"]).unwrap_or_else(|log| panic!("{log}"));
        Self { server, file, dir }
    }

    /// Kills it, and starts another at another time.
    fn restart(self, offset_ms: i64) -> Self {
        drop(self.server);
        Self::on(self.dir, offset_ms)
    }

    fn set(&self, offset_ms: i64) {
        set(&self.file, offset_ms);
    }
}

/// Nobody sees half a number.
fn set(file: &Path, offset_ms: i64) {
    let beside = file.with_extension("new");
    fs::write(&beside, offset_ms.to_string()).unwrap();
    fs::rename(&beside, file).unwrap();
}

#[test]
fn a_timeout_is_the_same_whatever_the_clock_does() {
    for jump in [-HOUR, YEAR] {
        let clock = Clocked::start(0);
        let server = &clock.server;
        let spins = server.function("spins", &guests::spins(), json!({"Timeout": 1}));
        let sleeps = server.function("sleeps", &guests::sleeps(300_000_000), json!({"Timeout": 5}));
        for (target, status, least) in [(&spins, 504, 1_000), (&sleeps, 200, 300)] {
            clock.set(0);
            let began = Instant::now();
            let mut call = server.begin("POST", target);
            server.wait_for_running(1);
            clock.set(jump);
            call.reply().expect(status);
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(least) && took < Duration::from_secs(5), "{jump}: {took:?}");
        }
    }
}

#[test]
fn calls_start_in_their_order_whatever_the_clock_does() {
    let clock = Clocked::start(0);
    let blocker = clock.server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
    let target = clock.server.function("f", &guests::stamps(0), json!({}));
    let first = clock.server.accept_and_run(&blocker);
    // Each is younger than the one before, but for the clock.
    let mut calls = Vec::new();
    for offset in [0, -HOUR, YEAR, -YEAR, HOUR] {
        clock.set(offset);
        calls.push(clock.server.enqueue(&target, &offset.to_string()));
    }
    // After a crash as well, at yet another time.
    let clock = clock.restart(-YEAR);
    clock.server.wait_until_it_runs(&first);
    clock.server.cancel(&first);
    clock.set(YEAR);
    let mut last = 0;
    for call in &calls {
        let found = Stamped::of(&clock.server.wait(&target, call).expect(200).body);
        assert_eq!(found.attempt, 1);
        assert!(found.at > last, "{} came too early", found.body);
        last = found.at;
    }
}

#[test]
fn a_call_that_ended_in_the_future_is_there_when_the_clock_is_right_again() {
    let clock = Clocked::start(HOUR);
    let target = clock.server.function("f", &guests::cat(), json!({}));
    let call = clock.server.enqueue(&target, "kept");
    clock.server.wait_for_tally(&target, Tally { finished: 1, ..Tally::default() });
    clock.set(0);
    assert_eq!(clock.server.list(&target).len(), 1);
    let clock = clock.restart(-HOUR);
    assert_eq!(clock.server.wait(&target, &call).expect(200).text(), "kept");
}

#[test]
fn only_what_people_see_is_taken_from_the_clock() {
    let clock = Clocked::start(YEAR);
    let created = |name: &str| {
        clock.server.load(name, &guests::prints(name));
        let function = clock.server.create(&json!({"Name": name, "Config": {"Image": name}}));
        function["Created"].as_str().unwrap().to_owned()
    };
    let late = created("late");
    clock.set(0);
    let early = created("early");
    assert!(early < late, "{early} {late}");
}
