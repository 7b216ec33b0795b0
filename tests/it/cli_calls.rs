//! The command line's verbs for asynchronous calls, through the real program (`docs/api.md` section 8).

use crate::harness::program::{Follower, ended, failed, printed, run, run_with, start};
use crate::harness::{Server, address, eventually, guests};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::thread;

/// A call that nobody ever made.
const NO_CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";
/// Longer than any test takes.
const FOR_EVER: u64 = 600_000_000_000;

/// Calls a function; returns the call's id.
#[track_caller]
fn call(server: &Server, name: &str) -> String {
    call_with(server, name, b"")
}

/// The same, with something on stdin.
#[track_caller]
fn call_with(server: &Server, name: &str, stdin: &[u8]) -> String {
    let id = printed(run_with(server, &["call", "-q", name], stdin)).trim_end().to_owned();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
    id
}

/// Checks that the program fails with a status, says so in one line that has these words, and prints nothing.
#[track_caller]
fn refused(server: &Server, arguments: &[&str], status: i32, words: &str) {
    let (exited, said) = failed(run(server, arguments));
    assert_eq!((exited, said.contains(words)), (status, true), "{arguments:?}: {said}");
    assert!(said.starts_with("hyperfunc: ") && said.lines().count() == 1, "{arguments:?}: {said}");
}

/// Waits until a call that has been read is forgotten: that is as soon as the server knows that its answer has arrived.
#[track_caller]
fn is_forgotten(server: &Server, id: &str) {
    eventually("a call that was read is forgotten", || server.get(&format!("/funcs/call/{id}")).status == 404);
    for arguments in [&["get", id] as &[_], &["get", "--wait", id], &["get", "--stderr", id], &["cancel", id]] {
        refused(server, arguments, 127, "no such");
    }
}

/// The lines of a log, split into words, once one of them has that word.
fn logged(server: &Server, arguments: &[&str], word: &str) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    eventually(&format!("{word} in the log"), || {
        let text = printed(run(server, arguments));
        lines = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        lines.iter().flatten().any(|found| found == word)
    });
    lines
}

#[test]
fn a_call_is_made_waited_for_read_once_and_forgotten() {
    let server = Server::start();
    server.function("hello", &guests::prints("hi"), json!({}));
    let accepted = printed(run(&server, &["call", "hello"]));
    let id = accepted.strip_prefix("CallId: ").and_then(|id| id.strip_suffix('\n')).unwrap();
    assert_eq!(printed(run(&server, &["get", "--wait", id])), "hi");
    is_forgotten(&server, id);

    // As the Hyper command line has it.
    let id = printed(run(&server, &["func", "call", "-q", "hello"]));
    let id = id.trim_end();
    assert_eq!(printed(run(&server, &["func", "get", "--wait", "--keep", id])), "hi");
    assert!(printed(run(&server, &["func", "status", "hello"])).starts_with("TOTAL "));
    logged(&server, &["func", "logs", "--callid", id, "hello"], "FINISHED");
    assert_eq!(printed(run(&server, &["func", "cancel", id])), format!("{id}\n"));
    is_forgotten(&server, id);
}

#[test]
fn stdin_and_stdout_are_the_calls_byte_for_byte() {
    let server = Server::with(&["--func-listen", "127.0.0.1:0"]);
    server.function("cat", &guests::cat(), json!({}));
    let bytes: Vec<u8> = (0..1 << 20).map(|index| (index * 7) as u8).collect();
    let id = call_with(&server, "cat", &bytes);
    // It stays until it is read without --keep.
    for arguments in [&["get", "--wait", "--keep", &id] as &[_], &["get", "--keep", &id], &["get", &id]] {
        let output = run(&server, arguments);
        assert_eq!((output.status.code(), output.stdout == bytes), (Some(0), true), "{arguments:?}");
    }
    is_forgotten(&server, &id);
    let (status, said) = failed(run_with(&server, &["call", "cat"], &[&bytes[..], b"x"].concat()));
    assert_eq!((status, said.contains("1048576 bytes")), (1, true), "{said}");
}

#[test]
fn the_same_key_is_the_same_call() {
    let server = Server::start();
    server.function("f", &guests::prints("hi"), json!({}));
    let with_key = |key: &str| printed(run(&server, &["call", "-q", "--idempotency-key", key, "f"]));
    let first = with_key("order 4711");
    assert_eq!(with_key("order 4711"), first);
    assert_ne!(with_key("order 4712"), first);
    assert_ne!(call(&server, "f"), first.trim_end());
}

