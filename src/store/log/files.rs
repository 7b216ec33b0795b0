//! The two files of one function's log: `current`, and `previous`, which was current before.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
/// Both, oldest first.
pub(super) const FILES: [&str; 2] = [PREVIOUS, CURRENT];
/// Logs hold what callers sent and guests answered.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Where the files of one log stand. Its lock makes a rotation, a removal and the opening of both files one step each.
pub(super) struct Files {
    /// Open, as long as the writer keeps it.
    current: Option<Current>,
    /// Counts rotations. `current` has this number, and `previous` the one before.
    generation: u64,
    has_ended: bool,
    /// The last write failed.
    pub(super) is_failing: bool,
}

/// The file that is written.
struct Current {
    file: File,
    bytes: u64,
}

impl Files {
    /// None is open; if `has_ended`, none ever will be.
    pub(super) fn new(has_ended: bool) -> Self {
        Self { current: None, generation: 1, has_ended, is_failing: false }
    }

    /// Whether the function was removed: nothing is opened or written any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The function is removed.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
        self.close();
    }

    /// Whether `current` is open.
    pub(super) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// Gives the descriptor back.
    pub(super) fn close(&mut self) {
        self.current = None;
    }

    /// The length of `current` in bytes, which is opened for that, and made if there is none.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn current_bytes(&mut self, dir: &Path) -> io::Result<u64> {
        self.open(dir).map(|current| current.bytes)
    }

    /// Appends whole lines: all of them, or after an error none.
    ///
    /// # Errors
    /// When the system refuses, such as on a full disk.
    pub(super) fn append(&mut self, dir: &Path, lines: &[u8]) -> io::Result<()> {
        let current = self.open(dir)?;
        let Err(error) = current.file.write_all(lines) else {
            current.bytes += lines.len() as u64;
            return Ok(());
        };
        // What was written of them is counted as lost. Where this fails too, opening it again ends the torn line.
        let _ = current.file.set_len(current.bytes);
        self.current = None;
        Err(error)
    }

    /// Makes `current` the previous one, and begins a new one.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn rotate(&mut self, dir: &Path) -> io::Result<()> {
        // Before: should somebody have taken the file away, the next attempt makes a new one.
        self.current = None;
        fs::rename(dir.join(CURRENT), dir.join(PREVIOUS))?;
        self.generation += 1;
        self.open(dir).map(drop)
    }

    fn open(&mut self, dir: &Path) -> io::Result<&mut Current> {
        match &mut self.current {
            Some(current) => Ok(current),
            none => Ok(none.insert(Current::open(dir)?)),
        }
    }

    /// Opens those files for reading whose generation is `next` or newer, oldest first, and moves `next` past them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn open_from(&self, dir: &Path, next: &mut u64) -> io::Result<Vec<File>> {
        let mut opened = Vec::new();
        for (generation, name) in [(self.generation - 1, PREVIOUS), (self.generation, CURRENT)] {
            if self.has_ended || generation < *next {
                continue;
            }
            match File::open(dir.join(name)) {
                Ok(file) => {
                    opened.push(file);
                    *next = generation + 1;
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(opened)
    }
}

impl Current {
    fn open(dir: &Path) -> io::Result<Self> {
        create_dir(dir)?;
        let file = File::options().read(true).append(true).create(true).mode(FILE_MODE).open(dir.join(CURRENT))?;
        let mut current = Self { bytes: file.metadata()?.len(), file };
        let mut last = [b'\n'];
        if current.bytes > 0 {
            current.file.read_exact_at(&mut last, current.bytes - 1)?;
        }
        // A crash has torn the last line. It must not take the next one with it.
        if last != *b"\n" {
            current.file.write_all(b"\n")?;
            current.bytes += 1;
        }
        Ok(current)
    }
}

/// Makes a directory and those above it, for nobody else.
///
/// # Errors
/// When the system refuses.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Removes a directory with all that is in it, if there is one.
///
/// # Errors
/// When the system refuses.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
