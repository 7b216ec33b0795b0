//! Logs of functions: read as they are, or followed while they grow.

use super::calls::output;
use super::{Connection, Reply, Request, Server};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Where the function that is called at `address` has its log, its outputs, and so on.
pub fn route(route: &str, address: &str) -> String {
    address.replacen("/call/", &format!("/{route}/"), 1).trim_end_matches("/sync").to_owned()
}

/// Waits until an asynchronous call has ended, and leaves its result.
#[track_caller]
pub fn ended(server: &Server, address: &str, call_id: &str) -> Reply {
    let output = format!("{}/wait?keep=1", output(address, call_id));
    Request::new(server.functions, "GET", &output).send()
}

/// The lines of a log, each read as JSON; `query` is what comes behind `?`.
#[track_caller]
pub fn read(server: &Server, address: &str, query: &str) -> Vec<Value> {
    let log = Request::new(server.functions, "GET", &format!("{}?{query}", route("logs", address)));
    lines(log.send().expect(200).text())
}

/// Each line as JSON.
#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// What happened, in order.
pub fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["Event"].as_str().unwrap()).collect()
}

/// How a log comes over its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// As a chunked body.
    Http,
    /// As it is, behind `101 UPGRADED`.
    Raw,
}

/// A log that is followed by a thread of its own; dropped, its connection is closed.
pub struct Follower {
    /// What came before the first line.
    pub head: String,
    stream: TcpStream,
    lines: Arc<Mutex<Vec<String>>>,
    has_ended: Arc<AtomicBool>,
}

impl Follower {
    /// Asks for a log with a query, and returns when the head of the answer is there.
    #[track_caller]
    pub fn start(server: &Server, address: &str, query: &str, wire: Wire) -> Self {
        let mut stream = BufReader::new(asks(server.functions, address, query, wire));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "no answer: {head}");
        }
        assert_eq!(head.contains("\r\ntransfer-encoding: chunked\r\n"), wire == Wire::Http, "{head}");
        let follower = Self {
            head,
            stream: stream.get_ref().try_clone().unwrap(),
            lines: Arc::default(),
            has_ended: Arc::default(),
        };
        let (lines, has_ended) = (Arc::clone(&follower.lines), Arc::clone(&follower.has_ended));
        let body: Box<dyn Read + Send> = match wire {
            Wire::Raw => Box::new(stream),
            Wire::Http => Box::new(Chunked { stream, left: 0 }),
        };
        std::thread::spawn(move || {
            for line in BufReader::new(body).lines() {
                match line {
                    // It shows that the connection lives.
                    Ok(line) if line.is_empty() => {}
                    Ok(line) => lines.lock().unwrap().push(line),
                    // Broken off: not an end.
                    Err(_) => return,
                }
            }
            has_ended.store(true, Ordering::Release);
        });
        follower
    }

    /// What has come so far.
    #[track_caller]
    pub fn seen(&self) -> Vec<Value> {
        lines(&self.lines.lock().unwrap().join("\n"))
    }

    /// How many lines have come so far.
    pub fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Whether the log has come to its end, as its wire says that.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The peer may have closed it.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Sends the request for a log.
fn asks(to: SocketAddr, address: &str, query: &str, wire: Wire) -> TcpStream {
    let mut connection = Connection::open(to);
    connection.write(request(address, query, wire).as_bytes());
    connection.stream.into_inner()
}

/// The request for a log.
pub fn request(address: &str, query: &str, wire: Wire) -> String {
    let upgrade = match wire {
        Wire::Http => "",
        Wire::Raw => "Connection: Upgrade\r\nUpgrade: tcp\r\n",
    };
    format!("GET {}?{query} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n", route("logs", address))
}

/// A chunked body, up to its last chunk.
struct Chunked<R> {
    stream: R,
    left: usize,
}

impl<R: BufRead> Chunked<R> {
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            self.left = usize::from_str_radix(&self.line()?, 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = self.left.min(bytes.len());
        let read = self.stream.read(&mut bytes[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        if self.left == 0 {
            self.line()?;
        }
        Ok(read)
    }
}