#[test]
fn calls_that_have_not_ended_say_so_and_can_be_cancelled() {
    let server = Server::start();
    server.function("sleeps", &guests::sleeps(FOR_EVER), json!({"MaxConcurrency": 1}));
    let (running, waiting) = (call(&server, "sleeps"), call(&server, "sleeps"));
    server.wait_for_running(1);
    for (id, words) in [(&running, "is running"), (&waiting, "waits")] {
        for arguments in [&["get", id] as &[_], &["get", "--keep", id]] {
            refused(&server, arguments, 1, words);
            refused(&server, arguments, 1, "--wait");
        }
    }
    // One that waits is dropped, one that runs ends and says why.
    assert_eq!(printed(run(&server, &["cancel", &waiting])), format!("{waiting}\n"));
    refused(&server, &["get", "--wait", &waiting], 127, "no such");
    assert_eq!(printed(run(&server, &["cancel", &running])), format!("{running}\n"));
    refused(&server, &["get", "--wait", &running], 1, "cancelled");
    is_forgotten(&server, &running);
}

#[test]
fn whoever_waits_is_told_when_the_call_ends() {
    let server = Server::start();
    server.function("sleeps", &guests::sleeps(FOR_EVER), json!({}));
    let id = call(&server, "sleeps");
    let for_stdout = start(&server, &["get", "--wait", "--keep", &id]);
    let for_stderr = start(&server, &["get", "--wait", "--stderr", &id]);
    server.wait_for_running(1);
    printed(run(&server, &["cancel", &id]));
    let (status, said) = failed(ended(for_stdout));
    assert_eq!((status, said.contains("cancelled")), (1, true), "{said}");
    assert_eq!(printed(ended(for_stderr)), "");
}

#[test]
fn how_a_call_failed_is_said_and_its_stderr_can_be_read_before() {
    let server = Server::start();
    server.function("fails", &guests::fails(3, "no luck"), json!({}));
    server.function("spins", &guests::spins(), json!({"Timeout": 1}));
    server.function("burns", &guests::spins(), json!({"Fuel": 1000}));
    server.function("writes", &guests::writes(1, (1 << 20) + 1), json!({}));
    server.function("traps", &guests::start("unreachable"), json!({}));
    let id = call(&server, "fails");
    for arguments in [&["get", "--wait", "--stderr", &id] as &[_], &["get", "--stderr", &id]] {
        assert_eq!(printed(run(&server, arguments)), "no luck");
    }
    refused(&server, &["get", "--keep", &id], 3, "exit status 3: no luck");
    refused(&server, &["get", &id], 3, "exit status 3: no luck");
    is_forgotten(&server, &id);
    server.function("grows", &guests::grows(16_384, "unreachable"), json!({"ContainerSize": "s1"}));
    for (name, status, words) in [
        ("spins", 124, "timeout of 1 s reached"),
        ("burns", 124, "fuel limit reached"),
        ("writes", 134, "output limit of 1 MB reached"),
        ("traps", 134, "trap: unreachable"),
        ("grows", 134, "memory limit of s1 (64 MB) reached"),
    ] {
        refused(&server, &["get", "--wait", &call(&server, name)], status, words);
        refused(&server, &["call", "--sync", name], status, words);
    }
}

#[test]
fn an_answer_that_was_rotated_out_is_gone() {
    let server = Server::with(&["--output-cache", "1MB"]);
    server.function("writes", &guests::writes(1, 700_000), json!({}));
    let ids = [call(&server, "writes"), call(&server, "writes")];
    for id in &ids {
        // The first may be gone before it is read.
        run(&server, &["get", "--wait", "--keep", id]);
    }
    let function = server.get("/funcs/writes").json();
    let output = address(&function).replace("/call/", "/output/").replace("/sync", "");
    let status = |id: &String| server.get(&format!("{output}/{id}?keep=1")).status;
    eventually("the older one is gone", || ids.iter().map(status).eq([410, 200]));
    for arguments in [&["get", &ids[0]] as &[_], &["get", "--wait", &ids[0]]] {
        refused(&server, arguments, 127, "not kept any more");
    }
    assert_eq!(printed(run(&server, &["get", &ids[1]])).len(), 700_000);
}

