//! Files of a data directory that somebody else may own: read for a backup, beside its server.

use super::{Error, module_name};
use crate::domain::Digest;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// The largest key, in bytes: far more than any has.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// Where a module is, below the data directory.
pub fn module_file(digest: Digest) -> String {
    format!("modules/{}", module_name(digest))
}

/// Opens the file of a module, which can then be read whatever becomes of its name; `None` if there is none.
///
/// # Errors
/// When the file is there and cannot be opened.
pub fn open_module(data: &Path, digest: Digest) -> Result<Option<File>, Error> {
    let path = data.join(module_file(digest));
    match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(&path)(e)),
    }
}

/// The keys of a data directory, by the names of their files.
///
/// # Errors
/// When one cannot be read, or is none.
pub fn keys(data: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let dir = data.join("keys");
    let mut keys = Vec::new();
    for entry in fs::read_dir(&dir).map_err(Error::io(&dir))? {
        let entry = entry.map_err(Error::io(&dir))?;
        let path = entry.path();
        let mut key = Vec::new();
        // A link would lead out of the directory.
        let is_file = entry.file_type().map_err(Error::io(&path))?.is_file();
        if is_file {
            let file = File::open(&path).map_err(Error::io(&path))?;
            file.take(KEY_BYTES_MAX + 1).read_to_end(&mut key).map_err(Error::io(&path))?;
        }
        let name = entry.file_name().into_string().ok().filter(|_| is_file && key.len() as u64 <= KEY_BYTES_MAX);
        let name = name.ok_or_else(|| Error::io(&path)(io::Error::other("is no key")))?;
        keys.push((name, key));
    }
    keys.sort();
    Ok(keys)
}
