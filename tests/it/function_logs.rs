//! What the log of a function says, and when it is there (`docs/api.md` section 4).

use crate::harness::calls::output;
use crate::harness::logs::{ended, events, lines, read, route};
use crate::harness::{Connection, Reply, Request, Server, address, eventually, guests};
use serde_json::{Value, json};
use std::collections::HashMap;

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
/// A call that nobody ever made.
const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";
/// What two pages hold: the memory of most guests here.
const TWO_PAGES: u64 = 2 << 16;
/// What a line of each event has, in this order; whatever a stream or a fuel gauge adds comes where it is written.
const CALL: [&str; 3] = ["Time", "Event", "CallId"];
const ENDED: [&str; 2] = ["DurationMs", "MemoryPeak"];
const SAID: [&str; 2] = ["ShortStdout", "ShortStderr"];
const METERED: [&str; 3] = ["DurationMs", "MemoryPeak", "FuelUsed"];

/// Writes `said` to stdout and stderr, and goes on.
fn says_and(then: &str) -> String {
    let body = format!(
        r#"(data (i32.const 1024) "said") (func (export "_start")
             (call $put (i32.const 1) (i32.const 1024) (i32.const 4))
             (call $put (i32.const 2) (i32.const 1024) (i32.const 4)) {then})"#
    );
    guests::module(2, &body)
}

/// Begins a synchronous call whose answer is read later.
fn begin(server: &Server, address: &str) -> Connection {
    let mut connection = Connection::open(server.functions);
    connection.send(&Request::new(server.functions, "POST", address));
    connection
}

/// A synchronous call that runs until the function `blocker` is removed.
fn block(server: &Server) -> Connection {
    let connection = begin(server, &server.function("blocker", &guests::sleeps(A_YEAR), json!({})));
    server.wait_for_running(1);
    connection
}

#[track_caller]
fn remove(server: &Server, name: &str) {
    server.request("DELETE", &format!("/funcs/{name}?force=1")).send().expect(204);
}

/// Checks what each line has, in order.
#[track_caller]
fn assert_fields(lines: &[Value], expected: &[&[&[&str]]]) {
    let of = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let found: Vec<Vec<String>> = lines.iter().map(of).collect();
    let expected: Vec<Vec<&str>> = expected.iter().map(|parts| parts.concat()).collect();
    assert_eq!(found, expected);
}

/// Checks that all lines are of one call, one after the other, at times as they are written here.
#[track_caller]
fn assert_one_call(lines: &[Value], call_id: &str) {
    let times: Vec<&str> = lines.iter().map(|line| line["Time"].as_str().unwrap()).collect();
    let is_time =
        |time: &&str| time.len() == 24 && time.ends_with('Z') && time.starts_with("20") && &time[10..11] == "T";
    assert!(times.iter().all(is_time) && times.is_sorted(), "{times:?}");
    assert!(lines.iter().all(|line| line["CallId"] == call_id), "{lines:?}");
}

fn call_id(reply: &Reply) -> String {
    reply.header("x-call-id").unwrap().to_owned()
}

#[test]
fn an_asynchronous_call_is_told_in_four_events() {
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    let id = server.enqueue(&f, "hi");
    ended(&server, &f, &id).expect(200);
    let reply = server.get(&route("logs", &f)).expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    let log = lines(reply.text());
    assert_eq!(events(&log), ["CALL", "PENDING", "RUNNING", "FINISHED"]);
    assert_fields(
        &log,
        &[&[&CALL, &["ShortStdin"]], &[&CALL], &[&CALL, &["Digest"]], &[&CALL, &["ShortStdout"], &ENDED]],
    );
    assert_one_call(&log, &id);
    assert_eq!((&log[0]["ShortStdin"], &log[3]["ShortStdout"]), (&json!("hi"), &json!("hi")));
    assert_eq!(log[2]["Digest"], server.get("/images/f/json").json()["Id"]);
    assert_eq!(log[3]["MemoryPeak"], TWO_PAGES);
    assert!(log[3]["DurationMs"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 30_000.0), "{}", log[3]);
}

#[test]
fn a_synchronous_call_is_pending_only_if_it_waited() {
    let server = Server::with(&["--max-running", "1"]);
    let f = server.function("f", &guests::prints("out"), json!({"Fuel": 100_000}));
    let finished: &[&[&str]] = &[&CALL, &["ShortStdout"], &METERED];
    let at_once = call_id(&server.call(&f, "").expect(200));
    let log = read(&server, &f, "");
    assert_eq!(events(&log), ["CALL", "RUNNING", "FINISHED"]);
    assert_fields(&log, &[&[&CALL], &[&CALL, &["Digest"]], finished]);
    assert_one_call(&log, &at_once);
    let fuel = log[2]["FuelUsed"].as_u64().unwrap();
    assert!(0 < fuel && fuel < 100_000, "{fuel}");

    let mut blocker = block(&server);
    let mut waits = begin(&server, &f);
    server.wait_for_info("Pending", 1);
    // That it waits is told while it waits.
    assert_eq!(events(&read(&server, &f, "")[3..]), ["CALL", "PENDING"]);
    remove(&server, "blocker");
    blocker.reply().expect(500);
    let waited = call_id(&waits.reply().expect(200));
    let log = read(&server, &f, &format!("callid={waited}"));
    assert_eq!(events(&log), ["CALL", "PENDING", "RUNNING", "FINISHED"]);
    assert_fields(&log, &[&[&CALL], &[&CALL], &[&CALL, &["Digest"]], finished]);
    assert_one_call(&log, &waited);
    assert_eq!(log[3]["FuelUsed"], fuel, "the same every time");
}

