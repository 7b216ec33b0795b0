//! Every way in which a call can end, with its status and its line.

use crate::harness::{Reply, Server, eventually, guests};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// When the answer of a call past its Timeout must be there.
const IN_TIME: Duration = Duration::from_millis(200);
const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
/// The machine that tests is busy with other things as well: one attempt of so many must be in time.
const ATTEMPTS: usize = 6;

/// Asserts that an answer has a status and is one line of text that tells nothing of this machine.
#[track_caller]
fn assert_line(server: &Server, reply: &Reply, status: u16, line: &str) {
    assert_eq!((reply.status, reply.text()), (status, format!("{line}\n").as_str()));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let data = server.data.to_str().unwrap();
    for path in [data, env!("CARGO_MANIFEST_DIR"), "/tmp", ".rs:"] {
        assert!(!reply.text().contains(path), "{}", reply.text());
    }
}

/// Calls a new function of size s1, and asserts how the call ends.
#[track_caller]
fn assert_ends(server: &Server, name: &str, wat: &str, status: u16, line: &str) {
    let target = server.function(name, wat, json!({"ContainerSize": "s1"}));
    let reply = server.call(&target, "");
    assert_line(server, &reply, status, line);
    assert!(reply.header("x-call-id").is_some());
}

/// A function of the toolbox.
fn toolbox(server: &Server, name: &str, command: Value) -> String {
    server.load_bytes("toolbox", guests::TOOLBOX);
    let function = json!({"Name": name, "Config": {"Image": "toolbox", "Cmd": command}});
    crate::harness::address(&server.create(&function))
}

#[test]
fn a_guest_that_returns_or_exits_with_0_has_finished() {
    let server = Server::start();
    let returns = server.function("returns", &guests::prints("done"), json!({}));
    assert_eq!(server.call(&returns, "").expect(200).text(), "done");
    let exits = server.function("exits", &guests::fails(0, "only a warning"), json!({}));
    assert_eq!(server.call(&exits, "").expect(200).text(), "");
}

#[test]
fn another_exit_status_is_told_with_the_last_line_of_stderr() {
    let server = Server::start();
    assert_ends(&server, "says-why", &guests::fails(3, "no such file"), 500, "exit status 3: no such file");
    assert_ends(&server, "says-nothing", &guests::fails(3, ""), 500, "exit status 3");
    // stdout of a call that failed is not its answer.
    let body = r#"(data (i32.const 1024) "half done") (func (export "_start")
        (call $put (i32.const 1) (i32.const 1024) (i32.const 9)) (call $exit (i32.const 1)))"#;
    assert_ends(&server, "half-done", &guests::module(2, body), 500, "exit status 1");
    for status in [1, 125, 126, 127, 128, 255, 256] {
        assert_ends(&server, &format!("f{status}"), &guests::fails(status, ""), 500, &format!("exit status {status}"));
    }
    let target = toolbox(&server, "usage", json!(["exit", "300"]));
    let line = "exit status 2: exit: '300' is not an exit status from 0 to 255";
    assert_line(&server, &server.call(&target, ""), 500, line);
    let target = toolbox(&server, "exit-255", json!(["exit", "255"]));
    assert_line(&server, &server.call(&target, ""), 500, "exit status 255");
}

#[test]
fn whatever_stderr_holds_the_answer_is_one_line() {
    let server = Server::start();
    for (name, escaped, len, told) in [
        ("lines", r"first\0alast\0a\0a \0a", 14, "last"),
        ("colours", r"\1b[31mred\1b[0m\0d\0a", 14, " [31mred [0m"),
        ("bytes", r"a\ffb", 3, "a\u{fffd}b"),
        ("blank", r" \0a\09\0a", 4, ""),
    ] {
        let body = format!(
            r#"(data (i32.const 1024) "{escaped}") (func (export "_start")
                 (call $put (i32.const 2) (i32.const 1024) (i32.const {len})) (call $exit (i32.const 4)))"#
        );
        let line = if told.is_empty() { "exit status 4".to_owned() } else { format!("exit status 4: {told}") };
        assert_ends(&server, name, &guests::module(2, &body), 500, &line);
    }
    // The end of a megabyte counts, and of one long line not all.
    let body = r#"(func (export "_start") (memory.fill (i32.const 65536) (i32.const 120) (i32.const 983040))
        (call $put (i32.const 2) (i32.const 65536) (i32.const 983040)) (call $exit (i32.const 4)))"#;
    let line = format!("exit status 4: {}", "x".repeat(255));
    assert_ends(&server, "long", &guests::module(16, body), 500, &line);
}

