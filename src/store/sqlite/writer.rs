//! The one thread that writes.
//!
//! It takes all operations that wait, runs each in a savepoint of one transaction, commits once, and only then
//! answers: callers that write at the same time share one fsync. An operation that is refused is undone alone.
//!
//! A checkpoint happens in here too: SQLite runs it at the end of the commit that made the log long enough
//! (`wal_autocheckpoint`), and this thread makes all commits.

use super::{Error, seal};
use rusqlite::{Connection, ErrorCode};
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

/// What became of a batch.
enum Fate {
    Committed,
    /// Nothing was written.
    DiskFull,
    /// Nothing was written: another program kept the file locked for too long.
    Locked,
    /// Nobody knows what is on disk. The writer writes no more: after a failed sync, a second one that
    /// succeeds proves nothing.
    Failed(String),
}

impl Fate {
    fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Failed(error.to_string()),
        }
    }

    fn to_result(&self) -> Result<(), Error> {
        match self {
            Self::Committed => Ok(()),
            Self::DiskFull => Err(Error::DiskFull),
            Self::Locked => Err(Error::Locked),
            Self::Failed(reason) => Err(Error::Failed(reason.clone())),
        }
    }
}

/// An operation in the queue, whatever it answers.
trait Operation: Send {
    /// Runs it and keeps its answer. `false`: what it wrote must be undone. `Err`: the whole batch must be.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<bool>;

    /// What it has found that cannot be what was written.
    fn corruption(&self) -> Option<String>;

    /// Gives its answer, or the batch's if that was not committed.
    fn answer(self: Box<Self>, batch: &Fate);
}

struct Pending<W, T, D> {
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
            Err(Problem::Sqlite(e)) if seal::is_broken(&e) => Err(Error::Corrupt(e.to_string())),
            // SQLite has undone the statement, and the file is as sound as before: a bug of this one operation
            // must not stop the others.
            Err(Problem::Sqlite(e)) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Err(Error::Failed(e.to_string()))
            }
            Err(Problem::Sqlite(e)) => return Err(e),
        };
        Ok(self.answer.insert(answer).is_ok())
    }

    fn corruption(&self) -> Option<String> {
        match &self.answer {
            Some(Err(Error::Corrupt(found))) => Some(found.clone()),
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
    failed: watch::Receiver<Option<String>>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(connection: Connection, path: &Path) -> std::io::Result<Self> {
        let (queue, operations) = mpsc::channel(QUEUE_OPERATIONS);
        let (fail, failed) = watch::channel(None);
        let shown = path.display().to_string();
        let commits = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&commits);
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || {
            serve(&connection, operations, &count, |reason| {
                fail.send_replace(Some(format!("{shown}: {reason}")));
            });
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), failed, commits })
    }

    /// Commits so far that changed something, each of which synced the log to disk once.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Ready once it writes no more, with the file and the reason.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        // Without a reason its thread has panicked.
        reason.unwrap_or_else(|| gone().to_string())
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
        self.run_and_tell(work, |_| {}).await
    }

    /// As [`Writer::run`]; `on_done` hears of what was done as soon as it is on disk, in the order in which it was done.
    /// It holds all other writers up.
    ///
    /// # Errors
    /// Those of [`Writer::run`].
    pub(super) async fn run_and_tell<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
        on_done: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let operation = Pending { work: Some(work), answer: None, on_done, reply };
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

/// Until nobody can ask any more. After a failure all are told so, and nothing is written.
fn serve(
    connection: &Connection,
    mut operations: mpsc::Receiver<Box<dyn Operation>>,
    commits: &AtomicU64,
    failed: impl Fn(&str),
) {
    let mut batch = Vec::with_capacity(BATCH_OPERATIONS_MAX);
    let mut fate = Fate::Committed;
    while operations.blocking_recv_many(&mut batch, BATCH_OPERATIONS_MAX) > 0 {
        fate = match fate {
            Fate::Failed(reason) => Fate::Failed(reason),
            Fate::Committed | Fate::DiskFull | Fate::Locked => {
                let before = connection.total_changes();
                let fate = write(connection, &mut batch);
                // A commit that changed nothing syncs nothing.
                commits.fetch_add(u64::from(connection.total_changes() != before), Ordering::Relaxed);
                if let Fate::Failed(reason) = &fate {
                    failed(reason);
                }
                fate
            }
        };
        for operation in batch.drain(..) {
            operation.answer(&fate);
        }
    }
}

fn write(connection: &Connection, batch: &mut [Box<dyn Operation>]) -> Fate {
    let Err(error) = commit(connection, batch) else {
        // Whoever meets a corrupt row meets it again: a server that goes on would leave its call behind.
        return batch.iter().find_map(|operation| operation.corruption()).map_or(Fate::Committed, Fate::Failed);
    };
    // Some errors make SQLite roll back by itself.
    match if connection.is_autocommit() { Ok(()) } else { execute(connection, "ROLLBACK") } {
        Ok(()) => Fate::of(&error),
        Err(e) => Fate::Failed(format!("{error}; then, undoing it: {e}")),
    }
}

fn commit(connection: &Connection, batch: &mut [Box<dyn Operation>]) -> rusqlite::Result<()> {
    execute(connection, "BEGIN IMMEDIATE")?;
    for operation in batch {
        execute(connection, "SAVEPOINT operation")?;
        if !operation.run(connection)? {
            execute(connection, "ROLLBACK TO operation")?;
        }
        execute(connection, "RELEASE operation")?;
    }
    execute(connection, "COMMIT")
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
