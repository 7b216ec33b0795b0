//! Calls that nobody waits for: who is taken in, with what, and who is sent away (`docs/api.md` sections 4 and 5).

use crate::harness::calls::{A_YEAR, Accepted, asynchronous, output};
use crate::harness::{Connection, Reply, Request, Server, address, eventually, guests};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MB: usize = 1 << 20;
const DEBUG: [&str; 4] = ["--log", "hyperfunc=debug", "--max-running", "1"];

/// A function that prints its environment; returns where it is called.
fn printing(server: &Server, name: &str, config: Value) -> String {
    server.load_bytes("env", guests::TOOLBOX);
    let mut function = json!({"Name": name, "Config": config});
    function["Config"]["Image"] = "env".into();
    address(&server.create(&function))
}

/// The ids of the calls that have ended, in their order.
fn ended(server: &Server) -> Vec<String> {
    let log = server.log();
    let ends = log.lines().filter(|line| line.contains("call ended"));
    ends.map(|line| line.split("call_id=").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect()
}

/// Asserts that these calls have run, in this order, and no other, once `server` has nothing to do.
#[track_caller]
fn assert_ran(server: &Server, calls: &[&Accepted]) {
    eventually("the calls in the log", || ended(server).len() >= calls.len());
    server.wait_for_info("Pending", 0);
    server.wait_for_running(0);
    assert_eq!(ended(server), calls.iter().map(|call| call.id.clone()).collect::<Vec<_>>());
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.text().lines().count()), (status, 1), "{}", reply.text());
    assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(reply.header("x-call-id"), None, "it never was a call");
}

/// Calls without waiting, and says what the answer is.
fn call(server: &Server, target: &str, body: impl Into<Vec<u8>>) -> Reply {
    Request::new(server.functions, "POST", asynchronous(target)).body(body).send()
}

/// A call with a key of its caller's.
fn call_with_key(server: &Server, target: &str, key: &str, body: &str) -> Reply {
    server.request("POST", asynchronous(target)).header("Idempotency-Key", key).body(body).send()
}

#[test]
fn an_accepted_call_is_answered_with_its_id() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let mut ids = BTreeSet::new();
    for method in ["GET", "POST", "PUT", "DELETE"] {
        let reply = server.request(method, asynchronous(&target)).send().expect(200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let id = reply.json()["CallId"].as_str().unwrap().to_owned();
        assert_eq!(reply.json(), json!({"CallId": id}));
        assert_eq!((id.len(), &id[14..15]), (36, "7"), "a version 7 UUID: {id}");
        let output = server.get(&(output(&target, &id) + "/wait")).expect(200);
        assert!(output.text().lines().any(|line| line == format!("REQUEST_METHOD={method}")), "{}", output.text());
        ids.insert(id);
    }
    assert_eq!(ids.len(), 4);
    for method in ["PATCH", "OPTIONS", "CALL"] {
        let reply = server.request(method, asynchronous(&target)).send().expect(405);
        assert_eq!(reply.header("allow"), Some("GET, POST, PUT, DELETE"), "{method}");
    }
    eventually("nothing is kept", || server.tally(&target) == [0; 4]);
}

