//! An accepted call is on the medium before anybody is told so (`docs/api.md` section 5). A kill cannot show that: what
//! the server asks of the system can.

use crate::harness::calls::Tally;
use crate::harness::guests::{self, Stamped};
use crate::harness::{Connection, Server, binary, eventually};
use rustix::process::Signal;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::{fs, thread};

/// The system calls of a server in their order. Each sync takes long: whoever does not wait for it is seen.
struct Trace {
    tracing: Child,
    file: PathBuf,
}

impl Trace {
    /// Traces a server; `None`, and it says why, if that cannot be.
    fn begin(server: &Server) -> Option<Self> {
        if !may_trace() {
            return None;
        }
        let file = server.data.with_file_name("trace");
        let calls = "trace=fsync,fdatasync,pwrite64,read,recvfrom,write,writev,sendto,sendmsg";
        let tracing = Command::new("strace")
            .args(["-f", "-y", "-qq", "-e", calls, "-e", "signal=none"])
            .args(["-e", "inject=fsync,fdatasync:delay_exit=20000", "-o"])
            .arg(&file)
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let threads = format!("/proc/{}/task", server.pid());
        let is_traced = |thread: fs::DirEntry| {
            // A thread may end while we look.
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        eventually("all threads are traced", || {
            fs::read_dir(&threads).unwrap().all(|thread| is_traced(thread.unwrap()))
        });
        Some(Self { tracing, file })
    }

    /// What there was until the server was killed.
    fn end(mut self, server: &mut Server) -> Vec<Event> {
        server.kill();
        self.tracing.wait().unwrap();
        events(&fs::read_to_string(&self.file).unwrap())
    }
}

/// Whether there is a tracer that may do its work; if not, this says so.
fn may_trace() -> bool {
    let may = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let may = may.is_ok_and(|status| status.success());
    if !may {
        eprintln!("skipped: there is no strace that may trace");
    }
    may
}

/// What concerns the acceptance of calls. Moments are lines of the trace.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A call has come in over a socket.
    Called { socket: u32, at: usize },
    /// Something was written to the log beside the database.
    Written { at: usize },
    /// That log is on the medium.
    Synced { begun: usize, at: usize },
    /// An answer is about to go out.
    Answers { socket: u32, at: usize },
}

/// Reads a trace. A system call during which others go on is written in two lines: what comes in counts from its end on,
/// what goes out from its beginning.
fn events(trace: &str) -> Vec<Event> {
    let mut unfinished = HashMap::new();
    let mut events = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begin) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (at, begin));
            events.extend(Event::at_begin(begin, at));
        } else if call.starts_with("<... ") {
            let Some((begun, begin)) = unfinished.remove(thread) else { continue };
            events.extend(Event::at_end(begin, call, begun, at));
        } else {
            events.extend(Event::at_begin(call, at));
            events.extend(Event::at_end(call, call, at, at));
        }
    }
    events
}

impl Event {
    fn at_begin(call: &str, at: usize) -> Option<Self> {
        let writes = ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|name| call.starts_with(name));
        let answers = writes && call.contains("HTTP/1.1 200 OK");
        answers.then(|| Self::Answers { socket: socket(call), at })
    }

    fn at_end(call: &str, end: &str, begun: usize, at: usize) -> Option<Self> {
        let is = |names: &[&str]| names.iter().any(|name| call.starts_with(name));
        let on_log = call.contains("hyperfunc.db-wal>");
        if is(&["fsync(", "fdatasync("]) && on_log && end.contains(" = 0") {
            Some(Self::Synced { begun, at })
        } else if is(&["pwrite64("]) && on_log {
            Some(Self::Written { at })
        } else if is(&["read(", "recvfrom("]) && (call.contains("\"POST /call/") || end.contains("\"POST /call/")) {
            Some(Self::Called { socket: socket(call), at })
        } else {
            None
        }
    }
}

/// The number of the socket that a system call is about.
fn socket(call: &str) -> u32 {
    let digits = call.split(['(', '<']).nth(1);
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no socket: {call}"))
}

