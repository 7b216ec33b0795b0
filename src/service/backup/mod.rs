//! All that a server must know, in one file: made beside a server that goes on, and turned into a data directory again.
//!
//! ```text
//!  manifest.json      what follows, each with its size and sha256
//!  manifest.sha256    its own
//!  hyperfunc.db       functions, images, calls and results, as they were at one moment
//!  modules/…          the modules that images name
//!  keys/…             only if they were asked for
//! ```
//!
//! What was compiled is left out: it is sealed with a key, and is compiled again. So are the logs of functions: they are not
//! promised, and their files change while they are read.

mod archive;
mod manifest;
mod restore;
mod write;

pub use restore::{Opened, finish_broken_off, open};
pub use write::Backup;

use crate::{image, store};
use manifest::Manifest;
use std::io;
use std::path::{Path, PathBuf};

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// When it was begun.
    pub created: String,
    /// Functions.
    pub functions: u64,
    /// Names of modules.
    pub images: u64,
    /// Asynchronous calls that wait or run.
    pub queued: u64,
    /// Ended calls whose result is kept.
    pub results: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Summary {
    fn of(manifest: &Manifest, bytes: u64) -> Self {
        let Manifest { created, functions, images, queued, results, .. } = manifest;
        let (functions, images, queued, results) = (*functions, *images, *queued, *results);
        Self { created: created.clone(), functions, images, queued, results, bytes }
    }
}

/// Why there is no backup, or nothing was made of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store is damaged, newer than this version, or cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A module is damaged, or a file of it or of a key cannot be read.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no room for the file.
    #[error("{}: the disk is full", path.display())]
    DiskFull {
        /// Which.
        path: PathBuf,
    },
    /// There is no room for a copy of the store.
    #[error("the disk is full: there is no room for the copy of the store")]
    NoRoom,
    /// There is no data directory.
    #[error("{}: is no data directory of hyperfunc: it has no {}", path.display(), store::SqliteStore::FILE_NAME)]
    NoData {
        /// Where.
        path: PathBuf,
    },
    /// An image names a module that is not there.
    #[error("{}: an image names this module, and it is not there", path.display())]
    NoModule {
        /// Which.
        path: PathBuf,
    },
    /// Images are removed faster than their modules can be opened.
    #[error("images are removed all the time: try again later")]
    Restless,
    /// A key has a name that no key of ours has.
    #[error("{0}: is no key of hyperfunc")]
    Key(String),
    /// The backup cannot be read on.
    #[error("{0}")]
    Read(io::Error),
    /// What was given as a backup is none.
    #[error("is no backup of hyperfunc")]
    Foreign,
    /// The backup is not as it was written.
    #[error("the backup is damaged: {entry}: {problem}")]
    Damaged {
        /// Where in it.
        entry: String,
        /// In what way.
        problem: String,
    },
    /// The backup has a form that this version does not know.
    #[error("the backup has format {format}, written by hyperfunc {hyperfunc}, and this version knows {known}")]
    OtherFormat {
        /// Its form.
        format: u32,
        /// The version that wrote it.
        hyperfunc: String,
        /// What this one reads.
        known: u32,
    },
    /// The store in the backup is newer than this version.
    #[error(
        "the backup was written by hyperfunc {hyperfunc} with schema {schema}, and this version knows {known}: use a \
         newer hyperfunc"
    )]
    OtherSchema {
        /// The version of its store.
        schema: i64,
        /// The version that wrote it.
        hyperfunc: String,
        /// What this one reads.
        known: i64,
    },
    /// The data directory holds something already.
    #[error("{}: is not empty: it has {found}; a backup is restored into a directory that is empty or not there", path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
        /// What there is.
        found: String,
    },
    /// An earlier restore was broken off.
    #[error("{}: a restore into it was broken off: run it again, or remove the directory", path.display())]
    BrokenOff {
        /// Which.
        path: PathBuf,
    },
}

impl Error {
    fn damaged(entry: &str, problem: &str) -> Self {
        // A name in a foreign archive may be anything.
        let entry = entry.escape_debug().to_string();
        Self::Damaged { entry, problem: problem.to_owned() }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// Of a file that was named as one below a directory.
    fn below(self, dir: &Path) -> Self {
        match self {
            Self::Io { path, source } => Self::Io { path: dir.join(path), source },
            Self::DiskFull { path } => Self::DiskFull { path: dir.join(path) },
            other => other,
        }
    }

    /// Of a file that is written.
    fn written(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}
