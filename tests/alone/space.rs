//! What a function takes on disk, however often it is called, and what it gives back (`docs/api.md` section 4).

use crate::alone;
use crate::harness::calls::{Tally, asynchronous, output};
use crate::harness::{Connection, Request, Server, eventually, guests};
use serde_json::json;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MB: u64 = 1 << 20;
/// What the ended calls of a function may keep, and what its log may.
const CAPS: u64 = 2 * 50 * MB;
/// What is known of each call that has ended, whether its output is kept or not.
const KNOWN_BYTES: u64 = 256;
/// What the queue may hold: short, so that it counts for little.
const PENDING_MAX: &str = "500";
const CLIENTS: usize = 32;
/// What must be free again is free by then: the server looks every thirty seconds.
const GIVEN_BACK_MAX: Duration = Duration::from_secs(90);

/// How many calls, and the bytes that each brings and leaves: enough to fill both caps. `SPACE_CALLS=100000` makes more
/// calls, which leave less.
fn calls_and_bytes() -> (usize, usize) {
    match std::env::var("SPACE_CALLS") {
        Ok(calls) => (calls.parse().expect("SPACE_CALLS is a number"), 1 << 10),
        Err(_) => (30_000, 4 << 10),
    }
}

/// What the files below a directory take of the disk.
fn disk_use(dir: &Path) -> u64 {
    // What is removed meanwhile takes nothing.
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of_one = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => disk_use(path),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(|entry| of_one(&entry.path())).sum()
}

/// Each file, for a failure's sake.
fn files(dir: &Path) -> String {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => dirs.push(entry.path()),
                Ok(found) => files.push(format!("{} {} KB", entry.file_name().display(), found.blocks() / 2)),
                Err(_) => {}
            }
        }
    }
    files.join(", ")
}

/// Calls until `left` is used up. Where the queue is full it waits for its own last call.
fn calls(server: &Server, target: &str, bytes: usize, left: &AtomicUsize) {
    let mut connection = Connection::open(server.functions);
    let mut ask = |request: Request| {
        connection.send(&request);
        connection.reply()
    };
    let take = |left: usize| left.checked_sub(1);
    let mut last: Option<String> = None;
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
        // No two alike, and nothing that could be pressed together.
        let body: Vec<u8> = (0..bytes).map(|at| ((at * 31 + number * (at % 7 + 1)) % 251) as u8).collect();
        loop {
            let call = Request::new(server.functions, "POST", asynchronous(target)).body(body.clone());
            let reply = ask(call);
            if reply.status == 200 {
                last = reply.json()["CallId"].as_str().map(str::to_owned);
                break;
            }
            assert_eq!(reply.status, 429);
            if let Some(last) = &last {
                let wait = format!("{}/wait?keep=1", output(target, last));
                let ended = ask(Request::new(server.functions, "GET", &wait)).status;
                assert!([200, 410].contains(&ended), "{ended}");
            }
        }
    }
}

#[test]
fn a_function_takes_what_it_may_and_gives_it_back() {
    let _machine = alone();
    let (calls_max, bytes) = calls_and_bytes();
    let server = Server::with(&["--max-pending", PENDING_MAX]);
    let target = server.function("f", &guests::cat(), json!({}));
    let before = disk_use(&server.data);

    let (left, over) = (AtomicUsize::new(calls_max), AtomicBool::new(false));
    let began = Instant::now();
    let (most, at_most) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = (0, String::new());
            while !over.load(Ordering::Relaxed) {
                let used = disk_use(&server.data);
                if used > most.0 {
                    most = (used, files(&server.data));
                }
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| calls(&server, &target, bytes, &left))).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        over.store(true, Ordering::Relaxed);
        watching.join().unwrap()
    });
    let took = began.elapsed();
    let Tally { finished, failed, .. } = {
        let mut tally = server.tally(&target);
        eventually("the end of all calls", || {
            tally = server.tally(&target);
            tally.pending + tally.running == 0
        });
        tally
    };
    assert_eq!(failed, 0);
    let kept = finished * bytes as u64;
    assert!(kept <= 50 * MB && kept > 49 * MB, "{finished} results");
    println!("{calls_max} calls of {bytes} bytes in {took:?}: {} KB at most: {at_most}", most >> 10);
    let caps = CAPS + calls_max as u64 * KNOWN_BYTES;
    assert!(most <= before + caps / 100 * 120, "{} MB: {at_most}", most / MB);

    let began = Instant::now();
    server.request("DELETE", "/funcs/f").send().expect(204);
    println!("removed after {:?}", began.elapsed());
    // What the store keeps for the next calls, and its log of writes.
    let given_back = || disk_use(&server.data) <= before + 20 * MB;
    while !given_back() {
        assert!(began.elapsed() < GIVEN_BACK_MAX, "it keeps {}", files(&server.data));
        thread::sleep(Duration::from_millis(20));
    }
    println!("given back after {:?}: {}", began.elapsed(), files(&server.data));
}
