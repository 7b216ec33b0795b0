//! Guests that do their worst: each ends as it should, and no other call notices (`docs/api.md` section 5).

use crate::alone;
use crate::harness::{Connection, Request, Server, eventually, guests};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Every hostile guest's Timeout.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long after its Timeout a call must be answered.
const GRACE: Duration = Duration::from_millis(200);
/// What a bystander's slowest calls but one in a hundred may take.
const BYSTANDER_P99: Duration = Duration::from_millis(50);
/// How far apart the calls of one bystander begin: four of them make a hundred a second.
const BYSTANDER_EVERY: Duration = Duration::from_millis(40);
const BYSTANDERS: u32 = 4;
/// What one attack may leave in memory, in KB.
const LEFT_KB_MAX: u64 = 10 << 10;
/// How often it is tried: by then every slot of the pools was used.
const ROUNDS_MAX: usize = 6;

/// What each guest does, and how it must end.
fn hostile_guests() -> Vec<(&'static str, String, u16, &'static str)> {
    vec![
        ("spins", guests::spins(), 504, "timeout of 1 s reached"),
        ("sleeps", guests::sleeps(31_536_000_000_000_000), 504, "timeout of 1 s reached"),
        ("spins-at-instantiation", guests::spins_at_instantiation(), 504, "timeout of 1 s reached"),
        ("floods-stdout", guests::floods(1), 509, "output limit of 1 MB reached"),
        ("floods-stderr", guests::floods(2), 504, "timeout of 1 s reached"),
        ("writes-at-once", guests::writes_64_mb_at_once(), 509, "output limit of 1 MB reached"),
        ("grows", guests::grows(16, "unreachable"), 500, "memory limit of s2 (128 MB) reached"),
        ("recurses", guests::recurses(), 500, "trap: call stack exhausted"),
        ("exits", guests::fails(3, "no luck"), 500, "exit status 3: no luck"),
        ("traps", guests::start("unreachable"), 500, "trap: unreachable"),
    ]
}

#[test]
fn hostile_guests_end_as_they_should_and_nobody_notices() {
    let _machine = alone();
    let server = Server::start();
    let bystander = server.function("bystander", &guests::prints("fine"), json!({}));
    let hostile: Vec<_> = hostile_guests()
        .into_iter()
        .map(|(name, wat, status, message)| {
            let address = server.function(name, &wat, json!({"Timeout": 1, "ContainerSize": "s2"}));
            (name, address, status, message)
        })
        .collect();
    let attack = || {
        thread::scope(|scope| {
            for (name, address, status, message) in &hostile {
                let server = &server;
                scope.spawn(move || {
                    let began = Instant::now();
                    let reply = server.call(address, "");
                    let took = began.elapsed();
                    assert_eq!((reply.status, reply.text().trim_end()), (*status, *message), "{name}");
                    assert!(took < TIMEOUT + GRACE, "{name} took {took:?}");
                });
            }
        });
    };

    // While other calls come in at a steady pace; returns how long each of them took.
    let attack_while_others_call = || -> Vec<Duration> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let bystanders: Vec<_> = (0..BYSTANDERS)
                .map(|index| {
                    let (server, address, over) = (&server, &bystander, &over);
                    scope.spawn(move || {
                        calls_at_a_steady_pace(server, address, BYSTANDER_EVERY / BYSTANDERS * index, over)
                    })
                })
                .collect();
            attack();
            attack();
            over.store(true, Ordering::Relaxed);
            bystanders.into_iter().flat_map(|bystander| bystander.join().unwrap()).collect()
        })
    };

    // The first time fills pools and caches.
    attack_while_others_call();
    server.wait_for_running(0);
    let before = (server.open_files(), server.status("Threads"));

    // How many slots of the pools are in use at once differs from time to time, and each that was used keeps a few
    // pages: what leaks, leaks each time, and what only fills up comes to an end.
    let leaves_nothing_behind = (0..ROUNDS_MAX).any(|_| {
        let memory_before = server.status("VmRSS");
        let mut latencies = attack_while_others_call();
        latencies.sort();
        let p99 = latencies[latencies.len() * 99 / 100];
        assert!(latencies.len() >= 150, "only {} calls beside", latencies.len());
        assert!(p99 < BYSTANDER_P99, "p99 {p99:?}, most {:?}", latencies.last());
        server.wait_for_running(0);
        server.wait_for_info("MemoryCharged", 0);
        server.status("VmRSS").saturating_sub(memory_before) < LEFT_KB_MAX
    });
    assert!(leaves_nothing_behind, "each attack leaves more than {LEFT_KB_MAX} KB behind");
    // Threads that only wait for blocking work end by themselves, after seconds.
    eventually("as many files and threads as before", || {
        let after = (server.open_files(), server.status("Threads"));
        after.0 <= before.0 && after.1 <= before.1
    });
    assert_eq!(server.get("/version").status, 200);
}

/// Calls again and again at fixed moments, whether or not the call before was quick, and returns how long each took
/// from its moment.
fn calls_at_a_steady_pace(server: &Server, address: &str, offset: Duration, over: &AtomicBool) -> Vec<Duration> {
    let mut connection = Connection::open(server.address);
    let mut next = Instant::now() + offset;
    let mut latencies = Vec::new();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        connection.send(&Request::new(server.address, "POST", address));
        let reply = connection.reply();
        assert_eq!((reply.status, reply.text()), (200, "fine"));
        latencies.push(next.elapsed());
        next += BYSTANDER_EVERY;
    }
    latencies
}

#[test]
fn bulk_memory_instructions_cannot_be_cut_but_hold_nobody_up() {
    let _machine = alone();
    let server = Server::start();
    let bystander = server.function("bystander", &guests::prints("fine"), json!({}));
    // One copies all that the default size gives, again and again; the other first grows to 1 GB, and fills it.
    let copies = guests::module(
        8190,
        r#"(func (export "_start")
             (loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 536000000)) (br 0)))"#,
    );
    let fills = guests::start(
        "(drop (memory.grow (i32.const 16000)))
         (loop (memory.fill (i32.const 65536) (i32.const 1) (i32.const 1048000000)) (br 0))",
    );
    let copies = server.function("copies", &copies, json!({"Timeout": 1}));
    let fills = server.function("fills", &fills, json!({"Timeout": 1, "ContainerSize": "m2"}));
    let over = AtomicBool::new(false);
    let mut latencies = thread::scope(|scope| {
        let bystander = scope.spawn(|| calls_at_a_steady_pace(&server, &bystander, Duration::ZERO, &over));
        let heavy: Vec<_> = [&copies, &copies, &copies, &copies, &fills, &fills]
            .map(|address| {
                let server = &server;
                scope.spawn(move || {
                    let began = Instant::now();
                    let reply = server.call(address, "");
                    let took = began.elapsed();
                    assert_eq!((reply.status, took < TIMEOUT + GRACE), (504, true), "{took:?}");
                })
            })
            .into();
        heavy.into_iter().for_each(|call| call.join().unwrap());
        over.store(true, Ordering::Relaxed);
        bystander.join().unwrap()
    });
    latencies.sort();
    let most = latencies.last().copied().unwrap();
    assert!(most < Duration::from_millis(200), "a bystander waited {most:?}");
    // Their slots and their memory stay charged until they stop.
    server.wait_for_running(0);
    server.wait_for_info("MemoryCharged", 0);
}
