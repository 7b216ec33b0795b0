//! The logs of functions: files of JSON lines, two for each function, `ACCOUNT/FUNCTION/current` and `previous`.
//!
//! ```text
//!  a call ── push ──▶ Buffer ── every 20 ms ──▶ writer ──▶ current ── full: renamed ──▶ previous
//!                                                  │          ╲                          ╱
//!                                                  └─ wakes ──▶ LogReader, one for each reader
//! ```
//!
//! A log never delays a call: what finds no room in the [`buffer`], or no place on the disk, is lost, and the log says
//! how much. Nothing is synced: a log outlives the process, but what was written shortly before a power cut may be
//! gone.

mod audit;
mod buffer;
mod files;
mod line;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use audit::audit_logs;
pub use reader::LogReader;

use crate::domain::{AccountId, CallId, FunctionName, Gap, MB, Record, Timestamp};
use buffer::{BUFFER_RECORDS, Buffer};
use files::Files;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::watch;

/// What the log of one function may take on disk, in bytes (`docs/api.md` section 4).
pub const LOG_BYTES_MAX: u64 = 50 * MB;

/// The logs of all functions. Dropping it writes what was told so far.
pub struct Logs {
    dir: PathBuf,
    buffer: Arc<Buffer>,
    /// One for each function, so that all who ask for it write to the same.
    logs: Mutex<HashMap<(AccountId, FunctionName), FunctionLog>>,
    writer: Option<JoinHandle<()>>,
}

/// The log of one function, as long as that is there. Cheap to clone.
#[derive(Clone)]
pub struct FunctionLog(Arc<Log>);

/// Which part of a log is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Events of this call alone, and gaps; `None` is all.
    pub call_id: Option<CallId>,
    /// As many of the last entries as there are now, and what comes then; `None` is all.
    pub tail: Option<u64>,
}

/// What a function's handles, the writer and its readers share.
struct Log {
    account: AccountId,
    name: FunctionName,
    dir: PathBuf,
    buffer: Arc<Buffer>,
    files: Mutex<Files>,
    loss: Loss,
    /// It stands in the buffer's list of logs with a loss.
    is_lossy: AtomicBool,
    /// Whether it is at its end. Sent anew with all that is written, which wakes those who follow.
    ended: watch::Sender<bool>,
}

/// What was lost, and is not told yet.
struct Loss {
    records: AtomicU64,
    last_at: AtomicI64,
}

