//! However a call ends, it is told alike to whoever waits for it and to whoever comes later (`docs/api.md` section 4).

use crate::harness::calls::{A_YEAR, Accepted};
use crate::harness::{Connection, Reply, Request, Server, address, eventually, guests};
use serde_json::{Value, json};

/// Writes its environment after it has grown by so many pages, or traps.
fn grows_and_tells(pages: u32) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 2)
          (func (export "_start")
            (if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))
            (drop (call $sizes (i32.const 0) (i32.const 12)))
            (drop (call $get (i32.const 1024) (i32.const 65536)))
            (i32.store (i32.const 8) (i32.const 65536))
            (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))"#
    )
}

/// Grows by so many pages, and does something then.
fn grows_once(pages: u32, after: &str) -> String {
    guests::start(&format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable)) {after}"))
}

/// What an answer says, but for the id of its call, which it must name.
#[track_caller]
fn told(reply: &Reply) -> (u16, String, Option<String>) {
    let id = reply.header("x-call-id").expect("the id of a call");
    let body = String::from_utf8_lossy(&reply.body).replace(id, "ID");
    (reply.status, body, reply.header("content-type").map(str::to_owned))
}

/// Plays a call both ways, and asserts how it ends.
#[track_caller]
fn assert_alike(server: &Server, target: &str, body: &[u8], expected: (u16, &str, &str)) {
    let expected = (expected.0, expected.1.to_owned(), Some(expected.2.to_owned()));
    assert_eq!(told(&server.call(target, body)), expected, "{target}");
    let call = server.accept(target, body);
    assert_eq!(told(&server.ended_call(&call)), expected, "{target}, not waited for");
    // Whoever did not wait hears the same, and so does whoever asks for JSON.
    assert_eq!(told(&server.get(&format!("{}?keep=1", call.output))), expected);
    let as_json = |request: Request| request.header("Accept", "application/json").send();
    let sync = as_json(Request::new(server.functions, "POST", target).body(body));
    assert_eq!(told(&as_json(server.request("GET", &call.output))), told(&sync));
    if expected.0 != 200 {
        let line = expected.1.trim_end().replace("ID", &call.id);
        assert_eq!(sync.json(), json!({"message": line.replace(&call.id, sync.header("x-call-id").unwrap())}));
    }
    server.get(&call.output).expect(404);
}

#[track_caller]
fn assert_line(server: &Server, name: &str, wat: &str, fields: Value, status: u16, line: &str) {
    let target = server.function(name, wat, fields);
    assert_alike(server, &target, b"", (status, &format!("{line}\n"), "text/plain"));
    eventually("nothing is kept", || server.tally(&target) == [0; 4]);
}

#[test]
fn finished() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let labels = json!({"Config": {"Labels": {"sh.hyperfunc.content-type": "text/html; charset=utf-8"}}});
    let labelled = server.function("labelled", &guests::cat(), labels);
    for (body, content_type) in [(&b""[..], "text/plain"), (b"text", "text/plain")] {
        let text = std::str::from_utf8(body).unwrap();
        assert_alike(&server, &cat, body, (200, text, content_type));
        assert_alike(&server, &labelled, body, (200, text, "text/html; charset=utf-8"));
    }
    assert_alike(&server, &cat, b"\xff", (200, "\u{fffd}", "application/octet-stream"));
    let warns = server.function("warns", &guests::fails(0, "only a warning"), json!({}));
    assert_alike(&server, &warns, b"", (200, "", "text/plain"));
    let full = server.function("full", &guests::writes(1, 1 << 20), json!({}));
    assert_alike(&server, &full, b"", (200, &"x".repeat(1 << 20), "text/plain"));
}

#[test]
fn another_exit_status() {
    let server = Server::start();
    assert_line(&server, "says-why", &guests::fails(3, "no such file"), json!({}), 500, "exit status 3: no such file");
    assert_line(&server, "says-nothing", &guests::fails(3, ""), json!({}), 500, "exit status 3");
    let labels = json!({"Config": {"Labels": {"sh.hyperfunc.content-type": "text/html"}}});
    assert_line(&server, "labelled", &guests::fails(1, "<p>"), labels, 500, "exit status 1: <p>");
    // stdout of a call that failed is not its answer.
    let body = r#"(data (i32.const 1024) "half done") (func (export "_start")
        (call $put (i32.const 1) (i32.const 1024) (i32.const 9)) (call $exit (i32.const 255)))"#;
    assert_line(&server, "half-done", &guests::module(2, body), json!({}), 500, "exit status 255");
}

