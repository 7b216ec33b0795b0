//! Clients that leave before they are answered: a call that waits is dropped, one that runs goes on to its end.

use crate::harness::{Connection, Request, Server, eventually, guests};
use serde_json::json;
use socket2::SockRef;
use std::time::Duration;

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
const FLAGS: [&str; 4] = ["--log", "hyperfunc=debug", "--max-running", "1"];

/// The ways to leave.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Closes the connection: a FIN.
    Closes,
    /// Says that it will send no more, as a peer that is gone does, and keeps the connection.
    ShutsDown,
    /// Resets the connection: a RST.
    Resets,
}

const WAYS: [Way; 3] = [Way::Closes, Way::ShutsDown, Way::Resets];

/// A client with a call under way, that can leave.
struct Client {
    connection: Connection,
    way: Way,
}

impl Client {
    /// Sends a call.
    fn call(server: &Server, target: &str, way: Way) -> Self {
        let mut connection = Connection::open(server.functions);
        if matches!(way, Way::Resets) {
            // A socket that is closed over bytes that nobody has read resets its connection.
            connection.send(&Request::new(server.functions, "GET", "/_ping"));
            assert_eq!(connection.stream.get_ref().peek(&mut [0]).unwrap(), 1);
        }
        connection.send(&Request::new(server.functions, "POST", target));
        Self { connection, way }
    }

