//! The one thread that writes.
//!
//! It takes all operations that wait, runs each in a savepoint of one transaction, commits once, and only then
//! answers: callers that write at the same time share one fsync. An operation that is refused is undone alone.
//!
//! A checkpoint happens in here too, behind the answers. SQLite would do it by itself at the end of a commit, but tell
//! nobody when it fails.

use super::ballast::Ballast;
use super::{Error, failure, results, seal};
use crate::failpoint;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, ffi};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// Operations that may wait; further callers wait for a place.
const QUEUE_OPERATIONS: usize = 1024;
/// Operations that one commit may carry: bounds how long the first of them waits for the last.
const BATCH_OPERATIONS_MAX: usize = 256;
/// What one commit may carry, in bytes, unless a single operation does. With a fourth of the ballast as the bound, all that
/// is not folded into the file yet has room in the ballast.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Pages in the log from which on it is folded into the file: SQLite's own measure. Bounded as a batch is.
const CHECKPOINT_PAGES: u32 = 1_000;
/// Those of the file, in bytes.
const PAGE_BYTES: u64 = 4_096;
/// How often at once so many pages are given back on a full disk: all wait meanwhile.
const GIVE_BACK_ROUNDS_MAX: u32 = 32;

/// What an operation does to the room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It takes so many bytes, and a little.
    Takes(u64),
    /// It makes some, once it has had a little.
    Makes,
}

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
            // The index of the log, in a file that is made anew at each start.
            _ if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE) => Self::DiskFull,
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
    pub(super) fn start(mut connection: Connection, path: &Path) -> Result<Self, Error> {
        let (queue, operations) = mpsc::channel(QUEUE_OPERATIONS);
        let failed = Arc::new(watch::Sender::new(None));
        let shown = path.display().to_string();
        let (commits, log_pages) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicI32::new(0)));
        let told = Arc::clone(&log_pages);
        let on_commit = move |_: &mut Wal, pages| {
            told.store(pages, Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(on_commit)).map_err(|e| failure(&shown, &e))?;
        let ballast = Ballast::beside(path);
        let is_full = !ballast.leaves_room();
        if is_full {
            tracing::warn!("the disk is nearly full: only what makes room is written");
        }
        let mut disk = Disk {
            connection,
            ballast,
            log_pages,
            commits: Arc::clone(&commits),
            is_full,
            failed: Arc::clone(&failed),
            shown,
        };
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
    while operations.blocking_recv_many(&mut waiting, BATCH_OPERATIONS_MAX) > 0 {
        for refused in disk.refuse(&mut waiting) {
            refused.answer(&Fate::DiskFull);
        }
        while !waiting.is_empty() {
            let mut batch: Vec<_> = waiting.drain(..disk.fit(&waiting)).collect();
            // Behind the batch, and so dropped before it.
            let _tells = TellsOfPanic(Arc::clone(&disk.failed));
            let fate = disk.write(&mut batch);
            for operation in batch {
                operation.answer(&fate);
            }
            disk.tidy_up();
        }
    }
}

/// The file, and how it stands with it.
struct Disk {
    connection: Connection,
    ballast: Ballast,
    /// Pages in the log.
    log_pages: Arc<AtomicI32>,
    commits: Arc<AtomicU64>,
    /// It was found full, and not otherwise since.
    is_full: bool,
    /// Why nothing is written any more, for whoever ends the server.
    failed: Arc<watch::Sender<Option<String>>>,
    shown: String,
}

impl Disk {
    /// Takes out of a batch what a full disk has no room for.
    fn refuse(&mut self, batch: &mut Vec<Box<dyn Operation>>) -> Vec<Box<dyn Operation>> {
        if self.is_full {
            self.tidy_up();
        }
        if self.is_full && self.ballast.leaves_room() {
            tracing::info!("the disk has room again");
            self.is_full = false;
        }
        if self.is_full {
            batch.extract_if(.., |operation| matches!(operation.room(), Room::Takes(_))).collect()
        } else {
            Vec::new()
        }
    }

