//! Whether the modules are there that must be, and no others: read beside a server or without one.

use super::{Error, ImageFiles, digest_of_file, file_stem, list, module_file};
use crate::domain::Digest;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is there that must not be, and what is not there that must be.
#[derive(Debug, Default)]
pub struct ModulesAudit {
    /// What is wrong with a module that an image names: each in one line, with its file.
    pub findings: Vec<String>,
    /// Files that no image names, below the data directory.
    pub orphans: Vec<String>,
}

impl ImageFiles {
    /// Looks through the files of the data directory `data`. `named` are the modules that images name, with their sizes
    /// in bytes; a file is an orphan if it is as old as that and belongs to none of them.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn audit(data: &Path, named: &HashMap<Digest, u64>, orphan_age: Duration) -> Result<ModulesAudit, Error> {
        let mut audit = ModulesAudit::default();
        for (digest, size) in named {
            let path = data.join(module_file(*digest));
            let shown = path.display();
            match fs::read(&path) {
                Err(error) => audit.findings.push(format!("{shown}: {error}")),
                Ok(bytes) if bytes.len() as u64 != *size => {
                    audit.findings.push(format!("{shown}: has {} bytes, and its image says {size}", bytes.len()));
                }
                Ok(bytes) if digest_of_file(&bytes) != *digest => {
                    audit.findings.push(format!("{shown}: the module is corrupt: its sha256 is not its name"));
                }
                Ok(_) => {}
            }
        }
        let named: HashSet<String> = named.keys().map(Digest::hex).collect();
        for dir in ["modules", "artifacts"] {
            let files = data.join(dir);
            let found = if files.is_dir() { list(&files)? } else { Vec::new() };
            let is_old = |path: &PathBuf| age(path).is_some_and(|age| age >= orphan_age);
            let is_named = |path: &PathBuf| file_stem(path).is_some_and(|stem| named.contains(stem));
            let orphans = found.into_iter().filter(|path| !is_named(path) && is_old(path));
            audit.orphans.extend(orphans.map(|path| path.display().to_string()));
        }
        Ok(audit)
    }
}

/// For how long a file has been what it is; `None` if it is gone.
fn age(path: &Path) -> Option<Duration> {
    let changed = fs::metadata(path).ok()?.modified().ok()?;
    // One from the future is new.
    Some(changed.elapsed().unwrap_or_default())
}
