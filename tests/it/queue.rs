//! The queue of calls that nobody waits for, beside those that somebody does: who is next, and whom nobody waits for
//! (`docs/api.md` section 4).

use crate::harness::calls::{Tally, asynchronous, id};
use crate::harness::guests::{self, Stamped};
use crate::harness::{Connection, Reply, Request, Server};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;

/// Makes `calls` calls that run until [`release`].
fn block(server: &Server, calls: u64) {
    let target = server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
    (0..calls).for_each(|_| drop(server.enqueue(&target, "")));
    server.wait_for_running(calls);
}

/// Ends the calls that [`block`] has begun.
#[track_caller]
fn release(server: &Server) {
    server.request("DELETE", "/funcs/blocker?force=1").send().expect(204);
}

/// Waits for a call of [`guests::stamps`], and reads what it wrote.
#[track_caller]
fn stamped(server: &Server, target: &str, call_id: &str) -> Stamped {
    Stamped::of(&server.wait(target, call_id).expect(200).body)
}

/// Sends a call whose answer is read later.
fn begin(server: &Server, target: &str) -> Connection {
    let mut connection = Connection::open(server.functions);
    connection.send(&Request::new(server.functions, "POST", target));
    connection
}

#[track_caller]
fn assert_load(server: &Server, running: u64, pending: u64) {
    let info = server.get("/info").json();
    assert_eq!((&info["Running"], &info["Pending"]), (&json!(running), &json!(pending)));
}

#[track_caller]
fn set_max_concurrency(server: &Server, name: &str, max: u32) {
    server.request("PUT", &format!("/funcs/{name}")).json(&json!({"MaxConcurrency": max})).send().expect(200);
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("retry-after").is_some(), matches!(status, 429 | 503));
    assert_eq!((reply.header("x-call-id"), reply.text().lines().count()), (None, 1));
}

#[test]
fn calls_of_all_functions_start_in_the_order_of_their_acceptance() {
    let server = Server::with(&["--max-running", "1"]);
    let targets = ["a", "b", "c"].map(|name| server.function(name, &guests::stamps(0), json!({})));
    block(&server, 1);
    let order = [0, 0, 1, 2, 2, 0, 1, 1, 2, 0, 0, 2, 1, 0, 2, 2];
    let calls: Vec<_> = order.map(|at: usize| (&targets[at], server.enqueue(&targets[at], ""))).into();
    assert_load(&server, 1, order.len() as u64);
    release(&server);
    let starts: Vec<u64> = calls.iter().map(|(target, call)| stamped(&server, target, call).at).collect();
    assert!(starts.is_sorted_by(|earlier, later| earlier < later), "{starts:?}");
    assert_load(&server, 0, 0);
}

