//! What the server's own log tells, and what it does not.

use crate::harness::{Server, eventually, guests};
use serde_json::{Value, json};

/// A guest that makes one host call without end which the library that serves it warns of each time.
const WARNED_OF: &str = r#"(module
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (loop (drop (call $accept (i32.const 0) (i32.const 0) (i32.const 0))) (br 0))))"#;

#[test]
fn a_guest_cannot_fill_it() {
    let server = Server::start();
    let address = server.function("f", WARNED_OF, json!({"Timeout": 1}));
    server.call(&address, "").expect(504);
    assert!(server.log().len() < 10_000, "{} bytes", server.log().len());
}

#[test]
fn a_functions_uuid_is_not_in_it_wherever_it_stood() {
    let server = Server::with(&["--log", "trace"]);
    server.load("image", &guests::fails(3, "no luck"));
    let function = server.create(&json!({"Name": "f", "Config": {"Image": "image"}}));
    let uuid = function["UUID"].as_str().unwrap();
    for target in [
        format!("/call/f/{uuid}/sync"),
        format!("/call/g/{uuid}/sync"),
        format!("/call/f/{uuid}"),
        format!("/funcs/{uuid}"),
        format!("/images/{uuid}/json"),
        format!("/funcs?filters=%7B%22{uuid}%22%3A%5B%5D%7D"),
    ] {
        server.get(&target);
    }
    eventually("the call in the log", || server.log().contains("call ended"));
    assert!(!server.log().contains(uuid), "{}", server.log());
}

#[test]
fn it_can_be_json_and_a_fault_says_its_cause_there() {
    let mut server = Server::with(&["--log-format", "json"]);
    let address = server.function("f", &guests::prints("fine"), json!({}));
    server.kill();
    for dir in ["artifacts", "modules"] {
        let files = std::fs::read_dir(server.data.join(dir)).unwrap();
        files.for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
    }
    let server = Server::on(&server.data, &["--log-format", "json"]);
    let reply = server.call(&address, "").expect(500);
    let call_id = reply.header("x-call-id").unwrap().to_owned();
    assert_eq!(reply.text(), format!("server error, call {call_id}\n"));
    eventually("the cause in the log", || server.log().contains(&call_id));
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = lines.iter().find(|line| line["fields"]["call_id"] == *call_id).unwrap();
    assert!(failed["fields"]["failure"].as_str().unwrap().contains(".wasm"), "{failed}");
}
