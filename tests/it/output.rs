//! What an asynchronous call left, and who gets it: the states, the bytes, and once only (`docs/api.md` section 4).

use crate::harness::calls::{self, A_YEAR, Accepted};
use crate::harness::{Reply, Server, address, eventually, guests};
use rustix::process::Signal;
use serde_json::json;

const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";
const MB: usize = 1 << 20;

/// Asserts that there is no such call.
#[track_caller]
fn assert_unknown(reply: Reply) {
    let reply = reply.expect(404);
    let text = (reply.text(), reply.header("content-type"), reply.header("x-call-id"));
    assert_eq!(text, ("no such call\n", Some("text/plain"), None));
}

/// Asserts that a call is open, which is told by a status alone.
#[track_caller]
fn assert_open(reply: Reply, status: u16) {
    let reply = reply.expect(status);
    assert_eq!((reply.body.len(), reply.header("content-length")), (0, Some("0")));
    assert_eq!(reply.header("content-type"), None);
}

#[test]
fn a_call_is_202_while_it_waits_and_201_while_it_runs() {
    let server = Server::with(&["--max-running", "1"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let runs = server.block();
    let waits = server.accept(&cat, "patience");
    for (call, status) in [(&runs, 201), (&waits, 202)] {
        for target in [call.output.clone(), format!("{}?keep=1", call.output), format!("{}/stderr", call.output)] {
            assert_open(server.get(&target), status);
        }
    }
    server.cancel(&runs);
    assert_eq!(server.get(&waits.wait()).expect(200).text(), "patience");
    assert_unknown(server.get(&waits.output));
}

#[test]
fn whoever_waits_hears_of_the_end_when_it_comes() {
    let server = Server::with(&["--max-running", "1"]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let runs = server.block();
    let waits = server.accept(&cat, "later");
    let waiting = [&runs, &waits].map(|call| {
        let mut connection = server.connect();
        connection.send(&server.request("GET", &call.wait()));
        connection
    });
    server.wait_until_all_is_read();
    assert_open(server.get(&runs.output), 201);
    assert_open(server.get(&waits.output), 202);
    for connection in &waiting {
        connection.stream.get_ref().set_nonblocking(true).unwrap();
        assert!(connection.stream.get_ref().peek(&mut [0]).is_err(), "it is answered before the end");
        connection.stream.get_ref().set_nonblocking(false).unwrap();
    }
    server.cancel(&runs);
    let [mut of_runs, mut of_waits] = waiting;
    assert_eq!(of_runs.reply().expect(500).text(), "cancelled\n");
    assert_eq!(of_waits.reply().expect(200).text(), "later");
}

#[test]
fn output_has_its_content_type_and_names_its_call() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let fails = server.function("fails", &guests::fails(1, "why"), json!({}));
    for (body, expected) in [
        (&b""[..], "text/plain"),
        ("h\u{e9}llo".as_bytes(), "text/plain"),
        (b"{}", "text/plain"),
        (b"\xff", "application/octet-stream"),
        (b"h\xc3", "application/octet-stream"),
    ] {
        let call = server.accept(&cat, body);
        let reply = server.get(&call.wait()).expect(200);
        assert_eq!((&reply.body[..], reply.header("content-type")), (body, Some(expected)));
        assert_eq!(reply.header("x-call-id"), Some(call.id.as_str()));
    }
    let call = server.accept(&fails, "");
    let reply = server.get(&call.wait()).expect(500);
    assert_eq!((reply.text(), reply.header("content-type")), ("exit status 1: why\n", Some("text/plain")));
    assert_eq!(reply.header("x-call-id"), Some(call.id.as_str()));
}

#[test]
fn the_content_type_is_what_the_label_said_when_the_call_started() {
    let server = Server::with(&["--max-running", "1"]);
    let labelled = |label: &str| json!({"Config": {"Labels": {"sh.hyperfunc.content-type": label}}});
    let update = |name: &str, label: &str| {
        server.request("PUT", &format!("/funcs/{name}")).json(&labelled(label)).send().expect(200);
    };
    let content_type =
        |call: &Accepted| server.get(&call.wait()).expect(200).header("content-type").unwrap().to_owned();
    let cat = server.function("cat", &guests::cat(), labelled("text/old"));
    let blocker = server.block();
    let call = server.accept(&cat, "\u{e9}");
    update("cat", "text/new");
    server.cancel(&blocker);
    assert_eq!(content_type(&call), "text/new");

    let sleeps = server.function("sleeps", &guests::sleeps(500_000_000), labelled("text/old"));
    let call = server.accept_and_run(&sleeps);
    update("sleeps", "text/new");
    assert_eq!(content_type(&call), "text/old");
}

#[test]
fn an_output_of_1_mb_comes_byte_for_byte() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let body: Vec<u8> = (0..MB).map(|at| (at % 251) as u8).collect();
    let call = server.accept(&cat, &body[..]);
    let reply = server.get(&call.wait()).expect(200);
    assert!(reply.body == body, "other bytes");
}

#[test]
fn what_was_read_is_not_there_again_whoever_asks_and_however() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let fails = server.function("fails", &guests::fails(3, "why"), json!({}));
    let full = "x".repeat(MB);
    // In the order of the connections: who reads, and who asks at once for it again.
    let ways: [(&str, bool); 3] = [("keep-alive", true), ("keep-alive", false), ("close", false)];
    for (header, same_connection) in ways {
        for (target, body, status) in
            [(&cat, "text", 200), (&cat, "", 200), (&cat, full.as_str(), 200), (&fails, "", 500)]
        {
            for path in ["", "/wait"] {
                let call = server.accept(target, body);
                server.ended_call(&call).expect(status);
                let target = format!("{}{path}", call.output);
                let mut connection = server.connect();
                connection.send(&server.request("GET", &target).header("Connection", header));
                let reply = connection.reply().expect(status);
                assert!(status != 200 || reply.text() == body, "other bytes");
                if !same_connection {
                    connection = server.connect();
                }
                connection.send(&server.request("GET", &target));
                let what = format!("{header}, {same_connection}, {} bytes{path}, {status}", body.len());
                let again = connection.reply();
                assert_eq!(again.status, 404, "{what}");
                assert_unknown(again);
                assert_unknown(server.get(&format!("{}/stderr", call.output)));
                assert_unknown(server.get(&format!("{}?keep=1", call.output)));
            }
        }
    }
    eventually("nothing is kept", || server.tally(&cat) == [0; 4] && server.tally(&fails) == [0; 4]);
}

