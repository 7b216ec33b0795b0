//! What is known of calls, in SQL: read beside the writer, and checked before it is answered.

use super::calls::{ENDED, PENDING, RUNNING, seal_of_call, trusted_call};
use super::results::{self, Row as ResultRow};
use super::{Error, failure};
use crate::domain::{AccountId, CallId, CallKey, CallState, FunctionName, Listed, Timestamp};
use crate::store::KnownCall;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Of a call that has not ended, nobody asks for what is large.
pub(super) const ONE: &str = concat!(
    "SELECT state, ended_ms, verdict, message, content_type, stdout, stderr FROM calls LEFT JOIN payloads USING (place)
    WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND ",
    trusted_call!(),
    " AND (state < 2 OR trusted('calls', call_id, payload, seal(variables, body, stdout, stderr)))"
);
pub(super) const FUNCTION_OF: &str =
    concat!("SELECT function FROM calls WHERE call_id = ?1 AND account_id = ?2 AND ", trusted_call!());
pub(super) const PLACE_OF: &str = "SELECT place FROM calls WHERE call_id = ?1 AND account_id = ?2 AND function = ?3";
/// The place of the function's first call with a greater id. The plus keeps SQLite from the index of ids, which knows
/// neither functions nor places.
pub(super) const PLACE_BEHIND: &str = "SELECT place FROM calls
    WHERE account_id = ?2 AND function = ?3 AND +call_id > ?1 ORDER BY place LIMIT 1";
pub(super) const LIST: &str = concat!(
    "SELECT call_id, created_ms, state, verdict, message FROM calls
    WHERE account_id = ?1 AND function = ?2 AND place >= ?3 AND state < 3 AND ",
    trusted_call!(),
    " ORDER BY place LIMIT ?4"
);

pub(super) fn one(connection: &Connection, call: &CallKey) -> Result<Option<KnownCall>, Error> {
    let fail = |e: rusqlite::Error| failure("calls", &e);
    let values = params![call.call_id.as_bytes(), call.account.as_str(), call.function.as_str()];
    let mut statement = connection.prepare_cached(ONE).map_err(fail)?;
    let row = statement.query_row(values, |row| Ok((row.get::<_, i64>(0)?, ResultRow::read(row)?))).optional();
    let Some((state, result)) = row.map_err(fail)? else { return Ok(None) };
    Ok(Some(match state {
        PENDING => KnownCall::Open(CallState::Pending),
        RUNNING => KnownCall::Open(CallState::Running),
        ENDED => {
            let (at, result) = result.into_result().map_err(|problem| corrupt_call(call.call_id, problem))?;
            KnownCall::Ended { at, result }
        }
        _ => KnownCall::Gone,
    }))
}

pub(super) fn function_of(
    connection: &Connection,
    account: &AccountId,
    call_id: CallId,
) -> Result<Option<FunctionName>, Error> {
    let fail = |e: rusqlite::Error| failure("calls", &e);
    let mut statement = connection.prepare_cached(FUNCTION_OF).map_err(fail)?;
    let name = statement.query_row(params![call_id.as_bytes(), account.as_str()], |row| row.get::<_, String>(0));
    let name = name.optional().map_err(fail)?;
    name.map(|name| FunctionName::new(&name).map_err(|e| corrupt_call(call_id, e.to_string()))).transpose()
}

pub(super) fn list(
    connection: &Connection,
    account: &AccountId,
    function: &FunctionName,
    after: Option<CallId>,
    limit: u32,
) -> Result<Vec<Listed>, Error> {
    let fail = |e: rusqlite::Error| failure("calls", &e);
    let (account, function) = (account.as_str(), function.as_str());
    let from = match after {
        None => 0,
        Some(after) => match place_behind(connection, account, function, after).map_err(fail)? {
            Some(place) => place,
            None => return Ok(Vec::new()),
        },
    };
    let mut statement = connection.prepare_cached(LIST).map_err(fail)?;
    let rows = statement.query_map(params![account, function, from, limit], |row| {
        let (call_id, created) = (row.get::<_, Vec<u8>>(0)?, row.get(1)?);
        let (state, verdict) = (row.get::<_, i64>(2)?, row.get::<_, Option<i64>>(3)?);
        Ok((call_id, Timestamp(created), state, verdict, row.get(4)?))
    });
    let rows = rows.map_err(fail)?.map(|row| {
        let (call_id, created, state, verdict, message) = row.map_err(fail)?;
        let call_id = CallId::from_slice(&call_id).ok_or_else(|| Error::CorruptRow("calls: a call id".to_owned()))?;
        let state = match state {
            PENDING => CallState::Pending,
            RUNNING => CallState::Running,
            _ => results::verdict_of(verdict).map_err(|problem| corrupt_call(call_id, problem))?.state(),
        };
        Ok(Listed { call_id, created, state, message })
    });
    rows.collect()
}

/// From where a list of a function's calls goes on behind one of them, which may have been read since.
fn place_behind(
    connection: &Connection,
    account: &str,
    function: &str,
    after: CallId,
) -> rusqlite::Result<Option<i64>> {
    let place = |sql| {
        let mut place = connection.prepare_cached(sql)?;
        place.query_row(params![after.as_bytes(), account, function], |row| row.get::<_, i64>(0)).optional()
    };
    match place(PLACE_OF)? {
        Some(known) => Ok(Some(known + 1)),
        None => place(PLACE_BEHIND),
    }
}

fn corrupt_call(call_id: CallId, problem: impl std::fmt::Display) -> Error {
    Error::CorruptRow(format!("calls ({call_id}): {problem}"))
}
