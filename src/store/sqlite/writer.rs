//! The one thread that writes.
//!
//! It takes all operations that wait, runs each in a savepoint of one transaction, commits once, and only then
//! answers: callers that write at the same time share one fsync. An operation that is refused is undone alone.
//!
//! How it stands with the file, and with the room for it, is known to [`Disk`].

use super::disk::{Disk, Fate, Room};
use super::{Error, seal};
use rusqlite::{Connection, ErrorCode};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// Operations that may wait; further callers wait for a place.
const QUEUE_OPERATIONS: usize = 1024;
/// Operations that one commit may carry: bounds how long the first of them waits for the last.
const BATCH_OPERATIONS_MAX: usize = 256;
/// Why an operation did not do what it was to do.
#[derive(Debug)]
pub(super) enum Problem {
    /// The contract says no: the operation alone is undone.
    Refused(Error),
    /// SQLite says no.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Of a failpoint.
impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Sqlite(injected(error))
    }
}

/// An error of SQLite's that tells of another.
pub(super) fn injected(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// An operation in the queue, whatever it answers.
pub(super) trait Operation: Send {
    /// Runs it and keeps its answer. `false`: what it wrote must be undone. `Err`: the whole batch must be.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<bool>;

    /// What it does to the room on the disk.
    fn room(&self) -> Room;

    /// What it has found that cannot be what was written.
    fn corruption(&self) -> Option<String>;

    /// Gives its answer, or the batch's if that was not committed.
    fn answer(self: Box<Self>, batch: &Fate);
}

struct Pending<W, T, D> {
    room: Room,
    work: Option<W>,
    answer: Option<Result<T, Error>>,
    /// Hears of what was done before whoever waits for it.
    on_done: D,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<W, T, D> Operation for Pending<W, T, D>
where
    W: FnOnce(&Connection) -> Result<T, Problem> + Send,
    T: Send,
    D: FnOnce(&T) + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let Some(work) = self.work.take() else { return Ok(false) };
        let answer = match work(connection) {
            Ok(value) => Ok(value),
            Err(Problem::Refused(error)) => Err(error),
            // Told by `corruption`.
            Err(Problem::Sqlite(e)) if seal::is_broken(&e) => Err(Error::CorruptRow(e.to_string())),
            // SQLite has undone the statement, and the file is as sound as before: a bug of this one operation
            // must not stop the others.
            Err(Problem::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(Error::Failed(e.to_string()))
            }
            Err(Problem::Sqlite(e)) => return Err(e),
        };
        Ok(self.answer.insert(answer).is_ok())
    }

    fn room(&self) -> Room {
        self.room
    }

    fn corruption(&self) -> Option<String> {
        match &self.answer {
            Some(Err(Error::Corrupt(found) | Error::CorruptRow(found))) => Some(found.clone()),
            Some(_) | None => None,
        }
    }

    fn answer(self: Box<Self>, batch: &Fate) {
        let answer = match (batch.to_result(), self.answer) {
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(gone()),
            (Err(error), _) => Err(error),
        };
        if let Ok(done) = &answer {
            (self.on_done)(done);
        }
        // Whoever asked may have left; the operation has happened all the same.
        let _ = self.reply.send(answer);
    }
}

/// The queue's end that is fed, and the thread at its other end. Dropping it waits until the queue is empty.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Operation>>>,
    thread: Option<JoinHandle<()>>,
    /// Why it writes no more.
    failed: Arc<watch::Sender<Option<String>>>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Failed`] when the system has no thread left.
    pub(super) fn start(connection: Connection, path: &Path) -> Result<Self, Error> {
        let (queue, operations) = mpsc::channel(QUEUE_OPERATIONS);
        let failed = Arc::new(watch::Sender::new(None));
        let mut disk = Disk::new(connection, path, Arc::clone(&failed))?;
        let commits = Arc::clone(&disk.commits);
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || serve(&mut disk, operations));
        let thread = thread.map_err(|e| Error::Failed(format!("no thread for the writer: {e}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), failed, commits })
    }

    /// Commits so far that changed something, each of which synced the log to disk once.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Ready once it writes no more, with the file and the reason.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// Lets nothing be written any more: whoever reads has found the file to be not what was written.
    pub(super) fn fail(&self, reason: String) {
        self.failed.send_replace(Some(reason));
    }

    /// Runs `work` in a transaction that it may share; ready once that is on disk.
    ///
    /// What `work` wrote is undone if it fails. It has no say about the transaction itself.
    ///
    /// # Errors
    /// The refusal of `work`, [`Error::DiskFull`], or [`Error::Failed`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(Room::Takes(0), work, |_| {}).await
    }

    /// As [`Writer::run`], for what makes room: it is done on a full disk too.
    ///
    /// # Errors
    /// Those of [`Writer::run`].
    pub(super) async fn make_room<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        match self.ask(Room::Makes, work.clone(), |_| {}).await {
            // Others have filled the disk. Now that this is known, nobody is in the way.
            Err(Error::DiskFull) => self.ask(Room::Makes, work, |_| {}).await,
            answer => answer,
        }
    }

    /// As [`Writer::run`], for what writes so many bytes; `on_done` hears of what was done as soon as it is on disk, in the
    /// order in which it was done. It holds all other writers up.
    ///
    /// # Errors
    /// Those of [`Writer::run`].
    pub(super) async fn run_and_tell<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
        on_done: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(Room::Takes(bytes), work, on_done).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        room: Room,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
        on_done: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let operation = Pending { room, work: Some(work), answer: None, on_done, reply };
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Box::new(operation)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has answered nobody: all its callers know.
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::Failed("its writer is gone".to_owned())
}

/// Says that the writer has panicked, before those who wait for it can know.
struct TellsOfPanic(Arc<watch::Sender<Option<String>>>);

impl Drop for TellsOfPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_replace(Some("its writer has panicked, told on stderr".to_owned()));
        }
    }
}

/// Until nobody can ask any more. After a failure all are told so, and nothing is written.
fn serve(disk: &mut Disk, mut operations: mpsc::Receiver<Box<dyn Operation>>) {
    let mut waiting = Vec::with_capacity(BATCH_OPERATIONS_MAX);
    let mut batch = VecDeque::with_capacity(BATCH_OPERATIONS_MAX);
    // Behind those who wait, and so dropped before them.
    let _tells = TellsOfPanic(Arc::clone(&disk.failed));
    while operations.blocking_recv_many(&mut waiting, BATCH_OPERATIONS_MAX) > 0 {
        while !waiting.is_empty() {
            for refused in disk.refuse(&mut waiting) {
                refused.answer(&Fate::DiskFull);
            }
            batch.extend(waiting.drain(..disk.fit(&waiting)));
            if batch.is_empty() {
                continue;
            }
            let fate = disk.write(batch.make_contiguous());
            let makes_room = batch.iter().any(|operation| operation.room() == Room::Makes);
            while let Some(operation) = batch.pop_front() {
                operation.answer(&fate);
            }
            disk.tidy_up(makes_room);
        }
    }
}