#[test]
fn a_call_that_is_asked_for_again_and_again_is_read_once() {
    const ROUNDS: usize = 50;
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let (mut reads, mut asks) = (server.connect(), server.connect());
    for _ in 0..ROUNDS {
        let call = server.accept(&cat, "once");
        reads.send(&server.request("GET", &call.wait()));
        assert_eq!(reads.reply().expect(200).text(), "once");
        asks.send(&server.request("GET", &call.output));
        assert_unknown(asks.reply());
    }
}

#[test]
fn a_reader_may_keep_what_it_reads_and_other_words_are_refused() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let call = server.accept(&cat, "kept");
    assert_eq!(server.ended_call(&call).expect(200).text(), "kept");
    for keep in ["1", "true", "True"] {
        assert_eq!(server.get(&format!("{}?keep={keep}", call.output)).expect(200).text(), "kept");
        assert_eq!(server.get(&format!("{}?other=x&keep={keep}", call.wait())).expect(200).text(), "kept");
    }
    for keep in ["yes", "2", "TRUE", "-1", "%00", "1%20"] {
        for target in [&call.output, &call.wait()] {
            let reply = server.get(&format!("{target}?keep={keep}")).expect(400);
            assert!(reply.text().starts_with("keep: ") && reply.text().lines().count() == 1, "{}", reply.text());
        }
    }
    assert_eq!(server.get(&format!("{}?keep=0", call.output)).expect(200).text(), "kept");
    assert_unknown(server.get(&call.output));
}

#[test]
fn all_who_wait_for_a_call_get_it_whole() {
    let server = Server::start();
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    for _ in 0..5 {
        let call = server.accept_and_run(&sleeps);
        let waiting: Vec<_> = (0..20).map(|_| server.begin("GET", &call.wait())).collect();
        server.wait_until_all_is_read();
        server.cancel(&call);
        for mut connection in waiting {
            assert_eq!(connection.reply().expect(500).text(), "cancelled\n");
        }
        assert_unknown(server.get(&call.output));
    }
}

#[test]
fn a_call_answers_at_its_own_address_only() {
    let server = Server::start();
    let a = server.function("a", &guests::cat(), json!({}));
    let b = server.function("b", &guests::cat(), json!({}));
    let call = server.accept(&a, "mine");
    server.ended_call(&call).expect(200);
    let open = server.block();
    for of_another in [calls::output(&b, &call.id), calls::output(&b, &open.id), calls::output(&a, NO_CALL)] {
        for path in ["", "/wait", "/stderr", "?keep=1", "/wait?keep=1"] {
            assert_unknown(server.get(&format!("{of_another}{path}")));
        }
        assert_unknown(server.request("DELETE", &of_another).send());
    }
    let other_uuid = call.output.replace(a.split('/').nth(3).unwrap(), b.split('/').nth(3).unwrap());
    for path in ["", "/wait", "/stderr"] {
        assert_eq!(server.get(&format!("{other_uuid}{path}")).expect(404).text(), "no such function\n");
    }
    server.request("DELETE", &other_uuid).send().expect(404);
    assert_eq!(server.get(&call.output).expect(200).text(), "mine");
    assert_open(server.get(&open.output), 201);
}

