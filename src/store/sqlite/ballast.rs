//! Room on the disk that is kept for making room: whoever deletes something has to write first.
//!
//! The ballast is a file beside the store. While a disk is full, only what makes room is written: calls and functions are
//! removed, and results that were read or have expired. The ballast is out of the way meanwhile, and takes its room back
//! at once, before the logs of functions do.

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Many times what is written before the log is folded into the file.
const BYTES_MAX: u64 = 64 << 20;
/// Of a small disk it takes this part.
const DISK_PART: u64 = 4;
/// A disk is full as long as it has less room than this part of the ballast beside it.
const ROOM_PART: u64 = 8;

/// The file, as far as there is room for it.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    /// What it takes if it can.
    bytes: u64,
}

impl Ballast {
    /// That of the store in the file at `path`.
    pub(super) fn beside(path: &Path) -> Self {
        let path = path.with_extension("ballast");
        let bytes = disk_of(&path).map_or(BYTES_MAX, |disk| (disk.f_blocks * disk.f_frsize / DISK_PART).min(BYTES_MAX));
        let ballast = Self { path, bytes };
        if let Err(error) = ballast.take() {
            let path = ballast.path.display();
            tracing::warn!(%path, %error, "no ballast: on a full disk, nothing can be deleted");
        }
        ballast
    }

    /// Leaves the room of the ballast beside the store at `path` to whoever opens that.
    pub(super) fn leave(path: &Path) {
        Self { path: path.with_extension("ballast"), bytes: 0 }.give_up();
    }

    /// What it takes if it can, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes its room, or where there is less most of that, and answers whether there is some beside it. Where there can be no
    /// ballast there is: the disk has to be tried.
    pub(super) fn leaves_room(&self) -> bool {
        self.take().unwrap_or(true)
    }

    /// Leaves its room to whoever makes more of it.
    pub(super) fn give_up(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "the ballast stays");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn take(&self) -> io::Result<bool> {
        let disk = disk_of(&self.path)?;
        let free = disk.f_bavail * disk.f_frsize;
        // Not its length: a copy of it may hold nothing.
        let held = fs::metadata(&self.path).map_or(0, |file| file.blocks() * 512);
        // Where there is no room for all of it, the rest is for whoever folds the log.
        let wanted = if held + free >= self.bytes { self.bytes } else { held + free / 4 * 3 };
        if held < wanted {
            let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
            match fallocate(&file, FallocateFlags::empty(), 0, wanted).map_err(io::Error::from) {
                // Others were faster.
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(false),
                Err(error) => {
                    self.give_up();
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        Ok(held + free >= self.bytes + self.bytes / ROOM_PART)
    }
}

fn disk_of(path: &Path) -> io::Result<StatVfs> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(statvfs(dir)?)
}
