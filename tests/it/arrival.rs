//! A result is forgotten once its last byte has arrived, and not before: readers that leave, that are slow, that come
//! in crowds (`docs/api.md` section 4).

use crate::harness::calls::{A_YEAR, Accepted};
use crate::harness::{Connection, PATIENCE, Server, eventually, guests};
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::io::{BufReader, Read as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const MB: usize = 1 << 20;
/// What the kernel keeps at most for a reader that does not read.
const RECEIVE_BUFFER: usize = 8 << 10;

/// The ways to leave an answer half read.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Closes over what has come and was not read, which resets the connection.
    Closes,
    /// Resets it outright.
    Resets,
    /// Says that it will send no more, and reads no more.
    ShutsDown,
}

/// A connection that takes little at once.
fn narrow(server: &Server) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    socket.connect(&server.functions.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Connection { stream: BufReader::with_capacity(1 << 10, stream) }
}

/// A call that has left 1 MB.
fn full(server: &Server, target: &str) -> Accepted {
    let call = server.accept(target, noise());
    server.ended_call(&call).expect(200);
    call
}

fn noise() -> Vec<u8> {
    (0..MB).map(|at| (at % 251) as u8).collect()
}

/// A client that has read half of an output.
fn half_way(server: &Server, target: &str, header: &str) -> Socket {
    let mut connection = narrow(server);
    connection.send(&server.request("GET", target).header("Connection", header));
    connection.stream.read_exact(&mut vec![0; MB / 2]).unwrap();
    connection.stream.into_inner().into()
}

/// Leaves; what is returned keeps the connection open where that is the way.
fn leave(socket: Socket, way: Way) -> Option<Socket> {
    match way {
        Way::Closes => None,
        Way::Resets => {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            None
        }
        Way::ShutsDown => {
            socket.shutdown(Shutdown::Write).unwrap();
            Some(socket)
        }
    }
}

/// Asserts that an output is there, whole, and then read.
#[track_caller]
fn assert_there(server: &Server, call: &Accepted, what: &str) {
    let mut connection = server.connect();
    connection.send(&server.request("GET", &call.output));
    let reply = connection.reply();
    assert_eq!(reply.status, 200, "{what}: {}", String::from_utf8_lossy(&reply.body));
    assert!(reply.body == noise(), "{what}: other bytes");
    connection.send(&server.request("GET", &call.output));
    connection.reply().expect(404);
}

#[test]
fn a_reader_that_leaves_half_way_leaves_the_output_whole() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for way in [Way::Closes, Way::Resets, Way::ShutsDown] {
        for path in ["", "/wait"] {
            for header in ["keep-alive", "close"] {
                let call = full(&server, &cat);
                let client = half_way(&server, &format!("{}{path}", call.output), header);
                let _kept = leave(client, way);
                assert_there(&server, &call, &format!("{way:?} {path} {header}"));
            }
        }
    }
}

#[test]
fn a_reader_that_has_left_is_not_waited_for() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for way in [Way::Closes, Way::Resets, Way::ShutsDown] {
        for header in ["keep-alive", "close"] {
            let call = full(&server, &cat);
            let sockets = server.open_sockets();
            for _ in 0..3 {
                drop(leave(half_way(&server, &call.output, header), way));
            }
            let what = format!("{way:?}, {header}: the connections are closed");
            eventually(&what, || server.open_sockets() <= sockets);
            assert_there(&server, &call, &what);
        }
    }
}

#[test]
fn a_server_that_ends_does_not_wait_for_a_reader_that_does_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::on(&data, &[]);
    let cat = server.function("cat", &guests::cat(), json!({}));
    let calls = ["keep-alive", "close"].map(|header| {
        let call = full(&server, &cat);
        let reader = half_way(&server, &call.output, header);
        (call, reader)
    });
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    // The drain is for calls, and may take 30 s.
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    let server = Server::on(&data, &[]);
    for (call, _reader) in &calls {
        assert_there(&server, call, "after a restart");
    }
}

