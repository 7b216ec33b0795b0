//! What was compiled of modules that no server has: the next run of a file need not wait for the compiler.
//!
//! ```text
//! CACHE/<hash>.<flavour>    what was compiled, and a keyed hash
//! CACHE/key                 the key of that hash
//! ```
//!
//! All of it may be removed at any time. Nothing is synced: what a power cut spoils is found by its hash, and compiled
//! again.

use super::artifact::ArtifactKey;
use super::{Error, list, make_dir, remove_if_there};
use crate::domain::{Digest, MB};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The most that all artifacts take together, in bytes: what was used longest ago goes first.
const BYTES_MAX: u64 = 2048 * MB;
const KEY: &str = "key";
/// The extension of what is being written.
const PARTIAL: &str = "partial";
/// After this time nobody writes it any more.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(3600);

/// Compiled artifacts of one user.
#[derive(Debug)]
pub struct ArtifactCache {
    dir: PathBuf,
    key: ArtifactKey,
    bytes_max: u64,
    /// How many have been kept by this process.
    kept: AtomicU64,
}

impl ArtifactCache {
    /// Opens the directory, or makes it, readable by its owner alone. `random` becomes the key of a new one.
    ///
    /// # Errors
    /// When it cannot be made, or the key not be read, or when it belongs to another user, or others may write to it.
    pub fn open(dir: &Path, random: [u8; 32]) -> Result<Self, Error> {
        let dir = make_dir(dir)?;
        let path = dir.join(KEY);
        // What is in it is executed: somebody else could have made it before us.
        let is_ours = |path: &Path| fs::symlink_metadata(path).map(|found| is_ours(&found)).map_err(Error::io(path));
        if !is_ours(&dir)? || (path.exists() && !is_ours(&path)?) {
            return Err(Error::io(&dir)(io::ErrorKind::PermissionDenied.into()));
        }
        let key = ArtifactKey::open(&path, random)?;
        Ok(Self { dir, key, bytes_max: BYTES_MAX, kept: AtomicU64::new(0) })
    }

    /// What was compiled of a module: a file of that and its seal, checked to be what this user wrote. It is never
    /// written again, only replaced. `now` marks it as used.
    pub fn get(&self, module: Digest, flavour: &str, now: SystemTime) -> Option<File> {
        let path = self.path(module, flavour);
        let sealed = File::open(&path).ok()?;
        let is_sound = is_ours(&sealed.metadata().ok()?) && self.key.is_sealed(&sealed, module, flavour).ok()?;
        let sealed = Some(sealed).filter(|_| is_sound)?;
        // Only the order in which they go hangs on it.
        let _ = sealed.set_modified(now);
        Some(sealed)
    }

    /// The same as bytes, without the seal.
    pub fn read(&self, module: Digest, flavour: &str, now: SystemTime) -> Option<Vec<u8>> {
        let mut sealed = Vec::new();
        self.get(module, flavour, now)?.read_to_end(&mut sealed).ok()?;
        self.key.open_artifact(sealed, module, flavour)
    }

    /// Keeps what was compiled of a module, and makes room for it.
    ///
    /// # Errors
    /// When it cannot be written; the module is then compiled again the next time.
    pub fn keep(&self, module: Digest, flavour: &str, artifact: &[u8], now: SystemTime) -> Result<(), Error> {
        let path = self.path(module, flavour);
        // Of nobody else: two processes may have one number, in containers, and one process keeps several at once.
        let nanos = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let own = (std::process::id(), nanos, self.kept.fetch_add(1, Ordering::Relaxed));
        let partial = path.with_extension(format!("{flavour}.{}-{}-{}.{PARTIAL}", own.0, own.1, own.2));
        let written = File::options().write(true).create_new(true).mode(0o600).open(&partial).and_then(|mut file| {
            file.write_all(artifact)?;
            file.write_all(&self.key.seal(artifact, module, flavour))?;
            // Whole under its name, or not there.
            fs::rename(&partial, &path)
        });
        if let Err(error) = written {
            remove_if_there(&partial)?;
            return Err(Error::io(&path)(error));
        }
        self.make_room(now)
    }

    fn make_room(&self, now: SystemTime) -> Result<(), Error> {
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for path in list(&self.dir)? {
            // Another process may have removed it just now.
            let Some((used, bytes)) = fs::metadata(&path).ok().and_then(|file| used_and_bytes(&file)) else { continue };
            let extension = path.extension().and_then(|extension| extension.to_str());
            match extension {
                None => {}
                Some(PARTIAL) if now.duration_since(used).is_ok_and(|age| age > PARTIAL_AGE_MAX) => {
                    remove_if_there(&path)?;
                }
                Some(PARTIAL) => {}
                Some(_flavour) => kept.push((used, bytes, path)),
            }
        }
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in kept {
            if total <= self.bytes_max {
                break;
            }
            remove_if_there(&path)?;
            total -= bytes;
        }
        Ok(())
    }

