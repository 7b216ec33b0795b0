//! A client of the API: the only place of the command line that knows HTTP.

mod connection;

pub(super) use connection::{Answer, Connection, Repeated};

use super::exit::{self, SERVER_ERROR};
use super::output;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// What stays as it is in a path or a query: RFC 3986's unreserved characters.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How much of a body is handed over at once, in bytes.
const STEP_BYTES: usize = 64 << 10;
/// The longest error message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The longest line of an answer that is read by lines, in bytes: far more than any that the server writes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is taken in whole, in bytes: more than any output or list.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// `http://HOST[:PORT]`, and perhaps a path that all others come behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUrl {
    /// `host:port`, as it goes into `Host`.
    authority: String,
    /// Without a slash at its end.
    path: String,
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url.starts_with("https://") {
            return Err("this version speaks http only".to_owned());
        }
        let uri: hyper::Uri = url.parse().map_err(|e| format!("{e}"))?;
        match (uri.scheme_str(), uri.authority()) {
            // It would be shown with every error.
            (_, Some(authority)) if authority.as_str().contains('@') => {
                Err("must not hold a user name or a password".to_owned())
            }
            (Some("http"), Some(authority)) if uri.query().is_none() => {
                Ok(Self { authority: authority.to_string(), path: uri.path().trim_end_matches('/').to_owned() })
            }
            _ => Err("must be a URL like http://127.0.0.1:8080".to_owned()),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl ServerUrl {
    /// A listener as this machine reaches it.
    fn on_this_machine(mut listen: SocketAddr) -> Self {
        if listen.ip().is_unspecified() {
            listen.set_ip(if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        Self { authority: listen.to_string(), path: String::new() }
    }

    pub(super) fn client(self) -> Client {
        Client { server: self }
    }
}

/// What a call is known by to whoever makes it: sent again, it stands for the same call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdempotencyKey(HeaderValue);

impl FromStr for IdempotencyKey {
    type Err = &'static str;

    fn from_str(key: &str) -> Result<Self, &'static str> {
        match HeaderValue::from_str(key) {
            // That of a variable which is not set: nothing would be sent twice safely.
            Ok(_) if key.trim().is_empty() => Err("must not be empty"),
            Ok(key) => Ok(Self(key)),
            Err(_) => Err("must not contain control characters"),
        }
    }
}

/// What a server says that refuses, or whose call has failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    /// That which an error tells of, if it is one.
    pub(super) fn of(error: &anyhow::Error) -> Option<&Self> {
        error.downcast_ref()
    }

    /// Whether there is no image of the name that was given, for itself or as a function's.
    pub(super) fn lacks_image(&self) -> bool {
        self.message.trim_start_matches("Config.Image: ").starts_with("no such image: ")
    }
}

/// What is said of an answer that is not what it should be.
pub(super) fn no_sense(why: impl fmt::Display) -> anyhow::Error {
    exit::with(SERVER_ERROR, format_args!("the server's answer makes no sense; is it a hyperfunc server? ({why})"))
}

fn broke_off(why: impl fmt::Display) -> anyhow::Error {
    exit::with(SERVER_ERROR, format_args!("the answer broke off: {why}"))
}

/// Where functions are called.
pub(super) struct FuncEndpoint {
    /// By everybody: what their addresses begin with.
    pub(super) public: String,
    /// By whoever is on the server's machine.
    pub(super) near: ServerUrl,
}

/// Asks one server.
pub(super) struct Client {
    server: ServerUrl,
}

/// The beginning of an answer. Its connection ends with it.
pub(super) struct Reply {
    response: Response<Incoming>,
    /// The beginning of a line whose end has not come yet.
    line: BytesMut,
    _connection: AbortOnDropHandle<()>,
}

impl Client {
    /// The server that is asked.
    pub(super) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Asks without a body.
    ///
    /// # Errors
    /// When there is no server, or it refuses: then a [`Refusal`], with the words that it has for that.
    pub(super) async fn ask(&self, target: &str) -> anyhow::Result<Reply> {
        self.send(Request::builder(), target, Sending::of(Bytes::new())).await
    }

    /// Asks to remove something.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) async fn delete(&self, target: &str) -> anyhow::Result<Reply> {
        let sent = self.send(Request::builder().method(Method::DELETE), target, Sending::of(Bytes::new())).await;
        sent.map_err(|error| match error.downcast::<Refusal>() {
            // What a query says there, a flag says here.
            Ok(refusal) => Refusal { message: refusal.message.replace("force=1", "-f"), ..refusal }.into(),
            Err(error) => error,
        })
    }

    /// Sends a module; `on_sent` is told how much of it is on its way, in bytes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) async fn load(
        &self,
        target: &str,
        module: Bytes,
        on_sent: impl FnMut(usize) + Send + 'static,
    ) -> anyhow::Result<Reply> {
        let wasm = HeaderValue::from_static("application/wasm");
        let request = Request::builder().method(Method::POST).header(CONTENT_TYPE, wasm);
        self.send(request, target, Sending { rest: module, on_sent: Box::new(on_sent) }).await
    }

    /// Asks with a value in JSON.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) async fn post_json(&self, target: &str, value: &impl Serialize) -> anyhow::Result<Reply> {
        self.send_json(Method::POST, target, value).await
    }

    /// Asks to change something, with a value in JSON.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) async fn put_json(&self, target: &str, value: &impl Serialize) -> anyhow::Result<Reply> {
        self.send_json(Method::PUT, target, value).await
    }

    async fn send_json(&self, method: Method, target: &str, value: &impl Serialize) -> anyhow::Result<Reply> {
        let json = HeaderValue::from_static("application/json");
        let request = Request::builder().method(method).header(CONTENT_TYPE, json);
        self.send(request, target, Sending::of(serde_json::to_vec(value)?.into())).await
    }

    /// Calls a function with what it gets on stdin.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) async fn call(
        &self,
        target: &str,
        stdin: Bytes,
        idempotency_key: Option<IdempotencyKey>,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::builder()
            .method(Method::POST)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(IdempotencyKey(key)) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request, target, Sending::of(stdin)).await
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// As [`Client::ask`], or when the answer is not what it should be.
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> anyhow::Result<T> {
        self.ask(target).await?.json().await
    }

    /// Where functions are called.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn func_endpoint(&self) -> anyhow::Result<FuncEndpoint> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Info {
            func_endpoint: Option<String>,
            func_listen: Option<SocketAddr>,
        }
        let Info { func_endpoint, func_listen } = self.get("/info").await?;
        let near = func_listen.map_or_else(|| self.server.clone(), ServerUrl::on_this_machine);
        Ok(FuncEndpoint { public: func_endpoint.unwrap_or_else(|| near.to_string()), near })
    }

    async fn send(&self, request: hyper::http::request::Builder, target: &str, body: Sending) -> anyhow::Result<Reply> {
        let ServerUrl { authority, path } = &self.server;
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(with_port(authority))).await;
        let tcp = connecting.unwrap_or_else(|late| Err(late.into())).map_err(|e| self.nobody(&e))?;
        // Without it a connection is only slower.
        let _ = tcp.set_nodelay(true);
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(|e| self.no_answer(&e))?;
        // How it ends, the answer tells.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let request = request.uri(format!("{path}{target}")).header(HOST, authority).body(body)?;
        let response = sender.send_request(request).await.map_err(|e| self.no_answer(&e))?;
        Reply { response, line: BytesMut::new(), _connection: connection }.checked(&self.server).await
    }

    fn nobody(&self, why: &std::io::Error) -> anyhow::Error {
        let is_it = "is `hyperfunc serve` running? (--server names another)";
        exit::with(SERVER_ERROR, format_args!("no server answers at {}: {is_it}: {why}", self.server))
    }

    fn no_answer(&self, why: &hyper::Error) -> anyhow::Error {
        let what = if why.is_parse() { "does not speak HTTP" } else { "ended the connection without an answer" };
        exit::with(SERVER_ERROR, format_args!("whoever listens at {} {what} ({why})", self.server))
    }
}

