//! `DELETE` of a call: what has ended is discarded, what waits never runs, what runs ends (`docs/api.md` section 4).

use crate::harness::calls::{self, A_YEAR, Accepted};
use crate::harness::{Server, eventually, guests};
use serde_json::json;
use std::time::{Duration, Instant};

const DEBUG: [&str; 4] = ["--log", "hyperfunc=debug", "--max-running", "1"];
const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";
/// When a call that is discarded must have ended.
const IN_TIME: Duration = Duration::from_millis(100);
/// The machine that tests is busy with other things as well: one attempt of so many must be in time.
const ATTEMPTS: usize = 6;

/// Discards a call, or not; what it says.
fn discard(server: &Server, call: &Accepted) -> u16 {
    let reply = server.request("DELETE", &call.output).send();
    assert_eq!(reply.text(), if reply.status == 404 { "no such call\n" } else { "" });
    reply.status
}

#[test]
fn what_has_ended_is_discarded_once() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let fails = server.function("fails", &guests::fails(3, "why"), json!({}));
    for (target, status) in [(&cat, 200), (&fails, 500)] {
        let call = server.accept(target, "x");
        server.ended_call(&call).expect(status);
        assert_eq!(discard(&server, &call), 204);
        for path in ["", "/wait", "/stderr"] {
            server.get(&format!("{}{path}", call.output)).expect(404);
        }
        assert_eq!(discard(&server, &call), 404);
        assert_eq!(server.tally(target), [0; 4]);
        server.get(&format!("/funcs/call/{}", call.id)).expect(404);
    }
}

#[test]
fn what_was_read_cannot_be_discarded() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for _ in 0..20 {
        let call = server.accept(&cat, "x");
        let mut connection = server.connect();
        connection.send(&server.request("GET", &call.wait()));
        connection.reply().expect(200);
        connection.send(&server.request("DELETE", &call.output));
        connection.reply().expect(404);
    }
}

#[test]
fn what_waits_is_dropped_and_never_runs() {
    let server = Server::with(&DEBUG);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = server.block();
    let [first, dropped, last] = ["first", "dropped", "last"].map(|body| server.accept(&cat, body));
    let mut waiter = server.connect();
    waiter.send(&server.request("GET", &dropped.wait()));
    server.wait_until_all_is_read();
    assert_eq!(discard(&server, &dropped), 204);
    assert_eq!(waiter.reply().expect(404).text(), "no such call\n");
    assert_eq!(discard(&server, &dropped), 404);
    assert_eq!(server.tally(&cat), [2, 0, 0, 0]);
    server.wait_for_info("Pending", 2);
    server.cancel(&blocker);
    assert_eq!(server.get(&first.wait()).expect(200).text(), "first");
    assert_eq!(server.get(&last.wait()).expect(200).text(), "last");
    server.get(&dropped.output).expect(404);
    eventually("the last call in the log", || server.log().contains(&last.id));
    assert!(!server.log().contains(&format!("call ended call_id={}", dropped.id)), "it ran: {}", server.log());
    eventually("nothing is kept", || server.tally(&cat) == [0; 4]);
}

#[test]
fn what_runs_ends_at_once_however_it_runs() {
    let server = Server::start();
    // 32 MB are more than a light guest holds.
    let heavy = |does: &str| guests::start(&format!("(drop (memory.grow (i32.const 512))) {does}"));
    let sleeps = format!("(call $sleep (i64.const {A_YEAR}))");
    for (name, wat) in [
        ("sleeps", guests::sleeps(A_YEAR)),
        ("spins", guests::spins()),
        ("floods", guests::floods(2)),
        ("heavy-sleeps", heavy(&sleeps)),
        ("heavy-spins", heavy("(loop (br 0))")),
        ("heavy-floods", heavy("(loop (call $put (i32.const 2) (i32.const 65536) (i32.const 65536)) (br 0))")),
    ] {
        let target = server.function(name, &wat, json!({}));
        let in_time = (0..ATTEMPTS).any(|_| {
            let call = server.accept_and_run(&target);
            if name.starts_with("heavy") {
                eventually("it is heavy", || server.get("/info").json()["MemoryCharged"].as_u64() > Some(32 << 20));
            }
            let mut waiter = server.connect();
            waiter.send(&server.request("GET", &format!("{}?keep=1", call.wait())));
            server.wait_until_all_is_read();
            let began = Instant::now();
            assert_eq!(discard(&server, &call), 204);
            let reply = waiter.reply().expect(500);
            let took = began.elapsed();
            assert_eq!((reply.text(), reply.header("content-type")), ("cancelled\n", Some("text/plain")));
            // It has ended: what it left is discarded in its turn.
            assert_eq!(server.get(&format!("{}?keep=1", call.output)).expect(500).text(), "cancelled\n");
            assert_eq!(server.tally(&target), [0, 0, 0, 1]);
            assert_eq!((discard(&server, &call), discard(&server, &call)), (204, 404));
            for key in ["Running", "MemoryCharged"] {
                server.wait_for_info(key, 0);
            }
            took < IN_TIME
        });
        assert!(in_time, "{name} is never ended in time");
    }
}

#[test]
fn one_that_runs_ends_alone_and_the_next_one_starts() {
    let server = Server::with(&["--max-running", "2"]);
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let [one, other] = [(); 2].map(|()| server.accept_and_run(&sleeps));
    let next = server.accept(&sleeps, "");
    assert_eq!(discard(&server, &one), 204);
    server.wait_until_it_runs(&next);
    assert_eq!(server.get(&other.output).status, 201);
    assert_eq!(server.get(&one.output).expect(500).text(), "cancelled\n");
    for call in [other, next] {
        assert_eq!(discard(&server, &call), 204);
        assert_eq!(server.get(&call.output).expect(500).text(), "cancelled\n");
    }
}

#[test]
fn what_is_not_there_cannot_be_discarded() {
    let server = Server::start();
    let a = server.function("a", &guests::sleeps(A_YEAR), json!({}));
    let b = server.function("b", &guests::cat(), json!({}));
    let runs = server.accept_and_run(&a);
    for output in [calls::output(&a, NO_CALL), calls::output(&b, &runs.id), calls::output(&a, "x")] {
        assert_eq!(server.request("DELETE", &output).send().expect(404).text(), "no such call\n");
    }
    assert_eq!(server.get(&runs.output).status, 201);
}
