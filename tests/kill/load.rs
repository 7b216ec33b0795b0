//! Clients that do all that a client can do with calls, until the server is gone.

use crate::changes::Changes;
use crate::dice::Dice;
use crate::harness::calls::{Tally, asynchronous, output, status};
use crate::harness::logs::route;
use crate::harness::{Connection, PATIENCE, Reply, Request, Server};
use crate::journal::{Checked, Journal, Reading};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::io::{BufReader, Read as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the kernel keeps for a reader that leaves half way: much less than a large result.
const RECEIVE_BUFFER: usize = 8 << 10;

/// What a client may do next.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Call,
    CallWithKey,
    CallSynchronously,
    Read(Reading),
    Wait,
    ReadHalf,
    Discard,
    ReadStderr,
    List,
    ReadLog,
    Change,
}

const DEEDS: [(usize, Deed); 12] = [
    (30, Deed::Call),
    (10, Deed::CallWithKey),
    (8, Deed::CallSynchronously),
    (18, Deed::Read(Reading::Whole)),
    (10, Deed::Read(Reading::Keeping)),
    (2, Deed::Wait),
    (4, Deed::ReadHalf),
    (2, Deed::Discard),
    (2, Deed::ReadStderr),
    (3, Deed::List),
    (1, Deed::ReadLog),
    (8, Deed::Change),
];

/// One client of one server.
pub struct Client<'a> {
    pub server: &'a Server,
    pub journal: &'a Mutex<Journal>,
    /// Set before the server is told to end, or killed: no connection is opened then, since somebody else may have its
    /// port before long.
    pub is_ending: &'a AtomicBool,
    /// Set when something is wrong.
    pub is_over: &'a AtomicBool,
    pub dice: Dice,
    pub connection: Option<Connection>,
}

/// The server is gone.
pub struct Gone;

/// What a request came to.
pub type Asked<T = ()> = Checked<Result<T, Gone>>;

