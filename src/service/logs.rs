//! What functions' calls said.

use super::Service;
use super::directory::Callable;
use super::open_calls::OpenCall;
use super::permits::Busy;
use crate::domain::{CallId, Entry, Timestamp};
use crate::store::{LogReader, Selection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Logs that may be read at once: each reader has a file open.
pub(super) const READERS_MAX: usize = 256;
/// Portions that wait for whoever reads.
const PORTIONS_MAX: usize = 2;
/// After so long without an event a follower hears that there is none: a peer that is gone shows only then.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// What is wanted of a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// Of one call only.
    pub call_id: Option<CallId>,
    /// Only so many of the last entries.
    pub tail: Option<u64>,
    /// What comes, too, until the function is removed; of one call, until it has ended.
    pub follow: bool,
}

/// Portions of a log, oldest first; an empty one says that there is nothing new.
pub type LogEntries = mpsc::Receiver<Vec<Entry>>;

impl Service {
    /// Reads the log of a function. It is read no faster than it is received, and no further once the receiver is
    /// dropped.
    ///
    /// # Errors
    /// [`Busy::TooManyReaders`]
    pub fn log(&self, function: &Arc<Callable>, query: LogQuery) -> Result<LogEntries, Busy> {
        let place = Arc::clone(&self.0.log_readers).try_acquire_owned().map_err(|_| Busy::TooManyReaders)?;
        let (portions, entries) = mpsc::channel(PORTIONS_MAX);
        let reading = Reading { service: self.clone(), function: Arc::clone(function), query, portions, _place: place };
        let ending = self.0.ending.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = reading.run() => {}
                () = ending.cancelled() => {}
            }
        });
        Ok(entries)
    }
}

struct Reading {
    service: Service,
    function: Arc<Callable>,
    query: LogQuery,
    portions: mpsc::Sender<Vec<Entry>>,
    _place: OwnedSemaphorePermit,
}

/// What a reading has seen of the one call that it is about.
#[derive(Default)]
struct Seen {
    last: Option<Timestamp>,
    ended: bool,
    /// It was seen to close; its last event is in the log by now, or lost.
    closed: bool,
}

impl Reading {
    async fn run(self) {
        let LogQuery { call_id, tail, .. } = self.query;
        let log = self.function.log().clone();
        let opened = tokio::task::spawn_blocking(move || log.read(Selection { call_id, tail }));
        let mut reader = match opened.await {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => return self.cannot_read(&error),
            Err(_) => return,
        };
        let mut seen = Seen::default();
        loop {
            let Some(read) = self.until_caught_up(reader, &mut seen).await else { return };
            reader = read;
            if !self.query.follow || seen.ended {
                return;
            }
            let call = match call_id {
                None => None,
                Some(call_id) => match self.open(call_id) {
                    Some(call) => Some(call),
                    None if self.may_end_later(&seen) => None,
                    None => return,
                },
            };
            if !self.until_more(&mut reader, call.as_deref(), &mut seen).await {
                return;
            }
        }
    }

    /// Passes on all there is; `None` if nobody wants it any more.
    async fn until_caught_up(&self, mut reader: LogReader, seen: &mut Seen) -> Option<LogReader> {
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let entries = reader.next();
                (reader, entries)
            });
            let (returned, entries) = read.await.ok()?;
            reader = returned;
            let entries = match entries {
                Ok(entries) if entries.is_empty() => return Some(reader),
                Ok(entries) => entries,
                Err(error) => {
                    self.cannot_read(&error);
                    return None;
                }
            };
            seen.last = entries.last().map(Entry::at);
            seen.ended |= self.query.call_id.is_some_and(|call_id| entries.iter().any(|entry| entry.ends(call_id)));
            self.portions.send(entries).await.ok()?;
        }
    }

    /// Waits until there may be more; `false` if there will never be.
    async fn until_more(&self, reader: &mut LogReader, call: Option<&OpenCall>, seen: &mut Seen) -> bool {
        loop {
            tokio::select! {
                there_is_more = reader.changed() => return there_is_more,
                () = closed(call) => {
                    seen.closed = true;
                    let log = self.function.log().clone();
                    return tokio::task::spawn_blocking(move || log.flush()).await.is_ok();
                }
                () = self.portions.closed() => return false,
                () = tokio::time::sleep(HEARTBEAT_EVERY) => {
                    if self.portions.send(Vec::new()).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn cannot_read(&self, error: &std::io::Error) {
        tracing::warn!(function = %self.function.name, %error, "a log cannot be read");
    }

    fn open(&self, call_id: CallId) -> Option<Arc<OpenCall>> {
        self.service.0.open_calls.get(&self.function.call_key(call_id))
    }

    /// A call that is not open and has not ended: a synchronous one that runs, unless it was interrupted long ago.
    fn may_end_later(&self, seen: &Seen) -> bool {
        !seen.closed && seen.last.is_some_and(|at| at >= self.service.0.started)
    }
}

/// Ready once the call is closed.
async fn closed(call: Option<&OpenCall>) {
    match call {
        // The call itself holds the other end.
        Some(call) => drop(call.watch().wait_for(|phase| phase.state().is_none()).await),
        None => std::future::pending().await,
    }
}