#[test]
fn whoever_waits_when_the_server_ends_hears_of_it() {
    let mut server = Server::with(&["--drain", "0s"]);
    server.function("sleeps", &guests::sleeps(FOR_EVER), json!({}));
    let id = call(&server, "sleeps");
    server.wait_for_running(1);
    let waiting = start(&server, &["get", "--wait", &id]);
    server.signal(Signal::TERM);
    // It may not have asked yet, and find nobody.
    let (status, said) = failed(ended(waiting));
    assert!(status == 125 && said.starts_with("hyperfunc: "), "{said}");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn the_log_is_shown_as_lines_for_people() {
    let server = Server::start();
    server.function("cat", &guests::cat(), json!({}));
    server.function("fails", &guests::fails(3, "no luck"), json!({}));
    let id = call_with(&server, "cat", b"one\n\x1b[31mtwo\n");
    let lines = logged(&server, &["logs", "cat"], "FINISHED");
    let events: Vec<&str> = lines.iter().map(|line| line[1].as_str()).collect();
    let at = |event: &str| events.iter().position(|found| *found == event);
    assert!(at("CALL") < at("RUNNING") && at("RUNNING") < at("FINISHED") && at("CALL").is_some(), "{events:?}");
    for line in &lines {
        assert!(line[0].len() == 24 && line[0].ends_with('Z'), "{line:?}");
        assert_eq!(line[2], id);
    }
    assert_eq!(lines[0][3..], ["stdin:", "one", "[31mtwo"], "no control character, and one line");
    let finished = lines.last().unwrap();
    assert!(finished.ends_with(&["stdout:", "one", "[31mtwo"].map(str::to_owned)), "{finished:?}");

    let id = call(&server, "fails");
    let failed = logged(&server, &["logs", "--callid", &id, "--tail", "1", "fails"], "FAILED");
    assert!(failed.len() == 1 && failed[0].join(" ").contains("exit status 3: no luck"), "{failed:?}");
}

#[test]
fn the_log_is_as_the_server_answers_it_if_that_is_asked_for() {
    let server = Server::start();
    server.function("f", &guests::prints("hi"), json!({}));
    let ids = [call(&server, "f"), call(&server, "f")];
    for id in &ids {
        logged(&server, &["logs", "--callid", id, "f"], "FINISHED");
    }
    let function = server.get("/funcs/f").json();
    let path = address(&function).replace("/call/", "/logs/").replace("/sync", "");
    let all = printed(run(&server, &["logs", "--json", "f"]));
    assert_eq!(all, server.get(&path).expect(200).text());
    assert_eq!(printed(run(&server, &["logs", "--json", "--tail", "all", "f"])), all);
    let lines: Vec<&str> = all.lines().collect();
    let last = printed(run(&server, &["logs", "--json", "--tail", "2", "f"]));
    assert_eq!(last.lines().collect::<Vec<_>>(), lines[lines.len() - 2..]);
    assert_eq!(printed(run(&server, &["logs", "--tail", "0", "f"])), "");

    let of_one = printed(run(&server, &["logs", "--json", "--callid", &ids[1], "f"]));
    let events: Vec<Value> = of_one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["CallId"] == ids[1]), "{of_one}");
    assert_eq!((&events[0]["Event"], &events[events.len() - 1]["ShortStdout"]), (&json!("CALL"), &json!("hi")));
}

#[test]
fn a_log_that_is_followed_shows_what_happens_when_it_happens_and_ends_with_its_function() {
    let server = Server::start();
    server.function("f", &guests::prints("hi"), json!({}));
    let before = call(&server, "f");
    logged(&server, &["logs", "f"], "FINISHED");
    let follow = |arguments: &[&str]| Follower::start(&server, arguments);
    let (mut first, mut second) = (follow(&["logs", "-f", "--tail", "0", "f"]), follow(&["logs", "--follow", "f"]));
    eventually("both see calls", || {
        // Until the first one listens, what is called may be over before it does.
        call(&server, "f");
        !first.lines().is_empty() && !second.lines().is_empty()
    });
    let id = call(&server, "f");
    let is_end = |line: &String| line.contains("  FINISHED  ") && line.contains(&id);
    eventually("both see the last", || [&first, &second].iter().all(|follower| follower.lines().iter().any(is_end)));
    // What was logged before is shown to who asks for all.
    assert!(second.lines().iter().any(|line| line.contains(&before)));
    assert!(!first.lines().iter().any(|line| line.contains(&before)));
    // Ctrl-C ends one, the end of the function the other.
    first.signal(Signal::INT);
    assert_eq!(first.ended().code(), Some(130));
    printed(run(&server, &["rm", "-f", "f"]));
    assert!(second.ended().success());
}

#[test]
fn a_log_that_is_followed_for_a_call_ends_with_it() {
    let server = Server::start();
    server.function("sleeps", &guests::sleeps(FOR_EVER), json!({}));
    let id = call(&server, "sleeps");
    let mut log = Follower::start(&server, &["logs", "-f", "--callid", &id, "sleeps"]);
    eventually("the call starts", || log.lines().iter().any(|line| line.contains("  RUNNING  ")));
    call(&server, "sleeps");
    printed(run(&server, &["cancel", &id]));
    assert!(log.ended().success());
    eventually("its end", || log.lines().last().unwrap().contains("  FAILED  "));
    assert!(log.lines().iter().all(|line| line.contains(&id)), "{:?}", log.lines());
}