    /// Leaves; what is returned keeps the connection open where that is the way.
    fn leaves(mut self) -> Option<Connection> {
        match self.way {
            Way::Closes => None,
            Way::Resets => {
                SockRef::from(self.connection.stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
                None
            }
            Way::ShutsDown => {
                self.connection.finish();
                Some(self.connection)
            }
        }
    }
}

/// Asserts that exactly one call may run, and that the counts are right: a slot given back twice would let two.
#[track_caller]
fn assert_one_slot(server: &Server) {
    let info = server.get("/info").json();
    assert_eq!((&info["Running"], &info["Pending"], &info["MemoryCharged"]), (&json!(0), &json!(0), &json!(0)));
    let target = server.function("slot", &guests::sleeps(A_YEAR), json!({}));
    let call = || {
        let mut connection = Connection::open(server.functions);
        connection.send(&Request::new(server.functions, "POST", &target));
        connection
    };
    let mut first = call();
    server.wait_for_running(1);
    let mut second = call();
    server.wait_for_info("Pending", 1);
    assert_eq!(server.get("/info").json()["Running"], 1);
    server.request("DELETE", "/funcs/slot?force=1").send().expect(204);
    first.reply().expect(500);
    second.reply().expect(404);
}

/// The lines of the log about calls of a function that have ended.
fn ends_of(server: &Server, function: &str) -> Vec<String> {
    let about = format!("function={function} ");
    let log = server.log();
    log.lines().filter(|line| line.contains("call ended") && line.contains(&about)).map(str::to_owned).collect()
}

#[test]
fn a_call_whose_client_leaves_while_it_waits_never_runs() {
    for way in WAYS {
        let server = Server::with(&FLAGS);
        let blocker = server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
        let waits = server.function("waits", &guests::prints("ghost"), json!({}));
        let mut blocking = Client::call(&server, &blocker, Way::Closes).connection;
        server.wait_for_running(1);
        let client = Client::call(&server, &waits, way);
        server.wait_for_info("Pending", 1);
        let _kept = client.leaves();
        // The blocker still runs: nothing but its leaving takes the call out of the queue.
        server.wait_for_info("Pending", 0);
        assert_eq!(server.get("/info").json()["Running"], 1, "{way:?}");

        server.request("DELETE", "/funcs/blocker?force=1").send().expect(204);
        blocking.reply().expect(500);
        assert_one_slot(&server);
        eventually("the last call in the log", || ends_of(&server, "slot").len() == 1);
        assert!(ends_of(&server, "waits").is_empty(), "{way:?}: {}", server.log());
    }
}

#[test]
fn those_who_stay_move_up_when_one_before_them_leaves() {
    let server = Server::with(&FLAGS);
    let blocker = server.function("blocker", &guests::sleeps(A_YEAR), json!({}));
    let waits = server.function("waits", &guests::prints("x"), json!({}));
    let mut blocking = Client::call(&server, &blocker, Way::Closes).connection;
    server.wait_for_running(1);
    let mut clients = Vec::new();
    for pending in 1..=4 {
        clients.push(Client::call(&server, &waits, Way::Closes));
        server.wait_for_info("Pending", pending);
    }
    clients.remove(2).leaves();
    clients.remove(0).leaves();
    server.wait_for_info("Pending", 2);
    server.request("DELETE", "/funcs/blocker?force=1").send().expect(204);
    blocking.reply().expect(500);
    for mut client in clients {
        assert_eq!(client.connection.reply().expect(200).text(), "x");
    }
    assert_one_slot(&server);
    assert_eq!(ends_of(&server, "waits").len(), 2);
}

#[test]
fn a_call_whose_client_leaves_while_it_runs_runs_to_its_end() {
    const NANOSECONDS: u64 = 300_000_000;
    for way in WAYS {
        let server = Server::with(&FLAGS);
        let target = server.function("sleeps", &guests::sleeps(NANOSECONDS), json!({}));
        let client = Client::call(&server, &target, way);
        server.wait_for_running(1);
        let _kept = client.leaves();
        eventually("the end of the call in the log", || !ends_of(&server, "sleeps").is_empty());
        let ends = ends_of(&server, "sleeps");
        assert_eq!(ends.len(), 1);
        assert!(ends[0].contains("ending=Finished"), "{way:?}: {}", ends[0]);
        let duration = ends[0].split("duration_us=").nth(1).unwrap().split(' ').next().unwrap();
        assert!(duration.parse::<u64>().unwrap() >= NANOSECONDS / 1000, "{way:?}: {}", ends[0]);
        assert_one_slot(&server);
    }
}

#[test]
fn a_call_that_nobody_waits_for_still_ends_at_its_timeout() {
    let server = Server::with(&FLAGS);
    let target = server.function("spins", &guests::spins(), json!({"Timeout": 1}));
    let client = Client::call(&server, &target, Way::Closes);
    server.wait_for_running(1);
    client.leaves();
    eventually("the end of the call in the log", || !ends_of(&server, "spins").is_empty());
    let ends = ends_of(&server, "spins");
    assert!(ends.len() == 1 && ends[0].contains("ending=TimedOut"), "{ends:?}");
    assert_one_slot(&server);
}

#[test]
fn a_call_is_none_before_its_body_is_there() {
    let server = Server::with(&FLAGS);
    let target = server.function("cat", &guests::cat(), json!({}));
    for way in WAYS {
        let mut connection = server.connect();
        connection.write(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf").as_bytes());
        let broken_off = server.log().matches("the body broke off").count();
        let _kept = Client { connection, way }.leaves();
        eventually("the refusal in the log", || server.log().matches("the body broke off").count() > broken_off);
    }
    server.call(&target, "whole").expect(200);
    eventually("the whole call in the log", || !ends_of(&server, "cat").is_empty());
    assert_eq!(ends_of(&server, "cat").len(), 1);
    assert_one_slot(&server);
}

#[test]
fn many_who_leave_at_once_leave_nothing_behind() {
    let server = Server::with(&["--log", "hyperfunc=debug", "--max-running", "4"]);
    let target = server.function("brief", &guests::sleeps(2_000_000), json!({}));
    for round in 0..20 {
        let clients: Vec<_> =
            (0..20).map(|client| Client::call(&server, &target, WAYS[(round + client) % 3])).collect();
        drop(clients);
    }
    for key in ["Running", "Pending", "MemoryCharged"] {
        server.wait_for_info(key, 0);
    }
    let ends = ends_of(&server, "brief");
    assert!(ends.len() <= 400 && ends.iter().all(|line| line.contains("ending=Finished")), "{ends:?}");
    for _ in 0..10 {
        assert_eq!(server.call(&target, "").expect(200).text(), "woke");
    }
}
