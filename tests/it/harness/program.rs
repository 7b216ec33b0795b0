//! The command line as its users have it: arguments and stdin in; stdout, stderr and an exit status out.

use super::{PATIENCE, Server, binary, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// Starts the program against a server.
pub fn start(server: &Server, arguments: &[&str]) -> Child {
    let mut program = binary();
    program.env("HYPERFUNC_SERVER", format!("http://{}", server.address)).args(arguments);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the program against a server.
pub fn run(server: &Server, arguments: &[&str]) -> Output {
    run_with(server, arguments, b"")
}

/// The same, with something on stdin.
pub fn run_with(server: &Server, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = start(server, arguments);
    // A verb that reads nothing may be gone by then.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    ended(child)
}

/// Waits until it ends by itself.
pub fn ended(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let (output, ended) = mpsc::sync_channel(1);
    thread::spawn(move || output.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        kill_process(pid, Signal::KILL).unwrap();
        panic!("it does not end");
    })
}

/// What a success printed.
#[track_caller]
pub fn printed(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// What a failure said, and its status.
#[track_caller]
pub fn failed(output: Output) -> (i32, String) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A program that goes on, and whose lines are seen as they come; dropped, it is killed.
pub struct Follower {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Follower {
    pub fn start(server: &Server, arguments: &[&str]) -> Self {
        Self::of(start(server, arguments))
    }

    /// Follows a program that was started with its stdout piped.
    pub fn of(mut child: Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| seen.lock().unwrap().push(line)));
        Self { child, lines }
    }

    /// What has come so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
