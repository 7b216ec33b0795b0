//! Requests that are no good HTTP, or that do not come: refused, and the server goes on (`docs/api.md` section 1).

use crate::harness::{PATIENCE, Reply, Request, Server, guests};
use serde_json::json;
use std::time::{Duration, Instant};

/// Sends bytes as they are; returns the answer, if there is one, and whether the connection was closed after it.
fn raw(server: &Server, bytes: &[u8]) -> (Option<Reply>, bool) {
    let mut connection = server.connect();
    connection.write(bytes);
    let reply = connection.try_reply();
    connection.finish();
    let closed = connection.is_closed();
    (reply, closed)
}

#[track_caller]
fn refused(server: &Server, request: &str, status: u16) {
    let (reply, closed) = raw(server, request.as_bytes());
    let reply = reply.unwrap_or_else(|| panic!("no answer to {request:?}"));
    assert_eq!(reply.status, status, "{request:?}: {}", String::from_utf8_lossy(&reply.body));
    assert!(closed, "{request:?}");
    assert_eq!(server.get("/_ping").text(), "OK");
}

#[test]
fn requests_that_two_parsers_could_read_differently_are_refused() {
    let server = Server::start();
    let host = "Host: localhost\r\n";
    for request in [
        // No Host, two of them, one that is none.
        "GET /version HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /version HTTP/1.1\r\n{host}{host}\r\n"),
        "GET /version HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "GET /version HTTP/1.1\r\nHost: user@localhost\r\n\r\n".to_owned(),
        // Lengths that contradict each other, or are none.
        format!("POST /funcs/create HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST /funcs/create HTTP/1.1\r\n{host}Content-Length: +5\r\n\r\n{{}}"),
        format!("POST /funcs/create HTTP/1.1\r\n{host}Content-Length: 0x5\r\n\r\n{{}}"),
        // Codings that are not exactly `chunked`.
        format!("POST /funcs/create HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /funcs/create HTTP/1.1\r\n{host}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        format!("POST /funcs/create HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("POST /funcs/create HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        // Heads that are no heads.
        format!("GET /version HTTP/1.1\r\n{host}X : y\r\n\r\n"),
        format!("GET /version HTTP/1.1\r\n{host}X: y\r\n z\r\n\r\n"),
        "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n".to_owned(),
    ] {
        refused(&server, &request, 400);
    }
}

#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let server = Server::start();
    let address = server.function("f", &guests::prints("ran"), json!({}));
    let smuggled = format!("GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let request = format!(
        "POST /funcs/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        5 + smuggled.len()
    );
    let mut connection = server.connect();
    connection.write(request.as_bytes());
    connection.reply();
    assert!(connection.try_reply().is_none(), "a second request was found");
}

#[test]
fn what_is_too_long_is_refused_by_its_name() {
    let server = Server::start();
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    refused(&server, &get("/version", &format!("X: {}\r\n", "x".repeat(40 << 10))), 431);
    refused(&server, &get("/version", &"X: y\r\n".repeat(101)), 431);
    refused(&server, &get(&format!("/version?{}", "x".repeat(70 << 10)), ""), 431);

    let target = |bytes: usize| format!("/version?{}", "x".repeat(bytes - "/version?".len()));
    assert_eq!(server.get(&target(8 << 10)).status, 200);
    assert_eq!(server.get(&target((8 << 10) + 1)).status, 414);
}

#[test]
fn a_head_that_does_not_come_ends_its_connection() {
    let server = Server::start();
    let began = Instant::now();
    let mut connections = [server.connect(), server.connect(), server.connect()];
    // One says nothing, one begins, one has asked once and asks no more.
    connections[1].write(b"GET /version HTTP/1.1\r\nHost: loc");
    connections[2].send(&server.request("GET", "/version"));
    connections[2].reply().expect(200);
    for connection in &mut connections {
        assert!(connection.is_closed());
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took < PATIENCE, "{took:?}");
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let server = Server::start();
    let address = server.function("cat", &guests::cat(), json!({}));
    let mut connection = server.connect();
    connection
        .write(format!("POST {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").as_bytes());
    let reply = connection.reply().expect(408);
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(connection.is_closed());
    assert_eq!(server.call(&address, "whole").text(), "whole");
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    let server = Server::with(&["--max-connections", "2"]);
    let mut first = server.connect();
    let mut second = server.connect();
    for connection in [&mut first, &mut second] {
        connection.send(&server.request("GET", "/_ping"));
        connection.reply().expect(200);
    }
    let mut third = server.connect();
    third.send(&server.request("GET", "/_ping"));
    third.stream.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.try_reply().is_none(), "a third connection is served");
    third.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    drop(first);
    third.reply().expect(200);
}

#[test]
fn a_client_that_is_refused_reads_why_although_it_still_sends() {
    let server = Server::start();
    let address = server.function("cat", &guests::cat(), json!({}));
    let reply = Request::new(server.address, "POST", &address).body(vec![b'x'; 3 << 20]).send();
    assert_eq!(reply.expect(413).header("connection"), Some("close"));
}

#[test]
fn a_connection_that_ends_over_a_body_that_nobody_reads_says_so() {
    let server = Server::start();
    for (method, target, status) in
        [("POST", "/nothing", 404), ("POST", "/version", 405), ("POST", "/call/a/b/sync", 404)]
    {
        let ask = |body: Vec<u8>| server.request(method, target).header("Content-Type", "application/json").body(body);
        let mut connection = server.connect();
        connection.send(&ask(vec![b'x'; 500_000]));
        assert_eq!(connection.reply().expect(status).header("connection"), Some("close"), "{target}");
        // A small one is taken in.
        let mut connection = server.connect();
        connection.send(&ask(b"small".to_vec()));
        assert_eq!(connection.reply().expect(status).header("connection"), None, "{target}");
        connection.send(&server.request("GET", "/_ping"));
        connection.reply().expect(200);
    }
}

#[test]
fn ten_thousand_requests_in_one_breath_are_answered_in_order() {
    const REQUESTS: usize = 10_000;
    let server = Server::start();
    let mut connection = server.connect();
    let mut writing = connection.stream.get_ref().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write as _;
            for index in 0..REQUESTS {
                let request = format!("GET /funcs/f{index} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                writing.write_all(request.as_bytes()).unwrap();
            }
        });
        for index in 0..REQUESTS {
            let reply = connection.reply().expect(404);
            assert_eq!(reply.text(), format!("no such function: f{index}\n"));
        }
    });
}
