//! A file on its way in.

use super::Error;
use super::syncs::Syncs;
use crate::domain::Digest;
use crate::failpoint;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are being taken in: hashed on the way, and gone when this is dropped before it is kept.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    len: u64,
    moved: bool,
    syncs: Syncs,
}

impl Upload {
    pub(super) fn begin(dir: &Path, syncs: Syncs) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // One process owns the directory and has emptied it at its start.
        let path = dir.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string() + "." + &std::process::id().to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { path, file, hasher: Sha256::new(), len: 0, moved: false, syncs })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sha256 of what was written so far.
    pub fn digest(&self) -> Digest {
        Digest::new(self.hasher.clone().finalize().into())
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// When it cannot be synced.
    pub fn finish(&mut self) -> Result<(), Error> {
        let synced = failpoint::check("upload.before_sync").and_then(|()| self.file.sync_all());
        self.syncs.ended(&self.path, synced)
    }

    /// All that was written.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub fn read(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        self.file
            .rewind()
            .and_then(|()| std::io::Read::read_to_end(&mut self.file, &mut bytes))
            .map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    pub(super) fn move_to(mut self, path: &Path) -> Result<(), Error> {
        fs::rename(&self.path, path).map_err(Error::io(path))?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
