//! Asynchronous calls, from their acceptance to their end.

use crate::breaking::{Accepted, Break, Data, How, ask, assert_broken, breaks};
use crate::harness::calls::{Tally, asynchronous, id, output};
use crate::harness::guests::{self, Stamped};
use crate::harness::{Request, Server};
use rustix::process::Signal;
use serde_json::json;

/// A data directory with a function whose calls say at which start they were, and where it is called.
fn with_function() -> (Data, String) {
    let data = Data::new();
    let target = data.sound().function("f", &guests::stamps(0), json!({}));
    (data, target)
}

/// Calls it under a key; the id, if it is told one.
fn call(server: &Server, target: &str) -> Option<String> {
    let call = Request::new(server.functions, "POST", asynchronous(target)).header("Idempotency-Key", "key");
    let reply = ask(server.functions, &call.body("x"))?;
    match reply.status {
        200 => reply.json()["CallId"].as_str().map(str::to_owned),
        500 => None,
        other => panic!("{other}"),
    }
}

/// Waits for the end of the only call of a function.
#[track_caller]
fn only(server: &Server, target: &str) -> (String, Stamped) {
    let list = server.list(target);
    assert_eq!(list.len(), 1, "{list:?}");
    let call = id(&list[0]);
    let found = Stamped::of(&server.wait(target, &call).expect(200).body);
    server.wait_for_tally(target, Tally::default());
    (call, found)
}

#[test]
fn a_call_that_is_not_on_disk_was_not_accepted_and_leaves_no_trace() {
    // The first commit is that of the start.
    for at in breaks(&[("accept.before_commit", 0), ("store.before_commit", 1)], &How::ALL) {
        let (data, target) = with_function();
        let server = data.broken(at);
        assert_eq!(call(&server, &target), None, "{at:?}");
        assert_broken(server, at);
        let server = data.sound();
        assert_eq!(server.tally(&target), Tally::default(), "{at:?}");
        // The key is free as well.
        let again = call(&server, &target).unwrap();
        assert_eq!(only(&server, &target).0, again);
    }
}

#[test]
fn a_call_that_is_on_disk_runs_though_its_client_was_not_told() {
    let mut places = breaks(&[("accept.after_commit", 0)], &How::HARD);
    // What the disk has, although it said that it has failed.
    places.extend(breaks(&[("store.after_commit", 1)], &How::ALL));
    for at in places {
        let (data, target) = with_function();
        let server = data.broken(at);
        assert_eq!(call(&server, &target), None, "{at:?}");
        assert_broken(server, at);
        let server = data.sound();
        // Who asks again under the same key gets the same call.
        let again = call(&server, &target).unwrap();
        let (known, found) = only(&server, &target);
        assert_eq!((known, found.attempt, found.body.as_str()), (again, 1, "x"), "{at:?}");
    }
}

#[test]
fn a_start_that_is_not_on_disk_was_none() {
    for at in breaks(&[("claim.before_commit", 0), ("store.before_commit", 1)], &How::ALL) {
        let accepted = Accepted::new(Data::new(), 2, 3);
        accepted.data.breaks(at);
        assert_eq!(accepted.attempts(&accepted.data.sound()), (2, vec![1; 3]), "{at:?}");
    }
}

#[test]
fn a_call_whose_start_is_on_disk_starts_again_at_its_place() {
    let mut places = breaks(&[("claim.after_commit", 0)], &How::HARD);
    places.extend(breaks(&[("store.after_commit", 1)], &How::ALL));
    for at in places {
        let accepted = Accepted::new(Data::new(), 2, 3);
        accepted.data.breaks(at);
        assert_eq!(accepted.attempts(&accepted.data.sound()), (3, vec![1; 3]), "{at:?}");
    }
}

#[test]
fn a_call_whose_end_is_not_on_disk_runs_again_and_leaves_one_output() {
    // The first one ends; the one behind it breaks the server.
    for at in breaks(&[("finish.before_commit", 1)], &How::ALL) {
        let accepted = Accepted::new(Data::new(), 2, 3);
        accepted.data.breaks(at);
        let (first, others) = accepted.attempts(&accepted.data.sound());
        assert_eq!((first, others[0], others[2]), (2, 2, 1), "{at:?}");
        // It may have been started already when the one before it ended.
        assert!(others[1] <= 2, "{at:?}: {others:?}");
    }
}

#[test]
fn a_call_whose_end_is_on_disk_has_its_output_and_does_not_run_again() {
    for at in breaks(&[("finish.after_commit", 1)], &How::HARD) {
        let accepted = Accepted::new(Data::new(), 2, 2);
        accepted.data.breaks(at);
        let server = accepted.data.sound();
        let (first, others) = accepted.attempts(&server);
        assert_eq!((first, others[0]), (2, 1), "{at:?}");
    }
}

