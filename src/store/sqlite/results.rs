//! What ended calls left, in SQL: it is put there, rotated out, expires and is forgotten.

use super::calls::{ENDED, GONE, resealed_call, seal_of_call, sound_call};
use super::tallies::{self, Change, Held};
use super::writer::Problem;
use super::{Error, seal};
use crate::domain::{CallKey, CallResult, Timestamp, Verdict};
use crate::failpoint;
use crate::store::Retention;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};

/// How many calls one [`expire`] touches: it keeps all other writers waiting.
const EXPIRE_CALLS_MAX: usize = 1_000;
/// How many pages one [`expire`] gives back to the system.
const FREED_PAGES_MAX: u32 = 1_000;
/// Free pages that stay in the file, since it will want them again.
const FREE_PAGES_KEPT: u32 = 1_000;

pub(super) const FINISH: &str = concat!(
    "UPDATE calls SET state = 2, ended_ms = ?5, end_number = ?10, verdict = ?6, message = ?7, content_type = ?8,
        bytes = ?9, payload = ?11,
        checksum = ",
    resealed_call!("2", "starts", "crashes", "?9, ?5, ?10, ?6, ?7, ?8, ?11"),
    " WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 1 AND starts = ?4
    RETURNING place"
);
pub(super) const LEAVE: &str = "INSERT OR REPLACE INTO payloads (place, stdout, stderr) VALUES (?1, ?2, ?3)";
pub(super) const TAKE: &str = "DELETE FROM payloads WHERE place = ?1";
pub(super) const DROP: &str = concat!(
    "DELETE FROM calls WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 2 AND ",
    sound_call!(),
    " RETURNING verdict, bytes"
);
const IS_ENDED: &str = "SELECT 1 FROM calls WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 2";
// A result that is damaged stays: what it counts for cannot be known.
pub(super) const OLDEST: &str = concat!(
    "SELECT place, verdict, bytes FROM calls
    WHERE account_id = ?1 AND function = ?2 AND state = ?3 AND end_number IS NOT NULL AND ",
    sound_call!(),
    " ORDER BY end_number LIMIT 1"
);
pub(super) const EXPIRED: &str = concat!(
    "SELECT place, verdict, bytes, account_id, function FROM calls WHERE state = ?1 AND ended_ms <= ?2 AND ",
    sound_call!(),
    " ORDER BY ended_ms LIMIT ?3"
);
pub(super) const GO: &str = concat!(
    "UPDATE calls SET state = 3, ended_ms = ?2, bytes = 0, verdict = NULL, message = NULL, content_type = NULL,
        payload = seal(NULL, NULL, NULL, NULL), checksum = ",
    resealed_call!("3", "starts", "crashes", "0, ?2, end_number, NULL, NULL, NULL, seal(NULL, NULL, NULL, NULL)"),
    " WHERE place = ?1"
);
pub(super) const FORGET: &str = "DELETE FROM calls WHERE place = ?1";
const BEYOND_BOUNDS: &str = "SELECT account_id, function, finished + failed, gone, bytes, keys FROM tallies
    WHERE (finished + failed > ?1 OR gone > ?2 OR bytes > ?3) AND trusted('tallies', function, checksum, seal(account_id,
        function, pending, running, finished, failed, gone, bytes, keys, accepted, taken, forgotten, ends))";
pub(super) const OLD_KEYS: &str =
    "SELECT account_id, function, key FROM idempotency_keys WHERE created_ms <= ?1 LIMIT ?2";
pub(super) const FORGET_KEY: &str = "DELETE FROM idempotency_keys WHERE account_id = ?1 AND function = ?2 AND key = ?3";

/// The columns of a result.
pub(super) struct Row {
    ended_ms: Option<i64>,
    verdict: Option<i64>,
    message: Option<String>,
    content_type: Option<String>,
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
}

impl Row {
    /// Reads them behind the first column.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            ended_ms: row.get(1)?,
            verdict: row.get(2)?,
            message: row.get(3)?,
            content_type: row.get(4)?,
            stdout: row.get(5)?,
            stderr: row.get(6)?,
        })
    }

    /// When it ended, and what it left.
    pub(super) fn into_result(self) -> Result<(Timestamp, CallResult), &'static str> {
        let Self { ended_ms, verdict, message, content_type, stdout, stderr } = self;
        let verdict = verdict_of(verdict)?;
        if message.is_none() != (verdict == Verdict::Finished) {
            return Err("message: a failure without one, or one without a failure");
        }
        let [stdout, stderr] = [stdout, stderr].map(|bytes| bytes.unwrap_or_default().into());
        let at = Timestamp(ended_ms.ok_or("ended_ms: is missing")?);
        Ok((at, CallResult { verdict, message, content_type, stdout, stderr }))
    }

    /// Whether there is none: the call has not ended.
    pub(super) fn is_empty(&self) -> bool {
        let Self { ended_ms, verdict, message, content_type, stdout, stderr } = self;
        let texts = [message, content_type].map(Option::is_none);
        let bytes = [stdout, stderr].map(Option::is_none);
        ended_ms.is_none() && verdict.is_none() && texts == [true; 2] && bytes == [true; 2]
    }

    /// That it is known since when the result is gone, and nothing else.
    pub(super) fn into_gone(self) -> Result<(), &'static str> {
        if self.ended_ms.is_none() {
            return Err("ended_ms: is missing");
        }
        let left = Self { ended_ms: None, ..self };
        if left.is_empty() { Ok(()) } else { Err("is gone, and has a result") }
    }
}

