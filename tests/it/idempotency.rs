//! `Idempotency-Key`: a caller that asks twice has one call (`docs/api.md` section 4).

use crate::harness::calls::{A_YEAR, Accepted, asynchronous, output};
use crate::harness::{Reply, Server, address, eventually, guests};
use serde_json::json;
use std::collections::BTreeSet;

/// A call with a key of its caller's.
fn call(server: &Server, target: &str, key: &str, body: &str) -> Reply {
    server.request("POST", asynchronous(target)).header("Idempotency-Key", key).body(body).send()
}

#[track_caller]
fn accept(server: &Server, target: &str, key: &str, body: &str) -> Accepted {
    Accepted::of(target, call(server, target, key, body))
}

#[test]
fn the_same_key_is_the_same_call_which_runs_once() {
    let server = Server::with(&["--log", "hyperfunc=debug"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let first = accept(&server, &cat, "k", "first");
    assert_eq!(accept(&server, &cat, "k", "another body").id, first.id);
    assert_eq!(server.ended_call(&first).expect(200).text(), "first");
    assert_eq!(accept(&server, &cat, "k", "").id, first.id);
    assert_eq!(server.get(&first.output).expect(200).text(), "first");
    // It is the same call although nothing of it is left.
    eventually("it is read", || server.tally(&cat) == [0; 4]);
    assert_eq!(accept(&server, &cat, "k", "again").id, first.id);
    server.get(&first.wait()).expect(404);
    let last = server.accept(&cat, "last");
    server.get(&last.wait()).expect(200);
    eventually("the last call in the log", || server.log().contains(&format!("call ended call_id={}", last.id)));
    assert_eq!(server.log().matches("call ended").count(), 2, "{}", server.log());
}

#[test]
fn other_keys_other_functions_and_no_key_are_other_calls() {
    let server = Server::start();
    let [a, b] = ["a", "b"].map(|name| server.function(name, &guests::cat(), json!({})));
    let longest = "k".repeat(255);
    let calls = [
        accept(&server, &a, "k", ""),
        accept(&server, &b, "k", ""),
        accept(&server, &a, "K", ""),
        accept(&server, &a, "k2", ""),
        accept(&server, &a, &longest, ""),
        accept(&server, &a, &longest[..254], ""),
        server.accept(&a, ""),
        server.accept(&a, ""),
    ];
    let ids: BTreeSet<_> = calls.iter().map(|call| &call.id).collect();
    assert_eq!(ids.len(), calls.len());
    assert_eq!(accept(&server, &a, &longest, "").id, calls[4].id);
    for call in &calls {
        server.get(&call.wait()).expect(200);
    }
}

#[test]
fn a_call_that_was_accepted_before_needs_no_room() {
    let server = Server::with(&["--max-running", "1", "--max-pending", "1"]);
    let blocker = server.block();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let waits = accept(&server, &cat, "k", "");
    call(&server, &cat, "another", "").expect(429);
    assert_eq!(accept(&server, &cat, "k", "").id, waits.id);
    server.cancel(&blocker);
    server.get(&waits.wait()).expect(200);
}

#[test]
fn a_key_that_is_empty_or_too_long_is_refused() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for key in ["", &"k".repeat(256)] {
        let reply = call(&server, &cat, key, "x").expect(400);
        assert_eq!(reply.text(), "Idempotency-Key: must have 1 to 255 bytes\n");
        assert_eq!(server.tally(&cat), [0; 4]);
    }
}

#[test]
fn many_who_ask_at_once_with_one_key_have_one_call() {
    let server = Server::start();
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let request = server.request("POST", asynchronous(&sleeps)).header("Idempotency-Key", "k");
    let mut connections: Vec<_> = (0..20).map(|_| server.connect()).collect();
    connections.iter_mut().for_each(|connection| connection.send(&request));
    let calls: Vec<_> = connections.iter_mut().map(|connection| Accepted::of(&sleeps, connection.reply())).collect();
    assert!(calls.iter().all(|call| call.id == calls[0].id), "{calls:?}");
    server.wait_until_it_runs(&calls[0]);
    assert_eq!(server.tally(&sleeps), [0, 1, 0, 0]);
}

#[test]
fn a_key_outlives_the_address_and_the_server_but_not_the_function() {
    let server = Server::start();
    let old = server.function("cat", &guests::cat(), json!({}));
    let first = accept(&server, &old, "k", "first");
    server.ended_call(&first).expect(200);
    let new = address(&server.request("PUT", "/funcs/cat").json(&json!({"Refresh": true})).send().expect(200).json());
    call(&server, &old, "k", "").expect(404);
    assert_eq!(accept(&server, &new, "k", "").id, first.id);

    let server = server.kill_and_restart();
    assert_eq!(accept(&server, &new, "k", "").id, first.id);
    assert_eq!(server.get(&output(&new, &first.id)).expect(200).text(), "first");
    assert_eq!(accept(&server, &new, "k", "").id, first.id);

    server.request("DELETE", "/funcs/cat").send().expect(204);
    let other = server.function("cat", &guests::cat(), json!({}));
    let call = accept(&server, &other, "k", "another");
    assert_ne!(call.id, first.id);
    assert_eq!(server.get(&call.wait()).expect(200).text(), "another");
}

#[test]
fn a_synchronous_call_has_no_use_for_a_key() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let ask = |body: &str| server.request("POST", &cat).header("Idempotency-Key", "k").body(body).send().expect(200);
    assert_eq!((ask("1").text(), ask("2").text()), ("1", "2"));
    assert_eq!(server.tally(&cat), [0; 4]);
}
