//! Durable truth: what the server must still know after a power cut.
//!
//! The trait speaks in transitions, not in get and put: each method is one atomic transition or
//! one read, and its doc is the contract that every backend must keep. `conformance` holds the
//! suite that checks it.
//!
//! Beside it, and not durable in that sense: the logs of functions ([`Logs`]).

mod audit;
#[cfg(test)]
mod conformance;
mod log;
#[cfg(test)]
mod memory;
mod sqlite;

pub use audit::{Findings, StoreAudit};
pub use log::{FunctionLog, LOG_BYTES_MAX, LogReader, Logs, Selection, audit_logs};
pub use sqlite::{Contents, SCHEMA_VERSION, SqliteStore};

use crate::domain::{
    AccountId, CallId, CallKey, CallRequest, CallResult, CallState, Digest, Function, FunctionName, IdempotencyKey,
    Image, Listed, Place, Quota, QuotaKind, Tally, Timestamp, Waiting,
};
use std::pin::Pin;
use std::time::Duration;

/// What a method of [`Store`] returns.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Why a transition did not happen. Nothing has changed then, except after [`Error::Failed`],
/// where a caller cannot know.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The account has a function of that name.
    #[error("the name {0} is taken")]
    NameTaken(FunctionName),
    /// There is no such function, image or call, or it is in another state.
    #[error("not found")]
    NotFound,
    /// As many idempotency keys of the function are remembered as may be.
    #[error("{0} idempotency keys are remembered already")]
    KeysFull(u64),
    /// The account owns as much as it may.
    #[error("quota: {kind} {used} of {limit}")]
    QuotaFull {
        /// What there is too much of.
        kind: QuotaKind,
        /// What the account owns, without what was refused.
        used: u64,
        /// What it may own.
        limit: u64,
    },
    /// The disk is full: nothing was written.
    #[error("the disk is full")]
    DiskFull,
    /// Another program keeps the file locked: nothing was written.
    #[error("another program keeps the store locked")]
    Locked,
    /// The data was written by a newer version.
    #[error("the data directory was written by schema {found}, and this version knows {known}: use a newer hyperfunc")]
    TooNew {
        /// The version found.
        found: i64,
        /// The version of this binary.
        known: i64,
    },
    /// The file cannot be what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// One row cannot be what was written; the others may be.
    #[error("the store is corrupt: {0}")]
    CorruptRow(String),
    /// The store cannot be trusted any more: an I/O error, or its writer is gone.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Where an image stands: what [`Store::remove_image`] takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageKey {
    /// Whose it is.
    pub account: AccountId,
    /// The name without a tag.
    pub repository: String,
    /// `None` for an image whose tag has moved on.
    pub tag: Option<String>,
    /// The module.
    pub digest: Digest,
}

impl From<&Image> for ImageKey {
    fn from(image: &Image) -> Self {
        Self {
            account: image.account.clone(),
            repository: image.repository.clone(),
            tag: image.tag.clone(),
            digest: image.digest,
        }
    }
}

/// What becomes of the image that had a tag before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    /// It is forgotten.
    Forget,
    /// It stays, without its tag: a function pins it by digest.
    Keep,
}

/// A call on its way into the queue.
#[derive(Debug, Clone)]
pub struct NewCall {
    /// Which call.
    pub key: CallKey,
    /// When its function came into being: a later one of the same name is another.
    pub function_created: Timestamp,
    /// Now.
    pub created: Timestamp,
    /// What its caller calls it.
    pub idempotency: Option<IdempotencyKey>,
    /// What it brings.
    pub request: CallRequest,
}

/// What became of a [`NewCall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the queue.
    Accepted,
    /// Its caller has asked for it before: this is the call.
    Before(CallId),
}

/// Is told the place of a call as soon as that is on disk: in the order of places, and before anybody who waits.
pub type OnAccepted = Box<dyn FnOnce(Place) + Send>;

/// A start of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its number, from 1: the fence for its end.
    pub number: u32,
    /// What the call brings.
    pub request: CallRequest,
}

/// A call as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownCall {
    /// It waits or runs.
    Open(CallState),
    /// It has ended, and its result is kept.
    Ended {
        /// When.
        at: Timestamp,
        /// What it left.
        result: CallResult,
    },
    /// It has ended, and its result is not kept any more.
    Gone,
}

/// How much of what ended calls left is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// The results of one function together, in bytes; [`CallResult::kept_bytes`] each.
    pub function_bytes: u64,
    /// The results of one function.
    pub function_calls: u64,
    /// The calls of one function that are known to be gone.
    pub function_gone: u64,
    /// How long a result is kept.
    pub result_ttl: Duration,
    /// How long a call is known to be gone.
    pub gone_ttl: Duration,
    /// How long an idempotency key is remembered.
    pub key_ttl: Duration,
    /// The idempotency keys of one function that are remembered.
    pub function_keys: u64,
}