#[test]
fn what_is_no_call_id_is_no_call() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let call = server.accept(&cat, "mine");
    server.ended_call(&call).expect(200);
    let id = &call.id;
    for malformed in [
        "x".to_owned(),
        "%00".to_owned(),
        "%C3%A9".to_owned(),
        "wait".to_owned(),
        "stderr".to_owned(),
        id[..35].to_owned(),
        format!("{id}0"),
        format!("{id}%20"),
        format!("%20{}", &id[1..]),
        id.replace('-', ""),
        id.replace('-', "_"),
        format!("%7B{id}%7D"),
        format!("urn:uuid:{id}"),
        "f".repeat(5000),
    ] {
        let target = calls::output(&cat, &malformed);
        for path in ["", "/wait", "/stderr"] {
            assert_unknown(server.get(&format!("{target}{path}")));
        }
        assert_unknown(server.request("DELETE", &target).send());
    }
    server.get(&call.output).expect(200);
}

#[test]
fn a_new_address_answers_for_calls_of_the_old_one() {
    let server = Server::with(&["--max-running", "1"]);
    let old = server.function("cat", &guests::cat(), json!({}));
    let ended = server.accept(&old, "ended");
    server.ended_call(&ended).expect(200);
    let blocker = server.block();
    let pending = server.accept(&old, "pending");
    let refreshed = server.request("PUT", "/funcs/cat").json(&json!({"Refresh": true})).send().expect(200).json();
    let new = address(&refreshed);
    assert_ne!(old, new);
    for call in [&ended, &pending] {
        for path in ["", "/wait", "/stderr"] {
            assert_eq!(server.get(&format!("{}{path}", call.output)).expect(404).text(), "no such function\n");
        }
        server.request("DELETE", &call.output).send().expect(404);
    }
    assert_open(server.get(&calls::output(&new, &pending.id)), 202);
    assert_eq!(server.get(&calls::output(&new, &ended.id)).expect(200).text(), "ended");
    server.cancel(&blocker);
    assert_eq!(server.get(&(calls::output(&new, &pending.id) + "/wait")).expect(200).text(), "pending");
}

#[test]
fn other_methods_are_told_which_are_allowed() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let call = server.accept(&cat, "x");
    server.ended_call(&call).expect(200);
    for (path, allowed) in [("", "DELETE, GET"), ("/wait", "GET"), ("/stderr", "GET")] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            if allowed.contains(method) {
                continue;
            }
            let reply = server.request(method, &format!("{}{path}", call.output)).send().expect(405);
            assert_eq!(reply.header("allow"), Some(allowed), "{method} {path}");
        }
    }
    assert_eq!(server.get(&call.output).expect(200).text(), "x");
}

#[test]
fn a_client_that_asks_for_json_gets_errors_as_json_and_output_as_it_is() {
    let server = Server::start();
    let fails = server.function("fails", &guests::fails(3, "why"), json!({}));
    let cat = server.function("cat", &guests::cat(), json!({}));
    let get = |target: &str| server.request("GET", target).header("Accept", "application/json").send();
    let call = server.accept(&fails, "");
    for (target, status, message) in [
        (call.wait(), 500, "exit status 3: why"),
        (calls::output(&fails, NO_CALL), 404, "no such call"),
        (calls::output(&fails, NO_CALL).replace("/fails/", "/other/"), 404, "no such function"),
    ] {
        let reply = get(&target).expect(status);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.json(), json!({"message": message}));
    }
    assert_unknown(server.get(&call.output));
    let call = server.accept(&cat, "text");
    let reply = get(&call.wait()).expect(200);
    assert_eq!((reply.text(), reply.header("content-type")), ("text", Some("text/plain")));
}

#[test]
fn whoever_waits_when_the_server_drains_is_told_to_come_back() {
    let mut server = Server::with(&["--max-running", "1", "--drain", "2s"]);
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let calls = [server.accept_and_run(&sleeps), server.accept(&sleeps, "")];
    let mut waiting = calls.each_ref().map(|call| {
        let mut connection = server.connect();
        connection.send(&server.request("GET", &call.wait()));
        connection
    });
    server.wait_until_all_is_read();
    let mut kept = server.connect();
    server.signal(Signal::TERM);
    for connection in &mut waiting {
        let reply = connection.reply().expect(503);
        assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
        assert_eq!((reply.header("connection"), reply.text().lines().count()), (Some("close"), 1));
    }
    kept.send(&server.request("GET", &calls[0].output));
    kept.reply().expect(503);
    assert_eq!(server.ended().code(), Some(0));
}
