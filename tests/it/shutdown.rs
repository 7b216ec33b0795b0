//! How a server ends, and how it does not begin (`docs/api.md` section 5).

use crate::harness::{Request, Server, guests};
use rustix::process::Signal;
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// Runs a server's only function in a thread of its own, and waits until it runs.
fn running<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    server: &Server,
    address: &str,
) -> thread::ScopedJoinHandle<'scope, crate::harness::Reply> {
    let call = Request::new(server.address, "POST", address);
    let call = scope.spawn(move || call.send());
    server.wait_for_running(1);
    call
}

#[test]
fn a_server_that_is_asked_to_end_lets_calls_end_and_takes_no_new_ones() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::with(&["--max-running", "1"]);
        let address = server.function("sleeps", &guests::sleeps(1_500_000_000), json!({}));
        thread::scope(|scope| {
            let call = running(scope, &server, &address);
            let waiting = Request::new(server.address, "POST", &address);
            let waiting = scope.spawn(move || waiting.send());
            server.wait_for_info("Pending", 1);
            let mut kept = server.connect();
            server.signal(signal);

            // What waits is told to come back, and so is what comes now.
            let refused = waiting.join().unwrap().expect(503);
            assert!(refused.header("retry-after").is_some());
            for path in ["/_ping", "/version", &address] {
                let reply = server.get(path).expect(503);
                assert!(reply.header("retry-after").is_some(), "{path}");
                assert_eq!(reply.header("connection"), Some("close"), "{path}");
            }
            kept.send(&server.request("GET", "/_ping"));
            kept.reply().expect(503);

            assert_eq!(call.join().unwrap().expect(200).text(), "woke");
        });
        assert_eq!(server.ended().code(), Some(0));
    }
}

#[test]
fn calls_that_do_not_end_are_cut_off_when_the_drain_is_over() {
    let mut server = Server::with(&["--drain", "300ms"]);
    let address = server.function("spins", &guests::spins(), json!({}));
    let mut connection = server.connect();
    connection.send(&Request::new(server.address, "POST", &address));
    server.wait_for_running(1);
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    assert!(began.elapsed() < Duration::from_millis(300) + Duration::from_secs(5));
    assert!(connection.try_reply().is_none());
}

#[test]
fn a_second_signal_ends_at_once() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = Server::start();
        let address = server.function("spins", &guests::spins(), json!({}));
        let mut connection = server.connect();
        connection.send(&Request::new(server.address, "POST", &address));
        server.wait_for_running(1);
        server.signal(signal);
        crate::harness::eventually("it drains", || server.get("/_ping").status == 503);
        server.signal(signal);
        assert_eq!(server.ended().code(), Some(status));
        assert!(connection.try_reply().is_none());
    }
}

#[test]
fn an_idle_server_ends_although_connections_are_open() {
    let mut server = Server::start();
    let mut idle = server.connect();
    idle.send(&server.request("GET", "/_ping"));
    idle.reply().expect(200);
    server.signal(Signal::TERM);
    assert!(idle.is_closed());
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_data_directory_has_one_server() {
    let server = Server::start();
    let error = Server::try_on(&server.data, &[]).err().expect("a second server refuses");
    assert!(error.contains("another server uses it"), "{error}");
    assert!(error.contains(&format!("process {}", server.pid())), "{error}");
    assert_eq!(server.get("/_ping").text(), "OK");
}

#[test]
fn a_server_that_cannot_start_says_which_setting_is_wrong() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("settings.toml");
    std::fs::write(&settings, "max-runing = 5\n").unwrap();
    let settings = settings.to_str().unwrap();
    for (arguments, named) in [
        (["--func-listen", taken.as_str()], "--func-listen"),
        (["--max-running", "0"], "--max-running"),
        (["--memory", "1MB"], "--memory"),
        (["--sync-wait", "soon"], "--sync-wait"),
        (["--config", "/nowhere/settings.toml"], "/nowhere/settings.toml"),
        (["--config", settings], "max-runing"),
        (["--log", "hyperfunc=loud"], "--log"),
        (["--log", "inof"], "--log"),
    ] {
        let error = Server::try_on(&dir.path().join("data"), &arguments).err().expect("a refusal");
        assert!(error.contains(named), "{arguments:?}: {error}");
    }
}

#[test]
fn settings_come_from_a_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("settings.toml");
    std::fs::write(&settings, "max-running = 5\nsync-wait = \"2s\"\nmax-image-bytes = \"1MB\"\n").unwrap();
    let server = Server::with(&["--config", settings.to_str().unwrap(), "--max-image-bytes", "2MB"]);
    let limits = &server.get("/info").json()["Limits"];
    assert_eq!(limits["Running"], 5);
    assert_eq!(limits["SyncWaitSeconds"], 2.0);
    assert_eq!(limits["ImageBytes"], 2 << 20, "a flag is stronger than the file");
}
