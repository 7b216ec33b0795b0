//! Modules as files named by their digest, and what was compiled of them beside.
//!
//! ```text
//! DATA/modules/<sha256>.wasm             what was loaded, byte for byte
//! DATA/artifacts/<sha256>.<flavour>      what was compiled of it, and a keyed hash
//! DATA/uploads/                          what is on its way in
//! DATA/keys/artifacts                    the key of that hash
//! ```
//!
//! A file appears under its name whole and synced, or not at all. An artifact is native code: it is only
//! handed out when its hash says that this server wrote it for that module and flavour.
//! Everything here blocks on the disk.

mod artifact;
mod audit;
mod cache;
mod syncs;
mod transfer;
mod upload;

pub use audit::ModulesAudit;
pub use cache::ArtifactCache;
pub use transfer::{keys, module_file, open_module};
pub use upload::Upload;

use crate::domain::Digest;
use crate::failpoint;
use artifact::ArtifactKey;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use syncs::Syncs;

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Of what file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A module's bytes are not those that its name says.
    #[error("{}: the module is corrupt: its sha256 is not its name", path.display())]
    Corrupt {
        /// Of what file.
        path: PathBuf,
    },
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}

/// The files of one data directory.
#[derive(Debug)]
pub struct ImageFiles {
    modules: PathBuf,
    artifacts: PathBuf,
    uploads: PathBuf,
    key: ArtifactKey,
    corruptions: AtomicU64,
    syncs: Syncs,
}

impl ImageFiles {
    /// Opens the files below `data`, makes what is missing, and throws away what an earlier process left half done.
    /// `random` becomes the key of a new data directory.
    ///
    /// # Errors
    /// When a directory or the key cannot be made or read.
    pub fn open(data: &Path, random: [u8; 32]) -> Result<Self, Error> {
        let dir = |name: &str| make_dir(&data.join(name));
        let files = Self {
            modules: dir("modules")?,
            artifacts: dir("artifacts")?,
            uploads: dir("uploads")?,
            key: ArtifactKey::open(&dir("keys")?.join("artifacts"), random)?,
            corruptions: AtomicU64::new(0),
            syncs: Syncs::default(),
        };
        for path in list(&files.uploads)? {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        Ok(files)
    }

    /// Begins to take a module in.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn upload(&self) -> Result<Upload, Error> {
        Upload::begin(&self.uploads, self.syncs.clone())
    }

    /// Ready, with the file and the reason, once a sync has failed: what is on disk is not known any more.
    pub async fn failed(&self) -> String {
        self.syncs.failed().await
    }

    /// Gives an uploaded module its name.
    ///
    /// # Errors
    /// When the file cannot be moved or its directory not be synced.
    pub fn keep(&self, upload: Upload) -> Result<(), Error> {
        let path = self.module_path(upload.digest());
        failpoint::check("module.before_rename").map_err(Error::io(&path))?;
        upload.move_to(&path)?;
        failpoint::check("module.after_rename").map_err(Error::io(&path))?;
        self.syncs.ended(&self.modules, sync_dir(&self.modules))
    }

    /// A module's bytes, checked against its digest.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are others; [`Error::Io`] when there are none.
    pub fn module(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        let path = self.module_path(digest);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        if digest_of_file(&bytes) == digest {
            Ok(bytes)
        } else {
            self.corruptions.fetch_add(1, Ordering::Relaxed);
            Err(Error::Corrupt { path })
        }
    }

    /// How often this process has found a module to be not what its name says.
    pub fn corruptions(&self) -> u64 {
        self.corruptions.load(Ordering::Relaxed)
    }

    /// What was compiled of a module, checked to be what this server wrote; `None` if it is absent or is not.
    pub fn artifact(&self, digest: Digest, flavour: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(self.artifact_path(digest, flavour)).ok()?;
        self.key.open_artifact(bytes, digest, flavour)
    }

    /// Keeps what was compiled of a module.
    ///
    /// # Errors
    /// When it cannot be written; the module can then be compiled again.
    pub fn keep_artifact(&self, digest: Digest, flavour: &str, artifact: &[u8]) -> Result<(), Error> {
        let mut upload = self.upload()?;
        upload.write(artifact)?;
        upload.write(&self.key.seal(artifact, digest, flavour))?;
        upload.finish()?;
        let path = self.artifact_path(digest, flavour);
        failpoint::check("artifact.before_rename").map_err(Error::io(&path))?;
        upload.move_to(&path)
    }

