//! Logs that are followed: over HTTP, and over a connection that carries nothing else (`docs/api.md` section 4).

use crate::harness::calls::output;
use crate::harness::logs::{Follower, Wire, ended, events, read, request, route};
use crate::harness::{Connection, PATIENCE, Request, Server, address, eventually, guests};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
/// A call that nobody ever made.
const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";
const WIRES: [Wire; 2] = [Wire::Http, Wire::Raw];

fn follow(server: &Server, address: &str, query: &str, wire: Wire) -> Follower {
    Follower::start(server, address, &format!("follow=1{query}"), wire)
}

#[track_caller]
fn remove(server: &Server, name: &str) {
    server.request("DELETE", &format!("/funcs/{name}?force=1")).send().expect(204);
}

/// Waits until a follower has seen what the log says.
#[track_caller]
fn sees_all(follower: &Follower, log: &[Value]) {
    eventually("all that is in the log", || follower.count() >= log.len());
    assert_eq!(follower.seen(), log);
}

/// The id of the call that a log begins with.
fn first_call(log: &[Value]) -> String {
    log[0]["CallId"].as_str().unwrap().to_owned()
}

#[test]
fn the_heads_are_what_clients_look_for_and_are_there_before_the_first_line() {
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    for wire in WIRES {
        // There is no line, and the head does not wait for one.
        let follower = follow(&server, &f, "&tail=0", wire);
        let mut head = follower.head.lines();
        match wire {
            Wire::Http => {
                assert_eq!(head.next(), Some("HTTP/1.1 200 OK"));
                assert!(head.any(|line| line == "content-type: application/json"), "{}", follower.head);
            }
            Wire::Raw => {
                assert_eq!(head.next(), Some("HTTP/1.1 101 UPGRADED"));
                assert!(head.clone().any(|line| line.eq_ignore_ascii_case("connection: upgrade")), "{}", follower.head);
                assert!(head.clone().any(|line| line == "upgrade: tcp"), "{}", follower.head);
                assert!(!head.any(|line| line.starts_with("content-length")), "{}", follower.head);
            }
        }
        assert_eq!(follower.count(), 0);
        server.call(&f, "hi").expect(200);
        sees_all(&follower, &read(&server, &f, "tail=3"));
        assert!(!follower.has_ended());
    }
}

#[test]
fn without_follow_an_upgraded_connection_carries_the_log_and_closes() {
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    server.call(&f, "hi").expect(200);
    let log = server.get(&route("logs", &f)).expect(200);
    let mut connection = Connection::open(server.functions);
    connection.write(request(&f, "tail=all", Wire::Raw).as_bytes());
    let mut answer = String::new();
    connection.stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    assert_eq!(body, log.text(), "the same lines as over HTTP, and no byte more");
    // What is wrong is said before anything is upgraded.
    for (query, status) in [("tail=x", 400), ("callid=x", 400)] {
        let mut connection = Connection::open(server.functions);
        connection.write(request(&f, query, Wire::Raw).as_bytes());
        connection.reply().expect(status);
    }
}

#[test]
fn a_call_is_seen_to_run_while_it_runs() {
    let server = Server::start();
    for wire in WIRES {
        let f = server.function("f", &guests::sleeps(A_YEAR), json!({}));
        let follower = follow(&server, &f, "&tail=0", wire);
        let mut sync = server.begin("POST", &f);
        eventually("the synchronous one", || events(&follower.seen()) == ["CALL", "RUNNING"]);
        let accepted = server.enqueue(&f, "");
        let expected = ["CALL", "RUNNING", "CALL", "PENDING", "RUNNING"];
        eventually("the asynchronous one", || events(&follower.seen()) == expected);
        assert!(follower.seen()[2..].iter().all(|line| line["CallId"] == accepted));
        assert_eq!(server.get("/info").json()["Running"], 2, "both run");
        // Its own follower, which begins in its middle, sees it end, and ends with it.
        let id = first_call(&follower.seen());
        let of_sync = follow(&server, &f, &format!("&callid={id}"), wire);
        let of_async = follow(&server, &f, &format!("&callid={accepted}"), wire);
        server.request("DELETE", &output(&f, &accepted)).send().expect(204);
        eventually("the end of one call", || of_async.has_ended());
        assert_eq!(events(&of_async.seen()), ["CALL", "PENDING", "RUNNING", "FAILED"]);
        assert!(!of_sync.has_ended() && !follower.has_ended());
        remove(&server, "f");
        sync.reply().expect(500);
        eventually("the end of the function", || of_sync.has_ended() && follower.has_ended());
        assert!(of_sync.seen().iter().all(|line| line["CallId"] == *id));
    }
}

