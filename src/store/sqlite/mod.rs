//! The embedded backend: one SQLite file.
//!
//! One thread writes ([`writer`]), in groups that share a commit. Reads have a connection of their own and
//! never wait for it: the file is in WAL mode.

mod audit;
mod ballast;
mod calls;
mod disk;
mod functions;
mod images;
mod known;
mod open;
mod record;
mod results;
mod seal;
mod snapshot;
mod tallies;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

pub use open::SCHEMA_VERSION;
pub use snapshot::Contents;

use super::{Answer, Displaced, Enqueued, Error, ImageKey, KnownCall, NewCall, OnAccepted, Retention, Start, Store};
use crate::domain::{
    AccountId, CallId, CallKey, CallResult, Function, FunctionName, IdempotencyKey, Image, Listed, Place, Quota, Tally,
    Timestamp, Waiting,
};
use ballast::Ballast;
use calls::NewRow;
use record::{FunctionRow, ImageRow};
use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use writer::Writer;

/// Connections that read: as many reads at once.
const READERS: usize = 4;

/// A store in one file of its own. Dropping it waits until what was begun is on disk.
pub struct SqliteStore {
    // Before the writer, so that it closes first: the last connection folds the WAL into the file.
    readers: Arc<[Mutex<Connection>; READERS]>,
    writer: Writer,
    corruptions: AtomicU64,
    shown: String,
}

impl SqliteStore {
    /// The name of its file in a data directory.
    pub const FILE_NAME: &str = "hyperfunc.db";

    /// Opens the store in the file at `path`, and creates it if there is none.
    ///
    /// # Errors
    /// [`Error::TooNew`], [`Error::Corrupt`] when the file is no store or a damaged one, [`Error::DiskFull`],
    /// and [`Error::Failed`] for all that the system refuses.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let writer = open::writer(path).or_else(|error| match error {
            // Even to look at it takes a little room.
            Error::DiskFull => {
                Ballast::leave(path);
                open::writer(path)
            }
            other => Err(other),
        })?;
        let reader = || open::reader(path).map(Mutex::new);
        let readers = Arc::new([reader()?, reader()?, reader()?, reader()?]);
        let writer = Writer::start(writer, path)?;
        Ok(Self { readers, writer, corruptions: AtomicU64::new(0), shown: path.display().to_string() })
    }

    /// Runs a read away from the tasks of the runtime.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let readers = Arc::clone(&self.readers);
        let task = move || read(&free(readers.as_slice()));
        let answer = tokio::task::spawn_blocking(task).await;
        let answer = answer.map_err(|e| Error::Failed(format!("a read broke off: {e}")))?;
        match &answer {
            // It is not answered. Others do not stand in the same row.
            Err(Error::CorruptRow(_)) => {
                self.corruptions.fetch_add(1, Ordering::Relaxed);
            }
            Err(error @ (Error::Corrupt(_) | Error::Failed(_))) => {
                self.writer.fail(format!("{}: {error}", self.shown));
            }
            Ok(_) | Err(_) => {}
        }
        answer
    }
}

/// A connection that nobody uses, or else the first one as soon as it is free. A reader that panicked has changed
/// nothing: its connection is as good as before.
fn free(readers: &[Mutex<Connection>]) -> MutexGuard<'_, Connection> {
    let unused = readers.iter().find_map(|reader| match reader.try_lock() {
        Ok(reader) => Some(reader),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    });
    unused.unwrap_or_else(|| readers[0].lock().unwrap_or_else(PoisonError::into_inner))
}

impl Store for SqliteStore {
    fn failed(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(self.writer.failed())
    }

