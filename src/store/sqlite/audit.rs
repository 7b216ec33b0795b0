//! Whether a store holds what it must: read beside a server or without one, and never written.
//!
//! All of it is read in one transaction, so that a store that is written meanwhile is looked at as it was at one moment.

use super::calls::{ENDED, GONE, PENDING, RUNNING, seal_of_call};
use super::record::{FunctionRow, ImageRow};
use super::results::Row as ResultRow;
use super::{Error, SCHEMA_VERSION, SqliteStore, failure, open, snapshot, wal};
use crate::domain::{
    AccountId, CRASHES_MAX, CallId, Digest, FunctionName, Place, STDERR_HEAD_BYTES, STDERR_TAIL_BYTES, STDIN_BYTES_MAX,
    STDOUT_BYTES_MAX, Variable,
};
use crate::store::{Retention, StoreAudit};
use rusqlite::{Connection, Row};
use std::collections::HashMap;
use std::path::Path;

/// Problems of the file that SQLite lists at most.
const INTEGRITY: &str = "PRAGMA integrity_check(100)";
const FUNCTIONS: &str = "SELECT account_id, name, uuid, created_ms, definition,
        checksum = seal(account_id, name, uuid, created_ms, definition)
    FROM functions ORDER BY account_id, name";
const IMAGES: &str = "SELECT account_id, repository, tag, digest, size_bytes, created_ms, info, config,
        checksum = seal(account_id, repository, tag, digest, size_bytes, created_ms, info, config)
    FROM images ORDER BY account_id, repository, tag, digest";
/// The columns of a result stand where `ResultRow` has them.
const CALLS: &str = concat!(
    "SELECT state, ended_ms, verdict, message, content_type, stdout, stderr, account_id, function, call_id, place, starts,
        crashes, bytes, variables, octet_length(body), checksum = ",
    seal_of_call!(),
    ", payload = seal(variables, body, stdout, stderr) FROM calls LEFT JOIN payloads USING (place) ORDER BY place"
);
const TALLIES: &str = "SELECT account_id, function, pending, running, finished, failed, gone, bytes, keys, accepted,
        taken, forgotten,
        checksum = seal(account_id, function, pending, running, finished, failed, gone, bytes, keys, accepted, taken,
            forgotten, ends)
    FROM tallies ORDER BY account_id, function";
const KEYS: &str = "SELECT account_id, function, count(*), sum(checksum = seal(account_id, function, key, call_id,
        created_ms))
    FROM idempotency_keys GROUP BY account_id, function";
const WITHOUT_CALL: &str = "SELECT count(*) FROM payloads WHERE place NOT IN (SELECT place FROM calls)";
const LAST_PLACE: &str = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'calls'";
const REMOVED: &str = "SELECT coalesce(sum(accepted), 0) FROM removed_calls";

/// Account and name of a function, as they stand in a row.
type Name = (String, String);

/// What the rows of one function add up to, in the order of the columns of its tally.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Sums {
    pending: i64,
    running: i64,
    finished: i64,
    failed: i64,
    gone: i64,
    bytes: i64,
    keys: i64,
}

impl SqliteStore {
    /// The modules that images name, with their sizes in bytes.
    ///
    /// # Errors
    /// When images cannot be read.
    pub fn modules(path: &Path) -> Result<HashMap<Digest, u64>, Error> {
        let fail = |e: rusqlite::Error| failure("images", &e);
        let connection = open::reader(path)?;
        Ok(snapshot::modules(&connection).map_err(fail)?.into_iter().collect())
    }

    /// Whether the log of writes is whole of a store at `path` that nobody has open.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not.
    pub fn check_log(path: &Path) -> Result<(), Error> {
        wal::check(path)
    }

    /// Looks through the store at `path`, whether a server has it open or not.
    ///
    /// # Errors
    /// When it cannot be read at all, or is of another version. What is wrong inside is a finding.
    pub fn audit(path: &Path, keep: &Retention) -> Result<StoreAudit, Error> {
        let shown = path.display().to_string();
        if !path.is_file() {
            return Err(Error::Failed(format!("{shown}: there is no store")));
        }
        let connection = open::reader(path)?;
        let fail = |e: rusqlite::Error| failure(&shown, &e);
        let found: i64 = open::one(&connection, "PRAGMA user_version").map_err(fail)?;
        if found > SCHEMA_VERSION {
            return Err(Error::TooNew { found, known: SCHEMA_VERSION });
        }
        if found < SCHEMA_VERSION {
            return Err(Error::Failed(format!("{shown}: is of version {found}: the server's next start brings it up")));
        }
        connection.execute_batch("BEGIN").map_err(fail)?;
        Ok(rows(&connection, keep, &shown))
    }
}

/// Looks through all that is in a file of this version. What cannot be read is a finding too.
pub(super) fn rows(connection: &Connection, keep: &Retention, shown: &str) -> StoreAudit {
    let mut audit = Audit { connection, keep, sums: HashMap::new(), all: StoreAudit::default() };
    let looks =
        [Audit::file, Audit::functions, Audit::images, Audit::calls, Audit::payloads, Audit::keys, Audit::tallies];
    for look in looks {
        // What one of them cannot read, the others may.
        if let Err(error) = look(&mut audit) {
            audit.all.findings.add(failure(shown, &error).to_string());
        }
    }
    audit.all
}