    /// Removes a module and all that was compiled of it; what is absent is no error.
    ///
    /// # Errors
    /// When a file is there and cannot be removed.
    pub fn remove(&self, digest: Digest) -> Result<(), Error> {
        let stem = digest.hex();
        for path in list(&self.artifacts)?.into_iter().chain([self.module_path(digest)]) {
            if file_stem(&path) == Some(&stem) {
                failpoint::check("module.before_remove").map_err(Error::io(&path))?;
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Removes every module and artifact that nothing names.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn sweep(&self, named: &HashSet<Digest>) -> Result<(), Error> {
        let named: HashSet<String> = named.iter().map(Digest::hex).collect();
        for path in list(&self.modules)?.into_iter().chain(list(&self.artifacts)?) {
            if file_stem(&path).is_none_or(|stem| !named.contains(stem)) {
                failpoint::check("sweep.before_remove").map_err(Error::io(&path))?;
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    fn module_path(&self, digest: Digest) -> PathBuf {
        self.modules.join(module_name(digest))
    }

    fn artifact_path(&self, digest: Digest, flavour: &str) -> PathBuf {
        self.artifacts.join(format!("{}.{flavour}", digest.hex()))
    }
}

fn module_name(digest: Digest) -> String {
    format!("{}.wasm", digest.hex())
}

fn digest_of_file(bytes: &[u8]) -> Digest {
    Digest::new(Sha256::digest(bytes).into())
}

fn file_stem(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split('.').next()
}

fn make_dir(path: &Path) -> Result<PathBuf, Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io(path))?;
    Ok(path.to_owned())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::io(dir))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io(dir))).collect()
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// A name is durable when its directory is.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a new file that only its owner may read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &tempfile::TempDir) -> ImageFiles {
        ImageFiles::open(dir.path(), [9; 32]).unwrap()
    }

    fn keep(files: &ImageFiles, bytes: &[u8]) -> Digest {
        let mut upload = files.upload().unwrap();
        upload.write(bytes).unwrap();
        upload.finish().unwrap();
        let digest = upload.digest();
        files.keep(upload).unwrap();
        digest
    }

    #[test]
    fn a_module_comes_back_whole_or_is_called_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let digest = keep(&files, b"module");
        assert_eq!(files.module(digest).unwrap(), b"module");
        fs::write(files.module_path(digest), b"modulE").unwrap();
        assert!(matches!(files.module(digest), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn an_artifact_is_opened_only_as_what_it_was_sealed_as() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let (digest, other) = (keep(&files, b"module"), keep(&files, b"other"));
        files.keep_artifact(digest, "plain", b"native code").unwrap();
        assert_eq!(files.artifact(digest, "plain").unwrap(), b"native code");
        assert_eq!(files.artifact(digest, "metered"), None);

        let path = files.artifact_path(digest, "plain");
        fs::copy(&path, files.artifact_path(digest, "metered")).unwrap();
        fs::copy(&path, files.artifact_path(other, "plain")).unwrap();
        assert_eq!(files.artifact(digest, "metered"), None);
        assert_eq!(files.artifact(other, "plain"), None);

        let sealed = fs::read(&path).unwrap();
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert_eq!(files.artifact(digest, "plain"), None, "byte {at}");
        }
        for len in 0..sealed.len() {
            fs::write(&path, &sealed[..len]).unwrap();
            assert_eq!(files.artifact(digest, "plain"), None, "length {len}");
        }
    }

    #[test]
    fn what_nothing_names_is_swept_and_half_an_upload_too() {
        let dir = tempfile::tempdir().unwrap();
        let first = files(&dir);
        let (kept, orphan) = (keep(&first, b"kept"), keep(&first, b"orphan"));
        first.keep_artifact(kept, "plain", b"a").unwrap();
        first.keep_artifact(orphan, "plain", b"b").unwrap();
        std::mem::forget(first.upload().unwrap());
        drop(first);

        let second = files(&dir);
        assert_eq!(list(&second.uploads).unwrap(), Vec::<PathBuf>::new());
        second.sweep(&HashSet::from([kept])).unwrap();
        assert_eq!(second.module(kept).unwrap(), b"kept");
        assert_eq!(second.artifact(kept, "plain").unwrap(), b"a");
        assert_eq!(list(&second.modules).unwrap().len() + list(&second.artifacts).unwrap().len(), 2);
        second.remove(kept).unwrap();
        second.remove(kept).unwrap();
        assert_eq!(list(&second.modules).unwrap().len() + list(&second.artifacts).unwrap().len(), 0);
    }

    #[test]
    fn the_directories_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.artifacts), 0o700);
        assert_eq!(mode(&dir.path().join("keys/artifacts")), 0o600);
    }
}