#[test]
fn calls_are_counted_and_listed() {
    let server = Server::start();
    server.function("sleeps", &guests::sleeps(FOR_EVER), json!({"MaxConcurrency": 1}));
    server.function("fails", &guests::fails(3, "no luck"), json!({}));
    let words = |arguments: &[&str]| -> Vec<Vec<String>> {
        let text = printed(run(&server, arguments));
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(
        words(&["status", "fails"]),
        [["TOTAL", "PENDING", "RUNNING", "FINISHED", "FAILED"], ["0", "0", "0", "0", "0"]]
    );
    assert_eq!(words(&["status", "--list", "fails"]), [["CALL", "ID", "CREATED", "STATUS", "MESSAGE"]]);

    let (running, waiting, failed) = (call(&server, "sleeps"), call(&server, "sleeps"), call(&server, "fails"));
    server.wait_for_running(1);
    refused(&server, &["get", "--wait", "--keep", &failed], 3, "no luck");
    assert_eq!(words(&["status", "sleeps"])[1], ["2", "1", "1", "0", "0"]);
    assert_eq!(words(&["status", "fails"])[1], ["1", "0", "0", "0", "1"]);
    let list = words(&["status", "--list", "sleeps"]);
    assert_eq!([&list[1][0], &list[1][2]], [&running, "RUNNING"]);
    assert_eq!([&list[2][0], &list[2][2]], [&waiting, "PENDING"]);
    assert_eq!(list.len(), 3);
    let list = words(&["status", "--list", "fails"]);
    assert_eq!(list[1][2..], ["FAILED", "exit", "status", "3:", "no", "luck"]);

    let counts = printed(run(&server, &["status", "--json", "sleeps"]));
    let counts: Value = serde_json::from_str(&counts).unwrap();
    assert_eq!(counts, json!({"Total": 2, "Pending": 1, "Running": 1, "Finished": 0, "Failed": 0}));
    let listed = printed(run(&server, &["status", "--list", "--json", "sleeps"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Total"], 2);
    assert_eq!(listed["List"][0]["CallId"], running);
    assert_eq!(listed["List"][1]["Message"], Value::Null);
}

#[test]
fn a_long_list_is_shown_whole_and_in_order() {
    // More than a page holds.
    const CALLS: usize = 17 * 59;
    let server = Server::start();
    server.function("sleeps", &guests::sleeps(FOR_EVER), json!({"MaxConcurrency": 1}));
    let path = address(&server.get("/funcs/sleeps").json()).replace("/sync", "");
    thread::scope(|scope| {
        // Side by side, so that they share what reaching the disk costs.
        for _ in 0..17 {
            scope.spawn(|| {
                let mut connection = server.connect();
                for _ in 0..CALLS / 17 {
                    connection.send(&server.request("POST", &path));
                    connection.reply().expect(200);
                }
            });
        }
    });
    let listed = printed(run(&server, &["status", "--list", "--json", "sleeps"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let of_json: Vec<&str> =
        listed["List"].as_array().unwrap().iter().map(|call| call["CallId"].as_str().unwrap()).collect();
    assert_eq!((of_json.len(), &listed["Total"]), (CALLS, &json!(CALLS)));
    assert_eq!(of_json.iter().collect::<HashSet<_>>().len(), CALLS);
    let table = printed(run(&server, &["status", "--list", "sleeps"]));
    let of_table = table.lines().skip(1).map(|line| line.split(' ').next().unwrap());
    assert!(of_table.eq(of_json));
}

#[test]
fn what_is_not_there_is_said_and_wrong_usage_too() {
    let server = Server::start();
    for verb in ["call", "logs", "status"] {
        refused(&server, &[verb, "nothing"], 127, "no such function: nothing");
        refused(&server, &["func", verb, "nothing"], 127, "no such function: nothing");
    }
    for arguments in [&["get"] as &[_], &["get", "--wait"], &["get", "--stderr"], &["get", "--keep"], &["cancel"]] {
        refused(&server, &[arguments, &[NO_CALL]].concat(), 127, "no such");
        // What is no id at all is no call either.
        refused(&server, &[arguments, &["nothing"]].concat(), 127, "no such");
    }
    for arguments in [
        &["call"] as &[_],
        &["call", "--sync", "-q", "f"],
        &["call", "--sync", "--idempotency-key", "k", "f"],
        &["call", "--idempotency-key", "", "f"],
        &["call", "--idempotency-key", "a\nb", "f"],
        &["call", "--wait", "f"],
        &["get"],
        &["get", NO_CALL, NO_CALL],
        &["get", ""],
        &["cancel"],
        &["logs"],
        &["logs", "--tail", "some", "f"],
        &["logs", "--tail=-1", "f"],
        &["logs", "--callid"],
        &["status"],
        &["status", ""],
        &["status", "--tail", "1", "f"],
    ] {
        assert_eq!(failed(run(&server, arguments)).0, 2, "{arguments:?}");
    }
}
