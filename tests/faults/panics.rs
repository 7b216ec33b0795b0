//! A bug of ours ends the call that it happens in, and nothing else.

use crate::breaking::Data;
use crate::harness::calls::{Tally, asynchronous};
use crate::harness::{Request, guests};
use serde_json::json;

#[test]
fn a_panic_under_a_guest_ends_its_call_alone() {
    // In what a guest asks the host for, with a lock held; and beside it.
    for place in ["guest.write", "call.runs"] {
        let data = Data::new();
        let server = data.armed(&format!("{place}=4*panic"));
        let target = server.function("f", &guests::prints("fine"), json!({}));
        for _ in 0..2 {
            let text = server.call(&target, "").expect(500).text().to_owned();
            assert!(text.starts_with("server error, call ") && !text.contains("panic"), "{place}: {text}");
            let call = server.enqueue(&target, "");
            let text = server.wait(&target, &call).expect(500).text().to_owned();
            assert_eq!(text, format!("server error, call {call}\n"), "{place}");
        }
        // One call at a time: no slot is lost, no lock is poisoned, and the same process answers.
        for _ in 0..3 {
            assert_eq!(server.call(&target, "").expect(200).text(), "fine", "{place}");
            let call = server.enqueue(&target, "");
            assert_eq!(server.wait(&target, &call).expect(200).text(), "fine", "{place}");
        }
        server.wait_for_tally(&target, Tally::default());
        let info = server.get("/info").json();
        assert_eq!((&info["Running"], &info["Pending"], &info["MemoryCharged"]), (&json!(0), &json!(0), &json!(0)));
        assert_eq!(server.log().matches("panicked at ").count(), 4, "{}", server.log());
    }
}

#[test]
fn a_slow_step_of_one_call_leaves_the_server_answering() {
    let data = Data::new();
    let server = data.armed("accept.before_commit=1*sleep(500)");
    let target = server.function("f", &guests::prints("fine"), json!({}));
    let mut slow = server.begin("POST", asynchronous(&target));
    assert_eq!(server.call(&target, "").expect(200).text(), "fine");
    let call = slow.reply().expect(200).json()["CallId"].as_str().unwrap().to_owned();
    assert_eq!(server.wait(&target, &call).expect(200).text(), "fine");
    Request::new(server.functions, "GET", "/_ping").send().expect(200);
}
