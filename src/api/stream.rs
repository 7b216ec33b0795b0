//! A TCP connection that cannot be held up for ever by a peer that does not read, and that knows what has arrived there.

use super::delivery::Deliveries;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A peer that takes nothing for so long is given up.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How long the peer may go on sending what nobody reads, after all was said.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How much of that is taken in.
const LINGER_BYTES_MAX: usize = 4 << 20;
/// How long to wait before the peer's acknowledgement is looked for again, at first and at most: no event tells of it.
const LOOK_AGAIN_AFTER: [Duration; 2] = [Duration::from_micros(500), Duration::from_millis(50)];

/// See the module.
pub(super) struct Stream {
    tcp: TcpStream,
    /// When the write that waits is given up.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes that were ever written, and whether the end was.
    written: u64,
    finished: bool,
    deliveries: Deliveries,
    /// When to look for acknowledgements, and how long to wait then.
    look: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, deadline: None, written: 0, finished: false, deliveries: Deliveries::default(), look: None }
    }

    /// What is on its way to the peer.
    pub(super) fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    /// Says that nothing more will come, and takes in what the peer still sends: closing over it would reset the
    /// connection, and the peer might lose the answer that says why nobody reads. A peer that somebody wants to know
    /// about may take longer, as long as it goes on reading.
    pub(super) async fn close(mut self) {
        self.deliveries.give_up_begun();
        // A peer that is gone has no use for it.
        let _ = self.shutdown().await;
        let mut linger = pin!(sleep(LINGER_MAX));
        let (mut lingers, mut taken, mut bytes) = (true, 0, vec![0; 8 << 10]);
        let (mut wait, mut left, mut stalled) = (LOOK_AGAIN_AFTER[0], u64::MAX, Duration::ZERO);
        while (!self.is_all_known() && stalled < WRITE_STALL_MAX) || lingers {
            tokio::select! {
                read = self.tcp.read(&mut bytes), if lingers => match read {
                    Ok(read) => {
                        taken += read;
                        lingers = read > 0 && taken < LINGER_BYTES_MAX;
                    }
                    // A connection that was reset moves no more.
                    Err(_) => break,
                },
                () = linger.as_mut(), if lingers => lingers = false,
                () = sleep(wait), if !self.deliveries.is_empty() => {
                    // It may have been seen before, and is told only once: but it has no peer any more.
                    if self.tcp.peer_addr().is_err() {
                        break;
                    }
                    let unread = self.unacknowledged();
                    stalled = if unread < left { Duration::ZERO } else { stalled + wait };
                    left = left.min(unread);
                    wait = (wait * 2).min(LOOK_AGAIN_AFTER[1]);
                }
            }
        }
        // What came last may have acknowledged the rest.
        self.is_all_known();
    }

    /// Ready once the peer has refused what it was sent: it is gone, and does not only listen.
    pub(super) async fn refused(&self) -> io::Error {
        let refused = self.tcp.ready(Interest::ERROR).await;
        refused.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Looks at what the peer has acknowledged; whether everybody knows then who wants to.
    fn is_all_known(&self) -> bool {
        if self.deliveries.is_empty() {
            return true;
        }
        self.deliveries.acknowledged(self.written.saturating_sub(self.unacknowledged()));
        self.deliveries.is_empty()
    }

    /// How many bytes that were written the peer has not acknowledged; after a reset, those that it never will.
    fn unacknowledged(&self) -> u64 {
        // The end itself is counted like a byte, and acknowledged last.
        unacknowledged(&self.tcp).saturating_sub(u64::from(self.finished))
    }

    /// Looks for acknowledgements when it is time, and sees to it that it is time again.
    fn look(&mut self, context: &mut Context<'_>) {
        if self.is_all_known() {
            self.look = None;
            return;
        }
        let first = LOOK_AGAIN_AFTER[0];
        let (timer, wait) = self.look.get_or_insert_with(|| (Box::pin(sleep(first)), first));
        while timer.as_mut().poll(context).is_ready() {
            *wait = (*wait * 2).min(LOOK_AGAIN_AFTER[1]);
            let next = timer.deadline() + *wait;
            timer.as_mut().reset(next);
        }
    }

    /// Writes so many bytes, all that there is now.
    fn send(
        &mut self,
        bytes: usize,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let watched = !self.deliveries.is_empty();
        if watched {
            self.deliveries.writing();
        }
        let written = write(Pin::new(&mut self.tcp), context);
        if watched && !matches!(written, Poll::Ready(Ok(written)) if written == bytes) {
            self.deliveries.has_more_to_write();
        }
        self.bounded(written, context)
    }

    fn bounded(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            self.deadline = None;
            self.written += result.as_ref().map_or(0, |bytes| *bytes as u64);
            return Poll::Ready(result);
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_MAX)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.deliveries.give_up();
    }
}

/// What the system says of it, in bytes.
#[cfg(target_os = "linux")]
fn unacknowledged(tcp: &TcpStream) -> u64 {
    const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    // SAFETY: SIOCOUTQ writes one int, which is what the getter has room for, and touches nothing else.
    let bytes = unsafe { rustix::ioctl::ioctl(tcp.as_fd(), rustix::ioctl::Getter::<SIOCOUTQ, i32>::new()) };
    // Without an answer nothing is known to have arrived.
    bytes.map_or(u64::MAX, |bytes| u64::from(bytes.unsigned_abs()))
}

/// Only Linux tells; elsewhere what was flushed counts as arrived.
#[cfg(not(target_os = "linux"))]
fn unacknowledged(_: &TcpStream) -> u64 {
    0
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(context, buffer);
        // Behind the read: what comes acknowledges what was sent before it.
        self.look(context);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.send(bytes.len(), context, |tcp, context| tcp.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        self.send(bytes, context, |tcp, context| tcp.poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.tcp).poll_flush(context);
        if flushed.is_ready() && !self.deliveries.is_empty() {
            self.deliveries.flushed(self.written);
            self.look(context);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