    /// How many of those that wait go into one commit: at least one.
    fn fit(&self, waiting: &[Box<dyn Operation>]) -> usize {
        let bytes_max = BATCH_BYTES_MAX.min(self.ballast.bytes() / 4);
        let mut bytes = 0;
        let first_too_many = waiting.iter().position(|operation| {
            if let Room::Takes(more) = operation.room() {
                bytes += more;
            }
            bytes > bytes_max
        });
        first_too_many.unwrap_or(waiting.len()).max(1)
    }

    fn write(&mut self, batch: &mut [Box<dyn Operation>]) -> Fate {
        if let Some(reason) = &*self.failed.borrow() {
            return Fate::Failed(reason.clone());
        }
        if self.is_full {
            self.ballast.give_up();
        }
        let before = self.connection.total_changes();
        let fate = match commit(&self.connection, batch) {
            // Whoever meets a corrupt row meets it again: a server that goes on would leave its call behind.
            Ok(()) => batch.iter().find_map(|operation| operation.corruption()).map_or(Fate::Committed, Fate::Failed),
            // Some errors make SQLite roll back by itself.
            Err(error) if self.connection.is_autocommit() => Fate::of(&error),
            Err(error) => match execute(&self.connection, "ROLLBACK") {
                Ok(()) => Fate::of(&error),
                Err(e) => Fate::Failed(format!("{error}; then, undoing it: {e}")),
            },
        };
        // A commit that changed nothing syncs nothing.
        self.commits.fetch_add(u64::from(self.connection.total_changes() != before), Ordering::Relaxed);
        self.learn(fate)
    }

    /// Draws the consequences, before anybody hears of it.
    fn learn(&mut self, fate: Fate) -> Fate {
        match &fate {
            Fate::Committed | Fate::Locked => {}
            Fate::DiskFull if self.is_full => {}
            Fate::DiskFull => {
                tracing::warn!("the disk is full: only what makes room is written");
                self.is_full = true;
            }
            Fate::Failed(reason) => {
                self.failed.send_replace(Some(format!("{}: {reason}", self.shown)));
            }
        }
        fate
    }

    /// Folds a long log into the file. On a full disk, gives all back that the file does not need.
    fn tidy_up(&mut self) {
        if self.failed.borrow().is_some() {
            return;
        }
        let tidied = if self.is_full {
            self.give_space_back()
        } else if self.log_pages.load(Ordering::Relaxed) >= self.pages_max().cast_signed() {
            // Whoever reads meanwhile keeps some of the log back: the next commit tries again.
            self.checkpoint("PASSIVE")
        } else {
            Ok(())
        };
        if let Err(error) = tidied {
            self.learn(Fate::of(&error));
        }
        if self.is_full {
            self.ballast.leaves_room();
        }
    }

    fn give_space_back(&self) -> rusqlite::Result<()> {
        for _ in 0..GIVE_BACK_ROUNDS_MAX {
            let free = results::free_pages(&self.connection)?;
            if free > 0 {
                self.ballast.give_up();
            }
            // In this order: what is cut off needs no room when the log is folded.
            results::give_pages_back(&self.connection, free.min(self.pages_max()))?;
            self.checkpoint("TRUNCATE")?;
            if free <= self.pages_max() {
                break;
            }
        }
        Ok(())
    }

    fn checkpoint(&self, mode: &str) -> rusqlite::Result<()> {
        self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
    }

    fn pages_max(&self) -> u32 {
        CHECKPOINT_PAGES.min(u32::try_from(self.ballast.bytes() / 4 / PAGE_BYTES).unwrap_or(u32::MAX))
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
    failpoint::check("store.before_commit").map_err(injected)?;
    execute(connection, "COMMIT")?;
    failpoint::check("store.after_commit").map_err(injected)
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
