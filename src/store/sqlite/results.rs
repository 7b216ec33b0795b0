//! What ended calls left, in SQL: it is put there, rotated out, expires and is forgotten.

use super::Error;
use super::calls::{ENDED, GONE, resealed_call, seal_of_call};
use super::tallies::{self, Change, Held};
use super::writer::Problem;
use crate::domain::{CallKey, CallResult, Timestamp, Verdict};
use crate::failpoint;
use crate::store::Retention;
use rusqlite::{Connection, OptionalExtension as _, params};

/// How many calls one [`expire`] touches: it keeps all other writers waiting.
const EXPIRE_CALLS_MAX: usize = 1_000;
/// How many pages one [`expire`] gives back to the system.
const FREED_PAGES_MAX: u32 = 1_000;
/// Free pages that stay in the file, since it will want them again.
const FREE_PAGES_KEPT: u32 = 1_000;

pub(super) const FINISH: &str = concat!(
    "UPDATE calls SET state = 2, ended_ms = ?5, verdict = ?6, message = ?7, content_type = ?8,
        bytes = ?9, payload = seal(NULL, NULL, ?10, ?11),
        checksum = ",
    resealed_call!("2", "starts", "crashes", "?9, ?5, ?6, ?7, ?8, seal(NULL, NULL, ?10, ?11)"),
    " WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 1 AND starts = ?4
    RETURNING place"
);
pub(super) const LEAVE: &str = "INSERT OR REPLACE INTO payloads (place, stdout, stderr) VALUES (?1, ?2, ?3)";
pub(super) const TAKE: &str = "DELETE FROM payloads WHERE place = ?1";
pub(super) const DROP: &str = "DELETE FROM calls WHERE call_id = ?1 AND account_id = ?2 AND function = ?3 AND state = 2
    RETURNING verdict, bytes";
pub(super) const OLDEST: &str = "SELECT place, ended_ms, verdict, bytes FROM calls
    WHERE account_id = ?1 AND function = ?2 AND state = ?3 AND ended_ms IS NOT NULL ORDER BY ended_ms, place LIMIT 1";
pub(super) const GO: &str = concat!(
    "UPDATE calls SET state = 3, ended_ms = ?2, bytes = 0, verdict = NULL, message = NULL, content_type = NULL,
        payload = seal(NULL, NULL, NULL, NULL), checksum = ",
    resealed_call!("3", "starts", "crashes", "0, ?2, NULL, NULL, NULL, seal(NULL, NULL, NULL, NULL)"),
    " WHERE place = ?1"
);
pub(super) const FORGET: &str = "DELETE FROM calls WHERE place = ?1";
const WITH_RESULTS: &str = "SELECT account_id, function, finished + failed, gone, bytes, keys FROM tallies
    WHERE finished + failed + gone > 0";
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
        &result.stdout[..],
        &result.stderr[..],
    ];
    let ended = connection.prepare_cached(FINISH)?.query_row(values, |row| row.get::<_, i64>(0)).optional()?;
    let place = ended.ok_or(Problem::Refused(Error::NotFound))?;
    connection.prepare_cached(LEAVE)?.execute(params![place, &result.stdout[..], &result.stderr[..]])?;
    let ended = Change { running: -1, ..Change::default() }.results(result.verdict, 1, bytes);
    let held = tallies::add(connection, account, function, ended)?;
    failpoint::check("finish.before_commit")?;
    rotate(connection, account, function, held, now, keep)
}

/// Lets the oldest results go until the rest is within its bounds.
fn rotate(
    connection: &Connection,
    account: &str,
    function: &str,
    mut held: Held,
    now: Timestamp,
    keep: &Retention,
) -> Result<(), Problem> {
    while are_too_many(held, keep) {
        let Some(oldest) = Oldest::of(connection, account, function, ENDED)? else { break };
        held = oldest.go(connection, account, function, now)?;
        failpoint::check("rotate.mid")?;
    }
    while held.gone > keep.function_gone {
        let Some(oldest) = Oldest::of(connection, account, function, GONE)? else { break };
        held = oldest.forget(connection, account, function)?;
    }
    Ok(())
}

