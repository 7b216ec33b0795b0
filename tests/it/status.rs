//! How calls stand, which function they belong to, and what the removal of a function does to them
//! (`docs/api.md` sections 3 and 4).

use crate::harness::calls::{Tally, id, output, status};
use crate::harness::{Connection, Reply, Request, Server, eventually, guests};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
/// A call that nobody ever made.
const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";

fn get(server: &Server, target: &str) -> Reply {
    Request::new(server.functions, "GET", target).send()
}

/// The status and the function's name that the management API says of a call.
fn function_of(server: &Server, call_id: &str) -> (u16, Option<String>) {
    let reply = server.get(&format!("/funcs/call/{call_id}"));
    let name = (reply.status == 200).then(|| reply.json()["Name"].as_str().unwrap().to_owned());
    (reply.status, name)
}

#[test]
fn every_call_is_counted_once_at_every_moment() {
    const CLIENTS: u64 = 4;
    const CALLS: u64 = 150;
    let server = Server::with(&["--max-running", "3"]);
    let target = server.function("f", &guests::cat(), json!({}));
    let (accepted, begun, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(server.functions);
                    for _ in 0..CALLS {
                        begun.fetch_add(1, Ordering::SeqCst);
                        connection.try_enqueue(&server, &target, b"").unwrap();
                        accepted.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let looking = scope.spawn(|| {
            let (mut looks, mut finished) = (0, 0);
            while !over.load(Ordering::SeqCst) {
                let before = accepted.load(Ordering::SeqCst);
                let tally = server.tally(&target);
                let after = begun.load(Ordering::SeqCst);
                assert!((before..=after).contains(&tally.total()), "{before} to {after}: {tally:?}");
                assert!(tally.finished >= finished && tally.failed == 0, "{tally:?}");
                (looks, finished) = (looks + 1, tally.finished);
            }
            looks
        });
        clients.into_iter().for_each(|client| client.join().unwrap());
        server.wait_for_tally(&target, Tally { finished: CLIENTS * CALLS, ..Tally::default() });
        over.store(true, Ordering::SeqCst);
        assert!(looking.join().unwrap() > 10);
    });
}

#[test]
fn a_call_is_counted_and_listed_as_what_it_is() {
    let server = Server::with(&["--max-running", "1"]);
    let fails = server.function("fails", &guests::fails(3, "no luck"), json!({}));
    let hello = server.function("hello", &guests::prints("hi"), json!({}));
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    assert_eq!(get(&server, &status(&hello)).json().as_object().unwrap().len(), 5, "a list that nobody asked for");
    assert_eq!((server.tally(&hello), server.list(&hello)), (Tally::default(), vec![]));

    let failed = server.enqueue(&fails, "");
    server.wait_for_tally(&fails, Tally { failed: 1, ..Tally::default() });
    let finished = server.enqueue(&hello, "");
    server.wait_for_tally(&hello, Tally { finished: 1, ..Tally::default() });
    let running = server.enqueue(&sleeps, "");
    server.wait_for_tally(&sleeps, Tally { running: 1, ..Tally::default() });
    let pending = server.enqueue(&sleeps, "");
    assert_eq!(server.tally(&sleeps), Tally { running: 1, pending: 1, ..Tally::default() });
    let listed = |call: &Value| {
        assert_eq!(call.as_object().unwrap().len(), 4, "{call}");
        let created = call["Created"].as_str().unwrap();
        assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
        (id(call), call["Status"].as_str().unwrap().to_owned(), call["Message"].as_str().map(str::to_owned))
    };
    for (target, expected) in [
        (&fails, vec![(failed.clone(), "FAILED", Some("exit status 3: no luck"))]),
        (&hello, vec![(finished.clone(), "FINISHED", None)]),
        (&sleeps, vec![(running, "RUNNING", None), (pending, "PENDING", None)]),
    ] {
        let list: Vec<_> = server.list(target).iter().map(listed).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(call, state, message)| (call, state.to_owned(), message.map(str::to_owned)))
            .collect();
        assert_eq!(list, expected);
    }
    assert!(server.list(&hello)[0]["Message"].is_null());

    // What is read is not known any more.
    server.wait(&hello, &finished).expect(200);
    server.wait(&fails, &failed).expect(500);
    for target in [&hello, &fails] {
        server.wait_for_tally(target, Tally::default());
        assert_eq!(server.list(target), Vec::<Value>::new());
    }
}

