//! Why a verb did not do what it was asked. What a status a client sees for it is `api`'s to choose.

use super::permits::Busy;
use crate::domain::{CallId, Invalid, QuotaKind};
use crate::engine::Rejected;
use crate::{engine, image, store};
use std::sync::Arc;

/// Why a management verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field breaks its rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The account has no function of that name.
    #[error("no such function: {0}")]
    NoSuchFunction(String),
    /// The account has no image of that name.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// The name is taken.
    #[error("a function named {0} exists already")]
    NameTaken(String),
    /// Calls of the function run.
    #[error("{0} has running calls; try again when they have ended, or use force=1")]
    FunctionBusy(String),
    /// Functions use the image, or an Id stands for several names.
    #[error("{0}")]
    ImageInUse(String),
    /// Too many modules come in at once.
    #[error("too many images are being loaded already")]
    TooManyLoads,
    /// The account owns as much as it may.
    #[error("quota: {kind} {used} of {limit}")]
    QuotaFull {
        /// What there is too much of.
        kind: QuotaKind,
        /// What the account owns.
        used: u64,
        /// What it may own.
        limit: u64,
    },
    /// The module is not one that we run.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// We failed.
    #[error(transparent)]
    Failure(Failure),
}

/// We failed: no client and no guest is to blame. The text is for the server's log.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The store.
    #[error("store: {0}")]
    Store(store::Error),
    /// The files of images.
    #[error("images: {0}")]
    Image(image::Error),
    /// The engine.
    #[error("engine: {0}")]
    Engine(engine::Error),
    /// A stored module is one that this version does not run.
    #[error("module: {0}")]
    Rejected(Rejected),
    /// A program cannot be loaded; everybody who waited for it hears this.
    #[error("{0}")]
    Loading(Arc<Failure>),
    /// Something that cannot be.
    #[error("{0}")]
    Internal(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<image::Error> for Failure {
    fn from(error: image::Error) -> Self {
        match error {
            image::Error::DiskFull => Self::DiskFull,
            image::Error::Io { .. } | image::Error::Corrupt { .. } => Self::Image(error),
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::DiskFull => Self::DiskFull,
            other => Self::Store(other),
        }
    }
}

/// Why a call has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No permit: the call never ran.
    #[error(transparent)]
    Busy(Busy),
    /// It was let in, but did not run, or we broke it off.
    #[error("call {call_id}: {why}")]
    NotRun {
        /// What a client is told, so that the log can be searched.
        call_id: CallId,
        /// Why.
        why: NotRun,
    },
}

/// Why a call that was let in did not run to an end.
#[derive(Debug, thiserror::Error)]
pub enum NotRun {
    /// The image is gone; holds its name, as the function has it.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// The module starts with more memory than the function's size allows since it was loaded anew.
    #[error(transparent)]
    DoesNotFit(Invalid),
    /// It grew when the machine's memory had no room: later there may be.
    #[error("the server has no memory left for this call")]
    NoMemory,
    /// We failed.
    #[error("{0}")]
    Failure(Failure),
}

/// All that anybody outside learns of a fault of ours: the cause is in the server's log.
pub const SERVER_ERROR: &str = "server error";

impl NotRun {
    /// What its caller is told, in one line.
    pub fn message(&self, call_id: CallId) -> String {
        match self {
            Self::Failure(Failure::DiskFull) => Failure::DiskFull.to_string(),
            Self::Failure(_) => format!("{SERVER_ERROR}, call {call_id}"),
            Self::NoSuchImage(_) | Self::DoesNotFit(_) | Self::NoMemory => self.to_string(),
        }
    }
}
