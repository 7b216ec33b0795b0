//! Ctrl-C ends every client at once, whatever it waits for (`docs/api.md` section 8).

use crate::harness::binary;
use crate::harness::program::ended;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

const CALL: &str = "01a21058-8253-7790-9b0b-56681865e47e";

fn start(arguments: &[&str], listener: &TcpListener) -> Child {
    let mut program = binary();
    program.env("HYPERFUNC_SERVER", format!("http://{}", listener.local_addr().unwrap())).args(arguments);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A request, of which it is known that the program waits for the answer.
fn asked(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream
}

#[test]
fn whoever_waits_for_a_server_ends_with_130() {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/guest-examples/toolbox/toolbox.wasm");
    for arguments in [
        &["load", module] as &[_],
        &["images"],
        &["rmi", "image"],
        &["create", "image"],
        &["update", "f"],
        &["ls"],
        &["inspect", "f"],
        &["rm", "f"],
        &["call", "--sync", "f"],
        &["get", "--wait", CALL],
        &["cancel", CALL],
        &["logs", "-f", "f"],
        &["status", "f"],
        &["version", "--json"],
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let child = start(arguments, &listener);
        let _unanswered = asked(&listener);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = ended(child);
        assert_eq!(output.status.code(), Some(130), "{arguments:?}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn whoever_reads_stdin_ends_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = start(&["call", "--sync", "f"], &listener);
    let _stdin = child.stdin.take();
    for answer in [r#"{"Name":"f","UUID":"e62c014e-386c-42ea-8d07-41d44e98cc3d"}"#, "{}"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        asked(&listener).write_all((head + answer).as_bytes()).unwrap();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(ended(child).status.code(), Some(130));
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = start(&["logs", "-f", "f"], &listener);
    let _unread = child.stdout.take();
    for answer in [r#"{"Name":"f","UUID":"e62c014e-386c-42ea-8d07-41d44e98cc3d"}"#, "{}"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        asked(&listener).write_all((head + answer).as_bytes()).unwrap();
    }
    let mut log = asked(&listener);
    log.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    // Past what a pipe holds the program is stuck in a write, and takes no more.
    log.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let line = format!("{{\"Time\":\"t\",\"Event\":\"CALL\",\"CallId\":\"{}\"}}\n", "x".repeat(1000));
    while log.write_all(line.as_bytes()).is_ok() {}
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(ended(child).status.code(), Some(130));
}