struct Audit<'a> {
    connection: &'a Connection,
    keep: &'a Retention,
    sums: HashMap<Name, Sums>,
    all: StoreAudit,
}

impl Audit<'_> {
    /// Hands on every row of a query.
    fn each(
        &mut self,
        sql: &str,
        mut look: impl FnMut(&mut Self, &Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            look(self, row)?;
        }
        Ok(())
    }

    fn find(&mut self, what: impl Into<String>) {
        self.all.findings.add(what.into());
    }

    fn file(&mut self) -> rusqlite::Result<()> {
        self.each(INTEGRITY, |audit, row| {
            let problem: String = row.get(0)?;
            if problem != "ok" {
                audit.find(format!("{}: {problem}", SqliteStore::FILE_NAME));
            }
            Ok(())
        })
    }

    fn functions(&mut self) -> rusqlite::Result<()> {
        self.each(FUNCTIONS, |audit, row| {
            let function = FunctionRow::read(row)?;
            let name = (function.account.clone(), function.name.clone());
            if !row.get::<_, bool>(5)? {
                audit.find(format!("functions ({}): its checksum is wrong", function.name));
            } else if let Err(error) = function.into_function() {
                audit.find(error.to_string());
            }
            audit.sums.insert(name, Sums::default());
            audit.all.functions += 1;
            Ok(())
        })
    }

    fn images(&mut self) -> rusqlite::Result<()> {
        self.each(IMAGES, |audit, row| {
            let image = ImageRow::read(row)?;
            let repository = image.repository.clone();
            if !row.get::<_, bool>(8)? {
                audit.find(format!("images ({repository}): its checksum is wrong"));
            } else if let Err(error) = image.into_image() {
                audit.find(error.to_string());
            }
            audit.all.images += 1;
            Ok(())
        })
    }

    fn calls(&mut self) -> rusqlite::Result<()> {
        self.each(CALLS, |audit, row| {
            let name: Name = (row.get(7)?, row.get(8)?);
            let id: Vec<u8> = row.get(9)?;
            let Some(call_id) = CallId::from_slice(&id) else {
                audit.find("calls: a call id");
                return Ok(());
            };
            audit.all.places.insert(Place(row.get::<_, i64>(10)?.unsigned_abs()), call_id);
            let mut problem = |what: &str| audit.find(format!("calls ({call_id}): {what}"));
            if !(row.get::<_, bool>(16)? && row.get::<_, bool>(17)?) {
                problem("its checksum is wrong");
            }
            if let Err(what) = check_call(row)? {
                problem(&what);
            }
            let (state, bytes) = (row.get::<_, i64>(0)?, row.get::<_, i64>(13)?);
            let finished = state == ENDED && row.get::<_, Option<i64>>(2)? == Some(0);
            let Some(sums) = audit.sums.get_mut(&name) else {
                audit.find(format!("calls ({call_id}): of {}, which is not there", name.1));
                return Ok(());
            };
            match state {
                PENDING => sums.pending += 1,
                RUNNING => sums.running += 1,
                ENDED if finished => sums.finished += 1,
                ENDED => sums.failed += 1,
                _ => sums.gone += 1,
            }
            if state == ENDED {
                sums.bytes += bytes;
            }
            Ok(())
        })
    }

    fn payloads(&mut self) -> rusqlite::Result<()> {
        let without: i64 = open::one(self.connection, WITHOUT_CALL)?;
        if without > 0 {
            self.find(format!("payloads: {without} are of no call"));
        }
        Ok(())
    }

    fn keys(&mut self) -> rusqlite::Result<()> {
        self.each(KEYS, |audit, row| {
            let (name, keys, sound): (Name, i64, i64) = ((row.get(0)?, row.get(1)?), row.get(2)?, row.get(3)?);
            if sound != keys {
                audit.find(format!("idempotency_keys ({}): {} checksums are wrong", name.1, keys - sound));
            }
            match audit.sums.get_mut(&name) {
                Some(sums) => sums.keys = keys,
                None => audit.find(format!("idempotency_keys: of {}, which is not there", name.1)),
            }
            Ok(())
        })
    }

    /// Every call that was accepted is in exactly one place.
    fn tallies(&mut self) -> rusqlite::Result<()> {
        let mut accepted_in_all = 0;
        self.each(TALLIES, |audit, row| {
            let name: Name = (row.get(0)?, row.get(1)?);
            let [pending, running, finished, failed, gone, bytes, keys, accepted, taken, forgotten] = numbers(row, 2)?;
            let said = Sums { pending, running, finished, failed, gone, bytes, keys };
            let mut problem = |what: &str| audit.find(format!("tallies ({}): {what}", name.1));
            if !row.get::<_, bool>(12)? {
                problem("its checksum is wrong");
            }
            if accepted != pending + running + finished + failed + gone + taken + forgotten {
                problem(&format!(
                    "of {accepted} accepted calls, {pending} wait, {running} run, {finished} have finished, {failed} have \
                     failed, {gone} are rotated out or expired, {taken} were read or removed, {forgotten} are forgotten"
                ));
            }
            match audit.sums.remove(&name) {
                Some(sums) if sums == said => {}
                Some(sums) => audit.find(format!("tallies ({}): {said:?}, and there are {sums:?}", name.1)),
                None => audit.find(format!("tallies: of {}, which is not there", name.1)),
            }
            audit.check_caps(&name.1, &said);
            accepted_in_all += accepted;
            let all = &mut audit.all;
            for (all, more) in [
                (&mut all.pending, pending),
                (&mut all.running, running),
                (&mut all.ended, finished + failed),
                (&mut all.gone, gone + forgotten),
                (&mut all.taken, taken),
            ] {
                *all += more.unsigned_abs();
            }
            Ok(())
        })?;
        let without: Vec<_> = self.sums.drain().filter(|(_, sums)| *sums != Sums::default()).collect();
        for ((_, function), sums) in without {
            self.find(format!("tallies ({function}): is missing, and there are {sums:?}"));
        }
        let removed: i64 = open::one(self.connection, REMOVED)?;
        let last: i64 = open::one(self.connection, LAST_PLACE)?;
        if accepted_in_all + removed != last {
            self.find(format!(
                "calls: {last} were accepted, {accepted_in_all} of functions that are there and {removed} of removed ones"
            ));
        }
        (self.all.removed, self.all.last_place) = (removed.unsigned_abs(), Place(last.unsigned_abs()));
        Ok(())
    }

    fn check_caps(&mut self, function: &str, sums: &Sums) {
        let keep = self.keep;
        for (what, is, may) in [
            ("bytes of results", sums.bytes, keep.function_bytes),
            ("results", sums.finished + sums.failed, keep.function_calls),
            ("calls known to be gone", sums.gone, keep.function_gone),
            ("idempotency keys", sums.keys, keep.function_keys),
        ] {
            if is.unsigned_abs() > may {
                self.find(format!("tallies ({function}): {is} {what}, and {may} may be"));
            }
        }
    }
}

