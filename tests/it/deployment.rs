//! What changes under a call's feet: definitions while its body comes, modules while it runs.

use crate::harness::{Server, address, guests};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[test]
fn a_call_runs_the_definition_that_is_there_when_its_body_is() {
    let server = Server::start();
    server.load_bytes("toolbox", guests::TOOLBOX);
    let function = server.create(&json!({"Name": "f", "Config": {"Image": "toolbox", "Cmd": ["echo", "old"]}}));
    let mut connection = server.connect();
    let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nha", address(&function));
    connection.write(head.as_bytes());
    server.put("/funcs/f", r#"{"Config": {"Cmd": ["echo", "new"]}}"#).expect(200);
    connection.write(b"lf");
    assert_eq!(connection.reply().expect(200).text(), "new\n");
}

#[test]
fn no_call_fails_while_modules_are_loaded_under_its_images_name() {
    let server = Server::start();
    let address = server.function("f", &guests::prints("one"), json!({}));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let reply = server.call(&address, "").expect(200);
                    assert!(matches!(reply.text(), "one" | "two"), "{}", reply.text());
                }
            });
        }
        for round in 0..30 {
            // The same module again now and then, too.
            server.load("f", &guests::prints(if round % 3 == 0 { "one" } else { "two" }));
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_pinned_module_that_is_rolled_back_to_is_kept_once() {
    let server = Server::start();
    server.load("app", &guests::prints("one"));
    let first = server.get("/images/app/json").json()["Id"].as_str().unwrap().to_owned();
    let pinned = format!("app@{first}");
    let function = server.create(&json!({"Name": "pinned", "Config": {"Image": pinned}}));
    for text in ["two", "one", "two"] {
        server.load("app", &guests::prints(text));
    }
    assert_eq!(server.call(&address(&function), "").text(), "one");
    assert_eq!(server.get("/info").json()["Images"], 2, "the tagged module and the pinned one");
    let removed = server.request("DELETE", &format!("/images/{first}?force=1")).send().expect(200).json();
    assert_eq!(removed, json!([{"Untagged": pinned}, {"Deleted": first}]));
}

#[test]
fn a_module_with_very_many_functions_in_its_tables_runs() {
    let server = Server::start();
    let functions: String = (0..60_000).map(|index| format!("(func $f{index})")).collect();
    let elements: String = (0..60_000).map(|index| format!(" $f{index}")).collect();
    let body = format!(
        "{functions} (table 60000 funcref) (elem (i32.const 0){elements})
         (data (i32.const 1024) \"big\") (func (export \"_start\") (call_indirect (i32.const 59999))
           (call $put (i32.const 1) (i32.const 1024) (i32.const 3)))"
    );
    let address = server.function("big", &guests::module(2, &body), json!({}));
    assert_eq!(server.call(&address, "").expect(200).text(), "big");
}

#[test]
fn a_removal_by_force_is_answered_when_the_calls_have_ended() {
    let server = Server::start();
    let address = server.function("f", &guests::spins(), json!({}));
    let mut connection = server.connect();
    connection.send(&server.request("POST", &address));
    server.wait_for_running(1);
    server.request("DELETE", "/funcs/f?force=1").send().expect(204);
    assert_eq!(server.get("/info").json()["Running"], 0);
    assert_eq!(connection.reply().expect(500).text(), "cancelled\n");
}

#[test]
fn whatever_a_name_holds_its_error_is_one_line() {
    let server = Server::start();
    for target in ["/images/a%0Ab/json", "/funcs/a%0Ab", "/funcs?filters=%7B%22a%5Cnb%22%3A%5B%5D%7D"] {
        let reply = server.get(target);
        assert!(matches!(reply.status, 400 | 404), "{target}");
        assert_eq!(reply.text().lines().count(), 1, "{target}: {:?}", reply.text());
    }
    let long = "x".repeat(500_000);
    let reply = server.try_create(&json!({"Name": "f", "Config": {"Image": "i", "Tty": long}})).expect(400);
    assert!(reply.body.len() < 2000, "{} bytes", reply.body.len());
}