    fn path(&self, module: Digest, flavour: &str) -> PathBuf {
        self.dir.join(format!("{}.{flavour}", module.hex()))
    }
}

/// Whether nobody but this user can have written it.
fn is_ours(file: &Metadata) -> bool {
    !file.is_symlink() && file.uid() == rustix::process::geteuid().as_raw() && file.mode() & 0o022 == 0
}

fn used_and_bytes(file: &Metadata) -> Option<(SystemTime, u64)> {
    Some((file.modified().ok()?, file.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn module(number: u8) -> Digest {
        Digest::new([number; 32])
    }

    /// What is kept, without its seal.
    fn kept(cache: &ArtifactCache, number: u8, second: u64) -> Option<Vec<u8>> {
        let path = cache.path(module(number), "plain");
        cache.get(module(number), "plain", at(second))?;
        let sealed = fs::read(path).unwrap();
        Some(sealed[..sealed.len() - blake3::OUT_LEN].to_vec())
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let sealed_bytes = 100 + blake3::OUT_LEN as u64;
        let cache = ArtifactCache { bytes_max: 3 * sealed_bytes, ..ArtifactCache::open(dir.path(), [1; 32]).unwrap() };
        let keep = |number: u8, second: u64| {
            cache.keep(module(number), "plain", &[number; 100], at(second)).unwrap();
            // A file is as old as its last use, which is now for one that was just written.
            assert_eq!(kept(&cache, number, second), Some(vec![number; 100]));
        };
        keep(1, 1);
        keep(2, 2);
        keep(3, 3);
        assert!(cache.get(module(1), "plain", at(4)).is_some());
        keep(4, 5);
        let kept: Vec<bool> = (1..=4).map(|number| cache.get(module(number), "plain", at(6)).is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_one_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ArtifactCache::open(dir.path(), [1; 32]).unwrap();
        let partial = |name: &str, used: SystemTime| {
            let path = dir.path().join(format!("{name}.plain.1.{PARTIAL}"));
            fs::write(&path, b"half").unwrap();
            File::options().append(true).open(&path).unwrap().set_modified(used).unwrap();
            path
        };
        let (old, young) = (partial("a", at(0)), partial("b", at(5000)));
        cache.keep(module(1), "plain", b"x", at(5001)).unwrap();
        assert!(!old.exists() && young.exists());
    }

    #[test]
    fn another_users_artifact_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        ArtifactCache::open(dir.path(), [1; 32]).unwrap().keep(module(1), "plain", b"x", at(0)).unwrap();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        let other = ArtifactCache::open(dir.path(), [2; 32]).unwrap();
        assert_eq!(kept(&other, 1, 0), None);
        other.keep(module(1), "plain", b"y", at(0)).unwrap();
        assert_eq!(kept(&other, 1, 0), Some(b"y".to_vec()));
        assert!(other.get(module(1), "metered", at(0)).is_none());
    }

    #[test]
    fn a_damaged_artifact_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ArtifactCache::open(dir.path(), [1; 32]).unwrap();
        cache.keep(module(1), "plain", b"what was compiled", at(0)).unwrap();
        let path = cache.path(module(1), "plain");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert_eq!(kept(&cache, 1, 0), None, "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(kept(&cache, 1, 0), None, "cut at {at}");
        }
        fs::write(&path, whole).unwrap();
        assert!(kept(&cache, 1, 0).is_some());
    }

    #[test]
    fn what_somebody_else_may_have_written_is_not_run() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let open = |dir: &Path| ArtifactCache::open(dir, [1; 32]);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("cache");
        let cache = open(&dir).unwrap();
        cache.keep(module(1), "plain", b"x", at(0)).unwrap();
        let artifact = cache.path(module(1), "plain");
        mode(&artifact, 0o666);
        assert!(cache.get(module(1), "plain", at(0)).is_none());
        mode(&artifact, 0o600);
        assert!(cache.get(module(1), "plain", at(0)).is_some());

        mode(&dir.join(KEY), 0o620);
        assert!(open(&dir).is_err());
        mode(&dir.join(KEY), 0o600);
        mode(&dir, 0o777);
        assert!(open(&dir).is_err());
        mode(&dir, 0o700);
        symlink(&dir, root.path().join("link")).unwrap();
        assert!(open(&root.path().join("link")).is_err());
        assert!(open(&dir).is_ok());
    }
}