impl Reply {
    /// This, if it is a success.
    async fn checked(self, server: &ServerUrl) -> anyhow::Result<Self> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        // A page is for a browser: a proxy says it, or somebody else's server.
        let media_type = self.response.headers().get(CONTENT_TYPE);
        let is_page = media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"text/html"));
        let limited = http_body_util::Limited::new(self.response.into_body(), MESSAGE_BYTES_MAX);
        let message = limited.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let message = output::one_line(&String::from_utf8_lossy(&message));
        if is_page || message.is_empty() || message == "no such route" {
            let what = "the answer is not that of a hyperfunc server of this version";
            return Err(exit::with(SERVER_ERROR, format_args!("{what}: {status} at {server}")));
        }
        Err(Refusal { status: status.as_u16(), message }.into())
    }

    /// Which success it is: 200, or another that begins with a 2.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it breaks off.
    pub(super) async fn bytes(self) -> anyhow::Result<Bytes> {
        let limited = http_body_util::Limited::new(self.response.into_body(), ANSWER_BYTES_MAX);
        let body = limited.collect().await.map_err(broke_off)?;
        Ok(body.to_bytes())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it breaks off, or is not what it should be.
    pub(super) async fn json<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.bytes().await?).map_err(no_sense)
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub(super) async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.response.frame().await {
            if let Ok(data) = frame.map_err(broke_off)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The next whole lines of the body, as many as came together; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off, or a line does not end.
    pub(super) async fn lines(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(piece) = self.piece().await? {
            let whole = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let (ended, begun) = piece.split_at(whole);
            self.line.extend_from_slice(ended);
            let lines = if whole > 0 { self.line.split().freeze() } else { Bytes::new() };
            self.line.extend_from_slice(begun);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(no_sense("a line does not end"));
            }
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
        // The last may lack its end.
        let last = self.line.split().freeze();
        Ok(if last.is_empty() { None } else { Some(last) })
    }
}