#[test]
fn who_follows_a_call_is_released_when_it_ends_or_is_not_there() {
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    let sleeps = server.function("sleeps", &guests::sleeps(300_000_000), json!({}));
    let id = server.enqueue(&f, "");
    ended(&server, &f, &id).expect(200);
    let sync = server.call(&f, "").expect(200).header("x-call-id").unwrap().to_owned();
    let dropped = server.function("drops", &guests::cat(), json!({}));
    for wire in WIRES {
        for (call_id, lines) in [(id.as_str(), 4), (&sync, 3), (NO_CALL, 0)] {
            for (tail, lines) in [("", lines), ("&tail=1", lines.min(1)), ("&tail=0", 0)] {
                let follower = follow(&server, &f, &format!("&callid={call_id}{tail}"), wire);
                eventually("its end", || follower.has_ended());
                assert_eq!(follower.count(), lines, "{wire:?} {call_id}{tail}");
            }
        }
        // Of another function, it is not there.
        let follower = follow(&server, &dropped, &format!("&callid={id}"), wire);
        eventually("its end", || follower.has_ended());
        // The asynchronous one ends while it is followed, also if nothing of what was is wanted.
        for tail in ["", "&tail=0"] {
            let id = server.enqueue(&sleeps, "");
            let follower = follow(&server, &sleeps, &format!("&callid={id}{tail}"), wire);
            ended(&server, &sleeps, &id).expect(200);
            eventually("its end", || follower.has_ended());
            assert_eq!(events(&follower.seen()).last(), Some(&"FINISHED"));
        }
        // And so does the synchronous one.
        for tail in ["", "&tail=0"] {
            let mut call = server.begin("POST", &sleeps);
            eventually("it runs", || events(&read(&server, &sleeps, "tail=1")) == ["RUNNING"]);
            let id = first_call(&read(&server, &sleeps, "tail=1"));
            let follower = follow(&server, &sleeps, &format!("&callid={id}{tail}"), wire);
            eventually("its end", || follower.has_ended());
            assert_eq!(events(&follower.seen()).last(), Some(&"FINISHED"), "{tail}");
            call.reply().expect(200);
        }
    }
}

#[test]
fn whoever_has_only_an_address_that_is_dead_sees_no_more() {
    let server = Server::start();
    for wire in WIRES {
        let f = server.function("f", &guests::prints("secret"), json!({}));
        let follower = follow(&server, &f, "", wire);
        server.request("PUT", "/funcs/f").json(&json!({"Refresh": true})).send().expect(200);
        let f = address(&server.get("/funcs/f").json());
        Request::new(server.functions, "POST", &f).send().expect(200);
        eventually("its end", || follower.has_ended());
        assert_eq!(follower.count(), 0);
        remove(&server, "f");
    }
}

#[test]
fn a_server_that_is_asked_to_end_lets_its_followers_go() {
    let mut server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    server.call(&f, "").expect(200);
    let followers = WIRES.map(|wire| follow(&server, &f, "", wire));
    followers.iter().for_each(|follower| eventually("the log", || follower.count() == 3));
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    // Far less than the 30 s that running calls would have.
    assert!(began.elapsed() < Duration::from_secs(15), "nothing ran: {:?}", began.elapsed());
    for follower in &followers {
        eventually("its end", || follower.has_ended());
        assert_eq!(follower.count(), 3);
    }
}

#[test]
fn a_raw_connection_whose_client_sends_no_more_still_carries_lines() {
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    let follower = follow(&server, &f, "", Wire::Raw);
    follower.finish();
    for calls in 1..=3 {
        server.call(&f, "").expect(200);
        eventually("the next call", || follower.count() == 3 * calls);
    }
    remove(&server, "f");
    eventually("its end", || follower.has_ended());
}

