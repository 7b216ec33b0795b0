//! More calls than may run: who waits, who is sent away, and who is next.

use crate::harness::{Connection, Reply, Request, Server, address, eventually, guests};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
const DEBUG: [&str; 2] = ["--log", "hyperfunc=debug"];

/// Writes what the clock on the wall shows, as the bytes of a number.
const CLOCK: &str = r#"(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (if (call $clock (i32.const 0) (i64.const 1) (i32.const 16)) (then unreachable))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 8))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))))"#;

/// Sends a call whose answer is read later.
fn begin(server: &Server, target: &str, body: &str) -> Connection {
    let mut connection = Connection::open(server.functions);
    connection.send(&Request::new(server.functions, "POST", target).body(body));
    connection
}

/// Sends a call, and waits until it is the `pending`th of those that wait.
fn begin_to_wait(server: &Server, target: &str, body: &str, pending: u64) -> Connection {
    let connection = begin(server, target, body);
    server.wait_for_info("Pending", pending);
    connection
}

/// A call that runs until [`release`]. Its function is called `blocker`.
fn block(server: &Server) -> Connection {
    let target = server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
    let running = server.get("/info").json()["Running"].as_u64().unwrap();
    let connection = begin(server, &target, "");
    server.wait_for_running(running + 1);
    connection
}

/// Ends the call that [`block`] has begun.
#[track_caller]
fn release(server: &Server, mut blocker: Connection) {
    server.request("DELETE", "/funcs/blocker?force=1").send().expect(204);
    assert_eq!(blocker.reply().expect(500).text(), "cancelled\n");
}

/// Asserts how many calls run and wait.
#[track_caller]
fn assert_load(server: &Server, running: u64, pending: u64) {
    let info = server.get("/info").json();
    assert_eq!((&info["Running"], &info["Pending"]), (&json!(running), &json!(pending)));
    assert_eq!(info["ContainersRunning"], running);
}