#[test]
fn every_trap_has_its_words() {
    let server = Server::start();
    for (name, instructions, words) in [
        ("unreachable", "unreachable", "unreachable"),
        ("divides", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("remainder", "(drop (i64.rem_s (i64.const 1) (i64.const 0)))", "integer divide by zero"),
        ("overflows", "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "integer overflow"),
        ("converts", "(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion to integer"),
        ("reads", "(drop (i32.load (i32.const 131072)))", "out of bounds memory access"),
        ("reads-last", "(drop (i32.load (i32.const -1)))", "out of bounds memory access"),
        ("fills", "(memory.fill (i32.const 131072) (i32.const 0) (i32.const 1))", "out of bounds memory access"),
    ] {
        assert_ends(&server, name, &guests::start(instructions), 500, &format!("trap: {words}"));
    }
    for (name, instructions, words) in [
        ("table", "(drop (table.get (i32.const 3)))", "out of bounds table access"),
        ("calls-past", "(call_indirect (i32.const 3))", "out of bounds table access"),
        ("calls-null", "(call_indirect (i32.const 1))", "call of an empty table entry"),
        (
            "calls-other",
            "(call_indirect (param i64) (i64.const 1) (i32.const 0))",
            "indirect call of a function of another type",
        ),
    ] {
        let body =
            format!(r#"(table 3 funcref) (elem (i32.const 0) $f) (func $f) (func (export "_start") {instructions})"#);
        assert_ends(&server, name, &guests::module(2, &body), 500, &format!("trap: {words}"));
    }
    assert_ends(&server, "recurses", &guests::recurses(), 500, "trap: call stack exhausted");
    // Before the first instruction of `_start`.
    let body = r#"(func $init unreachable) (start $init) (func (export "_start"))"#;
    assert_ends(&server, "init", &guests::module(1, body), 500, "trap: unreachable");
    let body = r#"(data (i32.const 65535) "ab") (func (export "_start"))"#;
    assert_ends(&server, "data", &guests::module(1, body), 500, "trap: out of bounds memory access");
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);
}

#[test]
fn a_call_past_its_timeout_is_answered_within_200_ms() {
    let server = Server::start();
    for (name, wat) in [
        ("sleeps", guests::sleeps(A_YEAR)),
        ("spins", guests::spins()),
        ("spins-early", guests::spins_at_instantiation()),
        ("floods", guests::floods(2)),
    ] {
        let target = server.function(name, &wat, json!({"Timeout": 1}));
        let in_time = (0..ATTEMPTS).any(|_| {
            let began = Instant::now();
            let reply = server.call(&target, "");
            let took = began.elapsed();
            assert_line(&server, &reply, 504, "timeout of 1 s reached");
            assert!(took >= SECOND, "{name} was ended after {took:?}");
            took < SECOND + IN_TIME
        });
        assert!(in_time, "{name} is never ended in time");
    }
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);
}

#[test]
fn the_timeout_is_neither_early_nor_forgotten() {
    let server = Server::start();
    let below = server.function("below", &guests::sleeps(800_000_000), json!({"Timeout": 1}));
    let above = server.function("above", &guests::sleeps(1_200_000_000), json!({"Timeout": 1}));
    assert_line(&server, &server.call(&above, ""), 504, "timeout of 1 s reached");
    assert!((0..ATTEMPTS).any(|_| server.call(&below, "").status == 200), "no guest that sleeps 0.8 s finishes");
}

#[test]
fn fuel_is_exact_and_the_same_each_time() {
    let server = Server::start();
    let counts = "(local $i i32) (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000))))";
    let target = server.function("f", &guests::start(counts), json!({"Fuel": 1}));
    assert_line(&server, &server.call(&target, ""), 504, "fuel limit reached");
    let suffices = |server: &Server, fuel: u64| {
        server.request("PUT", "/funcs/f").json(&json!({"Fuel": fuel})).send().expect(200);
        let reply = server.call(&target, "");
        assert!(reply.status == 200 || reply.text() == "fuel limit reached\n", "{}", reply.text());
        reply.status == 200
    };
    let (mut too_little, mut enough) = (1, 100_000);
    assert!(suffices(&server, enough));
    while enough - too_little > 1 {
        let middle = (too_little + enough) / 2;
        if suffices(&server, middle) { enough = middle } else { too_little = middle }
    }
    assert!(enough > 1000, "{enough} for a thousand rounds");
    for _ in 0..20 {
        assert!(suffices(&server, enough) && !suffices(&server, enough - 1), "the least is not {enough} any more");
    }
    let server = server.kill_and_restart();
    assert!(suffices(&server, enough) && !suffices(&server, enough - 1), "another after a restart");
    // A start function is paid for as well.
    let spins = server.function("spins", &guests::spins_at_instantiation(), json!({"Fuel": 10_000}));
    assert_line(&server, &server.call(&spins, ""), 504, "fuel limit reached");
}

#[test]
fn a_guest_is_stopped_as_soon_as_it_writes_past_the_output_limit() {
    let server = Server::start();
    for (name, wat) in [("floods", guests::floods(1)), ("at-once", guests::writes_64_mb_at_once())] {
        let target = server.function(name, &wat, json!({}));
        assert_line(&server, &server.call(&target, ""), 509, "output limit of 1 MB reached");
    }
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);
}

