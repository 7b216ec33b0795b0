//! The transitions of calls, in SQL.

use super::results;
use super::tallies::{self, Change};
use super::writer::Problem;
use super::{Error, failure, seal};
use crate::domain::{
    AccountId, CRASHES_MAX, CallId, CallKey, CallRequest, CallResult, FunctionName, IdempotencyKey, Place, Timestamp,
    Variable, Waiting,
};
use crate::failpoint;
use crate::store::{Enqueued, NewCall, Retention, Start};
use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::HashMap;

/// The states, as the schema has them.
pub(super) const PENDING: i64 = 0;
pub(super) const RUNNING: i64 = 1;
pub(super) const ENDED: i64 = 2;
pub(super) const GONE: i64 = 3;

/// The columns under a call's checksum, with those that change from `state` to `crashes` and from `bytes` to `payload`
/// as they are, or as they are put here.
macro_rules! seal_of_call {
    () => {
        seal_of_call!(
            "state",
            "starts",
            "crashes",
            "bytes, ended_ms, end_number, verdict, message, content_type, payload"
        )
    };
    ($state:literal, $starts:literal, $crashes:literal, $rest:literal) => {
        concat!(
            "seal(account_id, function, call_id, created_ms, ",
            $state,
            ", ",
            $starts,
            ", ",
            $crashes,
            ", ",
            $rest,
            ")"
        )
    };
}

/// The checksum of a call that changes.
macro_rules! resealed_call {
    ($($new:literal),+) => {
        concat!("resealed(checksum, ", seal_of_call!(), ", ", seal_of_call!($($new),+), ")")
    };
}

/// That a call is what was written, but for its large columns.
macro_rules! trusted_call {
    () => {
        concat!("trusted('calls', call_id, checksum, ", seal_of_call!(), ")")
    };
}

/// That a call is what was written, but for its large columns; one that is not is passed over.
macro_rules! sound_call {
    () => {
        concat!("checksum = ", seal_of_call!())
    };
}

pub(in crate::store::sqlite) use {resealed_call, seal_of_call, sound_call, trusted_call};

const FUNCTION_EXISTS: &str =
    "SELECT EXISTS (SELECT 1 FROM functions WHERE account_id = ?1 AND name = ?2 AND created_ms = ?3)";
pub(super) const KEY: &str = "SELECT call_id, created_ms FROM idempotency_keys
    WHERE account_id = ?1 AND function = ?2 AND key = ?3 AND trusted('idempotency_keys', call_id, checksum,
        seal(account_id, function, key, call_id, created_ms))";
const PUT_KEY: &str =
    "INSERT OR REPLACE INTO idempotency_keys (account_id, function, key, call_id, created_ms, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, seal(?1, ?2, ?3, ?4, ?5))";
const INSERT: &str = "INSERT INTO calls (account_id, function, call_id, created_ms, bytes, payload, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, seal(?1, ?2, ?3, ?4, 0, 0, 0, ?5, NULL, NULL, NULL, NULL, NULL, ?6))";
const BRING: &str = "INSERT INTO payloads (place, variables, body) VALUES (?1, ?2, ?3)";
pub(super) const CLAIM: &str = concat!(
    "UPDATE calls SET state = 1, starts = starts + 1, checksum = ",
    seal_of_call!("1", "starts + 1", "crashes", "bytes, ended_ms, end_number, verdict, message, content_type, payload"),
    " WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 0 AND ",
    trusted_call!(),
    " RETURNING starts, place, payload"
);
pub(super) const BROUGHT: &str = "SELECT variables, body FROM payloads
    WHERE place = ?1 AND trusted('calls', ?2, ?3, seal(variables, body, stdout, stderr))";
pub(super) const GIVE_BACK: &str = concat!(
    "UPDATE calls SET state = 0, checksum = ",
    resealed_call!("0", "starts", "crashes", "bytes, ended_ms, end_number, verdict, message, content_type, payload"),
    " WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 1 AND starts = ?4"
);
pub(super) const DROP_PENDING: &str =
    "DELETE FROM calls WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 0";
// `state < 2` is what the partial index of open calls says: SQLite uses it only for a query that says the same.
pub(super) const RUNNING_ONES: &str = concat!(
    "SELECT account_id, function, call_id, starts, crashes FROM calls WHERE state < 2 AND state = 1 AND ",
    trusted_call!(),
    " ORDER BY place"
);
pub(super) const CRASHED: &str = concat!(
    "UPDATE calls SET state = 0, crashes = crashes + 1, checksum = ",
    resealed_call!(
        "0",
        "starts",
        "crashes + 1",
        "bytes, ended_ms, end_number, verdict, message, content_type, payload"
    ),
    " WHERE call_id = ?1"
);
pub(super) const WAITING: &str = concat!(
    "SELECT account_id, function, call_id, place, created_ms, bytes FROM calls WHERE state < 2 AND state = 0 AND ",
    trusted_call!(),
    " ORDER BY place"
);
pub(super) const DELETE_OF_FUNCTION: &str = "DELETE FROM calls WHERE account_id = ?1 AND function = ?2";
pub(super) const DELETE_KEYS_OF_FUNCTION: &str = "DELETE FROM idempotency_keys WHERE account_id = ?1 AND function = ?2";

