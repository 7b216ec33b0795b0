//! A call over HTTP: who may make one, what goes in, and what comes out.

use crate::harness::{Connection, Reply, Request, Server, address, eventually, guests};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MB: usize = 1 << 20;
/// An empty text, as gzip packs it.
const GZIP: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes its arguments, each with a NUL behind it.
const ARGUMENTS: &str = r#"(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (if (call $sizes (i32.const 0) (i32.const 12)) (then unreachable))
    (if (call $get (i32.const 1024) (i32.const 65536)) (then unreachable))
    (i32.store (i32.const 8) (i32.const 65536))
    (if (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)) (then unreachable))))"#;

/// Writes what kind of file 0, 1 and 2 are, a digit each: 2 is a terminal.
const FILE_TYPES: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $stat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $type (param $fd i32)
    (if (call $stat (local.get $fd) (i32.const 64)) (then unreachable))
    (i32.store8 (i32.add (i32.const 16) (local.get $fd)) (i32.add (i32.const 48) (i32.load8_u (i32.const 64)))))
  (func (export "_start")
    (call $type (i32.const 0)) (call $type (i32.const 1)) (call $type (i32.const 2))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 3))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))))"#;

/// Bytes that no mistake maps to themselves.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A call whose body comes in chunks.
fn chunked(server: &Server, target: &str, body: &[u8]) -> Reply {
    let mut connection = server.connect();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.write(head.as_bytes());
    for piece in body.chunks(50_000) {
        connection.write(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    connection.write(b"0\r\n\r\n");
    connection.reply()
}

/// The head of a call that asks whether its body is wanted.
fn expecting(target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n")
}

/// All of an answer that a stranger could compare.
fn seen(reply: Reply) -> (u16, Vec<(String, String)>, Vec<u8>) {
    (reply.status, reply.headers.into_iter().filter(|(name, _)| name != "date").collect(), reply.body)
}

#[test]
fn four_methods_call_and_others_are_told_so() {
    let server = Server::start();
    server.load_bytes("env", guests::TOOLBOX);
    let target = address(&server.create(&json!({"Name": "f", "Config": {"Image": "env"}})));
    for method in ["GET", "POST", "PUT", "DELETE"] {
        let reply = server.request(method, &target).send().expect(200);
        assert!(reply.text().lines().any(|line| line == format!("REQUEST_METHOD={method}")), "{}", reply.text());
    }
    for method in ["PATCH", "OPTIONS", "CALL"] {
        let reply = server.request(method, &target).send().expect(405);
        assert_eq!(reply.header("allow"), Some("GET, POST, PUT, DELETE"), "{method}");
    }
    let mut connection = server.connect();
    connection.write(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut connection.stream, &mut answer).unwrap();
    let answer = answer.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 405 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("\r\nallow: get, post, put, delete\r\n"), "{answer}");
}

#[test]
fn to_a_stranger_all_wrong_addresses_are_the_same() {
    let server = Server::start();
    let a = server.function("a", &guests::prints("secret"), json!({}));
    server.function("b", &guests::prints("secret"), json!({}));
    let uuid = a.split('/').nth(3).unwrap().to_owned();
    let other = |at: usize| {
        let digit = if uuid.as_bytes()[at] == b'0' { "1" } else { "0" };
        format!("{}{digit}{}", &uuid[..at], &uuid[at + 1..])
    };
    let wrong: Vec<(&str, String)> = vec![
        ("nobody", uuid.clone()),
        ("b", uuid.clone()),
        ("A", uuid.clone()),
        ("a%20", uuid.clone()),
        ("a%00", uuid.clone()),
        ("%C3%A9", uuid.clone()),
        ("a", other(0)),
        ("a", other(14)),
        ("a", other(35)),
        ("a", "00000000-0000-0000-0000-000000000000".into()),
        ("a", "x".into()),
        ("a", "%C3%A9".into()),
        ("a", "%00".into()),
        ("a", uuid[..35].into()),
        ("a", format!("{uuid}0")),
        ("a", format!("{uuid}%20")),
        ("a", format!("%20{}", &uuid[1..])),
        ("a", uuid.replace('-', "")),
        ("a", uuid.replace('-', "_")),
        ("a", format!("%7B{uuid}%7D")),
        ("a", format!("urn:uuid:{uuid}")),
        ("a", "f".repeat(5000)),
    ];
    type With = fn(Request) -> Request;
    let requests: [(&str, With); 5] = [
        ("GET", |plain| plain),
        ("POST", |request| request.body("stdin")),
        ("POST", |request| request.header("Accept", "application/json")),
        ("PUT", |request| request.body(vec![0; MB + 1])),
        ("DELETE", |request| request.header("X-Pad", &"p".repeat(34_000))),
    ];
    server.call(&a, "").expect(200);
    for (method, with) in requests {
        let ask = |name: &str, uuid: &str| {
            seen(with(server.request(method, &format!("/call/{name}/{uuid}/sync"))).send().expect(404))
        };
        let expected = ask("nobody", "12345678-1234-4123-8123-123456789abc");
        for (name, uuid) in &wrong {
            assert_eq!(ask(name, uuid), expected, "{method} {name} {uuid}");
        }
    }
}

#[test]
fn stdin_takes_exactly_1_mb_and_a_larger_body_never_runs() {
    let server = Server::with(&["--log", "hyperfunc=debug"]);
    let target = server.function("cat", &guests::cat(), json!({}));
    let body = noise(MB + 1);
    let with_length = |body: &[u8]| server.call(&target, body);
    let in_chunks = |body: &[u8]| chunked(&server, &target, body);
    let mut ran = Vec::new();
    for send in [&with_length as &dyn Fn(&[u8]) -> Reply, &in_chunks] {
        for len in [MB, 0, 1] {
            let reply = send(&body[..len]).expect(200);
            assert!(reply.body == body[..len], "other bytes, {len}");
            ran.push(reply.header("x-call-id").unwrap().to_owned());
        }
        let refused = send(&body).expect(413);
        assert_eq!(refused.header("x-call-id"), None);
        assert_eq!(refused.text(), "the body is larger than 1048576 bytes\n");
    }
    eventually("each call in the log", || ran.iter().all(|id| server.log().contains(id)));
    assert_eq!(server.log().matches("call ended").count(), ran.len());
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let server = Server::start();
    let target = server.function("cat", &guests::cat(), json!({}));
    let mut connection = server.connect();
    connection.write(expecting(&target, 2 * MB).as_bytes());
    connection.reply().expect(413);

    let mut connection = server.connect();
    connection.write(expecting(&target, 5).as_bytes());
    connection.reply().expect(100);
    connection.write(b"small");
    assert_eq!(connection.reply().expect(200).text(), "small");

    let mut connection = server.connect();
    connection.write(expecting("/call/nobody/12345678-1234-4123-8123-123456789abc/sync", 5).as_bytes());
    connection.reply().expect(404);
}

#[test]
fn a_packed_body_stays_packed() {
    let server = Server::start();
    let target = server.function("cat", &guests::cat(), json!({}));
    let request = server.request("POST", &target).header("Content-Encoding", "gzip").header("Accept-Encoding", "gzip");
    let reply = request.body(GZIP).send().expect(200);
    assert_eq!((reply.body.as_slice(), reply.header("content-encoding")), (GZIP.as_slice(), None));
}

#[test]
fn stdout_gives_exactly_1_mb() {
    let server = Server::start();
    let full = server.function("full", &guests::writes(1, 1 << 20), json!({}));
    let over = server.function("over", &guests::writes(1, (1 << 20) + 1), json!({}));
    let reply = server.call(&full, "").expect(200);
    assert!(reply.body.len() == MB && reply.body.iter().all(|byte| *byte == b'x'));
    assert_eq!(server.call(&over, "").expect(509).text(), "output limit of 1 MB reached\n");
}

#[test]
fn output_is_text_if_it_is_utf_8_and_else_bytes() {
    let server = Server::start();
    let target = server.function("cat", &guests::cat(), json!({}));
    for (output, expected) in [
        ("".as_bytes(), "text/plain"),
        (b"plain", "text/plain"),
        ("h\u{e9}llo \u{1f600}".as_bytes(), "text/plain"),
        (b"{}", "text/plain"),
        (b"\0\x01", "text/plain"),
        (b"\xff", "application/octet-stream"),
        // The beginning of a character is none.
        (b"h\xc3", "application/octet-stream"),
        (b"\xed\xa0\x80", "application/octet-stream"),
    ] {
        let reply = server.call(&target, output).expect(200);
        assert_eq!((reply.body.as_slice(), reply.header("content-type")), (output, Some(expected)));
    }
}

#[test]
fn a_label_gives_the_content_type_of_output_but_not_of_an_error() {
    let server = Server::start();
    let labelled = |name: &str, wat: &str| {
        let labels = json!({"sh.hyperfunc.content-type": "text/html; charset=utf-8"});
        server.function(name, wat, json!({"Config": {"Labels": labels}}))
    };
    let target = labelled("cat", &guests::cat());
    for output in [b"<p>".as_slice(), b"\xff"] {
        assert_eq!(server.call(&target, output).expect(200).header("content-type"), Some("text/html; charset=utf-8"));
    }
    let target = labelled("fails", &guests::fails(1, "<script>"));
    assert_eq!(server.call(&target, "").expect(500).header("content-type"), Some("text/plain"));
}

#[test]
fn every_call_has_an_id_of_its_own() {
    let server = Server::start();
    let target = server.function("f", &guests::prints("x"), json!({}));
    let fails = server.function("fails", &guests::fails(1, ""), json!({}));
    let id = |target: &str| server.call(target, "").header("x-call-id").unwrap().to_owned();
    let ids: BTreeSet<_> = (0..50).flat_map(|_| [id(&target), id(&fails)]).collect();
    assert_eq!(ids.len(), 100, "an id twice");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    for id in ids {
        let hex = id.replace('-', "");
        assert_eq!((id.len(), hex.len(), &id[14..15]), (36, 32, "7"), "a version 7 UUID: {id}");
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        let made = u128::from_str_radix(&hex[..12], 16).unwrap();
        assert!(now - 60_000 < made && made <= now, "{id} was not made now");
    }
}

#[test]
fn a_connection_carries_call_after_call_whatever_their_answers() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let fails = server.function("fails", &guests::fails(1, ""), json!({}));
    let traps = server.function("traps", &guests::start("unreachable"), json!({}));
    let mut connection = server.connect();
    for round in 0..20 {
        let body = format!("round {round}");
        for (target, status) in [(cat.as_str(), 200), (&fails, 500), (&traps, 500), ("/call/x/y/sync", 404)] {
            connection.send(&server.request("POST", target).body(body.clone()));
            let reply = connection.reply().expect(status);
            assert!(status != 200 || reply.text() == body, "{}", reply.text());
        }
    }
}

