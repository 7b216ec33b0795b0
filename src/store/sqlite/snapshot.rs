//! A copy of the file at one moment, for a backup, and what a copy must be before anything is made of it.

use super::open::{SCHEMA_VERSION, check, one, reader};
use super::{Error, SqliteStore, audit, failure};
use crate::domain::Digest;
use crate::store::Retention;
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

// These hold for every version of the schema.
const FOREIGN: &str = "SELECT count(*) FROM sqlite_schema
    WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'";
const HAS_CALLS: &str = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'calls'";
const FUNCTIONS: &str = "SELECT count(*) FROM functions";
const IMAGES: &str = "SELECT count(*) FROM images";
const QUEUED: &str = "SELECT count(*) FROM calls WHERE state < 2";
const RESULTS: &str = "SELECT count(*) FROM calls WHERE state = 2";
const MODULES: &str = "SELECT digest, max(size_bytes) FROM images GROUP BY digest ORDER BY digest";

/// How much is kept of ended calls is not a copy's business.
const ANY: Retention = Retention {
    function_bytes: u64::MAX,
    function_calls: u64::MAX,
    function_gone: u64::MAX,
    result_ttl: Duration::MAX,
    gone_ttl: Duration::MAX,
    key_ttl: Duration::MAX,
    function_keys: u64::MAX,
};

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The version of its schema.
    pub schema: i64,
    /// Functions.
    pub functions: u64,
    /// Names of modules.
    pub images: u64,
    /// Asynchronous calls that wait or run.
    pub queued: u64,
    /// Ended calls whose result is kept.
    pub results: u64,
    /// The modules that images name, and how many bytes each has.
    pub modules: Vec<(Digest, u64)>,
}

impl SqliteStore {
    /// Copies the store at `path` as it is at this moment into the empty file at `into`, and says what the copy holds.
    ///
    /// It reads beside a server, which goes on writing: only the log of the store cannot be folded into its file
    /// meanwhile.
    ///
    /// # Errors
    /// Those of [`SqliteStore::contents`], and [`Error::DiskFull`] where the copy is.
    pub fn snapshot(path: &Path, into: &Path) -> Result<Contents, Error> {
        let shown = path.display().to_string();
        let connection = reader(path)?;
        version(&connection, &shown)?;
        let name = into.to_str().ok_or_else(|| Error::Failed(format!("{}: its name is not UTF-8", into.display())))?;
        connection.execute("VACUUM INTO ?1", [name]).map_err(|e| failure(&shown, &e))?;
        of_file(into, &shown)
    }

    /// Checks the file of a store that nobody writes to, and says what it holds.
    ///
    /// # Errors
    /// [`Error::TooNew`]; [`Error::Corrupt`] when it is no store or a damaged one; [`Error::Failed`].
    pub fn contents(path: &Path) -> Result<Contents, Error> {
        of_file(path, Self::FILE_NAME)
    }
}

fn of_file(path: &Path, shown: &str) -> Result<Contents, Error> {
    let fail = |e: rusqlite::Error| failure(shown, &e);
    let connection = reader(path)?;
    let schema = version(&connection, shown)?;
    // No version of ours has any: they would act on whoever asks, and on what a server does.
    if count(&connection, FOREIGN).map_err(fail)? > 0 {
        let what = "has triggers, views or virtual tables, which no store of hyperfunc has";
        return Err(Error::Corrupt(format!("{shown}: {what}")));
    }
    check(&connection, shown)?;
    if schema == SCHEMA_VERSION
        && let Some(first) = audit::rows(&connection, &ANY, shown).findings.shown().first()
    {
        return Err(Error::Corrupt(format!("{shown}: {first}")));
    }
    let has_calls = count(&connection, HAS_CALLS).map_err(fail)? > 0;
    let of_calls = |sql| if has_calls { count(&connection, sql) } else { Ok(0) };
    Ok(Contents {
        schema,
        functions: count(&connection, FUNCTIONS).map_err(fail)?,
        images: count(&connection, IMAGES).map_err(fail)?,
        queued: of_calls(QUEUED).map_err(fail)?,
        results: of_calls(RESULTS).map_err(fail)?,
        modules: modules(&connection).map_err(fail)?,
    })
}

fn version(connection: &Connection, shown: &str) -> Result<i64, Error> {
    let found: i64 = one(connection, "PRAGMA user_version").map_err(|e| failure(shown, &e))?;
    match found {
        ..=0 => Err(Error::Corrupt(format!("{shown}: a database, but not one of hyperfunc"))),
        1..=SCHEMA_VERSION => Ok(found),
        _ => Err(Error::TooNew { found, known: SCHEMA_VERSION }),
    }
}

fn count(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    one::<i64>(connection, sql).map(i64::unsigned_abs)
}

pub(super) fn modules(connection: &Connection) -> rusqlite::Result<Vec<(Digest, u64)>> {
    let mut statement = connection.prepare(MODULES)?;
    let modules = statement.query_map([], |row| {
        let (digest, size): ([u8; 32], i64) = (row.get(0)?, row.get(1)?);
        Ok((Digest::new(digest), size.unsigned_abs()))
    })?;
    modules.collect()
}
