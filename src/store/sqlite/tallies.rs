//! How many calls of a function there are in each state: kept beside them in the same transactions, so that nobody has
//! to count.

use super::writer::Problem;
use super::{Error, failure};
use crate::domain::{AccountId, CallState, FunctionName, Tally, Verdict};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

pub(super) const ADD: &str = "UPDATE tallies SET pending = pending + ?3, running = running + ?4,
        finished = finished + ?5, failed = failed + ?6, gone = gone + ?7, bytes = bytes + ?8, keys = keys + ?9,
        accepted = accepted + ?10, taken = taken + ?11, forgotten = forgotten + ?12, ends = ends + ?13,
        checksum = seal(account_id, function, pending + ?3, running + ?4, finished + ?5, failed + ?6, gone + ?7, bytes + ?8,
            keys + ?9, accepted + ?10, taken + ?11, forgotten + ?12, ends + ?13)
    WHERE account_id = ?1 AND function = ?2 AND trusted('tallies', function, checksum,
        seal(account_id, function, pending, running, finished, failed, gone, bytes, keys, accepted, taken, forgotten, ends))
    RETURNING finished + failed, gone, bytes, keys";
const INSERT: &str = "INSERT INTO tallies (account_id, function, pending, running, finished, failed, gone, bytes, keys,
        checksum)
    VALUES (?1, ?2, 0, 0, 0, 0, 0, 0, 0, seal(?1, ?2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))";
const ONE: &str = "SELECT pending, running, finished, failed FROM tallies
    WHERE account_id = ?1 AND function = ?2 AND trusted('tallies', function, checksum,
        seal(account_id, function, pending, running, finished, failed, gone, bytes, keys, accepted, taken, forgotten,
            ends))";
const ENDS: &str = "SELECT ends FROM tallies WHERE account_id = ?1 AND function = ?2";
const DELETE: &str = "DELETE FROM tallies WHERE account_id = ?1 AND function = ?2 RETURNING accepted";
const REMOVED: &str = "INSERT INTO removed_calls (account_id, accepted) VALUES (?1, ?2)
    ON CONFLICT DO UPDATE SET accepted = accepted + excluded.accepted";

/// What a transition adds to a tally.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) pending: i64,
    pub(super) running: i64,
    pub(super) finished: i64,
    pub(super) failed: i64,
    pub(super) gone: i64,
    pub(super) bytes: i64,
    pub(super) keys: i64,
    pub(super) accepted: i64,
    pub(super) taken: i64,
    pub(super) forgotten: i64,
    pub(super) ends: i64,
}

impl Change {
    /// With so many more results of this verdict, or fewer, that hold so many bytes.
    pub(super) fn results(self, verdict: Verdict, calls: i64, bytes: i64) -> Self {
        let changed = match verdict.state() {
            CallState::Finished => Self { finished: self.finished + calls, ..self },
            CallState::Failed | CallState::Pending | CallState::Running => Self { failed: self.failed + calls, ..self },
        };
        Self { bytes: self.bytes + bytes, ..changed }
    }
}

/// What the bounds of a function's calls are checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Results.
    pub(super) results: u64,
    /// Calls that are known to be gone.
    pub(super) gone: u64,
    /// Bytes of the results.
    pub(super) bytes: u64,
    /// Idempotency keys.
    pub(super) keys: u64,
}

impl Held {
    /// Reads its numbers from the column at `from` on.
    pub(super) fn read(row: &Row<'_>, from: usize) -> rusqlite::Result<Self> {
        let number = |at: usize| row.get::<_, i64>(from + at).map(i64::unsigned_abs);
        Ok(Self { results: number(0)?, gone: number(1)?, bytes: number(2)?, keys: number(3)? })
    }
}

/// Adds a change, and answers what is held then.
pub(super) fn add(connection: &Connection, account: &str, function: &str, change: Change) -> Result<Held, Problem> {
    let Change { pending, running, finished, failed, gone, bytes, keys, accepted, taken, forgotten, ends } = change;
    let mut update = connection.prepare_cached(ADD)?;
    let mut update = || {
        let values = params![
            account, function, pending, running, finished, failed, gone, bytes, keys, accepted, taken, forgotten, ends
        ];
        update.query_row(values, |row| Held::read(row, 0)).optional()
    };
    if let Some(held) = update()? {
        return Ok(held);
    }
    connection.prepare_cached(INSERT)?.execute([account, function])?;
    update()?.ok_or(Problem::Refused(Error::NotFound))
}

/// How many calls of a function have ended.
pub(super) fn ends(connection: &Connection, account: &str, function: &str) -> Result<i64, Problem> {
    let ends = connection.prepare_cached(ENDS)?.query_row([account, function], |row| row.get(0)).optional()?;
    Ok(ends.unwrap_or(0))
}

/// The tally of a function.
pub(super) fn of(connection: &Connection, account: &AccountId, function: &FunctionName) -> Result<Tally, Error> {
    let fail = |e: rusqlite::Error| failure("tallies", &e);
    let key = [account.as_str(), function.as_str()];
    let mut statement = connection.prepare_cached(ONE).map_err(fail)?;
    let tally = statement.query_row(key, |row| {
        let number = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(Tally { pending: number(0)?, running: number(1)?, finished: number(2)?, failed: number(3)? })
    });
    Ok(tally.optional().map_err(fail)?.unwrap_or_default())
}

/// Forgets a tally, but not how many calls were accepted.
pub(super) fn remove(connection: &Connection, account: &AccountId, function: &FunctionName) -> Result<(), Problem> {
    let mut delete = connection.prepare_cached(DELETE)?;
    let accepted: Option<i64> = delete.query_row([account.as_str(), function.as_str()], |row| row.get(0)).optional()?;
    if let Some(accepted) = accepted {
        connection.prepare_cached(REMOVED)?.execute(params![account.as_str(), accepted])?;
    }
    Ok(())
}
