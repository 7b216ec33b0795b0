//! What functions' calls said.

use super::directory::Callable;
use super::error::Failure;
use super::open_calls::OpenCall;
use super::permits::Busy;
use super::{Service, blocking};
use crate::domain::{CallId, Entry};
use crate::store::{LogReader, Selection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Logs that may be read at once: each reader has a file open.
const READERS_MAX: usize = 256;
/// Of these, how many are on their way through the disk at once: all who follow one log wake together.
const READING_MAX: usize = 8;
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

/// Who reads logs.
pub(super) struct Readers {
    places: Arc<Semaphore>,
    /// Held for a portion.
    turns: Semaphore,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(READERS_MAX)), turns: Semaphore::new(READING_MAX) }
    }
}

/// Why a log is not read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Others are read: [`Busy::TooManyReaders`].
    #[error(transparent)]
    Busy(Busy),
    /// We failed.
    #[error(transparent)]
    Failure(Failure),
}

impl Service {
    /// Reads the log of a function: what happens once this is ready comes behind the tail. It is read no faster than it
    /// is received, and no further once the receiver is dropped.
    ///
    /// # Errors
    /// When there is no place for another reader, or the log cannot be opened.
    pub async fn log(&self, function: &Arc<Callable>, query: LogQuery) -> Result<LogEntries, LogError> {
        let place = Arc::clone(&self.0.log_readers.places).try_acquire_owned();
        let place = place.map_err(|_| LogError::Busy(Busy::TooManyReaders))?;
        let (log, selection) = (function.log().clone(), Selection { call_id: query.call_id, tail: query.tail });
        let name = function.name.clone();
        let opening = move || {
            log.read(selection).map_err(|e| Failure::Internal(format!("the log of {name} cannot be read: {e}")))
        };
        let turn = self.0.log_readers.turns.acquire().await;
        let reader = blocking(opening).await.map_err(LogError::Failure)?;
        drop(turn);
        let (portions, entries) = mpsc::channel(PORTIONS_MAX);
        let reading = Reading { service: self.clone(), function: Arc::clone(function), query, portions, _place: place };
        let ending = self.0.ending.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = reading.run(reader) => {}
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

impl Reading {
    async fn run(self, mut reader: LogReader) {
        // The one call was seen to close: its last event is in the log by now, or lost.
        let mut has_closed = false;
        loop {
            let Some(read) = self.until_caught_up(reader).await else { return };
            reader = read;
            if !self.query.follow || reader.call_has_ended() {
                return;
            }
            let call = match self.query.call_id {
                None => None,
                Some(call_id) => match self.open(call_id) {
                    Some(call) => Some(call),
                    None if !has_closed && self.may_end_later(&reader) => None,
                    None => return,
                },
            };
            if !self.until_more(&mut reader, call.as_deref(), &mut has_closed).await {
                return;
            }
        }
    }

    /// Passes on all there is; `None` if nobody wants it any more.
    async fn until_caught_up(&self, mut reader: LogReader) -> Option<LogReader> {
        loop {
            let turn = self.service.0.log_readers.turns.acquire().await;
            let read = tokio::task::spawn_blocking(move || {
                let entries = reader.next();
                (reader, entries)
            });
            let (returned, entries) = read.await.ok()?;
            drop(turn);
            reader = returned;
            let entries = match entries {
                Ok(entries) if entries.is_empty() => return Some(reader),
                Ok(entries) => entries,
                Err(error) => {
                    self.cannot_read(&error);
                    return None;
                }
            };
            if self.is_address_dead() {
                return None;
            }
            self.portions.send(entries).await.ok()?;
        }
    }

    /// Whether the address that the log is read under has been refreshed: whoever has only that one sees no more.
    fn is_address_dead(&self) -> bool {
        let current = self.service.0.directory.function(&self.function.account, &self.function.name);
        current.is_some_and(|current| current.uuid != self.function.uuid)
    }

    /// Waits until there may be more; `false` if there will never be.
    async fn until_more(&self, reader: &mut LogReader, call: Option<&OpenCall>, has_closed: &mut bool) -> bool {
        loop {
            tokio::select! {
                there_is_more = reader.changed() => return there_is_more,
                () = closed(call) => {
                    *has_closed = true;
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
    fn may_end_later(&self, reader: &LogReader) -> bool {
        reader.call_last_at().is_some_and(|at| at >= self.service.0.started)
    }
}

/// Ready once the call is closed.
async fn closed(call: Option<&OpenCall>) {
    match call {
        Some(call) => call.closed().await,
        None => std::future::pending().await,
    }
}
