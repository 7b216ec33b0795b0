//! How long a server takes from its start to its first answer, with much in its data directory.
//!
//! `cargo bench --bench start` prints the median of several starts on 10 000 functions and 10 000 calls that wait,
//! after `kill -9` each time, and that of starts on an empty directory.
//!
//! The directory is made through the API of the real server, as everything in it would be.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

#[allow(dead_code, unused_imports, unreachable_pub, reason = "`tests/it` uses the rest")]
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use harness::calls::{A_YEAR, asynchronous};
use harness::{Connection, Request, Server, address, guests};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FUNCTIONS: usize = 10_000;
const CALLS: usize = 10_000;
/// Bytes that each call brings.
const BODY_BYTES: usize = 1 << 10;
const STARTS: usize = 11;
/// Clients that fill the directory.
const CLIENTS: usize = 64;
/// The calls wait behind one that sleeps.
const ARGUMENTS: [&str; 4] = ["--max-running", "1", "--log", "warn"];

fn main() {
    let empty = Server::with(&ARGUMENTS);
    let (empty, _server) = starts(empty);
    println!("start            {} on an empty directory", shown(&empty));

    let full = Server::with(&ARGUMENTS);
    let began = Instant::now();
    fill(&full);
    println!("                 {FUNCTIONS} functions and {CALLS} calls were made in {:.1?}", began.elapsed());
    let (full, server) = starts(full);
    let waiting = server.get("/info").json()["Pending"].as_u64().expect("a number");
    println!("start            {} with {FUNCTIONS} functions and {waiting} calls that wait", shown(&full));
}

/// How long several starts took, and the last server.
fn starts(mut server: Server) -> (Vec<Duration>, Server) {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        server.kill();
        let began = Instant::now();
        server = server.restart(&ARGUMENTS);
        server.get("/version").expect(200);
        took.push(began.elapsed());
    }
    took.sort();
    (took, server)
}

fn shown(took: &[Duration]) -> String {
    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    format!("{:.1} ms ({:.1} to {:.1})", ms(took[took.len() / 2]), ms(took[0]), ms(took[took.len() - 1]))
}

/// Defines the functions, and calls each of them.
fn fill(server: &Server) {
    server.load("sleeps", &guests::sleeps(A_YEAR));
    let addresses = Mutex::new(Vec::with_capacity(FUNCTIONS));
    repeat(server, FUNCTIONS, |connection, number| {
        let function = json!({
            "Name": format!("function-{number}"),
            "Timeout": 86_400,
            "Config": {"Image": "sleeps", "Env": ["NAME=value"], "Labels": {"number": number.to_string()}},
        });
        connection.send(&server.request("POST", "/funcs/create").json(&function));
        let address = address(&connection.reply().expect(201).json());
        addresses.lock().unwrap().push(address);
    });
    let addresses = addresses.into_inner().unwrap();
    // One runs, and the others wait.
    repeat(server, CALLS + 1, |connection, number| {
        let target = asynchronous(&addresses[number % addresses.len()]);
        connection.send(&Request::new(server.functions, "POST", target).body(vec![b'x'; BODY_BYTES]));
        // The one that runs does not wait any more once its start is on disk.
        while connection.reply().status == 429 {
            connection.send(&Request::new(server.functions, "POST", target).body(vec![b'x'; BODY_BYTES]));
        }
    });
}

/// Does something so many times, on many connections.
fn repeat(server: &Server, times: usize, work: impl Fn(&mut Connection, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = Connection::open(server.functions);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= times {
                        return;
                    }
                    work(&mut connection, number);
                }
            });
        }
    });
}
