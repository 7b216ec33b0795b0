//! A TCP connection that cannot be held up for ever by a peer that does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// A peer that takes nothing for so long is given up.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How long the peer may go on sending what nobody reads, after all was said.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How much of that is taken in.
const LINGER_BYTES_MAX: usize = 4 << 20;

/// See the module.
pub(super) struct Stream {
    tcp: TcpStream,
    /// When the write that waits is given up, or the peer that still sends.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What was taken in since the last word, in bytes. `None` before.
    lingered: Option<usize>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, deadline: None, lingered: None }
    }

    /// Ready when a wait that began at the first of these calls has lasted `max`.
    fn poll_deadline(&mut self, max: Duration, context: &mut Context<'_>) -> Poll<()> {
        let begin = || Box::pin(sleep_until(Instant::now() + max));
        self.deadline.get_or_insert_with(begin).as_mut().poll(context)
    }

    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(written) => {
                self.deadline = None;
                Poll::Ready(written)
            }
            Poll::Pending => self.poll_deadline(WRITE_STALL_MAX, context).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.bounded(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, pieces);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    /// Says the last word, and takes in what the peer still sends: closing over it would reset the connection, and the
    /// peer might lose the answer that says why nobody reads.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingered.is_none() {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(context))?;
            self.lingered = Some(0);
            self.deadline = None;
        }
        let mut bytes = [0; 8 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.tcp).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let lingered = self.lingered.unwrap_or(0) + buffer.filled().len();
                    self.lingered = Some(lingered);
                    if lingered > LINGER_BYTES_MAX {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return self.poll_deadline(LINGER_MAX, context).map(Ok),
            }
        }
    }
}
