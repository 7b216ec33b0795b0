//! Each call has a sandbox that nothing has used before: no byte of another call can be seen.

use crate::harness::{Server, guests};
use serde_json::json;
use std::fmt::Write as _;

/// Calls of the great alternation, over all connections.
const CALLS: usize = 100_000;
const CONNECTIONS: usize = 4;
/// Calls that are sent in one go, so that the wire is not what is measured.
const BATCH: usize = 100;

/// Sends calls of these functions in turn over one connection, so many in all, and hands the body of each answer to
/// `check` with its number.
fn alternate(server: &Server, targets: &[&str], calls: usize, check: impl Fn(usize, &str)) {
    let mut connection = server.connect();
    for first in (0..calls).step_by(BATCH) {
        let batch = first..calls.min(first + BATCH);
        let mut requests = String::new();
        for number in batch.clone() {
            write!(requests, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", targets[number % targets.len()]).unwrap();
        }
        connection.write(requests.as_bytes());
        for number in batch {
            check(number, connection.reply().expect(200).text());
        }
    }
}

/// Looks for anything in its memory, its globals and its table, then fills them all with what depends on `seed`. Writes
/// `clean` if there was nothing, and traps otherwise.
fn looks_and_plants(seed: u8) -> String {
    let body = format!(
        r#"(global $mark (mut i64) (i64.const 0)) (table $t 16 funcref) (elem declare func $_start)
        (data (i32.const 1024) "clean")
        (func $_start (export "_start") (local $at i32)
          (if (i64.ne (global.get $mark) (i64.const 0)) (then unreachable))
          (local.set $at (i32.const 2048))
          (loop $more
            (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $more (i32.lt_u (local.get $at) (i32.const 524288))))
          (local.set $at (i32.const 0))
          (loop $more
            (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $at) (i32.const 16))))
          (call $put (i32.const 1) (i32.const 1024) (i32.const 5))
          (global.set $mark (i64.const {seed}))
          (table.fill $t (i32.const 0) (ref.func $_start) (i32.const 16))
          (memory.fill (i32.const 1024) (i32.const {seed}) (i32.const 523264)))"#
    );
    guests::module(8, &body)
}

#[test]
fn a_hundred_thousand_calls_each_find_their_sandbox_as_it_was_made() {
    let server = Server::start();
    let counts = server.function("counts", &guests::counts(), json!({}));
    // Another module that leaves something in the very places.
    let body = r#"(global $calls (mut i32) (i32.const 0)) (table 2 funcref) (elem declare func $_start)
        (data (i32.const 1024) "x")
        (func $_start (export "_start")
          (global.set $calls (i32.const 7))
          (memory.fill (i32.const 199936) (i32.const 1) (i32.const 128))
          (table.fill (i32.const 0) (ref.func $_start) (i32.const 2))
          (call $put (i32.const 1) (i32.const 1024) (i32.const 1)))"#;
    let spoils = server.function("spoils", &guests::module(8, body), json!({}));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                alternate(&server, &[&counts, &spoils], CALLS / CONNECTIONS, |number, text| {
                    assert_eq!(text, if number % 2 == 0 { "D" } else { "x" }, "call {number}");
                });
            });
        }
    });
    assert_eq!(server.get("/info").json()["MemoryCharged"], 0);
}

#[test]
fn a_secret_of_one_function_is_nowhere_in_the_memory_of_another() {
    let server = Server::start();
    let plants = server.function("plants", &guests::plants_a_secret(), json!({}));
    let looks = server.function("looks", &guests::looks_for_secrets(), json!({}));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                alternate(&server, &[&plants, &looks], 1000, |number, text| {
                    assert_eq!(text, if number % 2 == 0 { "" } else { "clean" });
                });
            });
        }
    });
}

#[test]
fn a_function_finds_nothing_of_its_own_earlier_calls() {
    let server = Server::start();
    let target = server.function("f", &looks_and_plants(83), json!({}));
    alternate(&server, &[&target], 1000, |_, text| assert_eq!(text, "clean"));
}

#[test]
fn more_modules_than_there_are_places_leave_each_other_nothing() {
    // Sandboxes are made in 128 places, and a module comes back to its own as long as there is another for the next.
    const MODULES: usize = 140;
    let server = Server::start();
    let seeds = 1..=u8::try_from(MODULES).unwrap();
    let targets: Vec<_> =
        seeds.map(|seed| server.function(&format!("f{seed}"), &looks_and_plants(seed), json!({}))).collect();
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    alternate(&server, &targets, 5 * MODULES, |_, text| assert_eq!(text, "clean"));
}

#[test]
fn what_a_guest_grew_by_is_empty_for_the_next() {
    let server = Server::start();
    let pages = 64;
    let grown = |name: &str, then: &str| {
        let body = format!(
            r#"(table $t 1 100 funcref) (elem declare func $_start) (data (i32.const 1024) "clean")
            (func $_start (export "_start") (local $at i32)
              (if (i32.ne (memory.grow (i32.const {pages})) (i32.const 2)) (then unreachable))
              (if (i32.ne (table.grow $t (ref.null func) (i32.const 50)) (i32.const 1)) (then unreachable))
              {then}
              (call $put (i32.const 1) (i32.const 1024) (i32.const 5)))"#
        );
        server.function(name, &guests::module(2, &body), json!({}))
    };
    let end = (2 + pages) * 65_536;
    let plants = grown(
        "plants",
        &format!(
            "(memory.fill (i32.const 131072) (i32.const 83) (i32.const {}))
             (table.fill $t (i32.const 0) (ref.func $_start) (i32.const 51))",
            end - 131_072
        ),
    );
    let looks = grown(
        "looks",
        &format!(
            "(local.set $at (i32.const 131072))
             (loop $more
               (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if $more (i32.lt_u (local.get $at) (i32.const {end}))))
             (local.set $at (i32.const 0))
             (loop $more
               (if (i32.eqz (ref.is_null (table.get $t (local.get $at)))) (then unreachable))
               (local.set $at (i32.add (local.get $at) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $at) (i32.const 51))))"
        ),
    );
    alternate(&server, &[&plants, &looks], 400, |_, text| assert_eq!(text, "clean"));
}
