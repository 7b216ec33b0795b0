//! What is kept of ended calls: stderr, and of all of it only so much and so long (`docs/api.md` section 4).

use crate::harness::calls::{Accepted, Tally};
use crate::harness::{Server, guests};
use serde_json::json;
use std::time::{Duration, Instant};

const MB: usize = 1 << 20;
const KB: usize = 1 << 10;
const SECOND: Duration = Duration::from_secs(1);
/// The machine that tests is busy with other things as well: one attempt of so many must be in time.
const ATTEMPTS: usize = 6;

/// Copies stdin to stderr.
fn cat_to_stderr() -> String {
    guests::cat().replace("(call $put (i32.const 1)", "(call $put (i32.const 2)")
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// The status of a call's output, which stays.
fn status(server: &Server, call: &Accepted) -> u16 {
    server.get(&format!("{}?keep=1", call.output)).status
}

/// A call that has left so many bytes.
#[track_caller]
fn ended(server: &Server, target: &str, bytes: usize) -> Accepted {
    let call = server.accept(target, noise(bytes));
    server.ended_call(&call).expect(200);
    call
}

#[track_caller]
fn assert_gone(server: &Server, call: &Accepted) {
    for path in ["", "/wait", "/stderr", "?keep=1"] {
        let reply = server.get(&format!("{}{path}", call.output)).expect(410);
        let said = (reply.text(), reply.header("content-type"));
        assert_eq!(said, ("the output of this call is not kept any more\n", Some("text/plain")));
    }
    let reply = server.request("GET", &call.output).header("Accept", "application/json").send().expect(410);
    assert_eq!(reply.json(), json!({"message": "the output of this call is not kept any more"}));
    // Its function is still known by it.
    server.get(&format!("/funcs/call/{}", call.id)).expect(200);
}

#[test]
fn the_beginning_and_the_end_of_stderr_are_kept() {
    let server = Server::start();
    let target = server.function("f", &cat_to_stderr(), json!({}));
    for len in [0, 1, KB, KB + 1, 64 * KB, 64 * KB + 1, MB] {
        let bytes = noise(len);
        let call = server.accept(&target, &bytes[..]);
        assert_eq!(server.ended_call(&call).expect(200).text(), "");
        let kept = if len <= 64 * KB { bytes } else { [&bytes[..KB], &bytes[len - 63 * KB..]].concat() };
        let expected = if std::str::from_utf8(&kept).is_ok() { "text/plain" } else { "application/octet-stream" };
        for _ in 0..2 {
            let reply = server.get(&format!("{}/stderr", call.output)).expect(200);
            assert!(reply.body == kept, "{len}: {} bytes", reply.body.len());
            assert_eq!(reply.header("content-type"), Some(expected));
        }
        server.get(&call.output).expect(200);
        server.get(&format!("{}/stderr", call.output)).expect(404);
    }
}

#[test]
fn stderr_is_kept_of_a_call_that_failed_and_has_no_content_type_of_its_own() {
    let server = Server::start();
    let labels = json!({"Config": {"Labels": {"sh.hyperfunc.content-type": "text/html"}}});
    let target = server.function("f", &guests::fails(3, "<script>"), labels);
    let call = server.accept(&target, "");
    assert_eq!(server.ended_call(&call).expect(500).text(), "exit status 3: <script>\n");
    let reply = server.get(&format!("{}/stderr", call.output)).expect(200);
    assert_eq!((reply.text(), reply.header("content-type")), ("<script>", Some("text/plain")));
    assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let reply = server.get(&call.output).expect(500);
    assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
}

#[test]
fn outputs_rotate_at_exactly_their_cap_the_oldest_first() {
    let server = Server::with(&["--output-cache", "3MB"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let other = server.function("other", &guests::cat(), json!({}));
    let of_other = ended(&server, &other, MB);
    let full = [MB; 3].map(|bytes| ended(&server, &cat, bytes));
    assert_eq!(full.each_ref().map(|call| status(&server, call)), [200, 200, 200]);

    let last = ended(&server, &cat, 1);
    assert_gone(&server, &full[0]);
    assert_eq!([&full[1], &full[2], &last, &of_other].map(|call| status(&server, call)), [200; 4]);
    // Full again to the last byte, and one more.
    let exact = ended(&server, &cat, MB - 1);
    assert_eq!([&full[1], &full[2], &last, &exact].map(|call| status(&server, call)), [200; 4]);
    let over = ended(&server, &cat, 1);
    assert_gone(&server, &full[1]);
    assert_eq!([&full[2], &last, &exact, &over, &of_other].map(|call| status(&server, call)), [200; 5]);
    assert_eq!(server.tally(&cat), [0, 0, 4, 0]);

    // What is read makes room.
    assert!(server.get(&full[2].output).expect(200).body == noise(MB), "other bytes");
    assert_eq!(server.get(&full[2].output).status, 404);
    let again = ended(&server, &cat, MB);
    assert_eq!([&last, &exact, &over, &again].map(|call| status(&server, call)), [200; 4]);
    assert_eq!(server.request("DELETE", &full[0].output).send().status, 404);
}

#[test]
fn a_call_that_leaves_nothing_rotates_nothing() {
    let server = Server::with(&["--output-cache", "1MB"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let full = ended(&server, &cat, MB);
    let empty = ended(&server, &cat, 0);
    assert_eq!([&full, &empty].map(|call| status(&server, call)), [200; 2]);
    ended(&server, &cat, 1);
    assert_gone(&server, &full);
    assert_eq!(status(&server, &empty), 200);
}

#[test]
fn an_output_expires_when_it_is_due() {
    let server = Server::with(&["--output-ttl", "1s"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let in_time = (0..ATTEMPTS).any(|_| {
        let accepted = Instant::now();
        let call = server.accept(&cat, "x");
        server.ended_call(&call).expect(200);
        let known_to_have_ended = Instant::now();
        let (gone, took) = loop {
            match status(&server, &call) {
                200 => assert!(known_to_have_ended.elapsed() < 20 * SECOND, "it does not expire"),
                410 => break (accepted.elapsed(), known_to_have_ended.elapsed()),
                other => panic!("{other} for an output that expires"),
            }
        };
        // Of the two clocks one has milliseconds.
        assert!(gone + Duration::from_millis(2) >= SECOND, "it has expired after {gone:?}");
        assert_gone(&server, &call);
        took < SECOND + Duration::from_millis(100)
    });
    assert!(in_time, "no output expires in time");
    let Tally { pending, running, .. } = server.tally(&cat);
    assert_eq!((pending, running), (0, 0));
}
