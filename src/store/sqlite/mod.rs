//! The embedded backend: one SQLite file.
//!
//! One thread writes ([`writer`]), in groups that share a commit. Reads have a connection of their own and
//! never wait for it: the file is in WAL mode.

mod functions;
mod images;
mod open;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use open::SCHEMA_VERSION;

use super::{Answer, Displaced, Error, ImageKey, Store};
use crate::domain::{AccountId, Function, FunctionName, Image, Quota};
use record::{FunctionRow, ImageRow};
use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use writer::Writer;

/// A store in one file of its own. Dropping it waits until what was begun is on disk.
pub struct SqliteStore {
    // Before the writer, so that it closes first: the last connection folds the WAL into the file.
    reader: Arc<Mutex<Connection>>,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the store in the file at `path`, and creates it if there is none.
    ///
    /// # Errors
    /// [`Error::TooNew`], [`Error::Corrupt`] when the file is no store or a damaged one, [`Error::DiskFull`],
    /// and [`Error::Failed`] for all that the system refuses.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let writer = open::writer(path)?;
        let reader = Arc::new(Mutex::new(open::reader(path)?));
        let writer =
            Writer::start(writer, path).map_err(|e| Error::Failed(format!("no thread for the writer: {e}")))?;
        Ok(Self { reader, writer })
    }

    /// Runs a read away from the tasks of the runtime.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let reader = Arc::clone(&self.reader);
        // A reader that panicked has changed nothing: its connection is as good as before.
        let task = move || read(&reader.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(task).await.map_err(|e| Error::Failed(format!("a read broke off: {e}")))?
    }
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
        Box::pin(self.writer.run(move |connection| functions::remove(connection, &account, &name)))
    }

    fn put_image<'a>(&'a self, image: &'a Image, displaced: Displaced, quota: Quota) -> Answer<'a, ()> {
        Box::pin(async move {
            let row = ImageRow::new(image)?;
            self.writer.run(move |connection| images::put(connection, &row, displaced, quota)).await
        })
    }

    fn remove_image<'a>(&'a self, key: &'a ImageKey) -> Answer<'a, ()> {
        let key = key.clone();
        Box::pin(self.writer.run(move |connection| images::remove(connection, &key)))
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
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::Corrupt(format!("{what}: {error}")),
        _ if is_misread => Error::Corrupt(format!("{what}: {error}")),
        _ => Error::Failed(format!("{what}: {error}")),
    }
}