fn verdict_number(verdict: Verdict) -> i64 {
    match verdict {
        Verdict::Finished => 0,
        Verdict::Failed => 1,
        Verdict::TimedOut => 2,
        Verdict::OutputLimit => 3,
    }
}

pub(super) fn verdict_of(number: Option<i64>) -> Result<Verdict, &'static str> {
    let found = Verdict::ALL.into_iter().find(|verdict| Some(verdict_number(*verdict)) == number);
    found.ok_or("verdict: is none")
}

pub(super) fn finish(
    connection: &Connection,
    call: &CallKey,
    start: u32,
    result: &CallResult,
    now: Timestamp,
    keep: &Retention,
) -> Result<(), Problem> {
    let (account, function) = (call.account.as_str(), call.function.as_str());
    let bytes = i64::try_from(result.kept_bytes()).unwrap_or(i64::MAX);
    let left = [ValueRef::Blob(&result.stdout), ValueRef::Blob(&result.stderr)];
    let values = params![
        call.call_id.as_bytes(),
        account,
        function,
        start,
        now.0,
        verdict_number(result.verdict),
        result.message,
        result.content_type,
        bytes,
        tallies::ends(connection, account, function)? + 1,
        seal::of([[ValueRef::Null; 2], left].as_flattened().iter().copied()),
    ];
    let ended = connection.prepare_cached(FINISH)?.query_row(values, |row| row.get::<_, i64>(0)).optional()?;
    let place = ended.ok_or(Problem::Refused(Error::NotFound))?;
    connection.prepare_cached(LEAVE)?.execute(params![place, &result.stdout[..], &result.stderr[..]])?;
    let ended = Change { running: -1, ends: 1, ..Change::default() }.results(result.verdict, 1, bytes);
    let held = tallies::add(connection, account, function, ended)?;
    failpoint::check("finish.before_commit")?;
    rotate(connection, account, function, held, now, keep)
}

/// Lets the oldest results go until the rest is within its bounds.
fn rotate(
    connection: &Connection,
    account: &str,
    function: &str,
    held: Held,
    now: Timestamp,
    keep: &Retention,
) -> Result<(), Problem> {
    rotate_some(connection, (account, function), held, now, keep, usize::MAX).map(drop)
}

/// Lets at most so many go; answers how many.
fn rotate_some(
    connection: &Connection,
    of: (&str, &str),
    mut held: Held,
    now: Timestamp,
    keep: &Retention,
    max: usize,
) -> Result<usize, Problem> {
    let mut gone = 0;
    while gone < max && (held.bytes > keep.function_bytes || held.results > keep.function_calls) {
        let Some(oldest) = EndedCall::oldest(connection, of, ENDED)? else { break };
        held = oldest.go(connection, of, now)?;
        failpoint::check("rotate.mid")?;
        gone += 1;
    }
    while gone < max && held.gone > keep.function_gone {
        let Some(oldest) = EndedCall::oldest(connection, of, GONE)? else { break };
        held = oldest.forget(connection, of)?;
        gone += 1;
    }
    Ok(gone)
}

/// A call that has ended long ago.
struct EndedCall {
    place: i64,
    verdict: Option<i64>,
    bytes: i64,
}

impl EndedCall {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { place: row.get(0)?, verdict: row.get(1)?, bytes: row.get(2)? })
    }

    /// Of those of a function in a state, the one that ended first.
    fn oldest(connection: &Connection, (account, function): (&str, &str), state: i64) -> Result<Option<Self>, Problem> {
        let mut oldest = connection.prepare_cached(OLDEST)?;
        Ok(oldest.query_row(params![account, function, state], Self::read).optional()?)
    }

    /// Its result is kept no longer.
    fn go(self, connection: &Connection, (account, function): (&str, &str), now: Timestamp) -> Result<Held, Problem> {
        let verdict = verdict_of(self.verdict);
        let verdict = verdict.map_err(|e| Problem::Refused(Error::CorruptRow(format!("calls: {e}"))))?;
        connection.prepare_cached(GO)?.execute([self.place, now.0])?;
        connection.prepare_cached(TAKE)?.execute([self.place])?;
        let gone = Change { gone: 1, ..Change::default() }.results(verdict, -1, -self.bytes);
        tallies::add(connection, account, function, gone)
    }

    /// Nobody remembers it any more.
    fn forget(self, connection: &Connection, (account, function): (&str, &str)) -> Result<Held, Problem> {
        connection.prepare_cached(FORGET)?.execute([self.place])?;
        tallies::add(connection, account, function, Change { gone: -1, forgotten: 1, ..Change::default() })
    }
}