impl Client<'_> {
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and tells the answer; none if the server is gone.
    pub fn ask(&mut self, request: &Request) -> Option<Reply> {
        if self.connection.is_none() && !self.is_ending.load(Ordering::SeqCst) {
            self.connection = Connection::try_open(self.server.functions);
        }
        let connection = self.connection.as_mut()?;
        connection.send(request);
        let reply = connection.try_reply();
        if reply.as_ref().is_none_or(|reply| reply.header("connection") == Some("close")) {
            self.connection = None;
        }
        reply
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.server.functions, method, target)
    }

    /// Goes on until the server is gone.
    ///
    /// # Errors
    /// What is wrong.
    pub fn run(mut self, mut changes: Option<&mut Changes>) -> Checked {
        while !self.is_over.load(Ordering::SeqCst) {
            let done = match self.dice.weighted(&DEEDS) {
                Deed::Call => self.call(false)?,
                Deed::CallWithKey => self.call(true)?,
                Deed::CallSynchronously => self.call_synchronously()?,
                Deed::Read(reading) => self.read(reading, "")?,
                Deed::Wait => self.read(Reading::Whole, "/wait")?,
                Deed::ReadHalf => self.read_half()?,
                Deed::Discard => self.discard()?,
                Deed::ReadStderr => self.read_stderr()?,
                Deed::List => self.list()?,
                Deed::ReadLog => self.read_log()?,
                Deed::Change => match &mut changes {
                    Some(changes) => changes.change(&mut self)?,
                    None => Ok(()),
                },
            };
            if done.is_err() {
                return if self.is_ending.load(Ordering::SeqCst) {
                    Ok(())
                } else {
                    Err(format!("the server has left by itself: {}", self.server.log()))
                };
            }
        }
        Ok(())
    }

    fn address(&self, function: usize) -> String {
        self.journal().functions[function].address.clone()
    }

    fn call(&mut self, with_key: bool) -> Asked {
        let (function, body, key, sent) = {
            let weights = [(8, 0), (1, 1), (6, 2), (2, 3), (2, 4), (1, 5), (2, 6), (2, 7)];
            let function = self.dice.weighted(&weights);
            let choice = self.dice.percent(35).then(|| self.dice.below(1 << 30));
            let mut journal = self.journal();
            if with_key {
                let (key, function, body) = journal.key(function, choice);
                (function, body, Some(key), journal.now())
            } else {
                (function, journal.body(), None, journal.now())
            }
        };
        let mut request = self.request("POST", asynchronous(&self.address(function))).body(body.as_bytes());
        if let Some(key) = key {
            request = request.header("Idempotency-Key", &format!("key-{key}"));
        }
        let answer = self.ask(&request);
        self.journal().called(function, &body, key, sent, answer.as_ref())?;
        Ok(answer.map(drop).ok_or(Gone))
    }

    fn call_synchronously(&mut self) -> Asked {
        let function = self.dice.weighted(&[(8, 0), (1, 1), (2, 3), (2, 4), (1, 5), (2, 6), (4, 7)]);
        let (body, version) = {
            let mut journal = self.journal();
            let body = journal.body();
            journal.calls_synchronously(&body);
            (body, journal.versions.0)
        };
        let request = self.request("POST", &self.address(function)).body(body.as_bytes());
        let Some(answer) = self.ask(&request) else { return Ok(Err(Gone)) };
        self.journal().called_synchronously(function, &body, version, &answer)?;
        Ok(Ok(()))
    }

    /// A call that nobody else reads, and where its output is.
    fn take(&mut self) -> Option<(usize, String)> {
        let choice = self.dice.below(1 << 30);
        let mut journal = self.journal();
        let call = journal.take(choice)?;
        let known = &journal.calls[call];
        Some((call, output(&journal.functions[known.function].address, &known.id)))
    }

    fn read(&mut self, reading: Reading, wait: &str) -> Asked {
        let Some((call, target)) = self.take() else { return Ok(Ok(())) };
        let keep = if reading == Reading::Keeping { "?keep=1" } else { "" };
        let answer = self.ask(&self.request("GET", &format!("{target}{wait}{keep}")));
        let mut journal = self.journal();
        journal.answered(call, reading, answer.as_ref())?;
        journal.put(call);
        Ok(answer.map(drop).ok_or(Gone))
    }

    /// Leaves while most of the result is still to come: it stays.
    fn read_half(&mut self) -> Asked {
        let Some((call, target)) = self.take() else { return Ok(Ok(())) };
        if !self.journal().is_large(call) || self.is_ending.load(Ordering::SeqCst) {
            self.journal().put(call);
            return Ok(Ok(()));
        }
        let status = half_of(self.server, &self.request("GET", &target), self.dice.percent(50));
        let mut journal = self.journal();
        journal.half_read(call, status.unwrap_or(0));
        journal.put(call);
        Ok(status.map(drop).ok_or(Gone))
    }

    fn discard(&mut self) -> Asked {
        let Some((call, target)) = self.take() else { return Ok(Ok(())) };
        self.journal().discards(call);
        let answer = self.ask(&self.request("DELETE", &target));
        let mut journal = self.journal();
        journal.discarded(call, answer.as_ref())?;
        journal.put(call);
        Ok(answer.map(drop).ok_or(Gone))
    }

    fn read_stderr(&mut self) -> Asked {
        let Some((call, target)) = self.take() else { return Ok(Ok(())) };
        let answer = self.ask(&self.request("GET", &format!("{target}/stderr")));
        self.journal().put(call);
        Ok(answer.map(drop).ok_or(Gone))
    }

    fn list(&mut self) -> Asked {
        let functions = self.journal().functions.len();
        let function = self.dice.below(functions);
        let list = if self.dice.percent(50) { "?list=1&limit=100" } else { "" };
        let answer = self.ask(&self.request("GET", &format!("{}{list}", status(&self.address(function)))));
        let Some(answer) = answer else { return Ok(Err(Gone)) };
        if answer.status == 200 {
            Tally::of(&answer.json());
        }
        Ok(Ok(()))
    }

    fn read_log(&mut self) -> Asked {
        let functions = self.journal().functions.len();
        let function = self.dice.below(functions);
        let answer = self.ask(&self.request("GET", &format!("{}?tail=20", route("logs", &self.address(function)))));
        let Some(answer) = answer else { return Ok(Err(Gone)) };
        let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
        match answer.text().lines().find(|line| answer.status == 200 && !is_json(line)) {
            Some(line) => Err(format!("a line of a log: {line}")),
            None => Ok(Ok(())),
        }
    }
}

/// Reads a little of an answer, and leaves with what has come unread, or resets; the status, if there was one.
fn half_of(server: &Server, request: &Request, resets: bool) -> Option<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER).ok()?;
    socket.connect(&server.functions.into()).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut connection = Connection { stream: BufReader::with_capacity(1 << 10, stream) };
    connection.send(request);
    let mut head = [0; "HTTP/1.1 200".len()];
    connection.stream.read_exact(&mut head).ok()?;
    let status = std::str::from_utf8(&head).ok()?.split(' ').nth(1)?.parse().ok()?;
    if resets {
        let socket = Socket::from(connection.stream.into_inner());
        socket.set_linger(Some(Duration::ZERO)).ok()?;
    }
    Some(status)
}
