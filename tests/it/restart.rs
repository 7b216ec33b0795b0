//! What becomes of calls that nobody waits for when the server is killed (`docs/api.md` section 5).

use crate::harness::calls::{Tally, asynchronous, id, output};
use crate::harness::guests::{self, Stamped};
use crate::harness::{Connection, Request, Server, binary, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const ONE_AT_A_TIME: [&str; 2] = ["--max-running", "1"];
/// A call whose start is on disk.
const RUNS: Tally = Tally { pending: 0, running: 1, finished: 0, failed: 0 };

/// Waits for a call of [`guests::stamps`], and reads what it wrote.
#[track_caller]
fn stamped(server: &Server, target: &str, call_id: &str) -> Stamped {
    Stamped::of(&server.wait(target, call_id).expect(200).body)
}

/// Kills the server, and starts another that runs one call at a time.
fn crash(server: Server) -> Server {
    server.kill_and_restart_with(&ONE_AT_A_TIME)
}

#[test]
fn calls_run_after_a_kill_as_they_would_have_run_without_it() {
    let server = Server::with(&ONE_AT_A_TIME);
    let runs = server.function("runs", &guests::sleeps_before_attempt(2), json!({}));
    let targets = ["a", "b", "c"].map(|name| server.function(name, &guests::stamps(0), json!({})));
    server.load_bytes("toolbox", guests::TOOLBOX);
    let env = json!({"Name": "env", "Config": {"Image": "toolbox", "Cmd": ["env"]}});
    let env = crate::harness::address(&server.create(&env));
    let running = server.enqueue(&runs, "");
    server.wait_for_tally(&runs, RUNS);
    let order = [2, 0, 0, 1, 2, 1, 1, 0, 2];
    let waiting = (0..).zip(order).map(|(number, at): (u32, usize)| {
        let body = format!("call {number}");
        (&targets[at], server.enqueue(&targets[at], &body), body)
    });
    let waiting: Vec<_> = waiting.collect();
    let told = Request::new(server.functions, "PUT", &format!("{}?a=1", asynchronous(&env))).header("X-Said", "this");
    let told = told.send().expect(200).json()["CallId"].as_str().unwrap().to_owned();

    let server = crash(server);
    // The one that ran is the first again, and knows that it was started before.
    let again = server.wait(&runs, &running).expect(200);
    assert_eq!(again.text(), "2");
    let mut last = 0;
    for (target, call, body) in &waiting {
        let found = stamped(&server, target, call);
        assert_eq!((&found.body, found.attempt), (body, 1));
        assert!(found.at > last, "{body} came too early");
        last = found.at;
    }
    let told_again = server.wait(&env, &told).expect(200);
    for expected in ["REQUEST_METHOD=PUT", "QUERY_STRING=a=1", "HTTP_X_SAID=this", "HYPER_ATTEMPT=1"] {
        assert!(told_again.text().lines().any(|line| line == expected), "{expected}: {}", told_again.text());
    }
    assert!(told_again.text().contains(&format!("HYPER_CALL_ID={told}\n")));
}

#[test]
fn a_call_that_three_crashes_have_ended_has_failed_and_is_never_run_again() {
    let mut server = Server::with(&ONE_AT_A_TIME);
    let target = server.function("f", &guests::sleeps_before_attempt(9), json!({}));
    let behind = server.function("behind", &guests::stamps(0), json!({}));
    let (call, waits) = (server.enqueue(&target, ""), server.enqueue(&behind, "x"));
    for _ in 0..3 {
        server.wait_for_tally(&target, RUNS);
        server.output(&behind, &waits).expect(202);
        server = crash(server);
    }
    // What has only waited is another matter.
    assert_eq!(stamped(&server, &behind, &waits).attempt, 1);
    for _ in 0..2 {
        assert_eq!(server.tally(&target), Tally { failed: 1, ..Tally::default() });
        assert_eq!(server.list(&target)[0]["Message"], "interrupted");
        let kept = Request::new(server.functions, "GET", &format!("{}?keep=1", output(&target, &call)));
        assert_eq!(kept.send().expect(500).text(), "interrupted\n");
        assert_eq!(server.get("/info").json()["Running"], 0);
        server = crash(server);
    }
    assert_eq!(server.wait(&target, &call).expect(500).text(), "interrupted\n");
    server.wait_for_tally(&target, Tally::default());
}

#[test]
fn what_calls_left_survives_a_kill_and_what_was_read_does_not_come_back() {
    let server = Server::with(&["--output-cache", "1500"]);
    let echo = server.function("echo", &guests::cat(), json!({}));
    let fails = server.function("fails", &guests::fails(3, "no luck"), json!({}));
    let mut calls = Vec::new();
    for (number, bytes) in [(1, 600), (2, 500), (3, 500), (4, 400)] {
        calls.push(server.enqueue(&echo, &number.to_string().repeat(bytes)));
        let ended = || server.list(&echo).iter().all(|call| call["Status"] == "FINISHED");
        eventually("its end", ended);
    }
    let failed = server.enqueue(&fails, "");
    server.wait_for_tally(&fails, Tally { failed: 1, ..Tally::default() });
    server.output(&echo, &calls[1]).expect(200);
    server.wait_for_tally(&echo, Tally { finished: 2, ..Tally::default() });
    let before = [&echo, &fails].map(|target| server.list(target));

    let server = server.kill_and_restart();
    assert_eq!([&echo, &fails].map(|target| server.list(target)), before);
    server.output(&echo, &calls[0]).expect(410);
    server.wait(&echo, &calls[1]).expect(404);
    let stderr = Request::new(server.functions, "GET", &format!("{}/stderr", output(&fails, &failed)));
    assert_eq!(stderr.send().expect(200).text(), "no luck");
    assert_eq!(server.output(&fails, &failed).expect(500).text(), "exit status 3: no luck\n");
    for (call, text) in [(&calls[2], "3".repeat(500)), (&calls[3], "4".repeat(400))] {
        assert_eq!(server.wait(&echo, call).expect(200).text(), text);
    }
    for target in [&echo, &fails] {
        server.wait_for_tally(target, Tally::default());
    }
}

#[test]
fn a_call_that_was_refused_or_taken_back_does_not_run_after_a_kill() {
    let server = Server::with(&[ONE_AT_A_TIME.as_slice(), &["--max-pending", "2"]].concat());
    let runs = server.function("runs", &guests::sleeps_before_attempt(2), json!({}));
    let target = server.function("f", &guests::stamps(0), json!({}));
    server.enqueue(&runs, "");
    server.wait_for_tally(&runs, RUNS);
    let (kept, dropped) = (server.enqueue(&target, "kept"), server.enqueue(&target, "dropped"));
    for _ in 0..3 {
        Request::new(server.functions, "POST", asynchronous(&target)).body("refused").send().expect(429);
    }
    Request::new(server.functions, "DELETE", &output(&target, &dropped)).send().expect(204);
    let server = crash(server);
    assert_eq!(server.list(&target).iter().map(id).collect::<Vec<_>>(), std::slice::from_ref(&kept));
    assert_eq!(stamped(&server, &target, &kept).body, "kept");
    server.output(&target, &dropped).expect(404);
    server.wait_for_tally(&target, Tally::default());
}

#[test]
fn a_key_means_the_same_call_after_a_kill() {
    let server = Server::start();
    let [target, other] = ["f", "g"].map(|name| server.function(name, &guests::stamps(0), json!({})));
    let keyed = |server: &Server, target: &str, key: &str| {
        let call = Request::new(server.functions, "POST", asynchronous(target)).header("Idempotency-Key", key);
        call.send().expect(200).json()["CallId"].as_str().unwrap().to_owned()
    };
    let call = keyed(&server, &target, "key");
    let read = keyed(&server, &target, "read");
    assert_eq!(keyed(&server, &target, "key"), call);
    assert_ne!(keyed(&server, &other, "key"), call);
    stamped(&server, &target, &read);
    server.wait_for_tally(&target, Tally { finished: 1, ..Tally::default() });

    let server = server.kill_and_restart();
    assert_eq!((keyed(&server, &target, "key"), keyed(&server, &target, "read")), (call.clone(), read));
    assert_ne!(keyed(&server, &target, "another key"), call);
    server.wait_for_tally(&target, Tally { finished: 2, ..Tally::default() });
}

#[test]
fn a_second_server_on_the_data_directory_touches_no_call() {
    let server = Server::with(&ONE_AT_A_TIME);
    let target = server.function("f", &guests::sleeps_before_attempt(2), json!({}));
    let (running, waiting) = (server.enqueue(&target, ""), server.enqueue(&target, ""));
    server.wait_for_tally(&target, Tally { pending: 1, ..RUNS });
    let refusal = Server::try_on(&server.data, &[]).err().expect("a second server refuses");
    assert!(refusal.contains("another server uses it"), "{refusal}");
    assert_eq!(server.tally(&target), Tally { running: 1, pending: 1, ..Tally::default() });
    Request::new(server.functions, "DELETE", &output(&target, &waiting)).send().expect(204);
    Request::new(server.functions, "DELETE", &output(&target, &running)).send().expect(204);
    assert_eq!(server.wait(&target, &running).expect(500).text(), "cancelled\n", "it was started again");
}

#[test]
fn a_server_that_is_killed_while_it_starts_loses_no_call() {
    const CALLS: usize = 30;
    const KILLS: u64 = 10;
    let mut server = Server::with(&ONE_AT_A_TIME);
    let target = server.function("f", &guests::stamps(20_000_000), json!({}));
    let calls: Vec<_> = (0..CALLS).map(|number| server.enqueue(&target, &number.to_string())).collect();
    server.kill();
    for kill in 0..KILLS {
        let mut starting = binary();
        starting.args(["serve", "--listen", "127.0.0.1:0", "--max-running", "1", "--data"]).arg(&server.data);
        let mut starting = starting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(kill * 12));
        starting.kill().unwrap();
        starting.wait().unwrap();
    }
    let server = server.restart(&ONE_AT_A_TIME);
    let mut interrupted = 0;
    for (number, call) in calls.iter().enumerate() {
        let reply = server.wait(&target, call);
        if reply.status == 500 {
            assert_eq!(reply.text(), "interrupted\n");
            interrupted += 1;
        } else {
            assert_eq!(Stamped::of(&reply.expect(200).body).body, number.to_string());
        }
    }
    // Each kill has ended one start at most, the first of all as well.
    assert!(interrupted <= (KILLS + 1) / 3, "{interrupted}");
    server.wait_for_tally(&target, Tally::default());
}