#[test]
fn how_a_call_failed_is_told_as_its_caller_is() {
    let server = Server::start();
    let f = |name: &str, wat: &str, fields: Value| server.function(name, wat, fields);
    let spins = says_and("(loop (br 0))");
    let gone = f("gone", &guests::prints(""), json!({}));
    server.request("DELETE", "/images/gone?force=1").send().expect(200);
    // The function, the message, and what there is beside it: of streams, and of what was used.
    let failures: [(String, &str, [&[&str]; 2]); 7] = [
        (f("exits", &guests::fails(3, "no luck"), json!({})), "exit status 3: no luck", [&["ShortStderr"], &ENDED]),
        (f("traps", &says_and("unreachable"), json!({})), "trap: unreachable", [&SAID, &ENDED]),
        (f("late", &spins, json!({"Timeout": 1})), "timeout of 1 s reached", [&SAID, &ENDED]),
        (f("burns", &spins, json!({"Fuel": 1000})), "fuel limit reached", [&SAID, &METERED]),
        (f("floods", &guests::floods(1), json!({})), "output limit of 1 MB reached", [&["ShortStdout"], &ENDED]),
        (
            f("grows", &guests::grows(64, "unreachable"), json!({"ContainerSize": "s1"})),
            "memory limit of s1 (64 MB) reached",
            [&[], &ENDED],
        ),
        (gone, "no such image: gone", [&[], &ENDED]),
    ];
    for (target, message, [streams, used]) in failures {
        let reply = server.call(&target, "");
        assert_eq!(reply.text(), format!("{message}\n"));
        let sync = call_id(&reply);
        let accepted = server.enqueue(&target, "");
        assert_eq!(ended(&server, &target, &accepted).text(), format!("{message}\n"));
        // What has no image never ran.
        let running: &[&str] = if message.contains("image") { &[] } else { &["RUNNING"] };
        for (id, before) in [(sync, &["CALL"] as &[&str]), (accepted, &["CALL", "PENDING"])] {
            let log = read(&server, &target, &format!("callid={id}"));
            assert_eq!(events(&log), [before, running, &["FAILED"]].concat(), "{message}");
            assert_one_call(&log, &id);
            let last = log.last().unwrap();
            assert_eq!(last["Message"], message);
            assert_fields(std::slice::from_ref(last), &[&[&CALL, streams, &["Message"], used]]);
        }
    }
}

#[test]
fn a_call_that_is_cancelled_has_failed_and_what_it_left_is_told() {
    let server = Server::start();
    for (name, then) in [("sleeps", "(call $sleep (i64.const 1000000000000000))"), ("spins", "(loop (br 0))")] {
        let f = server.function(name, &says_and(then), json!({"MaxConcurrency": 1, "Fuel": 1_000_000_000_000_u64}));
        let (running, waiting) = (server.enqueue(&f, ""), server.enqueue(&f, ""));
        server.wait_for_running(1);
        let of = |id: &str| read(&server, &f, &format!("callid={id}"));
        eventually("it is told to run", || events(&of(&running)).last() == Some(&"RUNNING"));
        for id in [&waiting, &running] {
            server.request("DELETE", &output(&f, id)).send().expect(204);
        }
        let log = of(&running);
        assert_eq!(events(&log), ["CALL", "PENDING", "RUNNING", "FAILED"]);
        let fields: &[&[&str]] = &[&CALL, &SAID, &["Message"], &METERED];
        assert_fields(&log[3..], &[fields]);
        assert_eq!(log[3]["Message"], "cancelled");
        assert_eq!((&log[3]["ShortStdout"], &log[3]["ShortStderr"]), (&json!("said"), &json!("said")));
        assert_eq!(server.get(&format!("{}/stderr", output(&f, &running))).expect(200).text(), "said");
        assert_eq!(log[3]["MemoryPeak"], TWO_PAGES);
        // It never ran, and still its story has an end.
        let log = of(&waiting);
        assert_eq!((events(&log), &log[2]["Message"]), (vec!["CALL", "PENDING", "FAILED"], &json!("cancelled")));
    }
}