/// Checks that each answer to a call came after a sync of what was written since its arrival; returns how many there
/// were, and how many syncs there were from the first arrival to the last answer.
fn check(events: &[Event]) -> (usize, usize) {
    let mut arrived = HashMap::new();
    let mut answers = Vec::new();
    for event in events {
        match *event {
            Event::Called { socket, at } => drop(arrived.insert(socket, at)),
            // Answers to what were no calls are of no concern.
            Event::Answers { socket, at } => answers.extend(arrived.remove(&socket).map(|arrived| (arrived, at))),
            Event::Written { .. } | Event::Synced { .. } => {}
        }
    }
    for (arrived, answered) in &answers {
        let written = |from: usize, to: usize| {
            events.iter().any(|event| matches!(event, Event::Written { at } if from < *at && *at < to))
        };
        let synced = events.iter().any(|event| match event {
            Event::Synced { begun, at } => *at < *answered && written(*arrived, *begun),
            Event::Called { .. } | Event::Written { .. } | Event::Answers { .. } => false,
        });
        assert!(synced, "what came in line {arrived} was answered in line {answered}");
    }
    let first = answers.iter().map(|(arrived, _)| *arrived).min().unwrap_or(0);
    let last = answers.iter().map(|(_, answered)| *answered).max().unwrap_or(0);
    let syncs = events.iter().filter(|event| matches!(event, Event::Synced { at, .. } if first < *at && *at < last));
    (answers.len(), syncs.count())
}

/// A server on which one call runs for ever and all others wait: whatever is written is an acceptance.
fn server_that_only_accepts() -> (Server, String) {
    let server = Server::with(&["--max-running", "1"]);
    let target = server.function("f", &guests::sleeps(u64::MAX / 4), json!({}));
    server.enqueue(&target, "");
    server.wait_for_tally(&target, Tally { running: 1, ..Tally::default() });
    (server, target)
}

#[test]
fn a_call_is_synced_between_its_arrival_and_its_answer() {
    const CALLS: usize = 12;
    let (mut server, target) = server_that_only_accepts();
    let Some(trace) = Trace::begin(&server) else { return };
    let mut connection = Connection::open(server.functions);
    for _ in 0..CALLS {
        connection.try_enqueue(&server, &target, b"x").unwrap();
    }
    let (accepted, syncs) = check(&trace.end(&mut server));
    assert_eq!(accepted, CALLS);
    assert!(syncs >= CALLS, "one after the other, they cannot have shared any: {syncs}");
}

#[test]
fn calls_that_come_together_share_syncs() {
    const CALLS: usize = 64;
    let (mut server, target) = server_that_only_accepts();
    let connections: Vec<_> = (0..CALLS).map(|_| Connection::open(server.functions)).collect();
    let Some(trace) = Trace::begin(&server) else { return };
    let together = Barrier::new(CALLS);
    thread::scope(|scope| {
        for mut connection in connections {
            let (server, target, together) = (&server, &target, &together);
            scope.spawn(move || {
                together.wait();
                connection.try_enqueue(server, target, b"x").unwrap();
            });
        }
    });
    let (accepted, syncs) = check(&trace.end(&mut server));
    assert_eq!(accepted, CALLS);
    assert!((1..=CALLS / 4).contains(&syncs), "{syncs} syncs for {CALLS} calls");
}

/// The program, as one for which each sync takes long.
fn binary_on_a_slow_disk() -> Command {
    let (program, mut traced) = (binary(), Command::new("strace"));
    // Its tracer is a process beside it, not above it.
    traced.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    traced.args(["-e", "inject=fsync,fdatasync:delay_exit=300000"]).arg(program.get_program());
    for (name, _) in program.get_envs() {
        traced.env_remove(name);
    }
    traced
}

#[test]
fn a_drain_waits_for_results_whose_calls_were_about_to_start() {
    if !may_trace() {
        return;
    }
    let mut server = Server::with(&["--max-running", "1"]);
    let blocker = server.function("blocker", &guests::sleeps_before_attempt(2), json!({}));
    // They end one after the other, so that the disk is busy with the end of the first when the second comes.
    let targets = [("first", 0), ("second", 50_000_000)]
        .map(|(name, nanoseconds)| server.function(name, &guests::stamps(nanoseconds), json!({})));
    server.enqueue(&blocker, "");
    server.wait_for_tally(&blocker, Tally { running: 1, ..Tally::default() });
    let calls = targets.each_ref().map(|target| server.enqueue(target, ""));
    server.kill();

    // It is told to end while their starts are on their way to disk.
    let mut ending = Server::try_as(binary_on_a_slow_disk(), &server.data, &["--max-running", "3"]).unwrap();
    ending.signal(Signal::TERM);
    assert_eq!(ending.ended().code(), Some(0));
    let server = server.restart(&[]);
    for (target, call) in targets.iter().zip(&calls) {
        let found = Stamped::of(&server.wait(target, call).expect(200).body);
        assert_eq!(found.attempt, 1, "its first end is lost");
    }
}