fn numbers<const N: usize>(row: &Row<'_>, from: usize) -> rusqlite::Result<[i64; N]> {
    let mut numbers = [0; N];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.get(from + at)?;
    }
    Ok(numbers)
}

/// What is wrong with a call, whatever its checksum says.
fn check_call(row: &Row<'_>) -> rusqlite::Result<Result<(), String>> {
    let state: i64 = row.get(0)?;
    let (account, function): (String, String) = (row.get(7)?, row.get(8)?);
    if let Err(invalid) = AccountId::new(&account).and(FunctionName::new(&function)) {
        return Ok(Err(invalid.to_string()));
    }
    let [starts, crashes, bytes] = numbers(row, 11)?;
    let (variables, body): (Option<String>, Option<i64>) = (row.get(14)?, row.get(15)?);
    if crashes > starts || crashes >= i64::from(CRASHES_MAX) || (starts == 0 && matches!(state, RUNNING | ENDED)) {
        return Ok(Err(format!("{starts} starts, of which a crash has ended {crashes}")));
    }
    let result = ResultRow::read(row)?;
    let is_empty = result.is_empty();
    Ok(match state {
        PENDING | RUNNING => match (variables, body) {
            (Some(variables), Some(body)) if is_empty => check_request(&variables, body, bytes),
            _ => Err("has not ended, and has a result, or no request".to_owned()),
        },
        _ if variables.is_some() || body.is_some() => Err("has ended, and has its request still".to_owned()),
        ENDED => result.into_result().map_err(str::to_owned).and_then(|(_, result)| {
            let (stdout, stderr) = (result.stdout.len(), result.stderr.len());
            if stdout > STDOUT_BYTES_MAX || stderr > STDERR_HEAD_BYTES + STDERR_TAIL_BYTES {
                return Err(format!("{stdout} bytes of stdout and {stderr} of stderr are more than may be kept"));
            }
            check_bytes(bytes, result.kept_bytes())
        }),
        GONE => result.into_gone().map_err(str::to_owned).and_then(|()| check_bytes(bytes, 0)),
        other => Err(format!("state {other} is none")),
    })
}

fn check_request(variables: &str, body: i64, bytes: i64) -> Result<(), String> {
    serde_json::from_str::<Vec<Variable>>(variables).map_err(|e| format!("variables: {e}"))?;
    let body = body.unsigned_abs();
    if body > STDIN_BYTES_MAX as u64 {
        return Err(format!("{body} bytes of body are more than a call may bring"));
    }
    check_bytes(bytes, body)
}

fn check_bytes(said: i64, are: u64) -> Result<(), String> {
    if u64::try_from(said) == Ok(are) { Ok(()) } else { Err(format!("{are} bytes, counted as {said}")) }
}