/// `false` if there is such a result, and it is damaged: it stays, since what it counts for cannot be known.
pub(super) fn drop_result(connection: &Connection, call: &CallKey) -> Result<bool, Problem> {
    let (account, function) = (call.account.as_str(), call.function.as_str());
    let key = params![call.call_id.as_bytes(), account, function];
    let mut delete = connection.prepare_cached(DROP)?;
    let dropped = delete.query_row(key, |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?)));
    let Some((verdict, bytes)) = dropped.optional()? else {
        let is_there = connection.prepare_cached(IS_ENDED)?.exists(key)?;
        return if is_there { Ok(false) } else { Err(Problem::Refused(Error::NotFound)) };
    };
    failpoint::check("forget.before_commit")?;
    let verdict = verdict_of(verdict).map_err(|e| Problem::Refused(Error::CorruptRow(format!("calls: {e}"))))?;
    let change = Change { taken: 1, ..Change::default() }.results(verdict, -1, -bytes);
    tallies::add(connection, account, function, change).map(|_| true)
}

/// `true` if there may be more to do.
pub(super) fn expire(connection: &Connection, now: Timestamp, keep: &Retention) -> Result<bool, Problem> {
    let mut left = EXPIRE_CALLS_MAX;
    for (old, of) in expired(connection, ENDED, now.before(keep.result_ttl), left)? {
        old.go(connection, (&of.0, &of.1), now)?;
        left -= 1;
    }
    for (old, of) in expired(connection, GONE, now.before(keep.gone_ttl), left)? {
        old.forget(connection, (&of.0, &of.1))?;
        left -= 1;
    }
    // What is kept may have been allowed to be more.
    let bounds = [keep.function_calls, keep.function_gone, keep.function_bytes];
    let mut beyond = connection.prepare_cached(BEYOND_BOUNDS)?;
    let beyond = beyond.query_map(bounds.map(|bound| i64::try_from(bound).unwrap_or(i64::MAX)), |row| {
        Ok((row.get(0)?, row.get(1)?, Held::read(row, 2)?))
    })?;
    for (account, function, held) in beyond.collect::<Result<Vec<(String, String, Held)>, _>>()? {
        left -= rotate_some(connection, (&account, &function), held, now, keep, EXPIRE_CALLS_MAX)?.min(left);
    }
    left -= forget_keys(connection, now.before(keep.key_ttl).0, left)?;
    failpoint::check("expire.before_commit")?;
    Ok(give_space_back(connection)? || left == 0)
}

/// Account and name of a function.
type Of = (String, String);

/// At most so many calls that are in a state since then or longer, and what they are of.
fn expired(connection: &Connection, state: i64, since: Timestamp, max: usize) -> Result<Vec<(EndedCall, Of)>, Problem> {
    let mut expired = connection.prepare_cached(EXPIRED)?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let expired = expired
        .query_map(params![state, since.0, max], |row| Ok((EndedCall::read(row)?, (row.get(3)?, row.get(4)?))))?;
    Ok(expired.collect::<Result<_, _>>()?)
}

/// Forgets keys that are as old as that, at most so many; answers how many.
fn forget_keys(connection: &Connection, created_ms: i64, max: usize) -> Result<usize, Problem> {
    let mut old = connection.prepare_cached(OLD_KEYS)?;
    let old: Vec<(String, String, Vec<u8>)> = old
        .query_map(params![created_ms, i64::try_from(max).unwrap_or(i64::MAX)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    for (account, function, key) in &old {
        connection.prepare_cached(FORGET_KEY)?.execute(params![account, function, key])?;
        tallies::add(connection, account, function, Change { keys: -1, ..Change::default() })?;
    }
    Ok(old.len())
}

/// Cuts free pages off the file; `true` if more of them can be.
fn give_space_back(connection: &Connection) -> Result<bool, Problem> {
    let before = free_pages(connection)?;
    let most = before.saturating_sub(FREE_PAGES_KEPT).min(FREED_PAGES_MAX);
    give_pages_back(connection, most)?;
    let after = free_pages(connection)?;
    // A file that was made without `auto_vacuum` gives none back, however often it is asked.
    Ok(after < before && after > FREE_PAGES_KEPT)
}

pub(super) fn free_pages(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))
}

/// Cuts so many free pages off the file, if there are.
pub(super) fn give_pages_back(connection: &Connection, pages: u32) -> rusqlite::Result<()> {
    // None would mean all.
    if pages == 0 {
        return Ok(());
    }
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    // Each step cuts one page off.
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}
