//! Opening the file: what must hold before anything is read from it or written to it.

use super::{Error, failure};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::cmp::Ordering;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The version of the schema that this binary writes: `PRAGMA user_version`.
pub const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");
/// How long to wait for a lock that another program holds, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS_CACHED: usize = 64;
/// Addresses of functions are secrets, and the file holds them.
const FILE_MODE: u32 = 0o600;

/// The connection that writes: checks the file, and makes a store of one that is empty.
///
/// # Errors
/// Those of [`super::SqliteStore::open`].
pub(super) fn writer(path: &Path) -> Result<Connection, Error> {
    let shown = path.display().to_string();
    create_file(path).map_err(|e| Error::Failed(format!("{shown}: {e}")))?;
    let fail = |e: rusqlite::Error| failure(&shown, &e);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    // First of all: what a newer version wrote, this one does not touch.
    let found: i64 = one(&connection, "PRAGMA user_version").map_err(fail)?;
    match found.cmp(&SCHEMA_VERSION) {
        Ordering::Greater => return Err(Error::TooNew { found, known: SCHEMA_VERSION }),
        Ordering::Equal => check(&connection, &shown)?,
        Ordering::Less if found == 0 && is_empty(&connection).map_err(fail)? => {}
        Ordering::Less => return Err(Error::Corrupt(format!("{shown}: a database, but not one of hyperfunc"))),
    }
    configure(&connection, &shown)?;
    if found == 0 {
        create_schema(&mut connection).map_err(fail)?;
    }
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
    Ok(connection)
}

fn one<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> rusqlite::Result<T> {
    connection.query_row(sql, [], |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    one(connection, "SELECT count(*) = 0 FROM sqlite_schema")
}

fn check(connection: &Connection, shown: &str) -> Result<(), Error> {
    let found: String = one(connection, "PRAGMA quick_check(1)").map_err(|e| failure(shown, &e))?;
    if found == "ok" { Ok(()) } else { Err(Error::Corrupt(format!("{shown}: {found}"))) }
}

fn configure(connection: &Connection, shown: &str) -> Result<(), Error> {
    let fail = |e: rusqlite::Error| failure(shown, &e);
    // In this order: the first write, which WAL mode is, settles whether a file can give space back.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(fail)?;
    let mode: String = one(connection, "PRAGMA journal_mode = WAL").map_err(fail)?;
    if mode != "wal" {
        return Err(Error::Failed(format!("{shown}: its file system allows no write-ahead log")));
    }
    // A commit waits until the log is on the medium; where a plain fsync does not reach it, a full one.
    for (name, value) in [("synchronous", "FULL"), ("fullfsync", "ON"), ("foreign_keys", "ON")] {
        connection.pragma_update(None, name, value).map_err(fail)?;
    }
    Ok(())
}

fn create_schema(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}