#[test]
fn a_trap() {
    let server = Server::start();
    for (name, wat, words) in [
        ("unreachable", guests::start("unreachable"), "unreachable"),
        ("divides", guests::start("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "integer divide by zero"),
        ("reads", guests::start("(drop (i32.load (i32.const -1)))"), "out of bounds memory access"),
        ("recurses", guests::recurses(), "call stack exhausted"),
        ("init", guests::module(1, r#"(func $i unreachable) (start $i) (func (export "_start"))"#), "unreachable"),
    ] {
        assert_line(&server, name, &wat, json!({}), 500, &format!("trap: {words}"));
    }
}

#[test]
fn a_limit_of_time_fuel_output_or_memory() {
    let server = Server::start();
    let timeout = json!({"Timeout": 1});
    assert_line(&server, "sleeps", &guests::sleeps(A_YEAR), timeout.clone(), 504, "timeout of 1 s reached");
    assert_line(&server, "spins", &guests::spins(), timeout.clone(), 504, "timeout of 1 s reached");
    let heavy = grows_once(512, "(loop (br 0))");
    assert_line(&server, "heavy", &heavy, timeout, 504, "timeout of 1 s reached");
    assert_line(&server, "burns", &guests::spins(), json!({"Fuel": 10_000}), 504, "fuel limit reached");
    let line = "output limit of 1 MB reached";
    assert_line(&server, "over", &guests::writes(1, (1 << 20) + 1), json!({}), 509, line);
    assert_line(&server, "floods", &guests::floods(1), json!({}), 509, line);
    let line = "memory limit of s1 (64 MB) reached";
    assert_line(&server, "grows", &guests::grows(16, "unreachable"), json!({"ContainerSize": "s1"}), 500, line);
}

#[test]
fn an_image_that_is_gone_or_does_not_fit_any_more() {
    let server = Server::start();
    let target = server.function("x", &guests::prints("x"), json!({"ContainerSize": "s1"}));
    server.request("DELETE", "/images/x?force=1").send().expect(200);
    assert_alike(&server, &target, b"", (500, "no such image: x\n", "text/plain"));
    server.load("x", &guests::module(1025, r#"(func (export "_start"))"#));
    let sync = server.call(&target, "").expect(500);
    assert_alike(&server, &target, b"", (500, sync.text(), "text/plain"));
    server.load("x", &guests::prints("back"));
    assert_alike(&server, &target, b"", (200, "back", "text/plain"));
}

#[test]
fn a_fault_of_the_server() {
    let server = Server::start();
    let target = server.function("f", &guests::prints("x"), json!({}));
    for files in ["artifacts", "modules"] {
        for file in std::fs::read_dir(server.data.join(files)).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let (sync, call) = (server.call(&target, ""), server.accept(&target, ""));
    let expected = (500, "server error, call ID\n".to_owned(), Some("text/plain".to_owned()));
    assert_eq!((told(&sync), told(&server.get(&call.wait()))), (expected.clone(), expected));
}

/// Sends a synchronous call whose answer is read later, and waits until it runs.
fn begin(server: &Server, target: &str) -> Connection {
    let running = server.get("/info").json()["Running"].as_u64().unwrap();
    let mut connection = server.connect();
    connection.send(&server.request("POST", target));
    server.wait_for_running(running + 1);
    connection
}

#[test]
fn a_function_that_is_removed_under_a_running_call() {
    let server = Server::start();
    let target = server.function("f", &guests::sleeps(A_YEAR), json!({}));
    let mut sync = begin(&server, &target);
    let call = server.accept_and_run(&target);
    let mut waiter = server.connect();
    waiter.send(&server.request("GET", &call.wait()));
    server.wait_until_all_is_read();
    server.request("DELETE", "/funcs/f").send().expect(409);
    server.request("DELETE", "/funcs/f?force=1").send().expect(204);
    assert_eq!(sync.reply().expect(500).text(), "cancelled\n");
    // Its output went with its function.
    assert_eq!(waiter.reply().expect(404).text(), "no such call\n");
    assert_forgotten(&server, &call);
}

#[test]
fn a_function_that_is_removed_under_a_waiting_call() {
    let server = Server::with(&["--max-running", "1", "--log", "hyperfunc=debug"]);
    let target = server.function("f", &guests::cat(), json!({}));
    let blocker = server.block();
    let mut sync = server.connect();
    sync.send(&server.request("POST", &target));
    server.wait_for_info("Pending", 1);
    let call = server.accept(&target, "");
    server.wait_for_info("Pending", 2);
    let mut waiter = server.connect();
    waiter.send(&server.request("GET", &call.wait()));
    server.wait_until_all_is_read();
    server.request("DELETE", "/funcs/f").send().expect(204);
    assert_eq!(sync.reply().expect(404).text(), "no such function\n");
    waiter.reply().expect(404);
    server.wait_for_info("Pending", 0);
    // What takes its name is another function, and knows nothing of its calls.
    let again = server.function("f", &guests::cat(), json!({}));
    server.get(&crate::harness::calls::output(&again, &call.id)).expect(404);
    server.cancel(&blocker);
    let last = server.accept(&again, "");
    server.get(&last.wait()).expect(200);
    eventually("the last call in the log", || server.log().contains(&format!("call ended call_id={}", last.id)));
    assert_eq!(server.log().matches("call ended").count(), 2, "the blocker and the last: {}", server.log());
    assert_forgotten(&server, &call);
}

#[track_caller]
fn assert_forgotten(server: &Server, call: &Accepted) {
    for path in ["", "/wait", "/stderr"] {
        server.get(&format!("{}{path}", call.output)).expect(404);
    }
    server.get(&format!("/funcs/call/{}", call.id)).expect(404);
}

#[test]
fn cancelled() {
    let server = Server::start();
    let target = server.function("f", &guests::sleeps(A_YEAR), json!({}));
    let call = server.accept_and_run(&target);
    server.cancel(&call);
    let expected = (500, "cancelled\n".to_owned(), Some("text/plain".to_owned()));
    assert_eq!(told(&server.ended_call(&call)), expected);
    let mut sync = begin(&server, &target);
    server.request("DELETE", "/funcs/f?force=1").send().expect(204);
    assert_eq!(told(&sync.reply()), expected);
    // What was kept went with the function.
    assert_forgotten(&server, &call);
}

#[test]
fn a_call_that_finds_no_memory_runs_when_there_is() {
    let server = Server::with(&["--memory", "64MB"]);
    // 40 MB each.
    let holds = server.function("holds", &grows_once(640, &format!("(call $sleep (i64.const {A_YEAR}))")), json!({}));
    let needs = server.function("needs", &grows_and_tells(640), json!({}));
    let holding = server.accept(&holds, "");
    server.wait_for_info("MemoryCharged", 642 * 65_536);
    let reply = server.call(&needs, "").expect(503);
    assert_eq!(reply.text(), "the server has no memory left for this call\n");
    assert!(reply.header("retry-after").is_some());
    let needing = [server.accept(&needs, ""), server.accept(&needs, "")];
    // They wait for memory, and hold nobody up.
    server.wait_for_info("Pending", 2);
    server.wait_for_running(1);
    let small = server.function("small", &guests::prints("small"), json!({}));
    assert_eq!(server.call(&small, "").expect(200).text(), "small");
    let call = server.accept(&small, "");
    assert_eq!(server.get(&call.wait()).expect(200).text(), "small");
    assert_eq!(needing.each_ref().map(|call| server.get(&call.output).status), [202, 202]);
    server.cancel(&holding);
    for call in &needing {
        let reply = server.get(&call.wait()).expect(200);
        // Each start has a number of its own.
        assert!(reply.text().split('\0').any(|variable| variable == "HYPER_ATTEMPT=2"), "{}", reply.text());
    }
    server.wait_for_info("MemoryCharged", 0);
}

#[test]
fn calls_that_do_not_fit_together_run_one_after_another() {
    let server = Server::with(&["--memory", "64MB"]);
    let target = server.function("f", &grows_once(640, "(call $sleep (i64.const 20000000))"), json!({}));
    let calls: Vec<_> = (0..10).map(|_| server.accept(&target, "")).collect();
    for call in &calls {
        assert_eq!(server.get(&call.wait()).expect(200).text(), "");
    }
    server.wait_for_info("MemoryCharged", 0);
    eventually("nothing is kept", || server.tally(&target) == [0; 4]);
}

#[test]
fn a_call_that_needs_more_than_all_memory_fails() {
    let server = Server::with(&["--memory", "64MB"]);
    let line = "the server has no memory left for this call\n";
    for (name, after) in [("returns", ""), ("traps", "unreachable")] {
        let target = server.function(name, &guests::grows(16, after), json!({"ContainerSize": "s4"}));
        assert_eq!(server.call(&target, "").expect(503).text(), line);
        let call = server.accept(&target, "");
        let reply = server.ended_call(&call);
        assert_eq!(told(&reply), (500, line.to_owned(), Some("text/plain".to_owned())));
        assert_eq!(server.tally(&target), [0, 0, 0, 1]);
    }
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);
    let cat = server.function("cat", &guests::cat(), json!({}));
    assert_eq!(server.call(&cat, "alive").expect(200).text(), "alive");
}

#[test]
fn the_address_of_a_function_is_in_no_ending() {
    let server = Server::start();
    let target = server.function("f", &guests::fails(3, "why"), json!({}));
    let uuid = server.inspect("f")["UUID"].as_str().unwrap().to_owned();
    let call = server.accept(&target, "");
    let reply = server.get(&call.wait()).expect(500);
    assert!(!format!("{reply:?}").contains(&uuid) && !server.log().contains(&uuid));
    assert_eq!(address(&server.inspect("f")), target);
}
