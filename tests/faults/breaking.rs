//! Servers that break at a place.

use crate::harness::calls::Tally;
use crate::harness::guests::{self, Stamped};
use crate::harness::{Connection, Reply, Request, Server, binary, program};
use serde_json::json;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use tempfile::TempDir;

/// How a server breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As by `kill -9`.
    Abort,
    /// A bad disk.
    Error,
    /// A bug of ours.
    Panic,
}

use How::{Abort, Error, Panic};

impl How {
    /// Where a step can fail.
    pub const ALL: [Self; 3] = [Abort, Error, Panic];
    /// Where none can.
    pub const HARD: [Self; 2] = [Abort, Panic];
}

/// A place, how often it is passed before it breaks, and how it does.
#[derive(Debug, Clone, Copy)]
pub struct Break(pub &'static str, pub u32, pub How);

impl Break {
    fn failpoints(self) -> String {
        let Self(place, passes, how) = self;
        let action = match how {
            Abort => "return(abort)",
            Error => "return(error)",
            Panic => "panic",
        };
        match passes {
            0 => format!("{place}={action}"),
            _ => format!("{place}={passes}*off->{action}"),
        }
    }

    /// The program, to break there.
    pub fn binary(self) -> Command {
        armed(&self.failpoints())
    }

    /// Checks that a server has ended as it must: at once, or saying why.
    #[track_caller]
    fn check(self, status: ExitStatus, log: &str) {
        let Self(place, _, how) = self;
        match how {
            Abort => assert_eq!(status.signal(), Some(6), "{self:?}: {status} {log}"),
            Error => {
                assert!(log.contains(&format!("injected at {place}")), "{self:?}: {log}");
                assert_eq!(status.code(), Some(1), "{self:?}: {log}");
            }
            Panic => {
                assert!(log.contains(&format!("failpoint {place} panic")), "{self:?}: {log}");
                // In the thread that starts the server, it is the program's.
                assert!(matches!(status.code(), Some(1 | 101)), "{self:?}: {status} {log}");
            }
        }
    }
}

/// The program, with these failpoints.
pub fn armed(failpoints: &str) -> Command {
    let mut binary = binary();
    // A backtrace takes longer than a drain waits.
    binary.env("FAILPOINTS", failpoints).env("RUST_BACKTRACE", "0");
    binary
}

/// Each place with each way to break there, after as many passes.
pub fn breaks(places: &[(&'static str, u32)], hows: &[How]) -> Vec<Break> {
    places.iter().flat_map(|(place, passes)| hows.iter().map(|how| Break(place, *passes, *how))).collect()
}

/// A data directory that servers come to and leave.
pub struct Data {
    dir: TempDir,
    arguments: Vec<&'static str>,
}

impl Data {
    /// For servers that run one call at a time.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same, with further arguments.
    pub fn with(arguments: &[&'static str]) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), arguments: [&["--max-running", "1"], arguments].concat() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The names of the files in one of its directories.
    pub fn files(&self, dir: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.path().join(dir)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A server that works.
    pub fn sound(&self) -> Server {
        Server::on(&self.path(), &self.arguments)
    }

    /// A server that breaks at a place, once it gets there.
    #[track_caller]
    pub fn broken(&self, at: Break) -> Server {
        self.armed(&at.failpoints())
    }

    /// A server with these failpoints.
    #[track_caller]
    pub fn armed(&self, failpoints: &str) -> Server {
        Server::try_as(armed(failpoints), &self.path(), &self.arguments).unwrap_or_else(|log| panic!("{log}"))
    }

    /// Starts a server that breaks by itself, and waits until it has.
    #[track_caller]
    pub fn breaks(&self, at: Break) {
        let mut server = at.binary();
        server.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(self.path()).args(&self.arguments);
        let server = server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = program::ended(server);
        at.check(ended.status, &String::from_utf8_lossy(&ended.stderr));
    }
}

/// Waits until a server has broken.
#[track_caller]
pub fn assert_broken(mut server: Server, at: Break) {
    let status = server.ended();
    at.check(status, &server.log());
    if at.2 != Abort {
        let log = server.log();
        let reason = log.lines().find(|line| line.contains("stopped: what is stored cannot be trusted any more: "));
        assert!(reason.is_some_and(|reason| !reason.ends_with(": ")), "{at:?}: {log}");
    }
}

/// Asks; `None` if the server is gone before it answers.
pub fn ask(to: SocketAddr, request: &Request) -> Option<Reply> {
    let mut connection = Connection::try_open(to)?;
    connection.send(request);
    connection.try_reply()
}

/// Calls that were accepted by a server that was killed then: the first one ran, the others waited behind it.
pub struct Accepted {
    pub data: Data,
    /// Where the one that ran is called, and its id. It ends at the start with the number that was asked for.
    pub first: (String, String),
    /// Where those that waited are called, and their ids.
    pub target: String,
    pub waiting: Vec<String>,
}

impl Accepted {
    /// So many calls wait. They sleep a little, and say when they ran.
    pub fn new(data: Data, first_ends_at: u8, waiting: usize) -> Self {
        let server = data.sound();
        let first = server.function("first", &guests::sleeps_before_attempt(first_ends_at), json!({}));
        let target = server.function("target", &guests::stamps(20_000_000), json!({}));
        let call = server.enqueue(&first, "");
        server.wait_for_tally(&first, Tally { running: 1, ..Tally::default() });
        let waiting = (0..waiting).map(|number| server.enqueue(&target, &number.to_string())).collect();
        drop(server);
        Self { data, first: (first, call), target, waiting }
    }

    /// Checks that on a sound server all of them end, and in their order; returns the number of the start that ended the
    /// first, and those of the others.
    #[track_caller]
    pub fn attempts(&self, server: &Server) -> (u8, Vec<u8>) {
        let (target, call) = &self.first;
        let first = server.wait(target, call).expect(200).text().parse().unwrap();
        let mut last = 0;
        let attempts = self.waiting.iter().enumerate().map(|(number, call)| {
            let found = Stamped::of(&server.wait(&self.target, call).expect(200).body);
            assert_eq!(found.body, number.to_string());
            assert!(found.at > last, "{number} ran too early");
            last = found.at;
            found.attempt
        });
        let attempts = attempts.collect();
        for target in [target, &self.target] {
            server.wait_for_tally(target, Tally::default());
        }
        (first, attempts)
    }
}
