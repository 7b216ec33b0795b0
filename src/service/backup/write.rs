//! Making a backup.

use super::archive::{Broken, Writer, archive_bytes, copy};
use super::manifest::{Entry, MANIFEST, MANIFEST_SUM, Manifest};
use super::{Error, Summary};
use crate::domain::Digest;
use crate::image::{self, module_file, open_module};
use crate::store::{self, Contents, SqliteStore};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How often the store is copied anew because a module was removed before it could be opened.
const ATTEMPTS: usize = 20;

/// A backup that is ready to be written: whatever a server does to its data directory, it stays as it is.
pub struct Backup {
    manifest: Manifest,
    /// What each entry is read from.
    sources: Vec<Source>,
}

struct Source {
    path: PathBuf,
    from: Box<dyn Read>,
}

impl Backup {
    /// Takes a data directory as it is at this moment, beside a server or without one. The file at `scratch` holds a copy of
    /// the store for a while, and is gone afterwards.
    ///
    /// # Errors
    /// When something is damaged, is not there or cannot be read, or there is no room for the copy.
    pub fn take(data: &Path, with_keys: bool, scratch: &Path) -> Result<Self, Error> {
        let database = data.join(SqliteStore::FILE_NAME);
        match fs::metadata(&database) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(Error::NoData { path: data.to_owned() });
            }
            metadata => metadata.map_err(Error::io(&database))?,
        };
        let created = jiff::Timestamp::from_millisecond(super::super::now().0).unwrap_or_default();
        let (contents, mut store, modules) = moment(data, &database, scratch)?;
        let unread = |e| Error::io(&database)(e);
        let size = store.metadata().map_err(unread)?.len();
        let digest = copy(&mut store, &mut io::sink(), size).map_err(|broken| failed(broken, &database, &database))?;
        store.rewind().map_err(unread)?;

        let mut backup =
            Self { manifest: Manifest::new(&contents, created.to_string(), Vec::new()), sources: Vec::new() };
        backup.add(Entry::new(SqliteStore::FILE_NAME.to_owned(), size, digest), database, store);
        for ((digest, size), file) in contents.modules.iter().zip(modules) {
            let name = module_file(*digest);
            let path = data.join(&name);
            backup.add(Entry::new(name, *size, *digest), path, file);
        }
        for (name, key) in if with_keys { image::keys(data)? } else { Vec::new() } {
            let (path, name) = (data.join("keys").join(&name), format!("keys/{name}"));
            let entry = Entry::new(name, key.len() as u64, Digest::new(Sha256::digest(&key).into()));
            if !entry.is_key() {
                return Err(Error::Key(path.display().to_string()));
            }
            backup.add(entry, path, Cursor::new(key));
        }
        Ok(backup)
    }

    fn add(&mut self, entry: Entry, path: PathBuf, from: impl Read + 'static) {
        self.manifest.entries.push(entry);
        self.sources.push(Source { path, from: Box::new(from) });
    }

    /// Writes it, and checks all that it reads; `shown` is what it writes to.
    ///
    /// # Errors
    /// When a module is not what its name says, or something cannot be read or written.
    pub fn write(self, to: impl Write, shown: &Path) -> Result<Summary, Error> {
        let Self { manifest, sources } = self;
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::damaged(MANIFEST, &e.to_string()))?;
        let sum = format!("{}  {MANIFEST}\n", Digest::new(Sha256::digest(&text).into()).hex());
        let own = [text.len() as u64, sum.len() as u64];
        let mut writer = Writer(to);
        for (name, bytes) in [(MANIFEST, text.as_slice()), (MANIFEST_SUM, sum.as_bytes())] {
            let written = writer.entry(name, bytes.len() as u64, &mut &*bytes);
            written.map_err(|broken| failed(broken, shown, shown))?;
        }
        for (entry, mut source) in manifest.entries.iter().zip(sources) {
            let written = writer.entry(&entry.name, entry.size, &mut source.from);
            let digest = written.map_err(|broken| failed(broken, &source.path, shown))?;
            let ends = matches!(source.from.read(&mut [0]), Ok(0));
            if digest != entry.digest()? || !ends {
                return Err(image::Error::Corrupt { path: source.path }.into());
            }
        }
        writer.finish().map_err(Error::written(shown))?;
        let sizes = own.into_iter().chain(manifest.entries.iter().map(|entry| entry.size));
        Ok(Summary::of(&manifest, archive_bytes(sizes).unwrap_or(u64::MAX)))
    }
}

/// What a broken copy means to somebody who asked for a backup.
fn failed(broken: Broken, from: &Path, to: &Path) -> Error {
    match broken {
        Broken::Read(source) => Error::io(from)(source),
        Broken::Short => image::Error::Corrupt { path: from.to_owned() }.into(),
        Broken::Write(source) => Error::written(to)(source),
    }
}

/// The store and the modules that it names, of one moment and open. A server removes a row before its file: a file that
/// is not there was named a moment ago, or is lost.
fn moment(data: &Path, database: &Path, scratch: &Path) -> Result<(Contents, File, Vec<File>), Error> {
    let mut missing = None;
    for _ in 0..ATTEMPTS {
        let (contents, store) = snapshot(database, scratch)?;
        if let Some(missing) = missing
            && contents.modules.iter().any(|(digest, _)| *digest == missing)
        {
            return Err(Error::NoModule { path: data.join(module_file(missing)) });
        }
        let mut modules = Vec::with_capacity(contents.modules.len());
        missing = None;
        for (digest, _) in &contents.modules {
            match open_module(data, *digest)? {
                Some(file) => modules.push(file),
                None => {
                    missing = Some(*digest);
                    break;
                }
            }
        }
        if missing.is_none() {
            return Ok((contents, store, modules));
        }
    }
    Err(Error::Restless)
}

/// A copy of the store, open and without a name.
fn snapshot(database: &Path, scratch: &Path) -> Result<(Contents, File), Error> {
    let _copying = Scratch::create(scratch)?;
    let contents = SqliteStore::snapshot(database, scratch).map_err(|e| match e {
        store::Error::DiskFull => Error::NoRoom,
        other => Error::Store(other),
    })?;
    let copied = File::open(scratch).map_err(Error::io(scratch))?;
    Ok((contents, copied))
}

/// A file that is gone when this is dropped, and its journal, which SQLite leaves where the disk is full.
struct Scratch([PathBuf; 2]);

impl Scratch {
    /// Makes the file, empty and in the place of one that was left there. It holds what a backup holds.
    fn create(path: &Path) -> Result<Self, Error> {
        let mut journal = path.as_os_str().to_owned();
        journal.push("-journal");
        let paths = [path.to_owned(), journal.into()];
        for path in &paths {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::written(path)(e)),
                Ok(()) | Err(_) => {}
            }
        }
        File::options().write(true).create_new(true).mode(0o600).open(path).map_err(Error::written(path))?;
        Ok(Self(paths))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in &self.0 {
            // The next backup to the same file removes what is left.
            let _ = fs::remove_file(path);
        }
    }
}