/// Follows a log over a connection whose receiving end holds next to nothing, and reads none of it.
fn stalls(server: &Server, address: &str, wire: Wire) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let _entered = runtime.enter();
    let mut stream = runtime.block_on(socket.connect(server.functions)).unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(request(address, "follow=1", wire).as_bytes()).unwrap();
    stream
}

#[test]
fn followers_that_do_not_read_cost_nobody_anything() {
    const STALLED: usize = 20;
    const CALLS: usize = 1000;
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    // A byte of each stream takes six in a line: 3 KB a call.
    let calls = || {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = Connection::open(server.functions);
                    for _ in 0..CALLS / 4 {
                        connection.send(&Request::new(server.functions, "POST", &f).body(vec![1; 255]));
                        connection.reply().expect(200);
                    }
                });
            }
        });
        began.elapsed()
    };
    let usual = calls();
    let stalled: Vec<_> = (0..STALLED).map(|i| stalls(&server, &f, WIRES[i % 2])).collect();
    let reads = follow(&server, &f, "&tail=0", Wire::Http);
    // Until what is on the way to them is full, they take their part.
    calls();
    eventually("the one that reads has seen all", || reads.count() == 3 * CALLS);
    let (memory, threads) = (server.status("VmRSS"), server.status("Threads"));
    let fastest = calls().min(calls());
    eventually("the one that reads has seen all", || reads.count() == 3 * 3 * CALLS);
    assert!(fastest < usual * 3 + Duration::from_secs(1), "{fastest:?}, usually {usual:?}");
    let (memory_now, threads_now) = (server.status("VmRSS"), server.status("Threads"));
    assert!(memory_now < memory + (10 << 10), "{memory} kB, and then {memory_now} kB");
    assert!(threads_now < threads + STALLED as u64 / 2, "{threads} threads, and then {threads_now}");
    // They are where they were left, and read on: from the first line.
    let mut one = &stalled[1];
    one.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 4096];
    one.read_exact(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 101 ") && text.contains("\"Event\":\"CALL\""), "{text}");
    drop(stalled);
    remove(&server, "f");
    eventually("the end of the function", || reads.has_ended());
}

#[test]
fn two_hundred_followers_all_see_every_line() {
    const FOLLOWERS: usize = 200;
    const CALLS: usize = 20;
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    let (files, threads) = (server.open_files(), server.status("Threads"));
    let followers: Vec<_> = (0..FOLLOWERS).map(|i| follow(&server, &f, "", WIRES[i % 2])).collect();
    for i in 0..CALLS {
        server.call(&f, i.to_string()).expect(200);
    }
    let log = read(&server, &f, "");
    assert_eq!(log.len(), 3 * CALLS);
    followers.iter().for_each(|follower| sees_all(follower, &log));
    // They wake all at once, and are read for a few at a time.
    let now = server.status("Threads");
    assert!(now < threads + FOLLOWERS as u64 / 4, "{threads} threads, and then {now}");
    drop(followers);
    eventually("their files are closed", || server.open_files() <= files + 1);
    // The one more is what the writer keeps.
    assert_eq!(server.call(&f, "still").expect(200).text(), "still");
}

#[test]
fn more_readers_than_there_are_places_are_sent_away_and_come_back_later() {
    const READERS_MAX: usize = 256;
    let server = Server::start();
    let f = server.function("f", &guests::cat(), json!({}));
    let mut followers: Vec<_> = (0..READERS_MAX).map(|i| follow(&server, &f, "", WIRES[i % 2])).collect();
    for query in ["", "?follow=1"] {
        let reply = server.get(&format!("{}{query}", route("logs", &f))).expect(503);
        assert_eq!(reply.text(), "too many logs are being read already\n");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    let mut raw = Connection::open(server.functions);
    raw.write(request(&f, "follow=1", Wire::Raw).as_bytes());
    raw.reply().expect(503);
    // Calls need no such place.
    server.call(&f, "").expect(200);
    drop(followers.pop());
    eventually("a place", || server.get(&route("logs", &f)).status == 200);
    let log = read(&server, &f, "");
    followers.iter().for_each(|follower| sees_all(follower, &log));
}
