//! Which part of a function's log is read, by whom, and how long there is one (`docs/api.md` section 4).

use crate::harness::calls::output;
use crate::harness::logs::{ended, events, read, route};
use crate::harness::{Connection, Request, Server, address, eventually, guests};
use serde_json::{Value, json};

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
/// A call that nobody ever made.
const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";

/// Begins a synchronous call whose answer is read later.
fn begin(server: &Server, address: &str) -> Connection {
    let mut connection = Connection::open(server.functions);
    connection.send(&Request::new(server.functions, "POST", address));
    connection
}

/// Runs a synchronous call to its end; returns its id.
#[track_caller]
fn call(server: &Server, address: &str) -> String {
    server.call(address, "").expect(200).header("x-call-id").unwrap().to_owned()
}

#[track_caller]
fn is_of(lines: &[Value], call_id: &str) {
    assert!(!lines.is_empty() && lines.iter().all(|line| line["CallId"] == call_id), "{lines:?}");
}

#[test]
fn a_tail_counts_the_last_lines_of_what_is_asked_for() {
    let server = Server::start();
    let (f, other) = (server.function("f", &guests::cat(), json!({})), server.function("g", &guests::cat(), json!({})));
    let ids: Vec<String> = (0..5).map(|_| call(&server, &f)).collect();
    let of_other = call(&server, &other);
    let all = read(&server, &f, "");
    assert_eq!(all.len(), 15);
    for (query, expected) in [
        ("tail=all", &all[..]),
        ("tail=", &all[..]),
        ("tail=0", &[]),
        ("tail=1", &all[14..]),
        ("tail=4", &all[11..]),
        ("tail=15", &all[..]),
        ("tail=16", &all[..]),
        ("tail=18446744073709551615", &all[..]),
        (&format!("callid={}", ids[1]), &all[3..6]),
        (&format!("callid={}", ids[1].to_uppercase()), &all[3..6]),
        (&format!("callid={}&tail=2", ids[1]), &all[4..6]),
        (&format!("tail=2&callid={}", ids[0]), &all[1..3]),
        (&format!("tail=9&callid={}", ids[4]), &all[12..]),
        (&format!("callid={}&tail=0", ids[1]), &[]),
        (&format!("callid={of_other}"), &[]),
        (&format!("callid={NO_CALL}&tail=5"), &[]),
        // A client of 2018 writes a second question mark.
        (&format!("callid={}?tail=1", ids[2]), &all[8..9]),
        ("x=y?tail=2", &all[13..]),
        ("unknown=1&tail=1", &all[14..]),
    ] {
        assert_eq!(read(&server, &f, query), expected, "{query}");
    }
    is_of(&read(&server, &other, ""), &of_other);
}

