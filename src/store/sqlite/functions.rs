//! The transitions of functions, in SQL.

use super::record::FunctionRow;
use super::writer::Problem;
use super::{Error, calls, failure};
use crate::domain::{AccountId, Function, FunctionName, Quota, QuotaKind};
use crate::failpoint;
use rusqlite::{Connection, params};

const ALL: &str = "SELECT account_id, name, uuid, created_ms, definition FROM functions
    WHERE trusted('functions', name, checksum, seal(account_id, name, uuid, created_ms, definition))
    ORDER BY account_id, name";
const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM functions WHERE account_id = ?1 AND name = ?2)";
const COUNT: &str = "SELECT count(*) FROM functions WHERE account_id = ?1";
const INSERT: &str = "INSERT INTO functions (account_id, name, uuid, created_ms, definition, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, seal(?1, ?2, ?3, ?4, ?5))";
const UPDATE: &str = "UPDATE functions SET uuid = ?3, definition = ?4, checksum = resealed(checksum,
        seal(account_id, name, uuid, created_ms, definition), seal(account_id, name, ?3, created_ms, ?4))
    WHERE account_id = ?1 AND name = ?2";
const DELETE: &str = "DELETE FROM functions WHERE account_id = ?1 AND name = ?2";

pub(super) fn all(connection: &Connection) -> Result<Vec<Function>, Error> {
    let fail = |e: rusqlite::Error| failure("functions", &e);
    let mut statement = connection.prepare_cached(ALL).map_err(fail)?;
    let rows = statement.query_map([], FunctionRow::read).map_err(fail)?;
    rows.map(|row| row.map_err(fail)?.into_function()).collect()
}

pub(super) fn create(
    connection: &Connection,
    row: &FunctionRow,
    name: FunctionName,
    quota: Quota,
) -> Result<(), Problem> {
    let key = params![row.account, row.name];
    if connection.prepare_cached(EXISTS)?.query_row(key, |found| found.get(0))? {
        return Err(Problem::Refused(Error::NameTaken(name)));
    }
    let used: i64 = connection.prepare_cached(COUNT)?.query_row([&row.account], |count| count.get(0))?;
    let (used, limit) = (used.unsigned_abs(), quota.functions);
    if used >= limit {
        return Err(Problem::Refused(Error::QuotaFull { kind: QuotaKind::Functions, used, limit }));
    }
    let values = params![row.account, row.name, row.uuid, row.created_ms, row.definition];
    connection.prepare_cached(INSERT)?.execute(values)?;
    failpoint::check("create.before_commit")?;
    Ok(())
}

pub(super) fn update(connection: &Connection, row: &FunctionRow) -> Result<(), Problem> {
    let values = params![row.account, row.name, row.uuid, row.definition];
    found(connection.prepare_cached(UPDATE)?.execute(values)?)?;
    Ok(failpoint::check("update.before_commit")?)
}

pub(super) fn remove(connection: &Connection, account: &AccountId, name: &FunctionName) -> Result<(), Problem> {
    found(connection.prepare_cached(DELETE)?.execute([account.as_str(), name.as_str()])?)?;
    failpoint::check("remove.before_commit")?;
    calls::remove_of_function(connection, account, name)
}

/// Whether the one row that was meant was there.
pub(super) fn found(changed_rows: usize) -> Result<(), Problem> {
    if changed_rows == 0 { Err(Problem::Refused(Error::NotFound)) } else { Ok(()) }
}