/// The ids of the calls that have ended, in their order.
fn ended(server: &Server) -> Vec<String> {
    let log = server.log();
    let ends = log.lines().filter(|line| line.contains("call ended"));
    ends.map(|line| line.split("call_id=").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

fn call_id(reply: &Reply) -> String {
    reply.header("x-call-id").unwrap().to_owned()
}

#[track_caller]
fn assert_retry_after(reply: &Reply) {
    assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(reply.header("x-call-id"), None, "it never was a call");
    assert_eq!(reply.text().lines().count(), 1);
}

#[test]
fn a_call_that_finds_no_slot_waits_and_then_runs() {
    let server = Server::with(&["--max-running", "1"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = block(&server);
    let mut waits = begin_to_wait(&server, &cat, "patience", 1);
    assert_load(&server, 1, 1);
    // A call in a queue holds nothing up but calls.
    server.get("/_ping").expect(200);
    release(&server, blocker);
    assert_eq!(waits.reply().expect(200).text(), "patience");
    assert_load(&server, 0, 0);
}

#[test]
fn those_who_wait_run_in_the_order_in_which_they_came() {
    let server = Server::with(&["--max-running", "1"]);
    let targets = ["a", "b", "c"].map(|name| server.function(name, CLOCK, json!({})));
    let blocker = block(&server);
    let waiting: Vec<_> = (1..)
        .zip([0, 0, 1, 2, 2, 0, 1, 1, 2, 0, 0, 2])
        .map(|(pending, function): (u64, usize)| begin_to_wait(&server, &targets[function], "", pending))
        .collect();
    release(&server, blocker);
    let ran_at = |mut waits: Connection| u64::from_le_bytes(waits.reply().expect(200).body.try_into().unwrap());
    let times: Vec<_> = waiting.into_iter().map(ran_at).collect();
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "{times:?}");
    assert_load(&server, 0, 0);
}

#[test]
fn a_function_at_its_own_limit_holds_no_other_up() {
    let server = Server::with(&["--max-running", "2"]);
    let limited = server.function("limited", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 1}));
    let other = server.function("other", &guests::cat(), json!({}));
    let mut runs = begin(&server, &limited, "");
    server.wait_for_running(1);
    let mut waits = begin_to_wait(&server, &limited, "", 1);
    // The call that waits is older, and its turn has not come.
    for _ in 0..20 {
        assert_eq!(server.call(&other, "at once").expect(200).text(), "at once");
    }
    assert_load(&server, 1, 1);
    server.request("DELETE", "/funcs/limited?force=1").send().expect(204);
    assert_eq!(runs.reply().expect(500).text(), "cancelled\n");
    assert_eq!(waits.reply().expect(404).text(), "no such function\n");
    assert_load(&server, 0, 0);
}

#[test]
fn a_call_that_has_waited_too_long_is_sent_away_and_never_runs() {
    const WAIT: Duration = Duration::from_millis(500);
    let server = Server::with(&[DEBUG.as_slice(), &["--max-running", "1", "--sync-wait", "500ms"]].concat());
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = block(&server);
    let began = Instant::now();
    let reply = server.call(&cat, "").expect(503);
    let took = began.elapsed();
    assert!(WAIT <= took && took < 10 * WAIT, "{took:?}");
    assert_retry_after(&reply);
    assert_load(&server, 1, 0);
    release(&server, blocker);
    let id = call_id(&server.call(&cat, "").expect(200));
    eventually("the last call in the log", || ended(&server).contains(&id));
    assert_eq!(ended(&server).len(), 2, "the blocker and the last call alone: {}", server.log());
    assert_load(&server, 0, 0);
}

#[test]
fn a_full_queue_sends_a_call_away_and_it_never_runs() {
    let server = Server::with(&[DEBUG.as_slice(), &["--max-running", "1", "--max-pending", "1"]].concat());
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = block(&server);
    let mut waits = begin_to_wait(&server, &cat, "waits", 1);
    for _ in 0..5 {
        assert_retry_after(&server.call(&cat, "").expect(429));
    }
    assert_load(&server, 1, 1);
    release(&server, blocker);
    let id = call_id(&waits.reply().expect(200));
    eventually("the call that waited in the log", || ended(&server).contains(&id));
    assert_eq!(ended(&server).len(), 2, "the blocker and the call that waited: {}", server.log());
    assert_load(&server, 0, 0);
}

#[test]
fn the_bytes_that_wait_are_bounded_exactly() {
    let server = Server::with(&["--max-running", "1", "--max-pending-bytes", "1KB"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = block(&server);
    assert_retry_after(&server.call(&cat, vec![b'x'; 1025]).expect(429));
    let mut waiting = vec![begin_to_wait(&server, &cat, &"x".repeat(600), 1)];
    assert_retry_after(&server.call(&cat, vec![b'x'; 425]).expect(429));
    waiting.push(begin_to_wait(&server, &cat, &"x".repeat(424), 2));
    assert_retry_after(&server.call(&cat, "x").expect(429));
    waiting.push(begin_to_wait(&server, &cat, "", 3));
    release(&server, blocker);
    let lengths: Vec<_> = waiting.iter_mut().map(|waits| waits.reply().expect(200).body.len()).collect();
    assert_eq!(lengths, [600, 424, 0]);
    // What has run is not counted any more.
    let blocker = block(&server);
    let mut waits = begin_to_wait(&server, &cat, &"x".repeat(1024), 1);
    release(&server, blocker);
    assert_eq!(waits.reply().expect(200).body.len(), 1024);
    assert_load(&server, 0, 0);
}

#[test]
fn raising_max_concurrency_starts_those_who_wait() {
    let server = Server::start();
    let target = server.function("f", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 1}));
    let mut calls = vec![begin(&server, &target, "")];
    server.wait_for_running(1);
    for pending in 1..=3 {
        calls.push(begin_to_wait(&server, &target, "", pending));
    }
    let update = |max: u32| server.request("PUT", "/funcs/f").json(&json!({"MaxConcurrency": max})).send().expect(200);
    for (max, running, pending) in [(2, 2, 2), (1, 2, 2), (3, 3, 1), (0, 4, 0)] {
        update(max);
        // An update is answered when it has happened.
        assert_load(&server, running, pending);
    }
    server.request("DELETE", "/funcs/f").send().expect(409);
    server.request("DELETE", "/funcs/f?force=1").send().expect(204);
    for mut call in calls {
        assert_eq!(call.reply().expect(500).text(), "cancelled\n");
    }
    assert_load(&server, 0, 0);
}

#[test]
fn a_function_that_is_removed_takes_its_waiting_calls_along() {
    let server = Server::with(&[DEBUG.as_slice(), &["--max-running", "1"]].concat());
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = block(&server);
    let mut waits = begin_to_wait(&server, &cat, "", 1);
    // No call of it runs: it needs no force.
    server.request("DELETE", "/funcs/cat").send().expect(204);
    let told = waits.reply().expect(404);
    let stranger = server.call(&cat, "").expect(404);
    assert_eq!((told.text(), told.header("x-call-id")), (stranger.text(), None));
    assert_load(&server, 1, 0);
    release(&server, blocker);
    // Its name is free, and what waited under it is forgotten.
    let cat = server.function("cat", &guests::cat(), json!({}));
    let id = call_id(&server.call(&cat, "").expect(200));
    eventually("the last call in the log", || ended(&server).contains(&id));
    assert_eq!(ended(&server).len(), 2, "the blocker and the last call alone: {}", server.log());
    assert_load(&server, 0, 0);
}

#[test]
fn the_end_of_a_running_call_by_removal_starts_none_that_waits() {
    const ROUNDS: usize = 20;
    let server = Server::with(&[DEBUG.as_slice(), &["--max-running", "1"]].concat());
    for _ in 0..ROUNDS {
        let target = server.function("f", &guests::sleeps(A_YEAR), json!({}));
        let mut runs = begin(&server, &target, "");
        server.wait_for_running(1);
        let waiting: Vec<_> = (1..=3).map(|pending| begin_to_wait(&server, &target, "", pending)).collect();
        server.request("DELETE", "/funcs/f?force=1").send().expect(204);
        assert_eq!(runs.reply().expect(500).text(), "cancelled\n");
        for mut waits in waiting {
            assert_eq!(waits.reply().expect(404).text(), "no such function\n");
        }
        assert_load(&server, 0, 0);
    }
    let other = server.function("other", &guests::cat(), json!({}));
    let id = call_id(&server.call(&other, "").expect(200));
    eventually("the last call in the log", || ended(&server).contains(&id));
    assert_eq!(ended(&server).len(), ROUNDS + 1, "{}", server.log());
}

#[test]
fn a_call_whose_function_is_removed_before_its_body_is_there_never_runs() {
    let server = Server::start();
    let target = server.function("cat", &guests::cat(), json!({}));
    let mut connection = server.connect();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    connection.write(head.as_bytes());
    connection.reply().expect(100);
    server.request("DELETE", "/funcs/cat").send().expect(204);
    connection.write(b"late");
    assert_eq!(connection.reply().expect(404).text(), "no such function\n");
}

#[test]
fn a_call_runs_the_function_as_it_is_at_its_start() {
    let server = Server::with(&["--max-running", "1"]);
    server.load_bytes("echo", guests::TOOLBOX);
    let config = |said: &str| json!({"Cmd": [said], "Image": "echo"});
    let fails = server.function("fails", &guests::fails(3, ""), json!({}));
    let echo = address(&server.create(&json!({"Name": "f", "Config": config("old")})));
    let update = |name: &str, change: Value| {
        server.request("PUT", &format!("/funcs/{name}")).json(&change).send().expect(200);
    };

    let blocker = block(&server);
    let mut updated = begin_to_wait(&server, &echo, "", 1);
    update("f", json!({"Config": {"Cmd": ["new"], "Labels": {"sh.hyperfunc.content-type": "text/html"}}}));
    let mut reloaded = begin_to_wait(&server, &fails, "", 2);
    server.load("fails", &guests::prints("mended"));
    // A new address does not stop who came by the old one.
    update("f", json!({"Refresh": true}));
    server.call(&echo, "").expect(404);
    release(&server, blocker);
    let updated = updated.reply().expect(200);
    assert_eq!((updated.text(), updated.header("content-type")), ("new\n", Some("text/html")));
    assert_eq!(reloaded.reply().expect(200).text(), "mended");
    assert_load(&server, 0, 0);
}

#[test]
fn an_account_has_a_limit_of_its_own() {
    let server = Server::with(&["--max-running", "5", "--account-running", "1"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = block(&server);
    let mut waits = begin_to_wait(&server, &cat, "", 1);
    assert_load(&server, 1, 1);
    release(&server, blocker);
    waits.reply().expect(200);
    assert_load(&server, 0, 0);
}