#[test]
fn a_failure_after_a_refused_growth_is_put_down_to_it() {
    let server = Server::start();
    let line = "memory limit of s1 (64 MB) reached";
    assert_ends(&server, "traps", &guests::grows(1, "unreachable"), 500, line);
    assert_ends(&server, "exits", &guests::grows(16, "(call $exit (i32.const 3))"), 500, line);
    for (name, after) in [("returns", ""), ("exits-0", "(call $exit (i32.const 0))")] {
        let target = server.function(name, &guests::grows(16, after), json!({"ContainerSize": "s1"}));
        server.call(&target, "").expect(200);
    }
    // What the module itself rules out is no limit of its size.
    let own = r#"(module (memory (export "memory") 1 2) (func (export "_start")
        (drop (memory.grow (i32.const 2))) unreachable))"#;
    assert_ends(&server, "own-limit", own, 500, "trap: unreachable");
    let target = server.function("larger", &guests::grows(1, "unreachable"), json!({"ContainerSize": "S2"}));
    assert_line(&server, &server.call(&target, ""), 500, "memory limit of s2 (128 MB) reached");
}

#[test]
fn the_memory_limit_is_exact_and_tables_count() {
    let server = Server::start();
    // A page is 65 536 bytes, and 8192 elements of a table take as much: 64 MB are 1024 of either.
    let memory =
        |pages: u32| format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))");
    let touches_last = "(i32.store8 (i32.const 0x3ffffff) (i32.const 1))";
    let table = |elements: u32| {
        format!("(if (i32.eq (table.grow (ref.null func) (i32.const {elements})) (i32.const -1)) (then unreachable))")
    };
    for (name, table_elements, instructions, fits) in [
        ("all", None, memory(1022) + touches_last, true),
        ("page-too-much", None, memory(1023), false),
        ("with-table", Some(8192), memory(1021), true),
        ("element-too-much", Some(8193), memory(1021), false),
        ("one-element", Some(1), memory(1022), false),
        ("table-grows", Some(1), memory(1021) + &table(8191), true),
        ("table-grows-too-much", Some(1), memory(1021) + &table(8192), false),
        ("memory-after-table", Some(0), table(8193) + &memory(1021), false),
    ] {
        let table = table_elements.map_or(String::new(), |elements| format!("(table {elements} funcref)"));
        let wat = guests::module(2, &format!(r#"{table} (func (export "_start") {instructions})"#));
        if fits {
            let target = server.function(name, &wat, json!({"ContainerSize": "s1"}));
            assert_eq!(server.call(&target, "").expect(200).text(), "", "{name}");
        } else {
            assert_ends(&server, name, &wat, 500, "memory limit of s1 (64 MB) reached");
        }
    }
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);
}