#[test]
fn what_cannot_be_asked_for_is_refused_by_its_name() {
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    call(&server, &f);
    let ask = |query: &str| server.get(&format!("{}?{query}", route("logs", &f)));
    for (name, values) in [
        ("tail", &["-1", "x", "1.5", "ALL", "0x1", "18446744073709551616", "1%20"] as &[&str]),
        (
            "callid",
            &["x", "01a21058", "01a2105882537790-9b0b-56681865e47e-----", "%7B01a21058-8253-7790-9b0b-56681865e4%7D"],
        ),
        ("follow", &["yes", "TRUE", "2", "on", "-1"]),
    ] {
        for value in values {
            let reply = ask(&format!("{name}={value}")).expect(400);
            assert!(reply.text().starts_with(&format!("{name}: ")), "{name}={value}: {}", reply.text());
        }
    }
    for no in ["0", "false", "False", ""] {
        assert_eq!(read(&server, &f, &format!("follow={no}")).len(), 3, "{no}");
    }
    // What goes on is asked for with a call that has ended: it comes to an end.
    let id = call(&server, &f);
    for yes in ["1", "true", "True"] {
        assert_eq!(read(&server, &f, &format!("follow={yes}&callid={id}")).len(), 3, "{yes}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let reply = server.request(method, &route("logs", &f)).send().expect(405);
        assert_eq!(reply.header("allow"), Some("GET"), "{method}");
    }
}

#[test]
fn it_outlives_its_server_however_that_ends() {
    let mut server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    for round in 1..=3 {
        call(&server, &f);
        // Who reads sees what is on its way to the disk on the disk.
        let before = read(&server, &f, "");
        assert_eq!(before.len(), 3 * round);
        server = server.kill_and_restart();
        assert_eq!(read(&server, &f, ""), before);
    }
    let id = server.enqueue(&f, "last");
    ended(&server, &f, &id).expect(200);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    // Nobody has read it, and nothing of it is missing.
    let server = Server::on(&server.data, &[]);
    let log = read(&server, &f, &format!("callid={id}"));
    assert_eq!((log.len(), &log[3]["ShortStdout"]), (4, &json!("last")));
}

#[test]
fn it_goes_with_its_function_and_a_new_one_of_that_name_begins_anew() {
    let server = Server::start();
    let old = server.function("f", &guests::cat(), json!({}));
    call(&server, &old);
    assert_eq!(read(&server, &old, "").len(), 3);
    server.request("DELETE", "/funcs/f").send().expect(204);
    server.get(&route("logs", &old)).expect(404);
    let new = server.function("f", &guests::cat(), json!({}));
    server.get(&route("logs", &old)).expect(404);
    assert_eq!(read(&server, &new, ""), [] as [Value; 0]);
    let id = call(&server, &new);
    is_of(&read(&server, &new, ""), &id);
    let server = server.kill_and_restart();
    is_of(&read(&server, &new, ""), &id);
}

#[test]
fn only_who_knows_the_address_reads_it_and_a_new_address_reads_on() {
    let server = Server::start();
    let (f, other) = (server.function("f", &guests::cat(), json!({})), server.function("g", &guests::cat(), json!({})));
    let first = call(&server, &f);
    let uuid = |address: &str| address.split('/').nth(3).unwrap().to_owned();
    let logs = |name: &str, uuid: &str| server.get(&format!("/logs/{name}/{uuid}"));
    for (name, uuid) in
        [("f", uuid(&other)), ("g", uuid(&f)), ("nobody", uuid(&f)), ("f", NO_CALL.into()), ("f", "x".into())]
    {
        assert_eq!(logs(name, &uuid).expect(404).text(), "no such function\n", "{name}");
    }
    let refreshed = server.request("PUT", "/funcs/f").json(&json!({"Refresh": true})).send().expect(200).json();
    logs("f", &uuid(&f)).expect(404);
    let new = address(&refreshed);
    let second = call(&server, &new);
    let log = read(&server, &new, "");
    is_of(&log[..3], &first);
    is_of(&log[3..], &second);
}

#[test]
fn a_call_whose_client_has_left_is_told_to_its_end() {
    let server = Server::with(&["--max-running", "1"]);
    let f = server.function("f", &guests::sleeps(300_000_000), json!({}));
    let waits = server.function("waits", &guests::cat(), json!({}));
    let runs = begin(&server, &f);
    server.wait_for_running(1);
    let waiting = begin(&server, &waits);
    server.wait_for_info("Pending", 1);
    drop(waiting);
    eventually("what waited is given up", || events(&read(&server, &waits, "")) == ["CALL", "PENDING", "FAILED"]);
    assert_eq!(read(&server, &waits, "tail=1")[0]["Message"], "the client has left");
    // While the call runs, so much is told.
    assert_eq!(events(&read(&server, &f, "")), ["CALL", "RUNNING"]);
    drop(runs);
    eventually("its end", || events(&read(&server, &f, "")) == ["CALL", "RUNNING", "FINISHED"]);
    assert_eq!(read(&server, &f, "tail=1")[0]["ShortStdout"], "woke");
}

#[test]
fn what_was_refused_leaves_no_line() {
    let server = Server::with(&["--max-running", "1", "--max-pending", "1", "--sync-wait", "300ms"]);
    let f = server.function("f", &guests::cat(), json!({}));
    let blocks = server.function("blocks", &guests::sleeps(A_YEAR), json!({}));
    let _blocker = begin(&server, &blocks);
    server.wait_for_running(1);
    let asynchronous = route("call", &f);
    server.call(&f, vec![0; (1 << 20) + 1]).expect(413);
    server.request("PATCH", &f).send().expect(405);
    server.request("POST", &f).header("X-Large", &"x".repeat(33 << 10)).send().expect(431);
    server.request("POST", &asynchronous).header("Idempotency-Key", "").send().expect(400);
    assert_eq!(read(&server, &f, ""), [] as [Value; 0]);
    let id = server.enqueue(&f, "");
    for target in [&f, &asynchronous] {
        server.call(target, "").expect(429);
    }
    let log = read(&server, &f, "");
    is_of(&log, &id);
    assert_eq!(events(&log), ["CALL", "PENDING"]);
    // One that waited in vain was a call, and its story has an end.
    server.request("DELETE", &output(&f, &id)).send().expect(204);
    server.call(&f, "").expect(503);
    let log = read(&server, &f, "");
    assert_eq!(events(&log[3..]), ["CALL", "PENDING", "FAILED"]);
    assert_eq!(log[5]["Message"], "the call has waited too long for others to end");
}
