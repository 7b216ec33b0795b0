//! `Server-Timing`: what a synchronous call says of its phases (`docs/api.md` section 4).

use crate::harness::calls::asynchronous;
use crate::harness::{Reply, Server, guests};
use serde_json::json;
use std::time::Instant;

/// The phases that an answer tells, in milliseconds.
#[track_caller]
fn phases(reply: &Reply) -> [f64; 5] {
    let told = reply.header("server-timing").expect("a Server-Timing");
    let metrics: Vec<(&str, &str)> = told.split(", ").map(|metric| metric.split_once(";dur=").expect(told)).collect();
    let names: Vec<&str> = metrics.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["queue", "load", "instantiate", "run", "output"]);
    // Microseconds are the last that is told.
    assert!(metrics.iter().all(|(_, ms)| ms.split_once('.').is_some_and(|(_, digits)| digits.len() == 3)), "{told}");
    std::array::from_fn(|phase| metrics[phase].1.parse().unwrap())
}

#[test]
fn a_call_tells_what_it_spent_its_time_on() {
    let server = Server::start();
    let f = server.function("f", &guests::sleeps(30_000_000), json!({}));
    let asked = Instant::now();
    let [queue, load, instantiate, run, output] = phases(&server.call(&f, "").expect(200));
    let all = asked.elapsed().as_secs_f64() * 1e3;
    assert!(run >= 30.0, "{run}");
    assert!(instantiate > 0.0 && load > 0.0, "{instantiate} {load}");
    assert!(queue + load + instantiate + run + output <= all, "{queue} {load} {instantiate} {run} {output} of {all}");
}

#[test]
fn a_call_that_waits_tells_how_long() {
    let server = Server::start();
    let f = server.function("f", &guests::sleeps(100_000_000), json!({"MaxConcurrency": 1}));
    let queues = std::thread::scope(|scope| {
        let calls = [(); 3].map(|()| scope.spawn(|| phases(&server.call(&f, "").expect(200))[0]));
        let mut queues = calls.map(|call| call.join().unwrap());
        queues.sort_by(f64::total_cmp);
        queues
    });
    // They come at about the same time; each runs for at least 100 ms, and the last waits for two others.
    assert!(queues[2] >= 100.0 && queues[2] - queues[0] >= 100.0, "{queues:?}");
}

#[test]
fn a_call_that_fails_tells_it_as_well() {
    let server = Server::start();
    let exits = server.function("exits", &guests::fails(3, "no"), json!({}));
    let traps = server.function("traps", &guests::start("unreachable"), json!({}));
    let spins = server.function("spins", &guests::spins(), json!({"Timeout": 1}));
    let floods = server.function("floods", &guests::floods(1), json!({}));
    phases(&server.call(&exits, "").expect(500));
    phases(&server.call(&traps, "").expect(500));
    phases(&server.call(&floods, "").expect(509));
    let run = phases(&server.call(&spins, "").expect(504))[3];
    assert!(run >= 1000.0, "{run}");
}

#[test]
fn what_is_no_synchronous_call_that_ran_tells_nothing() {
    let server = Server::start();
    let f = server.function("f", &guests::prints("hi"), json!({}));
    let silent = |reply: Reply| assert_eq!(reply.header("server-timing"), None, "{reply:?}");
    silent(server.call("/call/f/e62c014e-386c-42ea-8d07-41d44e98cc3d/sync", "").expect(404));
    silent(server.call(&f, vec![b'x'; (1 << 20) + 1]).expect(413));
    silent(server.call(asynchronous(&f), "").expect(200));
    silent(server.wait(&f, &server.enqueue(&f, "")).expect(200));
    silent(server.get("/funcs").expect(200));
}
