//! Durable truth: what the server must still know after a power cut.
//!
//! The trait speaks in transitions, not in get and put: each method is one atomic transition or
//! one read, and its doc is the contract that every backend must keep. `conformance` holds the
//! suite that checks it.

#[cfg(test)]
mod conformance;
mod sqlite;

pub use sqlite::{SCHEMA_VERSION, SqliteStore};

use crate::domain::{AccountId, Digest, Function, FunctionName, Image, Quota, QuotaKind};
use std::pin::Pin;

/// What a method of [`Store`] returns.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Why a transition did not happen. Nothing has changed then, except after [`Error::Failed`],
/// where a caller cannot know.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The account has a function of that name.
    #[error("the name {0} is taken")]
    NameTaken(FunctionName),
    /// There is no such function or image.
    #[error("not found")]
    NotFound,
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
    /// The data was written by a newer version.
    #[error("the data directory was written by schema {found}, and this version knows {known}: use a newer hyperfunc")]
    TooNew {
        /// The version found.
        found: i64,
        /// The version of this binary.
        known: i64,
    },
    /// What is stored cannot be what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
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

    /// Removes a function.
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
}