/// Whether results have to go.
fn are_too_many(held: Held, keep: &Retention) -> bool {
    held.bytes > keep.function_bytes || held.results > keep.function_calls
}

/// The call of a function that has been longest in a state.
struct Oldest {
    place: i64,
    since_ms: i64,
    verdict: Option<i64>,
    bytes: i64,
}

impl Oldest {
    fn of(connection: &Connection, account: &str, function: &str, state: i64) -> Result<Option<Self>, Problem> {
        let mut oldest = connection.prepare_cached(OLDEST)?;
        let oldest = oldest.query_row(params![account, function, state], |row| {
            Ok(Self { place: row.get(0)?, since_ms: row.get(1)?, verdict: row.get(2)?, bytes: row.get(3)? })
        });
        Ok(oldest.optional()?)
    }

    /// Its result is kept no longer.
    fn go(self, connection: &Connection, account: &str, function: &str, now: Timestamp) -> Result<Held, Problem> {
        let verdict =
            verdict_of(self.verdict).map_err(|e| Problem::Refused(Error::CorruptRow(format!("calls: {e}"))))?;
        connection.prepare_cached(GO)?.execute([self.place, now.0])?;
        connection.prepare_cached(TAKE)?.execute([self.place])?;
        let gone = Change { gone: 1, ..Change::default() }.results(verdict, -1, -self.bytes);
        tallies::add(connection, account, function, gone)
    }

    /// Nobody remembers it any more.
    fn forget(self, connection: &Connection, account: &str, function: &str) -> Result<Held, Problem> {
        connection.prepare_cached(FORGET)?.execute([self.place])?;
        tallies::add(connection, account, function, Change { gone: -1, forgotten: 1, ..Change::default() })
    }
}

pub(super) fn drop_result(connection: &Connection, call: &CallKey) -> Result<(), Problem> {
    let (account, function) = (call.account.as_str(), call.function.as_str());
    let mut delete = connection.prepare_cached(DROP)?;
    let dropped = delete.query_row(params![call.call_id.as_bytes(), account, function], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?))
    });
    let (verdict, bytes) = dropped.optional()?.ok_or(Problem::Refused(Error::NotFound))?;
    failpoint::check("forget.before_commit")?;
    let verdict = verdict_of(verdict).map_err(|e| Problem::Refused(Error::CorruptRow(format!("calls: {e}"))))?;
    let change = Change { taken: 1, ..Change::default() }.results(verdict, -1, -bytes);
    tallies::add(connection, account, function, change).map(drop)
}

/// `true` if there may be more to do.
pub(super) fn expire(connection: &Connection, now: Timestamp, keep: &Retention) -> Result<bool, Problem> {
    let mut left = EXPIRE_CALLS_MAX;
    let mut functions = connection.prepare_cached(WITH_RESULTS)?;
    let functions: Vec<(String, String, Held)> = functions
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, Held::read(row, 2)?)))?
        .collect::<Result<_, _>>()?;
    for (account, function, mut held) in functions {
        while left > 0
            && let Some(oldest) = Oldest::of(connection, &account, &function, ENDED)?
            && (are_too_many(held, keep) || oldest.since_ms <= now.before(keep.result_ttl).0)
        {
            held = oldest.go(connection, &account, &function, now)?;
            left -= 1;
        }
        while left > 0
            && let Some(oldest) = Oldest::of(connection, &account, &function, GONE)?
            && (held.gone > keep.function_gone || oldest.since_ms <= now.before(keep.gone_ttl).0)
        {
            held = oldest.forget(connection, &account, &function)?;
            left -= 1;
        }
    }
    left -= forget_keys(connection, now.before(keep.key_ttl).0, left)?;
    failpoint::check("expire.before_commit")?;
    Ok(give_space_back(connection)? || left == 0)
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
