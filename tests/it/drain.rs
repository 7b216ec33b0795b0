//! What becomes of calls that nobody waits for when the server is asked to end (`docs/api.md` section 5).

use crate::harness::calls::{Tally, asynchronous, output, status};
use crate::harness::guests::{self, Stamped};
use crate::harness::{Connection, Reply, Request, Server, eventually};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// How much longer than its drain a server may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// A call whose start is on disk.
const RUNS: Tally = Tally { pending: 0, running: 1, finished: 0, failed: 0 };
const TWO_AT_A_TIME: [&str; 2] = ["--max-running", "2"];

#[track_caller]
fn assert_told_to_come_back(reply: &Reply) {
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{}", reply.text());
}

/// Asks the server to end, waits until it has, and checks that it took no longer than it may.
#[track_caller]
fn drained(server: &mut Server, drain: Duration) {
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0), "{}", server.log());
    let took = began.elapsed();
    assert!(took < drain + GRACE, "{took:?}");
}

#[test]
fn calls_that_end_in_time_have_ended_and_those_that_wait_run_under_the_next_server() {
    let mut server = Server::with(&["--max-running", "1"]);
    let slow = server.function("slow", &guests::stamps(1_500_000_000), json!({}));
    let quick = server.function("quick", &guests::stamps(0), json!({}));
    let running = server.enqueue(&slow, "slow");
    server.wait_for_tally(&slow, RUNS);
    let waiting = ["1", "2"].map(|body| server.enqueue(&quick, body));
    let mut waits = [(&slow, &running), (&quick, &waiting[0])].map(|(target, call)| {
        let mut connection = Connection::open(server.functions);
        connection.send(&Request::new(server.functions, "GET", &format!("{}/wait", output(target, call))));
        connection
    });
    server.signal(Signal::TERM);
    // Nobody is kept, and nothing is taken in.
    waits.iter_mut().for_each(|waits| assert_told_to_come_back(&waits.reply()));
    for (method, target) in [
        ("POST", asynchronous(&quick)),
        ("POST", &quick),
        ("GET", &status(&quick)),
        ("GET", &output(&slow, &running)),
        ("GET", &format!("{}/wait", output(&slow, &running))),
    ] {
        assert_told_to_come_back(&Request::new(server.functions, method, target).send());
    }
    assert_eq!(server.ended().code(), Some(0));

    let server = server.restart(&["--max-running", "1"]);
    assert_eq!(server.tally(&slow), Tally { finished: 1, ..Tally::default() });
    let found = Stamped::of(&server.output(&slow, &running).expect(200).body);
    assert_eq!((found.attempt, found.body.as_str()), (1, "slow"));
    let found = waiting.map(|call| Stamped::of(&server.wait(&quick, &call).expect(200).body));
    assert_eq!(found.each_ref().map(|found| (found.attempt, found.body.as_str())), [(1, "1"), (1, "2")]);
    assert!(found[0].at < found[1].at);
    server.wait_for_tally(&quick, Tally::default());
}

#[test]
fn calls_that_do_not_end_in_time_go_back_however_often_and_no_drain_is_a_crash() {
    const DRAINS: u8 = 4;
    let drain = Duration::from_millis(200);
    let arguments = [TWO_AT_A_TIME.as_slice(), &["--drain", "200ms"]].concat();
    let mut server = Server::with(&arguments);
    let guests = [guests::sleeps_before_attempt(DRAINS + 1), guests::spins_before_attempt(DRAINS + 1)];
    let targets = ["sleeps", "spins"];
    let calls: Vec<_> = targets
        .iter()
        .zip(&guests)
        .map(|(name, wat)| {
            let target = server.function(name, wat, json!({}));
            let call = server.enqueue(&target, "");
            (target, call)
        })
        .collect();
    let behind = server.function("behind", &guests::stamps(0), json!({}));
    for _ in 0..DRAINS {
        for (target, call) in &calls {
            server.wait_for_tally(target, RUNS);
            server.output(target, call).expect(201);
        }
        drained(&mut server, drain);
        server = server.restart(&arguments);
        // Behind those that have come back to their place.
        let call = server.enqueue(&behind, "");
        server.output(&behind, &call);
    }
    for (target, call) in &calls {
        assert_eq!(server.wait(target, call).expect(200).text(), (DRAINS + 1).to_string());
    }
}

