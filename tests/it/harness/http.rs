//! A blocking HTTP/1.1 client that shows what really went over the wire.

use super::PATIENCE;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A request on its way to one address.
pub struct Request {
    to: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(to: SocketAddr, method: &str, target: &str) -> Self {
        Self { to, method: method.into(), target: target.into(), headers: vec![], body: vec![] }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    pub fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json").body(value.to_string())
    }

    /// The request as it goes over the wire.
    fn bytes(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !has("host") {
            head += &format!("Host: {}\r\n", self.to);
        }
        if !has("content-length") && !has("transfer-encoding") && (!self.body.is_empty() || self.method != "GET") {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it over a connection of its own, and reads the answer.
    pub fn send(&self) -> Reply {
        let mut connection = Connection::open(self.to);
        connection.send(self);
        connection.reply()
    }
}

/// One connection, kept alive as long as both sides like.
pub struct Connection {
    pub stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(to: SocketAddr) -> Self {
        Self::try_open(to).expect("a server")
    }

    /// Opens a connection; `None` if nobody listens.
    pub fn try_open(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Some(Self { stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, request: &Request) {
        self.write(&request.bytes());
    }

    /// Writes bytes as they are. A peer that has closed its end may refuse some: its answer says why.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the next answer.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("an answer")
    }

    /// Reads the next answer; `None` if the connection ends instead.
    pub fn try_reply(&mut self) -> Option<Reply> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = self.line()?.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if status == 100 {
            return Some(Reply { status, headers, body: Vec::new() });
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk).ok()?;
                reply.body.extend(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut reply.body).ok()?;
        }
        Some(reply)
    }

    /// Whether the peer has closed the connection, or does so before long.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0)) || self.stream.get_ref().peek(&mut [0]).is_err()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// This, if it has that status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}