#[test]
fn a_slow_reader_that_reads_all_has_read_it() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for (header, path) in [("keep-alive", ""), ("close", "/wait")] {
        let call = full(&server, &cat);
        let mut connection = narrow(&server);
        let request = server.request("GET", &format!("{}{path}", call.output)).header("Connection", header);
        connection.send(&request);
        let mut answer = Vec::new();
        while answer.len() < MB {
            connection.stream.by_ref().take(256 << 10).read_to_end(&mut answer).unwrap();
            if answer.len() < MB {
                // As long as some of it is on its way it is there for others.
                server.get(&format!("{}?keep=1", call.output)).expect(200);
            }
        }
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let left = head + MB - answer.len();
        connection.stream.by_ref().take(left as u64).read_to_end(&mut answer).unwrap();
        assert!(answer[head..] == noise(), "other bytes");
        assert_eq!(server.get(&call.output).status, 404, "{header} {path}");
    }
}

#[test]
fn readers_at_once_both_get_it_whole() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let call = full(&server, &cat);
    let mut slow = narrow(&server);
    slow.send(&server.request("GET", &call.output));
    slow.stream.get_ref().peek(&mut [0]).unwrap();
    let quick = server.get(&call.output).expect(200);
    assert!(quick.body == noise(), "other bytes");
    assert!(slow.reply().expect(200).body == noise(), "other bytes");
    server.get(&call.output).expect(404);
}

#[test]
fn a_client_that_asks_in_one_go_gets_each_output_once() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let [large, small, empty] = [noise(), b"small".to_vec(), Vec::new()].map(|body| {
        let call = server.accept(&cat, body);
        server.ended_call(&call).expect(200);
        call
    });
    let targets = [&large, &small, &empty, &small, &empty, &large].map(|call| call.output.as_str());
    let all: String = targets.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    let mut connection = server.connect();
    connection.write(all.as_bytes());
    assert!(connection.reply().expect(200).body == noise(), "other bytes");
    assert_eq!(connection.reply().expect(200).text(), "small");
    assert_eq!(connection.reply().expect(200).text(), "");
    for _ in 0..3 {
        connection.reply().expect(404);
    }
    eventually("nothing is kept", || server.tally(&cat) == [0; 4]);
}

#[test]
fn a_crowd_that_waits_for_one_call_gets_it_and_costs_little() {
    const WAITING: usize = 500;
    let server = Server::start();
    let body = format!(
        r#"(func (export "_start") (memory.fill (i32.const 65536) (i32.const 120) (i32.const 65536))
             (call $sleep (i64.const {A_YEAR})))"#
    );
    let target = server.function("f", &guests::module(2, &body), json!({}));
    let call = server.accept_and_run(&target);
    let (threads, kilobytes) = (server.status("Threads"), server.status("VmRSS"));
    let crowd: Vec<_> = (0..WAITING).map(|_| server.begin("GET", &call.wait())).collect();
    server.wait_until_all_is_read();
    assert_eq!(server.status("Threads"), threads);
    let grown = server.status("VmRSS").saturating_sub(kilobytes);
    assert!(grown < 64 * WAITING as u64, "{grown} kB for {WAITING} that wait");
    server.get("/version").expect(200);
    server.cancel(&call);
    for mut connection in crowd {
        assert_eq!(connection.reply().expect(500).text(), "cancelled\n");
    }
    assert!(server.status("Threads") <= threads + 4, "threads for a crowd that waits");
    server.get(&call.output).expect(404);
}

#[test]
fn a_reader_that_does_not_read_holds_no_slot() {
    let server = Server::with(&["--max-running", "1"]);
    let target = server.function("cat", &guests::cat(), json!({}));
    let mut slow = narrow(&server);
    slow.send(&server.request("POST", &target).body(noise()));
    for _ in 0..3 {
        assert_eq!(server.call(&target, "quick").expect(200).text(), "quick");
    }
    server.wait_for_running(0);
    // All of it is still there for whoever reads at last.
    let reply = slow.reply().expect(200);
    assert!(reply.body == noise(), "other bytes");
}