#[test]
fn a_call_goes_back_to_its_place() {
    let mut server = Server::with(&["--max-running", "1", "--drain", "0"]);
    let first = server.function("first", &guests::sleeps_before_attempt(2), json!({}));
    let second = server.function("second", &guests::sleeps_before_attempt(2), json!({}));
    let calls = [server.enqueue(&first, ""), server.enqueue(&second, "")];
    server.wait_for_tally(&first, RUNS);
    drained(&mut server, Duration::ZERO);
    let server = server.restart(&["--max-running", "1"]);
    // The second one runs for the first time, and for ever: had it overtaken the first, that would wait.
    assert_eq!(server.wait(&first, &calls[0]).expect(200).text(), "2");
    server.wait_for_tally(&second, RUNS);
}

#[test]
fn a_kill_in_the_drain_is_a_crash_and_a_drain_between_crashes_is_none() {
    let mut server = Server::start();
    let target = server.function("f", &guests::sleeps_before_attempt(9), json!({}));
    let call = server.enqueue(&target, "");
    let runs = |server: &Server| server.wait_for_tally(&target, RUNS);
    let killed_in_drain = |server: Server| {
        runs(&server);
        server.signal(Signal::TERM);
        eventually("it drains", || server.get("/_ping").status == 503);
        server.kill_and_restart_with(&["--drain", "0"])
    };
    server = killed_in_drain(server);
    runs(&server);
    drained(&mut server, Duration::ZERO);
    server = killed_in_drain(server.restart(&[]));
    runs(&server);
    drained(&mut server, Duration::ZERO);
    // Five starts, three of them ended by a crash.
    server = killed_in_drain(server.restart(&[]));
    assert_eq!(server.wait(&target, &call).expect(500).text(), "interrupted\n");
    assert_eq!(server.get("/info").json()["Running"], 0);
}

#[test]
fn a_second_signal_ends_at_once_and_calls_are_run_again() {
    let mut server = Server::start();
    let target = server.function("f", &guests::spins_before_attempt(2), json!({}));
    let call = server.enqueue(&target, "");
    server.wait_for_tally(&target, RUNS);
    server.signal(Signal::TERM);
    eventually("it drains", || server.get("/_ping").status == 503);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(143));
    let server = server.restart(&[]);
    assert_eq!(server.wait(&target, &call).expect(200).text(), "2");
}

#[test]
fn a_drain_between_the_starts_of_calls_ends_none_of_them() {
    const CALLS: usize = 200;
    const DRAINS: usize = 8;
    let mut server = Server::with(&TWO_AT_A_TIME);
    let target = server.function("f", &guests::stamps(2_000_000), json!({}));
    let calls: Vec<_> = (0..CALLS).map(|number| server.enqueue(&target, &number.to_string())).collect();
    for _ in 0..DRAINS {
        server.wait_for_running(2);
        drained(&mut server, Duration::from_secs(30));
        server = server.restart(&TWO_AT_A_TIME);
    }
    // Whatever was about to start has ended before its server, or was not started by it.
    for (number, call) in calls.iter().enumerate() {
        let found = Stamped::of(&server.wait(&target, call).expect(200).body);
        assert_eq!((found.attempt, found.body), (1, number.to_string()));
    }
    server.wait_for_tally(&target, Tally::default());
}

#[test]
fn two_hundred_calls_that_run_end_in_a_drain_and_none_is_lost_or_run_twice() {
    const CALLS: usize = 100;
    let mut server = Server::with(&["--max-running", "200"]);
    let target = server.function("f", &guests::stamps(4_000_000_000), json!({}));
    let accepted: Vec<_> = (0..CALLS).map(|number| server.enqueue(&target, &number.to_string())).collect();
    let mut waiting: Vec<_> = (0..CALLS).map(|_| server.begin("POST", &target)).collect();
    server.wait_for_running(2 * CALLS as u64);
    drained(&mut server, Duration::from_secs(30));
    for call in &mut waiting {
        let reply = call.reply().expect(200);
        assert_eq!(Stamped::of(&reply.body).attempt, 1);
    }
    let server = server.restart(&[]);
    assert_eq!(server.tally(&target), Tally { finished: CALLS as u64, ..Tally::default() });
    for (number, call) in accepted.iter().enumerate() {
        let found = Stamped::of(&server.output(&target, call).expect(200).body);
        assert_eq!((found.body, found.attempt), (number.to_string(), 1));
    }
}
