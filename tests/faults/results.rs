//! What calls left: read once, rotated, expired.

use crate::breaking::{Data, How, assert_broken, breaks};
use crate::harness::calls::{Tally, output};
use crate::harness::{Connection, Request, Server, eventually, guests};
use serde_json::json;

/// A data directory on which a call has left `text`: where it was called, and its id.
fn with_result(data: Data, text: &str) -> (Data, String, String) {
    let server = data.sound();
    let target = server.function("echo", &guests::cat(), json!({}));
    let call = server.enqueue(&target, text);
    server.wait_for_tally(&target, Tally { finished: 1, ..Tally::default() });
    drop(server);
    (data, target, call)
}

/// Checks that a result can be read once, and then no more.
#[track_caller]
fn assert_read_once(server: &Server, target: &str, call: &str, text: &str) {
    assert_eq!(server.output(target, call).expect(200).text(), text);
    server.wait_for_tally(target, Tally::default());
    server.output(target, call).expect(404);
}

#[test]
fn a_result_that_was_read_is_there_again_if_its_removal_is_not_on_disk() {
    let mut places = breaks(&[("get.after_send", 0)], &[How::Abort]);
    places.extend(breaks(&[("forget.before_commit", 0), ("store.before_commit", 1)], &How::ALL));
    for at in places {
        let (data, target, call) = with_result(Data::new(), "kept");
        let server = data.broken(at);
        let mut reader = Connection::open(server.functions);
        reader.send(&Request::new(server.functions, "GET", &output(&target, &call)));
        assert_eq!(reader.reply().expect(200).text(), "kept", "{at:?}");
        assert_broken(server, at);
        assert_read_once(&data.sound(), &target, &call, "kept");
    }
}

#[test]
fn a_result_whose_removal_is_on_disk_does_not_come_back() {
    for at in breaks(&[("store.after_commit", 1)], &How::ALL) {
        let (data, target, call) = with_result(Data::new(), "read");
        let server = data.broken(at);
        let mut reader = Connection::open(server.functions);
        reader.send(&Request::new(server.functions, "GET", &output(&target, &call)));
        reader.reply().expect(200);
        assert_broken(server, at);
        data.sound().output(&target, &call).expect(404);
    }
}

#[test]
fn a_bug_after_a_result_was_read_shows_it_to_nobody_else() {
    let (data, target, call) = with_result(Data::new(), "mine");
    let server = data.armed("get.after_send=panic");
    assert_eq!(server.output(&target, &call).expect(200).text(), "mine");
    eventually("the panic", || server.log().contains("failpoint get.after_send panic"));
    server.output(&target, &call).expect(404);
    drop(server);
    assert_read_once(&data.sound(), &target, &call, "mine");
}

#[test]
fn a_rotation_happens_with_the_end_that_needs_it_or_not_at_all() {
    for at in breaks(&[("rotate.mid", 0)], &How::ALL) {
        let (data, target, first) = with_result(Data::with(&["--output-cache", "1500"]), &"1".repeat(500));
        let server = data.sound();
        let mut calls = vec![first];
        for (number, text) in [(2, "2"), (3, "3")] {
            calls.push(server.enqueue(&target, &text.repeat(500)));
            server.wait_for_tally(&target, Tally { finished: number, ..Tally::default() });
        }
        drop(server);
        let server = data.broken(at);
        // It may end the server before its id is told.
        let _ = Connection::open(server.functions).try_enqueue(&server, &target, "4".repeat(900).as_bytes());
        assert_broken(server, at);

        let server = data.sound();
        eventually("the end of the last call", || server.tally(&target) == Tally { finished: 2, ..Tally::default() });
        for call in &calls[..2] {
            server.output(&target, call).expect(410);
        }
        let list = server.list(&target);
        let last = list.last().unwrap()["CallId"].as_str().unwrap();
        assert_eq!(server.output(&target, &calls[2]).expect(200).text(), "3".repeat(500), "{at:?}");
        assert_eq!(server.output(&target, last).expect(200).text(), "4".repeat(900), "{at:?}");
    }
}

#[test]
fn an_expiry_that_breaks_off_happens_later() {
    for at in breaks(&[("expire.before_commit", 0)], &How::ALL) {
        let (data, target, call) = with_result(Data::with(&["--output-ttl", "1s"]), "old");
        data.breaks(at);
        let server = data.sound();
        let keep = Request::new(server.functions, "GET", &format!("{}?keep=1", output(&target, &call)));
        eventually("its expiry", || keep.send().status == 410);
        server.wait_for_tally(&target, Tally::default());
    }
}