#[test]
fn calls_of_many_clients_start_in_the_order_in_which_they_are_listed() {
    const CLIENTS: usize = 8;
    const CALLS: usize = 25;
    let server = Server::with(&["--max-running", "1"]);
    let target = server.function("f", &guests::stamps(0), json!({}));
    block(&server, 1);
    let clients: Vec<Vec<String>> = thread::scope(|scope| {
        let call = || {
            let mut connection = Connection::open(server.functions);
            (0..CALLS).map(|_| connection.try_enqueue(&server, &target, b"").unwrap()).collect()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(call)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let listed: Vec<String> = server.list(&target).iter().map(id).collect();
    assert_eq!(listed.len(), CLIENTS * CALLS);
    let place: HashMap<&String, usize> = listed.iter().enumerate().map(|(place, call)| (call, place)).collect();
    for client in &clients {
        assert!(client.is_sorted_by_key(|call| place[call]), "accepted one after the other, and not so listed");
    }
    release(&server);
    let starts: Vec<u64> = listed.iter().map(|call| stamped(&server, &target, call).at).collect();
    assert!(starts.is_sorted_by(|earlier, later| earlier < later), "{starts:?}");
}

#[test]
fn ten_thousand_calls_wait_for_no_slow_one_among_them() {
    const CLIENTS: usize = 20;
    const CALLS: usize = 500;
    const RUNNING: u64 = 20;
    let server = Server::with(&["--max-running", &RUNNING.to_string()]);
    let slow = server.function("slow", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 1}));
    let quick = ["a", "b", "c"].map(|name| server.function(name, &guests::cat(), json!({})));
    block(&server, RUNNING);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, slow, quick) = (&server, &slow, &quick);
            scope.spawn(move || {
                let mut connection = Connection::open(server.functions);
                for call in 0..CALLS {
                    // Every fifth is slow, the first one too.
                    let target = if call % 5 == 0 { slow } else { &quick[(client + call) % 3] };
                    connection.try_enqueue(server, target, b"x").unwrap();
                }
            });
        }
    });
    assert_load(&server, RUNNING, (CLIENTS * CALLS) as u64);
    let began = Instant::now();
    release(&server);
    let of_slow = Tally { running: 1, pending: (CLIENTS * CALLS / 5) as u64 - 1, ..Tally::default() };
    server.wait_for_info("Pending", of_slow.pending);
    server.wait_for_running(1);
    let took = began.elapsed();
    server.wait_for_tally(&slow, of_slow);
    // The last of them may be on their way to disk.
    let finished = || quick.iter().map(|target| server.tally(target).finished).sum::<u64>();
    crate::harness::eventually("the end of all others", || finished() == (CLIENTS * CALLS * 4 / 5) as u64);
    assert!(took < Duration::from_secs(25), "{took:?}");
    server.request("DELETE", "/funcs/slow?force=1").send().expect(204);
    assert_load(&server, 0, 0);
}

#[test]
fn a_call_that_somebody_waits_for_passes_a_full_queue_of_others() {
    const CALLS: usize = 1_000;
    let server = Server::with(&["--max-running", "1"]);
    let target = server.function("f", &guests::stamps(0), json!({}));
    block(&server, 1);
    let mut connection = Connection::open(server.functions);
    let calls: Vec<_> = (0..CALLS).map(|_| connection.try_enqueue(&server, &target, b"").unwrap()).collect();
    let mut waits = begin(&server, &target);
    server.wait_for_info("Pending", CALLS as u64 + 1);
    release(&server);
    let answered = Stamped::of(&waits.reply().expect(200).body);
    // Its lane has the next turn or the one after that.
    assert!(answered.at < stamped(&server, &target, &calls[1]).at);
    assert!(stamped(&server, &target, &calls[CALLS - 1]).at > answered.at);
}

#[test]
fn calls_that_somebody_waits_for_leave_every_other_turn_to_those_that_nobody_does() {
    const CALLS: usize = 40;
    let server = Server::with(&["--max-running", "1"]);
    let queued = server.function("queued", &guests::stamps(0), json!({}));
    let flood = server.function("flood", &guests::stamps(0), json!({}));
    block(&server, 1);
    let calls: Vec<_> = (0..CALLS).map(|_| server.enqueue(&queued, "")).collect();
    let (over, answered) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let starts: Vec<u64> = thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut connection = Connection::open(server.functions);
                while !over.load(Ordering::Relaxed) {
                    connection.send(&Request::new(server.functions, "POST", &flood));
                    answered.lock().unwrap().push(Stamped::of(&connection.reply().expect(200).body).at);
                }
            });
        }
        server.wait_for_info("Pending", CALLS as u64 + 6);
        release(&server);
        let starts = calls.iter().map(|call| stamped(&server, &queued, call).at).collect();
        over.store(true, Ordering::Relaxed);
        starts
    });
    let answered = answered.into_inner().unwrap();
    let between = starts.windows(2).map(|pair| answered.iter().filter(|at| (pair[0]..pair[1]).contains(at)).count());
    let between: Vec<usize> = between.collect();
    assert!(between.iter().all(|calls| *calls <= 1), "{between:?}");
    assert!(between.contains(&1), "no call came in between");
}

