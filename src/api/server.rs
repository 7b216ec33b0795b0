//! Listeners and their connections.

use super::answer::log_lines;
use super::body::Ends;
use super::handle::{Handler, Upgrade};
use super::stream::Stream;
use super::{Api, Faces};
use crate::service::logs::LogEntries;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;
/// A head that is not there after so long ends its connection; so does one that nobody begins.
const HEAD_READ_MAX: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const HEAD_BYTES_MAX: usize = 40 << 10;
/// What a connection buffers in each direction, in bytes.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long to wait after a connection could not be accepted, at first and at most.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// A bound listener.
pub struct Listener {
    tcp: TcpListener,
    faces: Faces,
}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn bind(address: SocketAddr, faces: Faces) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A server that has just ended leaves connections behind, which would keep the address.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { tcp: socket.listen(BACKLOG)?, faces })
    }

    /// What it serves.
    pub fn faces(&self) -> Faces {
        self.faces
    }

    /// The address, with the port that the system chose if none was given.
    ///
    /// # Errors
    /// When the system has forgotten it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A server at work. Dropped, it stops at once.
pub struct Server {
    tasks: TaskTracker,
    /// Ends the accepting and, after the requests at hand, the connections.
    finish: CancellationToken,
    /// Ends all at once.
    stop: CancellationToken,
}

impl Server {
    /// Begins to answer, on at most `connections_max` connections of each listener at once; further ones wait to be
    /// accepted.
    pub fn start(api: Api, listeners: Vec<Listener>, connections_max: NonZeroUsize) -> Self {
        let server =
            Self { tasks: TaskTracker::new(), finish: CancellationToken::new(), stop: CancellationToken::new() };
        let api = Arc::new(api);
        for listener in listeners {
            // Each its own: strangers on the one must not shut the other.
            let places = Arc::new(Semaphore::new(connections_max.get().min(Semaphore::MAX_PERMITS)));
            let accepting = accept(Arc::clone(&api), listener, places, server.child());
            server.tasks.spawn(accepting);
        }
        server
    }

    /// Stops accepting, and waits until the requests at hand are answered, but not for ever.
    pub async fn finish(self, within: Duration) {
        self.finish.cancel();
        self.tasks.close();
        // What is not done by then is cut off by the drop.
        let _ = tokio::time::timeout(within, self.tasks.wait()).await;
    }

    fn child(&self) -> Tasks {
        Tasks { tasks: self.tasks.clone(), finish: self.finish.clone(), stop: self.stop.clone() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.finish.cancel();
        self.stop.cancel();
    }
}

/// What a task of the server needs to begin others and to end.
#[derive(Clone)]
struct Tasks {
    tasks: TaskTracker,
    finish: CancellationToken,
    stop: CancellationToken,
}

async fn accept(api: Arc<Api>, listener: Listener, places: Arc<Semaphore>, tasks: Tasks) {
    let accepting = async {
        let mut back_off = BACK_OFF[0];
        // Never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.tcp.accept().await {
                Ok((tcp, peer)) => {
                    back_off = BACK_OFF[0];
                    connected(&api, listener.faces, tcp, peer, place, &tasks);
                }
                // The peer was gone before we looked.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF[1]);
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = tasks.finish.cancelled() => {}
    }
}

fn connected(
    api: &Arc<Api>,
    faces: Faces,
    tcp: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    tasks: &Tasks,
) {
    // Without these a connection is only slower, or already gone.
    let _ = tcp.set_nodelay(true);
    let Ok(local) = tcp.local_addr() else { return };
    let stream = Stream::new(tcp);
    let (ends, deliveries) = (Ends { local, peer }, stream.deliveries().clone());
    let handler = Handler { api: Arc::clone(api), faces, ends, deliveries, upgrade: Upgrade::default() };
    let (finish, stop) = (tasks.finish.clone(), tasks.stop.clone());
    tasks.tasks.spawn(async move {
        let _place = place;
        tokio::select! {
            () = serve(handler, stream, finish) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn serve(handler: Handler, mut stream: Stream, finish: CancellationToken) {
    let upgrade = handler.upgrade.clone();
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.answer(request).await) }
    });
    let connection = http1::Builder::new()
        // Without a timer the timeout is silently off.
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(&mut stream), service);
    let ended = async {
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = finish.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection broke off");
    }
    // hyper has written the answer that says so, and leaves the rest to us.
    if let Some(entries) = upgrade.take() {
        send_raw(&mut stream, entries).await;
    }
    stream.close().await;
}

/// Sends a log as it is read, until it ends or the peer is gone. One that has said that it sends nothing more may still
/// listen: it is sent a blank line, which a peer that is gone refuses.
async fn send_raw(stream: &mut Stream, mut entries: LogEntries) {
    let (mut listens_only, mut ignored) = (false, [0; 256]);
    loop {
        let heard = async {
            if listens_only {
                return Err(stream.refused().await);
            }
            stream.read(&mut ignored).await
        };
        let lines = tokio::select! {
            portion = entries.recv() => match portion {
                Some(portion) => log_lines(&portion),
                None => return,
            },
            heard = heard => match heard {
                Ok(0) => {
                    listens_only = true;
                    log_lines(&[])
                }
                Ok(_) => continue,
                Err(_) => return,
            },
        };
        if stream.write_all(&lines).await.is_err() {
            return;
        }
    }
}