#[test]
fn a_guest_sees_the_request_that_was_accepted() {
    let server = Server::with(&["--max-running", "1"]);
    let target = printing(&server, "f", json!({"Env": ["OWN=1", "HTTP_X_MINE=mine"]}));
    let blocker = server.block();
    let mut connection = server.connect();
    let request = server
        .request("PUT", &format!("{}?a=1&b=%20x", asynchronous(&target)))
        .header("Host", "example.org:8080")
        .header("User-Agent", "test/1")
        .header("X-A", "1")
        .header("X-A", "2")
        .header("X-Mine", "theirs")
        .header("Authorization", "Bearer x")
        .header("Proxy", "http://attacker")
        .header("Idempotency-Key", "k")
        .header("Content-Type", "text/x");
    connection.send(&request.body("four"));
    let call = Accepted::of(&target, connection.reply());
    // Its client has long left when it starts.
    drop(connection);
    server.cancel(&blocker);
    let reply = server.get(&call.wait()).expect(200);
    let mut told: Vec<_> = reply.text().lines().collect();
    told.sort_unstable();
    let port = server.functions.port();
    let mut expected = vec![
        "GATEWAY_INTERFACE=CGI/1.1".to_owned(),
        "REQUEST_METHOD=PUT".to_owned(),
        "SCRIPT_NAME=/call/f".to_owned(),
        "PATH_INFO=".to_owned(),
        "QUERY_STRING=a=1&b=%20x".to_owned(),
        "CONTENT_TYPE=text/x".to_owned(),
        "CONTENT_LENGTH=4".to_owned(),
        "SERVER_NAME=example.org".to_owned(),
        format!("SERVER_PORT={port}"),
        "SERVER_PROTOCOL=HTTP/1.1".to_owned(),
        concat!("SERVER_SOFTWARE=hyperfunc/", env!("CARGO_PKG_VERSION")).to_owned(),
        "REMOTE_ADDR=127.0.0.1".to_owned(),
        "HTTP_HOST=example.org:8080".to_owned(),
        "HTTP_USER_AGENT=test/1".to_owned(),
        "HTTP_X_A=1, 2".to_owned(),
        "HTTP_X_MINE=mine".to_owned(),
        "HTTP_AUTHORIZATION=Bearer x".to_owned(),
        "HTTP_IDEMPOTENCY_KEY=k".to_owned(),
        "HYPER_FUNC_NAME=f".to_owned(),
        format!("HYPER_CALL_ID={}", call.id),
        "HYPER_ATTEMPT=1".to_owned(),
        "OWN=1".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[test]
fn stdin_takes_exactly_1_mb_and_a_larger_body_is_no_call() {
    let server = Server::with(&["--log", "hyperfunc=debug"]);
    let target = server.function("cat", &guests::cat(), json!({}));
    let body: Vec<u8> = (0..=MB).map(|at| (at % 251) as u8).collect();
    let with_length = |body: &[u8]| call(&server, &target, body);
    let in_chunks = |body: &[u8]| {
        let mut chunks = Vec::new();
        for piece in body.chunks(50_000) {
            chunks.extend([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        }
        chunks.extend(b"0\r\n\r\n");
        server.request("POST", asynchronous(&target)).header("Transfer-Encoding", "chunked").body(chunks).send()
    };
    let mut ran = Vec::new();
    for send in [&with_length as &dyn Fn(&[u8]) -> Reply, &in_chunks] {
        for len in [MB, 0, 1] {
            let call = Accepted::of(&target, send(&body[..len]));
            assert!(server.get(&call.wait()).expect(200).body == body[..len], "other bytes, {len}");
            ran.push(call);
        }
        assert_eq!(send(&body).expect(413).text(), "the body is larger than 1048576 bytes\n");
    }
    assert_ran(&server, &ran.iter().collect::<Vec<_>>());
    eventually("nothing is kept", || server.tally(&target) == [0; 4]);
}

#[test]
fn what_is_refused_is_no_call() {
    let server = Server::start();
    let target = server.function("cat", &guests::cat(), json!({}));
    let request = || server.request("POST", asynchronous(&target));
    request().header("X-Pad", &"p".repeat(33_000)).send().expect(431);
    request().header("Content-Length", "2").header("Transfer-Encoding", "gzip").body("xx").send().expect(400);
    let mut connection = server.connect();
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", asynchronous(&target));
    connection.write(head.as_bytes());
    connection.finish();
    connection.try_reply();
    assert_eq!(server.tally(&target), [0; 4]);
}

#[test]
fn to_a_stranger_all_wrong_addresses_are_the_same() {
    let server = Server::start();
    let a = server.function("a", &guests::cat(), json!({}));
    server.function("b", &guests::cat(), json!({}));
    let uuid = a.split('/').nth(3).unwrap();
    let seen = |name: &str, uuid: &str, key: &str| {
        let request = server.request("POST", &format!("/call/{name}/{uuid}")).header("Idempotency-Key", key);
        let reply = request.body("stdin").send().expect(404);
        let headers: Vec<_> = reply.headers.into_iter().filter(|(name, _)| name != "date").collect();
        (headers, reply.body)
    };
    let expected = seen("nobody", "12345678-1234-4123-8123-123456789abc", "k");
    for (name, uuid) in [("b", uuid), ("nobody", uuid), ("a", "x"), ("a", &uuid.replace('-', "")), ("A", uuid)] {
        assert_eq!(seen(name, uuid, "k"), expected, "{name} {uuid}");
    }
    assert_eq!(server.tally(&a), [0; 4]);
}

#[test]
fn so_many_calls_may_wait_and_one_more_is_refused_and_never_runs() {
    let server = Server::with(&[DEBUG.as_slice(), &["--max-pending", "3"]].concat());
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = server.block();
    let mut accepted = vec![server.accept(&cat, "1"), server.accept(&cat, "2")];
    // A synchronous call that waits counts as well.
    let mut sync = server.connect();
    sync.send(&server.request("POST", &cat));
    server.wait_for_info("Pending", 3);
    for _ in 0..3 {
        assert_refused(&call(&server, &cat, "refused"), 429);
        assert_refused(&server.call(&cat, "refused"), 429);
        assert_refused(&call_with_key(&server, &cat, "refused", ""), 429);
    }
    assert_eq!(server.tally(&cat), [3, 0, 0, 0]);
    // Who leaves makes room for exactly one.
    server.cancel(&accepted.pop().unwrap());
    accepted.push(server.accept(&cat, "3"));
    assert_refused(&call(&server, &cat, "refused"), 429);
    server.cancel(&blocker);
    let id = sync.reply().expect(200).header("x-call-id").unwrap().to_owned();
    let sync = Accepted { output: output(&cat, &id), id };
    for call in &accepted {
        server.get(&call.wait()).expect(200);
    }
    eventually("the calls in the log", || ended(&server).len() == 4);
    let ran: BTreeSet<_> = ended(&server).into_iter().collect();
    let all = [&blocker, &accepted[0], &accepted[1], &sync].map(|call| call.id.clone());
    assert_eq!(ran, BTreeSet::from(all));
    // A key that was refused is free.
    let call = Accepted::of(&cat, call_with_key(&server, &cat, "refused", "now"));
    assert_eq!(server.get(&call.wait()).expect(200).text(), "now");
}

#[test]
fn the_bytes_that_wait_are_bounded_exactly() {
    let server = Server::with(&["--max-running", "1", "--max-pending-bytes", "1KB"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let blocker = server.block();
    assert_refused(&call(&server, &cat, vec![b'x'; 1025]), 429);
    let mut accepted = vec![server.accept(&cat, vec![b'x'; 600])];
    assert_refused(&call(&server, &cat, vec![b'x'; 425]), 429);
    accepted.push(server.accept(&cat, vec![b'x'; 424]));
    assert_refused(&call(&server, &cat, "x"), 429);
    accepted.push(server.accept(&cat, ""));
    server.cancel(&blocker);
    let lengths: Vec<_> = accepted.iter().map(|call| server.get(&call.wait()).expect(200).body.len()).collect();
    assert_eq!(lengths, [600, 424, 0]);
    // What has run is not counted any more.
    let call = server.accept(&cat, vec![b'x'; 1024]);
    assert_eq!(server.get(&call.wait()).expect(200).body.len(), 1024);
}

#[test]
fn calls_run_in_the_order_in_which_they_were_accepted() {
    let server = Server::with(&DEBUG);
    let targets = ["a", "b", "c"].map(|name| server.function(name, &guests::cat(), json!({})));
    let blocker = server.block();
    let order = [0, 0, 1, 2, 2, 0, 1, 1, 2, 0, 0, 2];
    let calls: Vec<_> = order.iter().map(|at| server.accept(&targets[*at], "")).collect();
    server.cancel(&blocker);
    for call in &calls {
        server.get(&call.wait()).expect(200);
    }
    assert_ran(&server, &std::iter::once(&blocker).chain(&calls).collect::<Vec<_>>());
}

#[test]
fn a_call_runs_the_function_as_it_is_at_its_start() {
    let server = Server::with(&["--max-running", "1"]);
    let echo = printing(&server, "f", json!({"Entrypoint": ["echo"], "Cmd": ["old"]}));
    let reloaded = server.function("reloaded", &guests::fails(3, ""), json!({}));
    let removed = server.function("removed", &guests::prints("x"), json!({}));
    let blocker = server.block();
    let [echo, reloaded, removed] = [echo, reloaded, removed].map(|target| server.accept(&target, ""));
    let labels = json!({"sh.hyperfunc.content-type": "text/html"});
    let change = json!({"Config": {"Cmd": ["new"], "Labels": labels}});
    server.request("PUT", "/funcs/f").json(&change).send().expect(200);
    server.load("reloaded", &guests::prints("mended"));
    server.request("DELETE", "/images/removed?force=1").send().expect(200);
    server.cancel(&blocker);
    let reply = server.get(&echo.wait()).expect(200);
    assert_eq!((reply.text(), reply.header("content-type")), ("new\n", Some("text/html")));
    assert_eq!(server.get(&reloaded.wait()).expect(200).text(), "mended");
    assert_eq!(server.get(&removed.wait()).expect(500).text(), "no such image: removed\n");
}

#[test]
fn a_server_that_drains_accepts_no_call() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::on(&data, &["--drain", "2s"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let kept = server.accept(&cat, "kept");
    server.ended_call(&kept).expect(200);
    let blocker = server.block();
    let mut open: Vec<Connection> = (0..2).map(|_| server.connect()).collect();
    server.signal(Signal::TERM);
    eventually("it drains", || server.get("/_ping").status == 503);
    for connection in &mut open {
        connection.send(&server.request("POST", asynchronous(&cat)).header("Idempotency-Key", "k").body("refused"));
        let reply = connection.reply();
        assert_refused(&reply, 503);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert_eq!(server.ended().code(), Some(0));
    let server = Server::on(&data, &[]);
    assert_eq!(server.tally(&cat), [0, 0, 1, 0], "a call that was refused");
    assert_eq!(server.get(&kept.output).expect(200).text(), "kept");
    // What ran was given back, and runs again.
    server.wait_until_it_runs(&blocker);
    server.cancel(&blocker);
    server.get(&blocker.output).expect(500);
}

#[test]
fn a_call_goes_on_when_its_client_has_gone() {
    let server = Server::with(&["--max-running", "1"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let blocker = server.accept(&sleeps, "");
    let mut connection = server.connect();
    connection.send(&server.request("POST", asynchronous(&cat)).body("sent and gone"));
    let waits = Accepted::of(&cat, connection.reply());
    connection.finish();
    drop(connection);
    server.wait_for_info("Pending", 1);
    server.cancel(&blocker);
    assert_eq!(server.get(&waits.wait()).expect(200).text(), "sent and gone");
}