/// The durable store.
///
/// A transition is on disk (written and synced) before its future is ready. A future that is
/// dropped does not undo its transition: it may still happen.
pub trait Store: Send + Sync + 'static {
    /// Ready, with the reason, once the store cannot be trusted any more: the process must end then, and its successor
    /// find out what is on disk.
    fn failed(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;

    /// All functions of all accounts, by account and name.
    fn functions(&self) -> Answer<'_, Vec<Function>>;

    /// All images of all accounts, by account, repository and tag.
    fn images(&self) -> Answer<'_, Vec<Image>>;

    /// Adds a function.
    ///
    /// Fails with [`Error::NameTaken`], or [`Error::QuotaFull`] when the account has
    /// `quota.functions` of them; a taken name is reported before a full quota.
    fn create_function<'a>(&'a self, function: &'a Function, quota: Quota) -> Answer<'a, ()>;

    /// Replaces all of the function of that account and name but its account, name and creation time.
    ///
    /// Fails with [`Error::NotFound`].
    fn update_function<'a>(&'a self, function: &'a Function) -> Answer<'a, ()>;

    /// Removes a function with all its calls.
    ///
    /// Fails with [`Error::NotFound`].
    fn remove_function<'a>(&'a self, account: &'a AccountId, name: &'a FunctionName) -> Answer<'a, ()>;

    /// Names a module: adds the image, in place of the one that had its tag.
    ///
    /// The same digest under the same tag replaces it. Fails with [`Error::QuotaFull`] when the account
    /// would then have more than `quota.images` images, or its distinct modules more than
    /// `quota.image_bytes`. An image without a tag is refused as [`Error::NotFound`].
    fn put_image<'a>(&'a self, image: &'a Image, displaced: Displaced, quota: Quota) -> Answer<'a, ()>;

    /// Removes one image, that is one name of a module.
    ///
    /// Fails with [`Error::NotFound`].
    fn remove_image<'a>(&'a self, key: &'a ImageKey) -> Answer<'a, ()>;

    /// Puts a call at the end of the queue.
    ///
    /// Fails with [`Error::NotFound`] if the function is not there any more, and with [`Error::KeysFull`]. A key of the
    /// function that is younger than `keep.key_ttl` names the call that was accepted with it; nothing new is accepted
    /// then.
    fn enqueue(&self, call: NewCall, keep: &Retention, on_accepted: OnAccepted) -> Answer<'_, Enqueued>;

    /// The call of a function that was accepted under this key, later than `since`.
    fn call_of_key<'a>(
        &'a self,
        account: &'a AccountId,
        function: &'a FunctionName,
        key: IdempotencyKey,
        since: Timestamp,
    ) -> Answer<'a, Option<CallId>>;

    /// Begins a new start of each of these calls; `None` for one that does not wait any more.
    fn claim(&self, calls: Vec<CallKey>) -> Answer<'_, Vec<Option<Start>>>;

    /// Ends a start without a result: the call waits again, at its place.
    ///
    /// Fails with [`Error::NotFound`] if that start does not run.
    fn give_back<'a>(&'a self, call: &'a CallKey, start: u32) -> Answer<'a, ()>;

    /// Ends a start, and the call with it. What is kept of the function's ended calls shrinks to `keep` in the same
    /// transition, oldest first.
    ///
    /// Fails with [`Error::NotFound`] if that start does not run: its call has ended, was removed, or runs anew.
    fn finish<'a>(
        &'a self,
        call: &'a CallKey,
        start: u32,
        result: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Answer<'a, ()>;

    /// Takes up the work of a server that is gone: all starts that run have ended by a crash. Their calls wait again, or
    /// have failed with `interrupted` if that was the last start that may.
    ///
    /// Answers all calls that wait, by place, and those that have failed. Asked before all else that concerns calls.
    fn recover<'a>(
        &'a self,
        interrupted: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Answer<'a, (Vec<Waiting>, Vec<CallKey>)>;

    /// A call.
    fn call<'a>(&'a self, call: &'a CallKey) -> Answer<'a, Option<KnownCall>>;

    /// The function that a call of the account belongs to.
    fn function_of_call<'a>(&'a self, account: &'a AccountId, call_id: CallId) -> Answer<'a, Option<FunctionName>>;

    /// Removes a call that waits.
    ///
    /// Fails with [`Error::NotFound`] if it does not wait.
    fn drop_pending<'a>(&'a self, call: &'a CallKey) -> Answer<'a, ()>;

    /// Removes a call that has ended, with what it left.
    ///
    /// Fails with [`Error::NotFound`] if there is no such result.
    fn drop_result<'a>(&'a self, call: &'a CallKey) -> Answer<'a, ()>;

    /// How many calls of a function are known.
    fn tally<'a>(&'a self, account: &'a AccountId, function: &'a FunctionName) -> Answer<'a, Tally>;

    /// The calls of a function in the order of their acceptance, at most `limit`, behind `after`: those that wait, run,
    /// or have a result.
    ///
    /// If `after` is not known, since it was read between two pages, the list goes on at the first call with a greater
    /// id. Ids follow the order of acceptance nearly: a call that was in the page before may come again.
    fn list_calls<'a>(
        &'a self,
        account: &'a AccountId,
        function: &'a FunctionName,
        after: Option<CallId>,
        limit: u32,
    ) -> Answer<'a, Vec<Listed>>;

    /// Forgets what is as old as `keep` says, or beyond its bounds, and gives space back to the system; some of it at once.
    /// `true` if there may be more to do.
    fn expire(&self, now: Timestamp, keep: &Retention) -> Answer<'_, bool>;

    /// How often this process has synced the store to disk.
    fn syncs(&self) -> u64;

    /// How often this process has found a row that is not what was written.
    fn corruptions(&self) -> u64 {
        0
    }
}