/// What one client knows of its calls.
#[derive(Default)]
struct Journal {
    /// The ids that it was told, and what it has sent with each.
    accepted: Vec<(String, String)>,
    /// What it has sent without an answer.
    unanswered: Vec<String>,
}

impl Journal {
    /// Calls again and again, until the server is gone, but not for ever; `true` if the server was gone.
    fn keep(&mut self, server: &Server, target: &str, client: usize) -> bool {
        const CALLS_MAX: usize = 60;
        let Some(mut connection) = Connection::try_open(server.functions) else { return true };
        for _ in 0..CALLS_MAX {
            let body = format!("client {client}, call {}", self.accepted.len() + self.unanswered.len());
            match connection.try_enqueue(server, target, body.as_bytes()) {
                Some(call) => self.accepted.push((call, body)),
                None => {
                    self.unanswered.push(body);
                    return true;
                }
            }
        }
        false
    }
}

#[test]
fn twenty_kills_under_load_lose_no_call_and_double_none() {
    const KILLS: u64 = 20;
    const CLIENTS: usize = 4;
    let mut server = Server::with(&ONE_AT_A_TIME);
    let target = server.function("f", &guests::stamps(1_000_000), json!({}));
    let mut journals: Vec<Journal> = (0..CLIENTS).map(|_| Journal::default()).collect();
    let mut known = 0;
    for kill in 0..KILLS {
        // Three crashes would be the end of a call: what two have seen ends before the next.
        eventually("the end of calls that two crashes have seen", || server.tally(&target).finished >= known);
        known = server.tally(&target).total();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (client, journal) in journals.iter_mut().enumerate() {
                let (server, target, over) = (&server, &target, &over);
                scope.spawn(move || {
                    let gone = journal.keep(server, target, client);
                    assert!(!gone || over.load(Ordering::SeqCst), "it has left by itself: {}", server.log());
                });
            }
            thread::sleep(Duration::from_millis(5 + kill * 61 % 120));
            over.store(true, Ordering::SeqCst);
            server.signal(Signal::KILL);
        });
        server = crash(server);
    }
    eventually("the end of all calls", || {
        let tally = server.tally(&target);
        tally.finished == tally.total()
    });

    let listed: Vec<String> = server.list(&target).iter().map(id).collect();
    let place: HashMap<&String, usize> = listed.iter().enumerate().map(|(place, call)| (call, place)).collect();
    let (mut sent, mut unanswered) = (HashMap::new(), Vec::new());
    for Journal { accepted, unanswered: left } in &journals {
        assert!(accepted.iter().all(|(call, _)| place.contains_key(call)), "an accepted call is lost");
        assert!(accepted.is_sorted_by_key(|(call, _)| place[call]), "accepted in another order");
        sent.extend(accepted.iter().cloned());
        unanswered.extend(left);
    }
    assert!(sent.len() as u64 > KILLS * CLIENTS as u64, "killed before anything was done: {}", sent.len());
    let (mut first_starts, mut again) = (Vec::new(), 0);
    for call in &listed {
        let found = stamped(&server, &target, call);
        match sent.get(call) {
            Some(body) => assert_eq!(found.body, *body),
            // It was on disk when the answer could not be said any more.
            None => {
                let known = unanswered.iter().position(|body| **body == found.body);
                unanswered.swap_remove(known.expect("somebody has sent it, and once"));
            }
        }
        match found.attempt {
            1 => first_starts.push(found.at),
            2 | 3 => again += 1,
            other => panic!("start {other}"),
        }
    }
    assert!(first_starts.is_sorted_by(|earlier, later| earlier < later), "started in another order");
    assert!(again > 0, "no kill has met a call that ran");
    server.wait_for_tally(&target, Tally::default());
    assert_eq!(server.list(&target), Vec::<Value>::new());
}