impl Logs {
    /// Opens the logs below `dir`, and makes it if it is not there. Each may take `bytes_max`.
    ///
    /// # Errors
    /// When the system refuses the directory or the writer's thread.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        Self::with_buffer(dir, bytes_max, BUFFER_RECORDS)
    }

    fn with_buffer(dir: &Path, bytes_max: u64, records_max: usize) -> io::Result<Self> {
        files::create_dir(dir)?;
        let buffer = Arc::new(Buffer::new(records_max));
        let emptied = Arc::clone(&buffer);
        let writer = thread::Builder::new().name("log-writer".to_owned());
        // Two files: what is full becomes the previous one as a whole.
        let writer = writer.spawn(move || writer::serve(&emptied, bytes_max / 2))?;
        Ok(Self { dir: dir.to_owned(), buffer, logs: Mutex::default(), writer: Some(writer) })
    }

    /// Logs that keep nothing and have nothing to read.
    pub fn disabled() -> Self {
        Self { dir: PathBuf::new(), buffer: Arc::new(Buffer::closed()), logs: Mutex::default(), writer: None }
    }

    /// The log of a function. Nothing is on disk before something is told.
    ///
    /// Waits while another is removed: to be kept, not asked for with each call.
    pub fn function(&self, account: &AccountId, name: &FunctionName) -> FunctionLog {
        let log = || {
            FunctionLog(Arc::new(Log {
                account: account.clone(),
                name: name.clone(),
                dir: self.dir_of(account, name),
                buffer: Arc::clone(&self.buffer),
                files: Mutex::new(Files::new(self.writer.is_none())),
                loss: Loss { records: AtomicU64::new(0), last_at: AtomicI64::new(0) },
                is_lossy: AtomicBool::new(false),
                ended: watch::Sender::new(self.writer.is_none()),
            }))
        };
        self.logs().entry((account.clone(), name.clone())).or_insert_with(log).clone()
    }

    /// Removes the log of a function. Its handles write nothing any more, and its readers come to their end.
    ///
    /// Done when this returns: a function of the same name begins with an empty log. Blocks on the disk.
    ///
    /// # Errors
    /// When a file cannot be removed: it stays until [`Logs::sweep`].
    pub fn remove(&self, account: &AccountId, name: &FunctionName) -> io::Result<()> {
        // Held to the end: no log of that name begins before the files of this one are gone.
        let mut logs = self.logs();
        let removed = logs.remove(&(account.clone(), name.clone()));
        if let Some(log) = &removed {
            log.0.files().end();
        }
        let result = if self.writer.is_some() { files::remove_dir(&self.dir_of(account, name)) } else { Ok(()) };
        if let Some(log) = removed {
            log.0.ended.send_replace(true);
        }
        result
    }

    /// Removes the logs of all functions that are not in `keep`: what a crash has left over. For the start, before
    /// anything is told. Blocks on the disk.
    ///
    /// # Errors
    /// When something cannot be read or removed.
    pub fn sweep(&self, keep: &HashSet<(AccountId, FunctionName)>) -> io::Result<()> {
        if self.writer.is_none() {
            return Ok(());
        }
        for (account_dir, account) in subdirectories(&self.dir)? {
            for (function_dir, function) in subdirectories(&account_dir)? {
                let account = account.to_str().and_then(|name| AccountId::new(name).ok());
                let function = function.to_str().and_then(|name| FunctionName::new(name).ok());
                if !account.zip(function).is_some_and(|key| keep.contains(&key)) {
                    files::remove_dir(&function_dir)?;
                }
            }
            match fs::remove_dir(&account_dir) {
                Err(e) if e.kind() != ErrorKind::DirectoryNotEmpty => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes written since the start.
    pub fn bytes_written(&self) -> u64 {
        self.buffer.bytes_written.load(Ordering::Relaxed)
    }

    /// Records lost since the start: there was no room for them, or the disk refused them.
    pub fn records_lost(&self) -> u64 {
        self.buffer.records_lost.load(Ordering::Relaxed)
    }

    fn dir_of(&self, account: &AccountId, name: &FunctionName) -> PathBuf {
        // Neither of the two can be anything but one segment of a path.
        self.dir.join(account.as_str()).join(name.as_str())
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<(AccountId, FunctionName), FunctionLog>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.buffer.end();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has written what it could.
            let _ = writer.join();
        }
        for log in self.logs().values() {
            log.0.ended.send_replace(true);
        }
    }
}

impl fmt::Debug for FunctionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionLog({} of {})", self.0.name, self.0.account.as_str())
    }
}

impl FunctionLog {
    /// Tells of a call. Waits for nothing: what finds no room is lost, and counted.
    pub fn push(&self, record: Record) {
        self.0.buffer.push(&self.0, record);
    }

    /// Waits until all that was told before is written, or lost. Blocks on the disk.
    pub fn flush(&self) {
        self.0.buffer.flush();
    }

    /// Reads it, with all that was told before this. Blocks on the disk.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self, selection: Selection) -> io::Result<LogReader> {
        self.flush();
        LogReader::open(Arc::clone(&self.0), selection)
    }
}

impl Log {
    /// A thread that panicked has left the files as they are on disk.
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loss {
    fn add(&self, records: u64, last_at: Option<Timestamp>) {
        if let Some(at) = last_at {
            self.last_at.fetch_max(at.0, Ordering::Relaxed);
        }
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    fn gap(&self) -> Option<Gap> {
        let lost = self.records.load(Ordering::Relaxed);
        (lost > 0).then(|| Gap { at: Timestamp(self.last_at.load(Ordering::Relaxed)), lost })
    }

    /// So many of them are told now.
    fn settle(&self, records: u64) {
        self.records.fetch_sub(records, Ordering::Relaxed);
    }
}

/// The directories in `dir`, with their names.
fn subdirectories(dir: &Path) -> io::Result<Vec<(PathBuf, OsString)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push((entry.path(), entry.file_name()));
        }
    }
    Ok(found)
}
