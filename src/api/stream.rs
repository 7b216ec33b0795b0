//! A TCP connection that cannot be held up for ever by a peer that does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// A peer that takes nothing for so long is given up.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How long the peer may go on sending what nobody reads, after all was said.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How much of that is taken in.
const LINGER_BYTES_MAX: usize = 4 << 20;

/// See the module.
pub(super) struct Stream {
    tcp: TcpStream,
    /// When the write that waits is given up.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, deadline: None }
    }

    /// Says that nothing more will come, and takes in what the peer still sends: closing over it would reset the
    /// connection, and the peer might lose the answer that says why nobody reads.
    pub(super) async fn close(mut self) {
        let taking_in = async {
            self.tcp.shutdown().await?;
            let mut bytes = vec![0; 8 << 10];
            let mut taken = 0;
            while taken < LINGER_BYTES_MAX {
                match self.tcp.read(&mut bytes).await? {
                    0 => break,
                    read => taken += read,
                }
            }
            Ok::<_, io::Error>(())
        };
        // A peer that is gone has no use for it.
        let _ = timeout(LINGER_MAX, taking_in).await;
    }

    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_MAX)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
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

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