#[test]
fn whoever_waits_for_a_call_hears_nothing_false_when_the_server_breaks_at_its_end() {
    for at in breaks(&[("finish.before_commit", 0)], &How::ALL) {
        let (data, target) = with_function();
        let blocker = Accepted::new(data, 9, 0);
        let server = blocker.data.sound();
        let waits = server.enqueue(&target, "x");
        drop(server);
        // The blocker goes on first; it is taken back, and what waited runs.
        let server = blocker.data.broken(Break(at.0, 1, at.2));
        let mut waiting = server.begin("GET", &format!("{}/wait", output(&target, &waits)));
        let (target_of_blocker, call) = &blocker.first;
        let cancel = Request::new(server.functions, "DELETE", &output(target_of_blocker, call));
        assert_eq!(ask(server.functions, &cancel).map_or(204, |reply| reply.status), 204);
        let heard = waiting.try_reply();
        assert!(heard.is_none(), "{at:?}: {heard:?}");
        assert_broken(server, at);
        let server = blocker.data.sound();
        let found = Stamped::of(&server.wait(&target, &waits).expect(200).body);
        assert_eq!(found.attempt, 2, "{at:?}");
    }
}

#[test]
fn a_waiting_call_that_could_not_be_taken_back_waits_on() {
    for at in breaks(&[("discard.before_commit", 0)], &How::ALL) {
        let accepted = Accepted::new(Data::new(), 3, 3);
        let server = accepted.data.broken(at);
        server.wait_for_tally(&accepted.first.0, Tally { running: 1, ..Tally::default() });
        let discard = Request::new(server.functions, "DELETE", &output(&accepted.target, &accepted.waiting[1]));
        assert!(ask(server.functions, &discard).is_none_or(|reply| reply.status == 500), "{at:?}");
        assert_broken(server, at);
        assert_eq!(accepted.attempts(&accepted.data.sound()), (3, vec![1; 3]), "{at:?}");
    }
}

#[test]
fn a_drain_that_breaks_leaves_calls_at_their_places() {
    let mut places = breaks(&[("give_back.before_commit", 0)], &How::ALL);
    places.extend(breaks(&[("give_back.after_commit", 0)], &How::HARD));
    for at in places {
        let accepted = Accepted::new(Data::with(&["--drain", "0s"]), 3, 2);
        let server = accepted.data.broken(at);
        server.wait_for_tally(&accepted.first.0, Tally { running: 1, ..Tally::default() });
        server.signal(Signal::TERM);
        assert_broken(server, at);
        assert_eq!(accepted.attempts(&accepted.data.sound()), (3, vec![1; 2]), "{at:?}");
    }
}

#[test]
fn a_call_that_a_drain_has_given_back_is_not_counted_as_crashed() {
    let at = Break("give_back.after_commit", 0, How::Abort);
    // The kill before was a crash; three more would be too many.
    let accepted = Accepted::new(Data::with(&["--drain", "0s"]), 5, 1);
    for _ in 0..3 {
        let server = accepted.data.broken(at);
        server.wait_for_tally(&accepted.first.0, Tally { running: 1, ..Tally::default() });
        server.signal(Signal::TERM);
        assert_broken(server, at);
    }
    assert_eq!(accepted.attempts(&accepted.data.sound()), (5, vec![1]));
}

#[test]
fn a_call_that_ends_its_server_three_times_has_failed_and_lets_the_next_ones_run() {
    let (data, target) = with_function();
    let at = Break("guest.write", 0, How::Abort);
    let server = data.broken(at);
    // It may end the server before its id is told.
    let _ = call(&server, &target);
    assert_broken(server, at);
    for _ in 0..2 {
        data.breaks(at);
    }
    let server = data.sound();
    let list = server.list(&target);
    assert_eq!((list.len(), &list[0]["Status"], &list[0]["Message"]), (1, &json!("FAILED"), &json!("interrupted")));
    assert_eq!(server.wait(&target, &id(&list[0])).expect(500).text(), "interrupted\n");
    let next = server.enqueue(&target, "next");
    assert_eq!(Stamped::of(&server.wait(&target, &next).expect(200).body).attempt, 1);
}

#[test]
fn a_synchronous_call_is_never_run_twice() {
    for place in ["call.runs", "guest.write"] {
        let (data, target) = with_function();
        let at = Break(place, 0, How::Abort);
        let server = data.broken(at);
        assert!(ask(server.functions, &Request::new(server.functions, "POST", &target)).is_none(), "{place}");
        assert_broken(server, at);
        let server = data.sound();
        assert_eq!(server.tally(&target), Tally::default(), "{place}");
        let after = server.call(&target, "").expect(200);
        assert_eq!(Stamped::of(&after.body).attempt, 1);
        let log = target.strip_suffix("/sync").unwrap().replacen("/call/", "/logs/", 1);
        let log = Request::new(server.functions, "GET", &format!("{log}?tail=all")).send().expect(200);
        let told = log.text().lines().filter(|line| line.contains("\"RUNNING\"")).count();
        assert!(told <= 2, "{place}: {}", log.text());
        let finished = log.text().lines().filter(|line| line.contains("\"FINISHED\"")).count();
        assert_eq!(finished, 1, "{place}: {}", log.text());
    }
}
