//! The file as its writer sees it: what can be written to it, and what became of that.
//!
//! On a full disk only what makes room is written ([`ballast`](super::ballast)).
//!
//! A checkpoint happens behind the answers. SQLite would do it by itself at the end of a commit, but tell nobody when it
//! fails.

use super::ballast::Ballast;
use super::writer::{Operation, injected};
use super::{Error, failure, results};
use crate::failpoint;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, ffi};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use tokio::sync::watch;

/// What one commit may carry, in bytes, unless a single operation does. With a fourth of the ballast as the bound, all that
/// is not folded into the file yet has room in the ballast.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Pages in the log from which on it is folded into the file: SQLite's own measure. Bounded as a batch is.
const CHECKPOINT_PAGES: u32 = 1_000;
/// Those of the file, in bytes.
const PAGE_BYTES: u64 = 4_096;
/// By how much the file may be longer than it needs to be.
const TOO_LONG_BYTES: u64 = 1 << 20;
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

/// What became of a batch.
pub(super) enum Fate {
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
            _ if is_index_full(error) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Failed(error.to_string()),
        }
    }

    pub(super) fn to_result(&self) -> Result<(), Error> {
        match self {
            Self::Committed => Ok(()),
            Self::DiskFull => Err(Error::DiskFull),
            Self::Locked => Err(Error::Locked),
            Self::Failed(reason) => Err(Error::Failed(reason.clone())),
        }
    }
}

/// The file, and how it stands with it.
pub(super) struct Disk {
    connection: Connection,
    ballast: Ballast,
    /// Pages in the log.
    log_pages: Arc<AtomicI32>,
    pub(super) commits: Arc<AtomicU64>,
    /// It was found full, and not otherwise since.
    is_full: bool,
    /// Why nothing is written any more, for whoever ends the server.
    pub(super) failed: Arc<watch::Sender<Option<String>>>,
    shown: String,
}

impl Disk {
    /// Takes the file over from whoever has opened it at `path`. `failed` says why nothing is written any more.
    ///
    /// # Errors
    /// When SQLite has no memory left.
    pub(super) fn new(
        mut connection: Connection,
        path: &Path,
        failed: Arc<watch::Sender<Option<String>>>,
    ) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let log_pages = Arc::new(AtomicI32::new(0));
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
        Ok(Self { connection, ballast, log_pages, commits: Arc::new(AtomicU64::new(0)), is_full, failed, shown })
    }

    /// Takes out of a batch what a full disk has no room for.
    pub(super) fn refuse(&mut self, batch: &mut Vec<Box<dyn Operation>>) -> Vec<Box<dyn Operation>> {
        if self.is_full {
            self.tidy_up(false);
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

    /// How many of those that wait go into one commit: at least one, if there is one.
    pub(super) fn fit(&self, waiting: &[Box<dyn Operation>]) -> usize {
        let bytes_max = BATCH_BYTES_MAX.min(self.ballast.bytes() / 4);
        let mut bytes = 0;
        let first_too_many = waiting.iter().position(|operation| {
            if let Room::Takes(more) = operation.room() {
                bytes += more;
            }
            bytes > bytes_max
        });
        first_too_many.unwrap_or(waiting.len()).max(1).min(waiting.len())
    }

    pub(super) fn write(&mut self, batch: &mut [Box<dyn Operation>]) -> Fate {
        if let Some(reason) = &*self.failed.borrow() {
            return Fate::Failed(reason.clone());
        }
        if self.is_full && batch.iter().any(|operation| operation.room() == Room::Makes) {
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

    /// Folds a long log into the file, and if a batch has `made_room` also one that the file is cut with. On a full disk,
    /// gives all back that the file does not need.
    pub(super) fn tidy_up(&mut self, made_room: bool) {
        if self.failed.borrow().is_some() {
            return;
        }
        let log_pages = self.log_pages.load(Ordering::Relaxed);
        let tidied = if self.is_full {
            self.give_space_back()
        } else if log_pages >= self.pages_max().cast_signed() || (made_room && log_pages > 0 && self.is_too_long()) {
            // Whoever reads meanwhile keeps some of the log back: the next commit tries again.
            self.checkpoint().map(drop)
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
            let is_whole = self.checkpoint()?;
            // The log would only grow while somebody reads.
            if !is_whole || free <= self.pages_max() {
                break;
            }
        }
        Ok(())
    }

    /// Folds the log into the file, as far as nobody reads it, and waits for nobody. Whether that was all of it: then the
    /// file is cut to its length.
    fn checkpoint(&self) -> rusqlite::Result<bool> {
        let (log, folded) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        self.log_pages.store(i32::try_from(log - folded).unwrap_or(i32::MAX), Ordering::Relaxed);
        Ok(log == folded)
    }

    /// Whether the file has given much back that it still has.
    fn is_too_long(&self) -> bool {
        let pages = self.connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0));
        let length = std::fs::metadata(&self.shown).map_or(0, |file| file.len());
        pages.is_ok_and(|pages| length > u64::from(pages) * PAGE_BYTES + TOO_LONG_BYTES)
    }

    fn pages_max(&self) -> u32 {
        CHECKPOINT_PAGES.min(u32::try_from(self.ballast.bytes() / 4 / PAGE_BYTES).unwrap_or(u32::MAX))
    }
}

/// Whether there is no room for the index of the log, in a file that is made anew at each start.
pub(super) fn is_index_full(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE)
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
    // What this was asked to write is on disk when only the index of the log has no room: it must not count as refused.
    execute(connection, "COMMIT").map_err(|error| match is_index_full(&error) {
        true => injected(std::io::Error::other(error)),
        false => error,
    })?;
    failpoint::check("store.after_commit").map_err(injected)
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