#[test]
fn a_call_that_was_interrupted_too_often_is_told_to_have_failed() {
    let mut server = Server::start();
    let f = server.function("f", &guests::sleeps(A_YEAR), json!({}));
    let of = |server: &Server, id: &str| read(server, &f, &format!("callid={id}"));
    let id = server.enqueue(&f, "");
    for _ in 0..3 {
        server.wait_for_running(1);
        eventually("its start is on disk", || events(&of(&server, &id)).last() == Some(&"RUNNING"));
        server = server.kill_and_restart();
    }
    assert_eq!(ended(&server, &f, &id).expect(500).text(), "interrupted\n");
    let log = of(&server, &id);
    assert_eq!(events(&log).iter().filter(|event| **event == "FAILED").count(), 1);
    assert_eq!(
        (log.last().unwrap()["Event"].as_str(), &log.last().unwrap()["Message"]),
        (Some("FAILED"), &json!("interrupted"))
    );
}

#[test]
fn streams_are_cut_at_a_character_and_nothing_in_them_ends_a_line() {
    let server = Server::start();
    let f = server.function("f", &guests::copies_to(&[1, 2]), json!({}));
    let forged =
        format!("\"}}\n{{\"Time\":\"2017-03-16T07:05:24.470Z\",\"Event\":\"FAILED\",\"CallId\":\"{NO_CALL}\"}}\r\n");
    // What comes in, and what is told of it.
    let cases: Vec<(Vec<u8>, String)> = vec![
        (b"x".repeat(255), "x".repeat(255)),
        (b"x".repeat(256), "x".repeat(255)),
        ("é".repeat(200).into(), "é".repeat(127)),
        (format!("{}€€", "x".repeat(253)).into(), "x".repeat(253)),
        (format!("{}\u{1D11E}.", "x".repeat(251)).into(), format!("{}\u{1D11E}", "x".repeat(251))),
        (vec![0xFF; 300], "\u{FFFD}".repeat(255)),
        (b"a\xC3\xE9b".into(), "a\u{FFFD}\u{FFFD}b".into()),
        (forged.clone().into(), forged),
        ("\0\u{1b}[31m\u{7f}\u{85}\u{2028}\\\"\u{8}\t".into(), "\0\u{1b}[31m\u{7f}\u{85}\u{2028}\\\"\u{8}\t".into()),
    ];
    for (bytes, told) in &cases {
        let id = call_id(&server.call(&f, bytes.clone()).expect(200));
        let reply = server.get(&format!("{}?callid={id}", route("logs", &f)));
        let log = lines(reply.text());
        assert_eq!(events(&log), ["CALL", "RUNNING", "FINISHED"], "{told:?}");
        assert!(reply.body.iter().all(|&byte| byte >= b' ' || byte == b'\n'), "a control character as it is: {told:?}");
        assert_eq!(log[0]["ShortStdin"], *told);
        assert_eq!((&log[2]["ShortStdout"], &log[2]["ShortStderr"]), (&json!(told), &json!(told)));
    }
    assert_eq!(read(&server, &f, "").len(), 3 * cases.len());
    assert_eq!(read(&server, &f, &format!("callid={NO_CALL}")), [] as [Value; 0]);
}

#[test]
fn calls_that_overlap_are_told_in_the_order_of_time() {
    let server = Server::start();
    let image = |i: u64| json!({"Name": "all", "Config": {"Image": format!("sleeps-{i}")}});
    for i in 0..16 {
        server.load(&format!("sleeps-{i}"), &guests::sleeps(10_000_000 * (16 - i)));
    }
    let all = address(&server.create(&image(0)));
    let mut calls: Vec<_> = (0..16)
        .map(|i| {
            // Each call another module, all of one function.
            server.request("PUT", "/funcs/all").json(&image(i)).send().expect(200);
            begin(&server, &all)
        })
        .collect();
    calls.iter_mut().for_each(|call| drop(call.reply().expect(200)));
    for query in ["", "tail=all", "tail=48", "tail=1000"] {
        let log = read(&server, &all, query);
        assert_eq!(log.len(), 48);
        let times: Vec<&str> = log.iter().map(|line| line["Time"].as_str().unwrap()).collect();
        assert!(times.is_sorted(), "{query}: {times:?}");
        let mut of_call: HashMap<&str, Vec<&str>> = HashMap::new();
        for line in &log {
            of_call.entry(line["CallId"].as_str().unwrap()).or_default().push(line["Event"].as_str().unwrap());
        }
        assert_eq!(of_call.len(), 16);
        assert!(of_call.values().all(|events| events == &["CALL", "RUNNING", "FINISHED"]), "{of_call:?}");
        let overlaps = events(&log).windows(2).any(|pair| pair == ["RUNNING", "CALL"]);
        assert!(overlaps, "no two calls ran at once");
    }
    let whole = read(&server, &all, "");
    for tail in [1, 5, 47] {
        assert_eq!(read(&server, &all, &format!("tail={tail}")), whole[48 - tail..], "{tail}");
    }
}