#[test]
fn a_functions_limit_counts_its_calls_in_both_lanes() {
    let server = Server::start();
    let target = server.function("f", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 2}));
    let mut runs = begin(&server, &target);
    server.wait_for_running(1);
    let running = server.enqueue(&target, "");
    server.wait_for_running(2);
    let waiting = server.enqueue(&target, "");
    let mut waits = begin(&server, &target);
    server.wait_for_info("Pending", 2);
    for (call, status) in [(&running, 201), (&waiting, 202)] {
        assert!(server.output(&target, call).expect(status).body.is_empty());
    }
    // An update is answered when it has happened.
    for (max, running, pending) in [(1, 2, 2), (3, 3, 1), (2, 3, 1), (0, 4, 0)] {
        set_max_concurrency(&server, "f", max);
        assert_load(&server, running, pending);
    }
    server.wait_for_tally(&target, Tally { running: 4, ..Tally::default() });
    server.request("DELETE", "/funcs/f?force=1").send().expect(204);
    assert_eq!((runs.reply().expect(500).text(), waits.reply().expect(500).text()), ("cancelled\n", "cancelled\n"));
    assert_load(&server, 0, 0);
}

#[test]
fn the_machines_limit_counts_calls_in_both_lanes() {
    let server = Server::with(&["--max-running", "2"]);
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let quick = server.function("quick", &guests::cat(), json!({}));
    let mut runs = begin(&server, &sleeps);
    server.wait_for_running(1);
    server.enqueue(&sleeps, "");
    server.wait_for_running(2);
    let queued = server.enqueue(&quick, "queued");
    let mut waits = begin(&server, &quick);
    server.wait_for_info("Pending", 2);
    assert_load(&server, 2, 2);
    server.output(&quick, &queued).expect(202);
    server.request("DELETE", "/funcs/sleeps?force=1").send().expect(204);
    assert_eq!(runs.reply().expect(500).text(), "cancelled\n");
    waits.reply().expect(200);
    assert_eq!(server.wait(&quick, &queued).expect(200).text(), "queued");
    assert_load(&server, 0, 0);
}

#[test]
fn a_call_that_is_refused_never_runs() {
    let server = Server::with(&["--max-running", "1", "--max-pending", "3", "--max-pending-bytes", "1KB"]);
    let target = server.function("f", &guests::cat(), json!({}));
    let call = |target: &str, body: Vec<u8>| Request::new(server.functions, "POST", target).body(body);
    block(&server, 1);
    // What waits in both lanes is bounded together, in bytes and in calls, exactly.
    let mut taken = vec![server.enqueue(&target, &"x".repeat(1000))];
    assert_refused(&call(asynchronous(&target), vec![b'x'; 25]).send(), 429);
    taken.push(server.enqueue(&target, &"x".repeat(24)));
    assert_refused(&call(&target, vec![b'x']).send(), 429);
    let mut waits = begin(&server, &target);
    server.wait_for_info("Pending", 3);
    for target in [asynchronous(&target), &target] {
        assert_refused(&call(target, vec![]).send(), 429);
    }
    assert_refused(&call(asynchronous(&target), vec![b'x'; (1 << 20) + 1]).send(), 413);
    assert_refused(&call(&asynchronous(&target).replace("/f/", "/g/"), vec![]).send(), 404);
    for key in [String::new(), "x".repeat(256)] {
        assert_refused(&call(asynchronous(&target), vec![]).header("Idempotency-Key", &key).send(), 400);
    }
    assert_eq!(server.tally(&target), Tally { pending: 3, ..Tally::default() });
    release(&server);
    waits.reply().expect(200);
    for call in taken {
        server.wait(&target, &call).expect(200);
    }
    // What has run leaves its place.
    block(&server, 1);
    (0..3).for_each(|_| drop(server.enqueue(&target, "")));
    assert_refused(&call(asynchronous(&target), vec![]).send(), 429);
    release(&server);
    server.wait_for_tally(&target, Tally { finished: 3, ..Tally::default() });
}
