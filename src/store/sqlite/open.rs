//! Opening the file: what must hold before anything is read from it or written to it.

use super::writer::injected;
use super::{Error, failure, seal, wal};
use crate::failpoint;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::cmp::Ordering;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What makes each version of the schema of the one before.
pub(super) const STEPS: [&str; 3] =
    [include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];
/// The version of the schema that this binary writes: `PRAGMA user_version`.
pub const SCHEMA_VERSION: i64 = STEPS.len() as i64;

/// How long to wait for a lock that another program holds, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS_CACHED: usize = 64;
/// What the log may keep of the disk once it was folded into the file: one large transaction, such as the removal of a
/// function with all its calls, makes it as large as it will ever be again.
const LOG_BYTES_KEPT: i64 = 8 << 20;
/// Addresses of functions are secrets, and the file holds them.
const FILE_MODE: u32 = 0o600;

/// The connection that writes: checks the file, and makes a store of one that is empty.
///
/// # Errors
/// Those of [`super::SqliteStore::open`].
pub(super) fn writer(path: &Path) -> Result<Connection, Error> {
    let shown = path.display().to_string();
    create_file(path).map_err(|e| Error::Failed(format!("{shown}: {e}")))?;
    wal::check(path)?;
    let fail = |e: rusqlite::Error| failure(&shown, &e);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    // First of all: what a newer version wrote, this one does not touch.
    let found: i64 = one(&connection, "PRAGMA user_version").map_err(fail)?;
    match found.cmp(&SCHEMA_VERSION) {
        Ordering::Greater => return Err(Error::TooNew { found, known: SCHEMA_VERSION }),
        Ordering::Equal => check(&connection, &shown)?,
        Ordering::Less if (1..SCHEMA_VERSION).contains(&found) => {
            check(&connection, &shown)?;
            copy(&connection, path, found)?;
        }
        Ordering::Less if found == 0 && is_empty(&connection).map_err(fail)? => {}
        Ordering::Less => return Err(Error::Corrupt(format!("{shown}: a database, but not one of hyperfunc"))),
    }
    configure(&connection, &shown, found)?;
    migrate(&mut connection, found).map_err(fail)?;
    // Begins a new turn of the log, so that two crashes do not leave their halves of commits in one. On a full disk it goes
    // on with the old one.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(connection)
}

/// A connection that only reads, to a file that [`writer`] has opened before.
///
/// # Errors
/// When the file cannot be opened.
pub(super) fn reader(path: &Path) -> Result<Connection, Error> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|e| failure(&path.display().to_string(), &e))
}

/// SQLite gives the files that it puts beside this one the same mode.
fn create_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path).map(drop)
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // No mutex of SQLite's: a connection is used by one thread at a time.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    seal::register(&connection)?;
    Ok(connection)
}

pub(super) fn one<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> rusqlite::Result<T> {
    connection.query_row(sql, [], |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    one(connection, "SELECT count(*) = 0 FROM sqlite_schema")
}

pub(super) fn check(connection: &Connection, shown: &str) -> Result<(), Error> {
    let found: String = one(connection, "PRAGMA integrity_check(1)").map_err(|e| failure(shown, &e))?;
    if found == "ok" { Ok(()) } else { Err(Error::Corrupt(format!("{shown}: {found}"))) }
}

fn configure(connection: &Connection, shown: &str, found: i64) -> Result<(), Error> {
    let fail = |e: rusqlite::Error| failure(shown, &e);
    // In this order: the first write, which WAL mode is, settles whether a file can give space back. To say so again
    // would be a write, and the disk may be full.
    if found == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fail)?;
    }
    let mode: String = one(connection, "PRAGMA journal_mode = WAL").map_err(fail)?;
    if mode != "wal" {
        return Err(Error::Failed(format!("{shown}: its file system allows no write-ahead log")));
    }
    // Savepoints are undone from memory: no other directory may be full or missing.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(fail)?;
    // A commit waits until the log is on the medium; where a plain fsync does not reach it, a full one.
    for (name, value) in [("synchronous", "FULL"), ("fullfsync", "ON"), ("foreign_keys", "ON")] {
        connection.pragma_update(None, name, value).map_err(fail)?;
    }
    // It answers, unlike the others, what it is now.
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(())).map_err(fail)
}

/// Keeps what the older version wrote, in a file beside: `NAME.vN`.
pub(super) fn copy(connection: &Connection, path: &Path, version: i64) -> Result<(), Error> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (temporary, kept) = (beside(".copying"), beside(&format!(".v{version}")));
    let shown = kept.display();
    let fail = |e: std::io::Error| Error::Failed(format!("{shown}: {e}"));
    // One that was not finished.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        Ok(()) | Err(_) => {}
    }
    // SQLite fills an empty file.
    create_file(&temporary).map_err(fail)?;
    let name = temporary.to_str().ok_or_else(|| Error::Failed(format!("{shown}: its name is not UTF-8")))?;
    let copied = connection.execute("VACUUM INTO ?1", [name]).map_err(|e| failure(&shown.to_string(), &e));
    copied.inspect_err(|_| {
        // On a full disk half a copy is in the way of others.
        for suffix in [".copying", ".copying-journal"] {
            let _ = std::fs::remove_file(beside(suffix));
        }
    })?;
    File::open(&temporary).and_then(|file| file.sync_all()).map_err(fail)?;
    failpoint::check("migrate.before_rename").map_err(fail)?;
    std::fs::rename(&temporary, &kept).map_err(fail)?;
    failpoint::check("migrate.after_rename").map_err(fail)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)
}

/// Takes every step that the file has not seen, or none.
fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    failpoint::check("migrate.before_commit").map_err(injected)?;
    transaction.commit()?;
    failpoint::check("migrate.after_commit").map_err(injected)
}