#[test]
fn calls_in_one_go_are_answered_in_their_order() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let slow = server.function("slow", &guests::sleeps(50_000_000), json!({}));
    let mut connection: Connection = server.connect();
    let all: String = (0..30)
        .map(|number| {
            let target = if number % 10 == 0 { &slow } else { &cat };
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{number:02}")
        })
        .collect();
    connection.write(all.as_bytes());
    for number in 0..30 {
        let expected = if number % 10 == 0 { "woke".to_owned() } else { format!("{number:02}") };
        assert_eq!(connection.reply().expect(200).text(), expected);
    }
}

#[test]
fn argv_is_the_entrypoint_and_then_the_command() {
    let server = Server::start();
    let image = "registry.example:5000/team/show";
    server.load(&format!("{image}:v2"), ARGUMENTS);
    let listed = server.get("/images/json").expect(200).json();
    let by_digest = format!("{image}@{}", listed[0]["Id"].as_str().unwrap());
    let tagged = format!("{image}:v2");
    let default: &[&str] = &["show"];
    let cases: [(Value, &str, &[&str]); 9] = [
        (json!({}), &tagged, default),
        (json!({}), &by_digest, default),
        (json!({"Entrypoint": [], "Cmd": []}), &tagged, default),
        (json!({"Cmd": ["a", "b c", "", "\u{e9}"]}), &tagged, &["show", "a", "b c", "", "\u{e9}"]),
        (json!({"Cmd": "a b"}), &tagged, &["show", "a b"]),
        (json!({"Entrypoint": ["/bin/x", "y"]}), &tagged, &["/bin/x", "y"]),
        (json!({"Entrypoint": "/bin/x y"}), &tagged, &["/bin/x y"]),
        (json!({"Entrypoint": ["x", "y"], "Cmd": ["z"]}), &tagged, &["x", "y", "z"]),
        (json!({"Entrypoint": [], "Cmd": ["z"]}), &by_digest, &["show", "z"]),
    ];
    for (number, (mut config, image, expected)) in cases.into_iter().enumerate() {
        config["Image"] = image.into();
        let function = server.create(&json!({"Name": format!("f{number}"), "Config": config}));
        let reply = server.call(&address(&function), "").expect(200);
        let argv: Vec<_> = reply.text().strip_suffix('\0').unwrap().split('\0').collect();
        assert_eq!(argv, expected, "{config}");
    }
}

#[test]
fn a_terminal_is_one_stream_and_says_that_it_is_one() {
    let server = Server::start();
    let body = r#"(data (i32.const 1024) "out err!")
        (func (export "_start")
          (call $put (i32.const 1) (i32.const 1024) (i32.const 4))
          (call $put (i32.const 2) (i32.const 1028) (i32.const 3))
          (call $put (i32.const 1) (i32.const 1031) (i32.const 1)))"#;
    let speaks = guests::module(2, body);
    for (tty, text, types) in [(false, "out !", "000"), (true, "out err!", "022")] {
        let fields = json!({"Config": {"Tty": tty}});
        let target = server.function(&format!("speaks-{tty}"), &speaks, fields.clone());
        assert_eq!(server.call(&target, "").expect(200).text(), text);
        let target = server.function(&format!("types-{tty}"), FILE_TYPES, fields);
        assert_eq!(server.call(&target, "").expect(200).text(), types);
    }
    // One stream has one limit.
    let target = server.function("floods", &guests::writes(2, (1 << 20) + 1), json!({"Config": {"Tty": true}}));
    assert_eq!(server.call(&target, "").expect(509).text(), "output limit of 1 MB reached\n");
}