/// A [`NewCall`] as it is written.
pub(super) struct NewRow {
    call: NewCall,
    bytes: i64,
    variables: String,
    payload: i64,
}

impl NewRow {
    pub(super) fn new(call: NewCall) -> Result<Self, Error> {
        let bytes = i64::try_from(call.request.bytes()).map_err(|e| Error::Failed(format!("a call's size: {e}")))?;
        let variables = serde_json::to_string(&call.request.variables)
            .map_err(|e| Error::Failed(format!("a call's variables: {e}")))?;
        let brings = [ValueRef::Text(variables.as_bytes()), ValueRef::Blob(&call.request.body)];
        let payload = seal::of([brings, [ValueRef::Null; 2]].as_flattened().iter().copied());
        Ok(Self { call, bytes, variables, payload })
    }

    /// What it writes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.unsigned_abs()
    }
}

/// Answers the place of a call that is new.
pub(super) fn enqueue(
    connection: &Connection,
    row: &NewRow,
    keep: &Retention,
) -> Result<(Enqueued, Option<Place>), Problem> {
    let NewCall { key, function_created, created, idempotency, request } = &row.call;
    let (account, function) = (key.account.as_str(), key.function.as_str());
    let exists = params![account, function, function_created.0];
    if !connection.prepare_cached(FUNCTION_EXISTS)?.query_row(exists, |found| found.get::<_, bool>(0))? {
        return Err(Problem::Refused(Error::NotFound));
    }
    let mut change = Change { pending: 1, accepted: 1, ..Change::default() };
    let mut is_new_key = false;
    if let Some(asked) = idempotency {
        let known = keyed(connection, account, function, *asked)?;
        if let Some((call_id, at)) = &known
            && *at > created.before(keep.key_ttl)
        {
            return Ok((Enqueued::Before(call_id_of(call_id)?), None));
        }
        is_new_key = known.is_none();
        change.keys = i64::from(is_new_key);
        let values = params![account, function, asked.0, key.call_id.as_bytes(), created.0];
        connection.prepare_cached(PUT_KEY)?.execute(values)?;
    }
    let call_id = key.call_id.as_bytes();
    let values = params![account, function, call_id, created.0, row.bytes, row.payload];
    connection.prepare_cached(INSERT)?.execute(values)?;
    let place = connection.last_insert_rowid();
    connection.prepare_cached(BRING)?.execute(params![place, row.variables, &request.body[..]])?;
    let held = tallies::add(connection, account, function, change)?;
    if is_new_key && held.keys > keep.function_keys {
        return Err(Problem::Refused(Error::KeysFull(keep.function_keys)));
    }
    failpoint::check("accept.before_commit")?;
    Ok((Enqueued::Accepted, Some(Place(place.unsigned_abs()))))
}

pub(super) fn of_key(
    connection: &Connection,
    account: &AccountId,
    function: &FunctionName,
    key: IdempotencyKey,
    since: Timestamp,
) -> Result<Option<CallId>, Error> {
    let known = keyed(connection, account.as_str(), function.as_str(), key);
    let known = known.map_err(|e| failure("idempotency_keys", &e))?.filter(|(_, at)| *at > since);
    let read = |(call_id, _): (Vec<u8>, _)| {
        CallId::from_slice(&call_id).ok_or_else(|| Error::CorruptRow("idempotency_keys: a call id".to_owned()))
    };
    known.map(read).transpose()
}

/// The call that was accepted under a key, and when.
fn keyed(
    connection: &Connection,
    account: &str,
    function: &str,
    key: IdempotencyKey,
) -> rusqlite::Result<Option<(Vec<u8>, Timestamp)>> {
    let mut known = connection.prepare_cached(KEY)?;
    known.query_row(params![account, function, key.0], |row| Ok((row.get(0)?, Timestamp(row.get(1)?)))).optional()
}

pub(super) fn claim(connection: &Connection, calls: &[CallKey]) -> Result<Vec<Option<Start>>, Problem> {
    let starts: Vec<_> = calls.iter().map(|call| claim_one(connection, call)).collect::<Result<_, _>>()?;
    // One tally for many calls, mostly of a few functions.
    let mut begun: HashMap<_, i64> = HashMap::new();
    for (call, _) in calls.iter().zip(&starts).filter(|(_, start)| start.is_some()) {
        *begun.entry((call.account.as_str(), call.function.as_str())).or_default() += 1;
    }
    for ((account, function), calls) in begun {
        tallies::add(connection, account, function, Change { pending: -calls, running: calls, ..Change::default() })?;
    }
    failpoint::check("claim.before_commit")?;
    Ok(starts)
}