    fn functions(&self) -> Answer<'_, Vec<Function>> {
        Box::pin(self.read(functions::all))
    }

    fn images(&self) -> Answer<'_, Vec<Image>> {
        Box::pin(self.read(images::all))
    }

    fn create_function<'a>(&'a self, function: &'a Function, quota: Quota) -> Answer<'a, ()> {
        Box::pin(async move {
            let row = FunctionRow::new(function)?;
            let name = function.name.clone();
            self.writer.run(move |connection| functions::create(connection, &row, name, quota)).await
        })
    }

    fn update_function<'a>(&'a self, function: &'a Function) -> Answer<'a, ()> {
        Box::pin(async move {
            let row = FunctionRow::new(function)?;
            self.writer.run(move |connection| functions::update(connection, &row)).await
        })
    }

    fn remove_function<'a>(&'a self, account: &'a AccountId, name: &'a FunctionName) -> Answer<'a, ()> {
        let (account, name) = (account.clone(), name.clone());
        Box::pin(self.writer.make_room(move |connection| functions::remove(connection, &account, &name)))
    }

    fn put_image<'a>(&'a self, image: &'a Image, displaced: Displaced, quota: Quota) -> Answer<'a, ()> {
        Box::pin(async move {
            let row = ImageRow::new(image)?;
            self.writer.run(move |connection| images::put(connection, &row, displaced, quota)).await
        })
    }

    fn remove_image<'a>(&'a self, key: &'a ImageKey) -> Answer<'a, ()> {
        let key = key.clone();
        Box::pin(self.writer.make_room(move |connection| images::remove(connection, &key)))
    }

    fn enqueue(&self, call: NewCall, keep: &Retention, on_accepted: OnAccepted) -> Answer<'_, Enqueued> {
        let keep = *keep;
        Box::pin(async move {
            let row = NewRow::new(call)?;
            let bytes = row.bytes();
            let enqueue = move |connection: &Connection| calls::enqueue(connection, &row, &keep);
            let tell = |(_, place): &(Enqueued, Option<Place>)| {
                if let Some(place) = place {
                    on_accepted(*place);
                }
            };
            Ok(self.writer.run_and_tell(bytes, enqueue, tell).await?.0)
        })
    }

    fn call_of_key<'a>(
        &'a self,
        account: &'a AccountId,
        function: &'a FunctionName,
        key: IdempotencyKey,
        since: Timestamp,
    ) -> Answer<'a, Option<CallId>> {
        let (account, function) = (account.clone(), function.clone());
        Box::pin(self.read(move |connection| calls::of_key(connection, &account, &function, key, since)))
    }

    fn claim(&self, calls: Vec<CallKey>) -> Answer<'_, Vec<Option<Start>>> {
        Box::pin(self.writer.run(move |connection| calls::claim(connection, &calls)))
    }

    fn give_back<'a>(&'a self, call: &'a CallKey, start: u32) -> Answer<'a, ()> {
        let call = call.clone();
        Box::pin(self.writer.make_room(move |connection| calls::give_back(connection, &call, start)))
    }

    fn finish<'a>(
        &'a self,
        call: &'a CallKey,
        start: u32,
        result: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Answer<'a, ()> {
        let (call, keep) = (call.clone(), *keep);
        let bytes = result.kept_bytes();
        let finish = move |connection: &Connection| results::finish(connection, &call, start, &result, now, &keep);
        Box::pin(self.writer.run_and_tell(bytes, finish, |()| {}))
    }

    fn recover<'a>(
        &'a self,
        interrupted: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Answer<'a, (Vec<Waiting>, Vec<CallKey>)> {
        let keep = *keep;
        // A server starts on a full disk too.
        Box::pin(self.writer.make_room(move |connection| calls::recover(connection, &interrupted, now, &keep)))
    }

    fn call<'a>(&'a self, call: &'a CallKey) -> Answer<'a, Option<KnownCall>> {
        let call = call.clone();
        Box::pin(self.read(move |connection| known::one(connection, &call)))
    }

    fn function_of_call<'a>(&'a self, account: &'a AccountId, call_id: CallId) -> Answer<'a, Option<FunctionName>> {
        let account = account.clone();
        Box::pin(self.read(move |connection| known::function_of(connection, &account, call_id)))
    }

    fn drop_pending<'a>(&'a self, call: &'a CallKey) -> Answer<'a, ()> {
        let call = call.clone();
        Box::pin(self.writer.make_room(move |connection| calls::drop_pending(connection, &call)))
    }

    fn drop_result<'a>(&'a self, call: &'a CallKey) -> Answer<'a, ()> {
        let key = call.clone();
        Box::pin(async move {
            let drop_it = move |connection: &Connection| results::drop_result(connection, &key);
            if self.writer.make_room(drop_it).await? {
                return Ok(());
            }
            self.corruptions.fetch_add(1, Ordering::Relaxed);
            Err(Error::CorruptRow(format!("calls ({}): its checksum is wrong", call.call_id)))
        })
    }

    fn tally<'a>(&'a self, account: &'a AccountId, function: &'a FunctionName) -> Answer<'a, Tally> {
        let (account, function) = (account.clone(), function.clone());
        Box::pin(self.read(move |connection| tallies::of(connection, &account, &function)))
    }

    fn list_calls<'a>(
        &'a self,
        account: &'a AccountId,
        function: &'a FunctionName,
        after: Option<CallId>,
        limit: u32,
    ) -> Answer<'a, Vec<Listed>> {
        let (account, function) = (account.clone(), function.clone());
        Box::pin(self.read(move |connection| known::list(connection, &account, &function, after, limit)))
    }

    fn expire(&self, now: Timestamp, keep: &Retention) -> Answer<'_, bool> {
        let keep = *keep;
        Box::pin(self.writer.make_room(move |connection| results::expire(connection, now, &keep)))
    }

    fn syncs(&self) -> u64 {
        self.writer.commits()
    }

    fn corruptions(&self) -> u64 {
        self.corruptions.load(Ordering::Relaxed)
    }
}

/// What an error of SQLite means outside the writer; `what` is said in front of its text.
fn failure(what: &str, error: &rusqlite::Error) -> Error {
    // A value that is not of its column's type.
    let is_misread = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    );
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::DiskFull,
        _ if disk::is_index_full(error) => Error::DiskFull,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::Corrupt(format!("{what}: {error}")),
        _ if seal::is_broken(error) => Error::CorruptRow(error.to_string()),
        _ if is_misread => Error::CorruptRow(format!("{what}: {error}")),
        _ => Error::Failed(format!("{what}: {error}")),
    }
}
