//! Making a data directory of a backup.
//!
//! All is unpacked into `DATA/restoring`, checked and synced. Then it is moved, and the store last: a data directory has a
//! store or it has none, and a restore that was broken off is one that can be run again.

use super::archive::{Reader, archive_bytes};
use super::manifest::{Entry, MANIFEST, MANIFEST_BYTES_MAX, MANIFEST_SUM, Manifest};
use super::{Error, Summary};
use crate::store::{self, SqliteStore};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Where a restore is at work.
const RESTORING: &str = "restoring";
const MODULES: &str = "modules";
const KEYS: &str = "keys";
/// What may be in an empty data directory: our lock, and what file systems put into theirs.
const NOTHING: [&str; 2] = ["lock", "lost+found"];

/// A backup whose manifest was read.
pub struct Opened<R> {
    reader: Reader<R>,
    manifest: Manifest,
    bytes: u64,
}

/// Begins to read a backup; `len` is how long its file is, if it is one.
///
/// # Errors
/// When it is none, is cut off, or is one that this version cannot read.
pub fn open<R: Read>(from: R, len: Option<u64>) -> Result<Opened<R>, Error> {
    let mut reader = Reader(from);
    let size = reader.first(MANIFEST, MANIFEST_BYTES_MAX)?;
    let mut text = Vec::new();
    let digest = reader.contents(MANIFEST, size, None, &mut text)?;
    let expected = format!("{}  {MANIFEST}\n", digest.hex());
    let mut sum = Vec::new();
    reader.next(MANIFEST_SUM, expected.len() as u64)?;
    reader.contents(MANIFEST_SUM, expected.len() as u64, None, &mut sum)?;
    if sum != expected.as_bytes() {
        return Err(Error::damaged(MANIFEST, "its sha256 is another"));
    }
    let manifest = Manifest::parse(&text)?;
    let sizes = [size, sum.len() as u64].into_iter().chain(manifest.entries.iter().map(|entry| entry.size));
    let bytes = archive_bytes(sizes).ok_or_else(|| Error::damaged(MANIFEST, "its sizes are none"))?;
    match len {
        Some(len) if len != bytes => {
            let problem = format!("it is {len} bytes long, and its manifest tells of {bytes}");
            Err(Error::damaged("its length", &problem))
        }
        _ => Ok(Opened { reader, manifest, bytes }),
    }
}

impl<R: Read> Opened<R> {
    /// Makes a data directory of it: `data` is there, empty, and locked by this process.
    ///
    /// # Errors
    /// When `data` is not empty, the backup is damaged, or something cannot be written. There is no store then, and it can be
    /// tried again.
    pub fn restore(mut self, data: &Path) -> Result<Summary, Error> {
        clear(data)?;
        let dir = data.join(RESTORING);
        let unpacked = self.unpack(&dir);
        if unpacked.is_err() {
            // What is left is removed by the next one.
            let _ = fs::remove_dir_all(&dir);
        }
        unpacked?;
        for name in [MODULES, KEYS] {
            if dir.join(name).exists() {
                rename(&dir.join(name), &data.join(name))?;
            }
        }
        sync_dir(data)?;
        rename(&dir.join(SqliteStore::FILE_NAME), &data.join(SqliteStore::FILE_NAME))?;
        sync_dir(data)?;
        finish_broken_off(data)?;
        // The directory may be new. Who may not read the one above it has made it before.
        let above = data.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = sync_dir(above);
        Ok(Summary::of(&self.manifest, self.bytes))
    }

    fn unpack(&mut self, dir: &Path) -> Result<(), Error> {
        make_dir(dir)?;
        make_dir(&dir.join(MODULES))?;
        let has_keys = self.manifest.entries.iter().any(Entry::is_key);
        if has_keys {
            make_dir(&dir.join(KEYS))?;
        }
        for entry in &self.manifest.entries {
            let path = dir.join(&entry.name);
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let mut file = file.map_err(Error::written(&path))?;
            self.reader.next(&entry.name, entry.size)?;
            let copied = self.reader.contents(&entry.name, entry.size, Some(entry.digest()?), &mut file);
            copied.map_err(|e| e.below(dir))?;
            file.sync_all().map_err(Error::written(&path))?;
        }
        self.reader.finish()?;
        let database = dir.join(SqliteStore::FILE_NAME);
        let contents = SqliteStore::contents(&database).map_err(|e| match e {
            store::Error::Corrupt(problem) => Error::damaged(SqliteStore::FILE_NAME, &problem),
            other => Error::Store(other),
        })?;
        if !self.manifest.agrees_with(&contents) {
            return Err(Error::damaged(MANIFEST, "it tells of another store"));
        }
        let dirs = [Some(MODULES), has_keys.then_some(KEYS), Some("")];
        dirs.into_iter().flatten().try_for_each(|name| sync_dir(&dir.join(name)))
    }
}

/// What a server does about a restore before it: the last of it is tidied up, and one that was broken off is none to start on.
///
/// # Errors
/// [`Error::BrokenOff`]; when the directory of the restore cannot be removed.
pub fn finish_broken_off(data: &Path) -> Result<(), Error> {
    let dir = data.join(RESTORING);
    if !dir.exists() {
        return Ok(());
    }
    if !data.join(SqliteStore::FILE_NAME).exists() {
        return Err(Error::BrokenOff { path: data.to_owned() });
    }
    fs::remove_dir_all(&dir).map_err(Error::io(&dir))
}

/// Checks that a directory is empty, and removes what a restore that was broken off left in it.
fn clear(data: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(data).map_err(Error::io(data))?;
    let mut found = Vec::new();
    for entry in entries {
        found.push(entry.map_err(Error::io(data))?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    let is_broken_off = found.iter().any(|name| name == RESTORING);
    let left: &[&str] = if is_broken_off { &[KEYS, MODULES, RESTORING] } else { &[] };
    let other = found.into_iter().find(|name| !NOTHING.contains(&name.as_str()) && !left.contains(&name.as_str()));
    if let Some(found) = other {
        return Err(Error::NotEmpty { path: data.to_owned(), found });
    }
    // The sign that it was one goes last.
    for path in left.iter().map(|name| data.join(name)) {
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(&path)(e)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::written(path))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io(to))
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io(path))
}