fn claim_one(connection: &Connection, call: &CallKey) -> Result<Option<Start>, Problem> {
    let (account, function) = (call.account.as_str(), call.function.as_str());
    let mut claim = connection.prepare_cached(CLAIM)?;
    let call_id = call.call_id.as_bytes();
    let claimed = claim.query_row(params![call_id, account, function], |row| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let Some((number, place, payload)) = claimed.optional()? else { return Ok(None) };
    let mut brought = connection.prepare_cached(BROUGHT)?;
    let brought = brought
        .query_row(params![place, call_id, payload], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)));
    let missing = || corrupt(&format!("calls ({}): what it brings is missing", call.call_id));
    let (variables, body) = brought.optional()?.ok_or_else(missing)?;
    let variables: Vec<Variable> =
        serde_json::from_str(&variables).map_err(|e| corrupt(&format!("calls ({}): variables: {e}", call.call_id)))?;
    Ok(Some(Start { number, request: CallRequest { body: Bytes::from(body), variables } }))
}

pub(super) fn give_back(connection: &Connection, call: &CallKey, start: u32) -> Result<(), Problem> {
    let (account, function) = (call.account.as_str(), call.function.as_str());
    let values = params![call.call_id.as_bytes(), account, function, start];
    super::functions::found(connection.prepare_cached(GIVE_BACK)?.execute(values)?)?;
    failpoint::check("give_back.before_commit")?;
    tallies::add(connection, account, function, Change { pending: 1, running: -1, ..Change::default() }).map(drop)
}

pub(super) fn drop_pending(connection: &Connection, call: &CallKey) -> Result<(), Problem> {
    let (account, function) = (call.account.as_str(), call.function.as_str());
    let values = params![call.call_id.as_bytes(), account, function];
    super::functions::found(connection.prepare_cached(DROP_PENDING)?.execute(values)?)?;
    failpoint::check("discard.before_commit")?;
    tallies::add(connection, account, function, Change { pending: -1, taken: 1, ..Change::default() }).map(drop)
}

pub(super) fn recover(
    connection: &Connection,
    interrupted: &CallResult,
    now: Timestamp,
    keep: &Retention,
) -> Result<(Vec<Waiting>, Vec<CallKey>), Problem> {
    let mut failed = Vec::new();
    let mut running = connection.prepare_cached(RUNNING_ONES)?;
    let running: Vec<_> = running
        .query_map([], |row| Ok((key_columns(row)?, row.get::<_, u32>(3)?, row.get::<_, u32>(4)?)))?
        .collect::<Result<_, _>>()?;
    for (columns, start, crashes) in running {
        let key = key_of(columns)?;
        if crashes + 1 >= CRASHES_MAX {
            results::finish(connection, &key, start, interrupted, now, keep)?;
            failed.push(key);
        } else {
            connection.prepare_cached(CRASHED)?.execute([key.call_id.as_bytes()])?;
            let change = Change { pending: 1, running: -1, ..Change::default() };
            tallies::add(connection, key.account.as_str(), key.function.as_str(), change)?;
        }
    }
    failpoint::check("recover.before_commit")?;
    let mut waiting = connection.prepare_cached(WAITING)?;
    let rows = waiting.query_map([], |row| {
        let numbers = [row.get::<_, i64>(3)?, row.get(4)?, row.get(5)?];
        Ok((key_columns(row)?, numbers))
    })?;
    let waiting = rows.map(|row| {
        let (columns, [place, created, bytes]) = row?;
        let (place, created) = (Place(place.unsigned_abs()), Timestamp(created));
        Ok::<_, Problem>(Waiting { key: key_of(columns)?, place, created, bytes: bytes.unsigned_abs() })
    });
    Ok((waiting.collect::<Result<_, _>>()?, failed))
}

pub(super) fn remove_of_function(
    connection: &Connection,
    account: &AccountId,
    function: &FunctionName,
) -> Result<(), Problem> {
    for sql in [DELETE_OF_FUNCTION, DELETE_KEYS_OF_FUNCTION] {
        connection.prepare_cached(sql)?.execute([account.as_str(), function.as_str()])?;
    }
    tallies::remove(connection, account, function)
}

type KeyColumns = (String, String, Vec<u8>);

fn key_columns(row: &Row<'_>) -> rusqlite::Result<KeyColumns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn key_of((account, function, call_id): KeyColumns) -> Result<CallKey, Problem> {
    let call_id = call_id_of(&call_id)?;
    let wrong = |problem: String| corrupt(&format!("calls ({call_id}): {problem}"));
    let account = AccountId::new(&account).map_err(|e| wrong(e.to_string()))?;
    let function = FunctionName::new(&function).map_err(|e| wrong(e.to_string()))?;
    Ok(CallKey { account, function, call_id })
}

fn call_id_of(bytes: &[u8]) -> Result<CallId, Problem> {
    CallId::from_slice(bytes).ok_or_else(|| corrupt("calls: a call id"))
}

fn corrupt(problem: &str) -> Problem {
    Problem::Refused(Error::CorruptRow(problem.to_owned()))
}