#[test]
fn an_image_that_is_gone_is_named() {
    let server = Server::start();
    let target = server.function("x", &guests::prints("x"), json!({}));
    server.call(&target, "").expect(200);
    server.request("DELETE", "/images/x?force=1").send().expect(200);
    let reply = server.call(&target, "");
    assert_line(&server, &reply, 500, "no such image: x");
    assert!(reply.header("x-call-id").is_some(), "it was a call, and failed");
    server.load("x", &guests::prints("back"));
    assert_eq!(server.call(&target, "").expect(200).text(), "back");
}

#[test]
fn a_growth_past_the_machines_memory_can_be_tried_again_later() {
    let server = Server::with(&["--memory", "64MB"]);
    let line = "the server has no memory left for this call";
    let grows = server.function("grows", &guests::grows(16, ""), json!({"ContainerSize": "s4"}));
    let reply = server.call(&grows, "");
    assert_line(&server, &reply, 503, line);
    assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);

    // 63 MB and a half for as long as `holds` runs.
    let pages = |pages: u32, after: &str| {
        guests::start(&format!(
            "(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable)) {after}"
        ))
    };
    let small = server.function("small", &pages(7, ""), json!({}));
    let holds = pages(1014, &format!("(call $sleep (i64.const {A_YEAR}))"));
    let holds = server.function("holds", &holds, json!({}));
    let mut holding = server.connect();
    holding.send(&server.request("POST", &holds));
    server.wait_for_info("MemoryCharged", 1016 * 65_536);
    assert_line(&server, &server.call(&small, ""), 503, line);
    server.request("DELETE", "/funcs/holds?force=1").send().expect(204);
    assert_line(&server, &holding.reply(), 500, "cancelled");
    eventually("the memory given back", || server.get("/info").json()["MemoryCharged"] == 0);
    server.call(&small, "").expect(200);
}

#[test]
fn a_client_that_asks_for_json_gets_the_line_as_json() {
    let server = Server::start();
    let fails = server.function("fails", &guests::fails(3, "a \"quote\""), json!({}));
    let reply = server.request("POST", &fails).header("Accept", "text/html, application/json").send().expect(500);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.json()["message"].as_str().unwrap().split(':').next(), Some("exit status 3"));
    // What a guest says itself stays as it is.
    let prints = server.function("prints", &guests::prints("text"), json!({}));
    let reply = server.request("POST", &prints).header("Accept", "application/json").send().expect(200);
    assert_eq!((reply.text(), reply.header("content-type")), ("text", Some("text/plain")));
}

#[test]
fn a_fault_of_the_server_says_the_call_and_no_more() {
    let server = Server::start();
    let target = server.function("f", &guests::prints("x"), json!({}));
    for files in ["artifacts", "modules"] {
        for file in std::fs::read_dir(server.data.join(files)).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let reply = server.call(&target, "");
    let line = format!("server error, call {}", reply.header("x-call-id").unwrap());
    assert_line(&server, &reply, 500, &line);
    eventually("the cause in the log", || server.log().contains("modules"));
}
