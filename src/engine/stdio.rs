//! A guest's stdin, stdout and stderr: all in memory, all bounded.

use super::ending::Stop;
use crate::domain::{Captured, STDERR_HEAD_BYTES, STDERR_TAIL_BYTES};
use crate::failpoint;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// The request body. All handles to it share one position.
#[derive(Clone)]
pub(super) struct Stdin(Arc<Mutex<Bytes>>);

impl Stdin {
    pub(super) fn new(body: Bytes) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Only WASI 0.3 asks for this form.
        Box::new(std::io::Cursor::new(lock(&self.0).clone()))
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {}
}

impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut rest = lock(&self.0);
        if rest.is_empty() {
            return Err(StreamError::Closed);
        }
        let size = size.min(rest.len());
        Ok(rest.split_to(size))
    }
}

/// What a guest has written.
#[derive(Default)]
pub(super) struct Written {
    stdout: Vec<u8>,
    stderr_head: Vec<u8>,
    stderr_tail: VecDeque<u8>,
    stderr_lost: u64,
}

impl Written {
    fn write_stderr(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(STDERR_HEAD_BYTES - self.stderr_head.len()));
        self.stderr_head.extend_from_slice(head);
        // Of what does not fit the oldest goes first.
        let (dropped, kept) = rest.split_at(rest.len().saturating_sub(STDERR_TAIL_BYTES));
        let overflow = (self.stderr_tail.len() + kept.len()).saturating_sub(STDERR_TAIL_BYTES);
        self.stderr_tail.drain(..overflow);
        self.stderr_tail.extend(kept);
        self.stderr_lost += (dropped.len() + overflow) as u64;
    }

    /// stdout, and what is kept of stderr.
    pub(super) fn into_parts(self) -> (Vec<u8>, Captured) {
        let Self { stdout, stderr_head: head, stderr_tail, stderr_lost: lost } = self;
        (stdout, Captured { head, tail: stderr_tail.into(), lost })
    }
}

/// Where a guest writes to. stdout ends the guest when it is full; stderr keeps its beginning and its end.
#[derive(Clone)]
pub(super) struct Sink {
    written: Arc<Mutex<Written>>,
    kind: SinkKind,
}

#[derive(Clone, Copy)]
enum SinkKind {
    Stdout { bytes_max: usize, terminal: bool },
    Stderr,
}

impl Sink {
    /// The two sinks of a guest and what they write to. With `tty` both are one stream.
    pub(super) fn pair(stdout_bytes_max: usize, tty: bool) -> (Self, Self, Arc<Mutex<Written>>) {
        let written = Arc::new(Mutex::new(Written::default()));
        let stdout = SinkKind::Stdout { bytes_max: stdout_bytes_max, terminal: tty };
        let stderr = if tty { stdout } else { SinkKind::Stderr };
        let sink = |kind| Self { written: Arc::clone(&written), kind };
        (sink(stdout), sink(stderr), written)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        matches!(self.kind, SinkKind::Stdout { terminal: true, .. })
    }
}

impl StdoutStream for Sink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this form, and nothing that is linked here does.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut written = lock(&self.written);
        failpoint::hit("guest.write");
        match self.kind {
            SinkKind::Stderr => written.write_stderr(&bytes),
            SinkKind::Stdout { bytes_max, .. } => {
                if bytes.len() > bytes_max - written.stdout.len() {
                    return Err(StreamError::Trap(Stop::StdoutLimit.into()));
                }
                written.stdout.extend_from_slice(&bytes);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stderr_keeps_its_beginning_and_its_end(chunks in prop::collection::vec(0usize..40_000, 0..8)) {
            let mut written = Written::default();
            let mut all = Vec::new();
            for (index, len) in chunks.into_iter().enumerate() {
                let chunk: Vec<u8> = (0..len).map(|at| (at + index) as u8).collect();
                written.write_stderr(&chunk);
                all.extend(chunk);
            }
            let captured = written.into_parts().1;
            let head = all.len().min(STDERR_HEAD_BYTES);
            let tail = (all.len() - head).min(STDERR_TAIL_BYTES);
            prop_assert_eq!(&captured.head, &all[..head]);
            prop_assert_eq!(&captured.tail, &all[all.len() - tail..]);
            prop_assert_eq!(captured.lost as usize, all.len() - head - tail);
        }
    }

    #[test]
    fn stdout_is_exact_at_its_limit() {
        let (mut stdout, _, written) = Sink::pair(3, false);
        stdout.write(Bytes::from_static(b"abc")).unwrap();
        assert!(matches!(stdout.write(Bytes::from_static(b"d")), Err(StreamError::Trap(_))));
        stdout.write(Bytes::new()).unwrap();
        assert_eq!(lock(&written).stdout, b"abc");
    }
}