/// A body that tells how far it is.
struct Sending {
    rest: Bytes,
    on_sent: Box<dyn FnMut(usize) + Send>,
}

impl Sending {
    fn of(body: Bytes) -> Self {
        Self { rest: body, on_sent: Box::new(|_| {}) }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let step = self.rest.len().min(STEP_BYTES);
        (self.on_sent)(step);
        let piece = self.rest.split_to(step);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A name with slashes as the segments of a path.
pub(super) fn escaped_path(name: &str) -> String {
    name.split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// What is connected to: `http` has a port of its own.
fn with_port(authority: &str) -> String {
    let named = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
    if named { authority.to_owned() } else { format!("{authority}:80") }
}

/// A text as one segment of a path or one value of a query.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        for (url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://localhost:1/", "http://localhost:1"),
            ("http://[::1]/a/", "http://[::1]/a"),
        ] {
            assert_eq!(url.parse::<ServerUrl>().unwrap().to_string(), shown);
        }
        for bad in ["", "127.0.0.1:8080", "https://x", "ftp://x", "http://", "http://x?y", "http://a:b@x"] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_sent_or_says_nothing_is_refused() {
        assert!("order 4711".parse::<IdempotencyKey>().is_ok());
        for bad in ["", " ", "a\nb", "a\0"] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_escaped_for_a_path() {
        assert_eq!(escaped("a-b.c_d~e/f:g h"), "a-b.c_d~e%2Ff%3Ag%20h");
        assert_eq!(escaped_path("a/b:c d"), "a/b%3Ac%20d");
    }
}