#[test]
fn calls_that_somebody_waits_for_are_counted_while_they_last_and_never_listed() {
    let server = Server::with(&["--max-running", "1"]);
    let target = server.function("f", &guests::sleeps(A_YEAR), json!({}));
    let begin = || {
        let mut connection = Connection::open(server.functions);
        connection.send(&Request::new(server.functions, "POST", &target));
        connection
    };
    let _runs = begin();
    server.wait_for_running(1);
    let waits = begin();
    server.wait_for_tally(&target, Tally { running: 1, pending: 1, ..Tally::default() });
    let queued = server.enqueue(&target, "");
    assert_eq!(server.tally(&target), Tally { running: 1, pending: 2, ..Tally::default() });
    assert_eq!(server.list(&target).iter().map(id).collect::<Vec<_>>(), [queued]);
    drop(waits);
    server.wait_for_tally(&target, Tally { running: 1, pending: 1, ..Tally::default() });
}

#[test]
fn a_list_comes_in_pages() {
    const CALLS: usize = 25;
    let server = Server::with(&["--max-running", "1"]);
    let blocker = server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
    let target = server.function("f", &guests::cat(), json!({}));
    server.enqueue(&blocker, "");
    server.wait_for_running(1);
    let calls: Vec<String> = (0..CALLS).map(|_| server.enqueue(&target, "")).collect();
    let page = |query: &str| -> Vec<String> {
        let reply = get(&server, &format!("{}?list=1&{query}", status(&target))).expect(200).json();
        assert_eq!(Tally::of(&reply), Tally { pending: CALLS as u64, ..Tally::default() });
        reply["List"].as_array().unwrap().iter().map(id).collect()
    };
    let mut listed = page("limit=10");
    for expected in [10, 5, 0] {
        let next = page(&format!("limit=10&after={}", listed.last().unwrap()));
        assert_eq!(next.len(), expected);
        listed.extend(next);
    }
    assert_eq!((&listed, page(""), page("limit=10000")), (&calls, calls.clone(), calls.clone()));
    assert_eq!(page(&format!("after={}", calls[23])), calls[24..]);
    // A call that is not known any more stands where its id does: all of these are younger.
    assert_eq!(page(&format!("after={}", id(&server.list(&blocker)[0]))), calls);
    assert_eq!(page("after=ffffffff-ffff-7fff-bfff-ffffffffffff"), Vec::<String>::new());

    for (query, named) in [
        ("list=maybe", "list"),
        ("list=1&limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("list=1&after=x", "after"),
    ] {
        let reply = get(&server, &format!("{}?{query}", status(&target))).expect(400);
        assert!(reply.text().starts_with(named), "{query}: {}", reply.text());
    }
    get(&server, &status(&target).replace("/f/", "/g/")).expect(404);
}

#[test]
fn a_call_leads_to_its_function_as_long_as_it_is_known() {
    // What a function keeps is less than two of its outputs.
    let server = Server::with(&["--max-running", "1", "--output-cache", "1KB"]);
    let echo = server.function("echo", &guests::cat(), json!({}));
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let known = |name: &str| (200, Some(name.to_owned()));
    let gone = server.enqueue(&echo, &"x".repeat(600));
    server.wait_for_tally(&echo, Tally { finished: 1, ..Tally::default() });
    let ended = server.enqueue(&echo, &"x".repeat(601));
    eventually("the second has ended, and the first had to go", || {
        server.list(&echo).iter().any(|call| id(call) == ended && call["Status"] == "FINISHED")
    });
    server.output(&echo, &gone).expect(410);
    assert_eq!(server.tally(&echo), Tally { finished: 1, ..Tally::default() });
    let (running, pending) = (server.enqueue(&sleeps, ""), server.enqueue(&echo, ""));
    server.wait_for_running(1);
    for (call, name) in [(&gone, "echo"), (&ended, "echo"), (&running, "sleeps"), (&pending, "echo")] {
        assert_eq!(function_of(&server, call), known(name));
    }
    assert_eq!(server.get(&format!("/v1.23/funcs/call/{ended}")).expect(200).json(), server.inspect("echo"));

    server.wait(&echo, &ended).expect(200);
    eventually("what was read is forgotten", || function_of(&server, &ended).0 == 404);
    server.output(&echo, &ended).expect(404);
    server.request("DELETE", "/funcs/sleeps?force=1").send().expect(204);
    server.wait(&echo, &pending).expect(200);
    let somebody_waited = server.call(&echo, "").expect(200).header("x-call-id").unwrap().to_owned();
    for call in [&running, &somebody_waited, NO_CALL, "x"] {
        assert_eq!(function_of(&server, call), (404, None), "{call}");
    }
    // An id opens no call of another function.
    let other = server.function("other", &guests::cat(), json!({}));
    let call = server.enqueue(&echo, "");
    server.wait_for_tally(&echo, Tally { finished: 1, ..Tally::default() });
    server.output(&other, &call).expect(404);
    server.output(&echo, &call).expect(200);
}

#[test]
fn a_function_that_runs_is_not_removed_without_force() {
    let server = Server::with(&["--max-running", "1"]);
    let target = server.function("f", &guests::sleeps(A_YEAR), json!({}));
    let (running, pending) = (server.enqueue(&target, ""), server.enqueue(&target, ""));
    server.wait_for_running(1);
    server.request("DELETE", "/funcs/f").send().expect(409);
    assert_eq!(server.tally(&target), Tally { running: 1, pending: 1, ..Tally::default() });
    // Whoever waits for a call learns that there is none.
    thread::scope(|scope| {
        let waiting: Vec<_> = [&running, &pending]
            .map(|call| {
                let mut connection = Connection::open(server.functions);
                let wait = format!("{}/wait", output(&target, call));
                connection.send(&Request::new(server.functions, "GET", &wait));
                scope.spawn(move || connection.reply())
            })
            .into();
        server.request("DELETE", "/funcs/f?force=1").send().expect(204);
        for waiting in waiting {
            waiting.join().unwrap().expect(404);
        }
    });
    let info = server.get("/info").json();
    assert_eq!((&info["Running"], &info["Pending"]), (&json!(0), &json!(0)));
    for call in [&running, &pending] {
        server.output(&target, call).expect(404);
        assert_eq!(function_of(&server, call), (404, None));
    }
}

#[test]
fn a_function_takes_its_calls_along_and_one_of_its_name_does_not_see_them() {
    let mut server = Server::with(&["--max-running", "1", "--log", "hyperfunc=debug"]);
    let blocker = server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
    let old = server.function("f", &guests::prints("old"), json!({}));
    let ended = server.enqueue(&old, "");
    server.wait_for_tally(&old, Tally { finished: 1, ..Tally::default() });
    server.enqueue(&blocker, "");
    server.wait_for_running(1);
    let keyed = |target: &str| {
        let call = Request::new(server.functions, "POST", target.strip_suffix("/sync").unwrap());
        let reply = call.header("Idempotency-Key", "key").send().expect(200).json();
        reply["CallId"].as_str().unwrap().to_owned()
    };
    let pending = keyed(&old);
    // None of its calls runs: it needs no force.
    server.request("DELETE", "/funcs/f").send().expect(204);
    server.wait_for_info("Pending", 0);

    let new = server.function("f", &guests::prints("new"), json!({}));
    assert_eq!((server.tally(&new), server.list(&new)), (Tally::default(), vec![]));
    for call in [&ended, &pending] {
        server.output(&new, call).expect(404);
        assert_eq!(function_of(&server, call), (404, None));
    }
    // Not even what its callers called their calls.
    let call = keyed(&new);
    assert!(call != pending && call == keyed(&new));
    server.request("DELETE", "/funcs/blocker?force=1").send().expect(204);
    assert_eq!(server.wait(&new, &call).expect(200).text(), "new");
    server.wait_for_tally(&new, Tally::default());
    // Nor does it see them in the next life.
    server.kill();
    let server = server.restart(&[]);
    assert_eq!(server.tally(&new), Tally::default());
    let last = server.enqueue(&new, "");
    assert_eq!(server.wait(&new, &last).expect(200).text(), "new");
    server.output(&new, &pending).expect(404);
}
