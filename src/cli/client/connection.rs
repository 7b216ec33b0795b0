//! A connection that is kept from request to request: what a load is made with.

use super::{Client, MESSAGE_BYTES_MAX, with_port};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A request that is made again and again.
#[derive(Clone)]
pub(in crate::cli) struct Repeated {
    /// `host:port`, to connect to.
    address: String,
    parts: Parts,
    body: Bytes,
    /// How long an answer is waited for.
    patience: Duration,
}

/// An answer, of which all has come.
pub(in crate::cli) struct Answer {
    pub(in crate::cli) status: u16,
    /// What the status is called, if it has a name.
    pub(in crate::cli) reason: &'static str,
    /// How long its body was.
    pub(in crate::cli) body_bytes: u64,
    /// The beginning of the body of one that is no success.
    pub(in crate::cli) message: Vec<u8>,
    server_timing: Option<HeaderValue>,
}

/// Why there is no answer, in words that many such failures have in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Broken(String);

/// A connection to one server, opened when it is needed, and again when the server has closed it.
pub(in crate::cli) struct Connection {
    request: Arc<Repeated>,
    open: Option<Open>,
}

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Driven beside each exchange, in the same task: a task of its own would have to be woken twice for each.
    driver: Option<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>,
}

/// An exchange that has failed.
enum Failed {
    /// The connection was closed before anything was sent.
    NotSent(Box<Request<Full<Bytes>>>, Broken),
    Broken(Broken),
}

impl Repeated {
    /// A request to a URL: GET, or POST if it has a body.
    ///
    /// # Errors
    /// Why it is not a URL that we speak to.
    pub(in crate::cli) fn to_url(url: &str, body: Option<Bytes>, patience: Duration) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("{url}: must be a URL like http://127.0.0.1:8080/path: this version speaks http only"));
        };
        // Without the URL: it would show them.
        if authority.as_str().contains('@') {
            return Err("the URL must not hold a user name or a password".to_owned());
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let method = if body.is_some() { Method::POST } else { Method::GET };
        Self::new(authority.as_str(), method, target, body.unwrap_or_default(), patience)
            .map_err(|e| format!("{url}: {e}"))
    }

    fn new(
        authority: &str,
        method: Method,
        target: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Self, hyper::http::Error> {
        let mut request = Request::builder().method(&method).uri(target).header(HOST, authority);
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        }
        let (parts, ()) = request.body(())?.into_parts();
        Ok(Self { address: with_port(authority), parts, body, patience })
    }

    /// What each brings, in bytes.
    pub(in crate::cli) fn body_bytes(&self) -> u64 {
        self.body.len() as u64
    }

    fn once(&self) -> Request<Full<Bytes>> {
        Request::from_parts(self.parts.clone(), Full::new(self.body.clone()))
    }

    /// # Errors
    /// When nobody listens there.
    pub(in crate::cli) async fn connect(&self) -> Result<(), Broken> {
        self.in_time(Open::to(&self.address)).await.map(drop)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
        let too_late = |_| Err(Broken(format!("no answer within {} s", self.patience.as_secs())));
        tokio::time::timeout(self.patience, work).await.unwrap_or_else(too_late)
    }
}

impl Client {
    /// A call that is made again and again.
    ///
    /// # Errors
    /// When the server's URL cannot be asked.
    pub(in crate::cli) fn repeated_call(
        &self,
        target: &str,
        stdin: Bytes,
        patience: Duration,
    ) -> anyhow::Result<Repeated> {
        let target = format!("{}{target}", self.server.path);
        Ok(Repeated::new(&self.server.authority, Method::POST, &target, stdin, patience)?)
    }
}

impl Connection {
    /// One that is not open yet.
    pub(in crate::cli) fn new(request: Arc<Repeated>) -> Self {
        Self { request, open: None }
    }

    /// Makes the request once.
    ///
    /// # Errors
    /// When no whole answer came.
    pub(in crate::cli) async fn exchange(&mut self) -> Result<Answer, Broken> {
        // Left closed when this is dropped, or fails: what comes next on it would be the answer to this.
        let kept = self.open.take();
        let (open, answer) = self.request.in_time(self.request.exchange_on(kept)).await?;
        self.open = Some(open);
        Ok(answer)
    }
}

impl Repeated {
    /// Makes the request on a connection that was kept, or else on a new one.
    async fn exchange_on(&self, kept: Option<Open>) -> Result<(Open, Answer), Broken> {
        let mut request = self.once();
        if let Some(mut open) = kept {
            match open.exchange(request).await {
                Ok(answer) => return Ok((open, answer)),
                // The server has closed it meanwhile, as it may.
                Err(Failed::NotSent(again, _)) => request = *again,
                Err(Failed::Broken(broken)) => return Err(broken),
            }
        }
        let mut open = Open::to(&self.address).await?;
        match open.exchange(request).await {
            Ok(answer) => Ok((open, answer)),
            Err(Failed::NotSent(_, broken) | Failed::Broken(broken)) => Err(broken),
        }
    }
}

impl Open {
    async fn to(address: &str) -> Result<Self, Broken> {
        let tcp = TcpStream::connect(address).await?;
        // Without it a connection is only slower.
        let _ = tcp.set_nodelay(true);
        let (sender, driver) = http1::handshake(TokioIo::new(tcp)).await?;
        Ok(Self { sender, driver: Some(driver) })
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failed> {
        let Self { sender, driver } = self;
        let mut exchange = pin!(async {
            if let Err(e) = sender.ready().await {
                return Err(Failed::NotSent(Box::new(request), e.into()));
            }
            let response = sender.try_send_request(request).await.map_err(|mut e| match e.take_message() {
                Some(request) => Failed::NotSent(Box::new(request), e.into_error().into()),
                None => Failed::Broken(e.into_error().into()),
            })?;
            let status = response.status();
            let server_timing = response.headers().get(SERVER_TIMING).cloned();
            let mut body = response.into_body();
            let (mut body_bytes, mut message) = (0, Vec::new());
            while let Some(frame) = body.frame().await {
                let Ok(piece) = frame.map_err(|e| Failed::Broken(e.into()))?.into_data() else { continue };
                body_bytes += piece.len() as u64;
                if !status.is_success() {
                    message.extend_from_slice(&piece[..piece.len().min(MESSAGE_BYTES_MAX - message.len())]);
                }
            }
            let reason = status.canonical_reason().unwrap_or_default();
            Ok(Answer { status: status.as_u16(), reason, body_bytes, message, server_timing })
        });
        poll_fn(|context| {
            // Each hands something to the other: that it is ready, the request, the answer.
            for _ in 0..2 {
                if driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(context).is_ready()) {
                    // How it ended the exchange is told, at the latest by this.
                    *driver = None;
                }
                let exchanged = exchange.as_mut().poll(context);
                if exchanged.is_ready() {
                    return exchanged;
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Answer {
    /// `Server-Timing`, if it was said.
    pub(in crate::cli) fn server_timing(&self) -> Option<&str> {
        self.server_timing.as_ref()?.to_str().ok()
    }
}

impl Broken {
    fn of_io(error: &io::Error) -> Self {
        // Two kinds say nothing.
        match error.kind().to_string().as_str() {
            "other error" | "uncategorized error" => Self(error.to_string()),
            kind => Self(kind.to_owned()),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::of_io(&error)
    }
}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return Self::of_io(io);
            }
            cause = inner.source();
        }
        Self(error.to_string())
    }
}
