//! A disk as a trace of system calls has left it, and as a loss of power may have.
//!
//! What was synced is there. Of what was written since, each write is there, or not, or torn; of the names that were
//! given and taken since, the first few are. Directories themselves are always there.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// What a sector is written in: all of it, or none.
const SECTOR: usize = 512;

/// A system call in a trace. Moments are lines.
pub struct Call {
    pub begun: usize,
    pub ended: usize,
    text: String,
}

impl Call {
    /// All calls of a trace in the order of their ends. One that was under way at its end has none.
    pub fn all(trace: &str) -> Vec<Self> {
        let (mut calls, mut unfinished) = (Vec::new(), HashMap::new());
        for (at, line) in trace.lines().enumerate() {
            let Some((thread, text)) = line.split_once(' ') else { continue };
            let text = text.trim_start();
            if let Some(begin) = text.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (at, begin));
            } else if let Some((_, end)) = text.strip_prefix("<... ").and_then(|text| text.split_once(" resumed>")) {
                let Some((begun, begin)) = unfinished.remove(thread) else { continue };
                calls.push(Self { begun, ended: at, text: format!("{begin}{end}") });
            } else {
                calls.push(Self { begun: at, ended: at, text: text.to_owned() });
            }
        }
        let under_way = unfinished.into_values();
        calls.extend(under_way.map(|(begun, begin)| Self { begun, ended: usize::MAX, text: begin.to_owned() }));
        calls
    }

    fn name(&self) -> &str {
        self.text.split('(').next().unwrap()
    }

    fn has_failed(&self) -> bool {
        self.text.contains(" = -1 E")
    }

    /// The file, or the socket, that its first argument is open for.
    fn open(&self) -> PathBuf {
        let path = self.text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        path.map(|(path, _)| PathBuf::from(OsString::from_vec(unhex(path)))).unwrap_or_default()
    }

    /// The strings among its arguments, one after the other.
    fn strings(&self) -> impl Iterator<Item = Vec<u8>> {
        self.text.split('"').skip(1).step_by(2).map(unhex)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.strings().map(|path| PathBuf::from(OsString::from_vec(path))).collect()
    }

    /// Its last argument.
    fn last(&self) -> u64 {
        let arguments = self.text.rsplit_once(')').map_or(self.text.as_str(), |(arguments, _)| arguments);
        arguments.rsplit(", ").next().unwrap().parse().unwrap()
    }

    /// What it sends over a socket.
    pub fn sent(&self) -> Option<String> {
        let sends = ["write", "writev", "sendto", "sendmsg"].contains(&self.name());
        let is_socket = self.open().as_os_str().as_bytes().starts_with(b"socket:");
        (sends && is_socket).then(|| String::from_utf8_lossy(&self.strings().collect::<Vec<_>>().concat()).into_owned())
    }
}

/// Bytes that are all written as `\x1f`.
fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(&byte[..2], 16).unwrap()).collect()
}

/// What one test throws.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }
}

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy)]
pub enum Unsynced {
    /// All of it is lost.
    Lost,
    /// Chance decides.
    Chance,
}

enum Write {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Write {
    fn to(&self, file: &mut Vec<u8>) {
        match self {
            Self::Bytes { at, bytes } => {
                file.resize(file.len().max(at + bytes.len()), 0);
                file[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => file.resize(*length, 0),
        }
    }

    /// A part of it: the power was gone in the midst.
    fn torn(&self, dice: &mut Dice) -> Option<Self> {
        let Self::Bytes { at, bytes } = self else { return None };
        let cut = dice.below(bytes.len() / SECTOR + 1) * SECTOR;
        let (at, bytes) = if dice.below(2) == 0 { (*at, &bytes[..cut]) } else { (at + cut, &bytes[cut..]) };
        Some(Self::Bytes { at, bytes: bytes.to_vec() })
    }
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    /// With the line at which each was done.
    since: Vec<(usize, Write)>,
    /// Where a `write` goes on.
    position: usize,
}

#[derive(Default)]
struct Dir {
    synced: BTreeMap<OsString, usize>,
    /// A name, and the file that it was given to, or `None`.
    since: Vec<(usize, OsString, Option<usize>)>,
}

/// See the module.
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    dirs: BTreeMap<PathBuf, Dir>,
    /// What the processes of the machine see.
    names: HashMap<PathBuf, usize>,
}

impl Disk {
    /// An empty directory.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), files: Vec::new(), dirs: BTreeMap::new(), names: HashMap::new() }
    }

    /// What a server's promises rest on: neither what lives in memory only, nor its log.
    fn is_ours(&self, path: &Path) -> bool {
        let Ok(inside) = path.strip_prefix(&self.root) else { return false };
        !["lock", "logs", "hyperfunc.db-shm"].iter().any(|other| inside.starts_with(other))
    }

    /// Does what a call has done. Calls come in the order of their ends.
    pub fn take(&mut self, call: &Call) {
        if call.has_failed() {
            return;
        }
        match call.name() {
            "openat" if call.text.contains("O_CREAT") => self.create(&call.paths()[0], call.ended),
            "write" | "pwrite64" | "ftruncate" => self.write(call),
            "fsync" | "fdatasync" if call.ended < usize::MAX => self.sync(&call.open(), call.begun),
            "rename" => {
                let [from, to] = call.paths().try_into().unwrap();
                if let Some(file) = self.names.get(&from).copied() {
                    self.name(&to, Some(file), call.ended);
                    self.name(&from, None, call.ended);
                }
            }
            "unlink" => self.name(&call.paths()[0], None, call.ended),
            "renameat" | "renameat2" | "unlinkat" if call.paths().iter().any(|path| self.is_ours(path)) => {
                panic!("not understood: {}", call.text)
            }
            _ => {}
        }
    }

    fn create(&mut self, path: &Path, at: usize) {
        if !self.names.contains_key(path) {
            self.files.push(File::default());
            self.name(path, Some(self.files.len() - 1), at);
        }
    }

    fn name(&mut self, path: &Path, file: Option<usize>, at: usize) {
        if !self.is_ours(path) {
            return;
        }
        match file {
            Some(file) => drop(self.names.insert(path.to_owned(), file)),
            None => drop(self.names.remove(path)),
        }
        let dir = self.dirs.entry(path.parent().unwrap().to_owned()).or_default();
        dir.since.push((at, path.file_name().unwrap().to_owned(), file));
    }

    fn write(&mut self, call: &Call) {
        let Some(file) = self.names.get(&call.open()) else { return };
        let file = &mut self.files[*file];
        let last = usize::try_from(call.last()).unwrap();
        let write = match call.name() {
            "ftruncate" => Write::Length(last),
            name => {
                let bytes = call.strings().next().unwrap();
                let at = if name == "write" { file.position } else { last };
                file.position += if name == "write" { bytes.len() } else { 0 };
                Write::Bytes { at, bytes }
            }
        };
        file.since.push((call.ended, write));
    }

    /// What was done before the sync began is on the medium.
    fn sync(&mut self, path: &Path, begun: usize) {
        if let Some(file) = self.names.get(path) {
            let File { synced, since, .. } = &mut self.files[*file];
            for (_, write) in since.extract_if(.., |(at, _)| *at < begun) {
                write.to(synced);
            }
        } else if let Some(Dir { synced, since }) = self.dirs.get_mut(path) {
            for (_, name, file) in since.extract_if(.., |(at, ..)| *at < begun) {
                link(synced, &name, file);
            }
        }
    }

    /// What is found after the power was gone, below the root.
    pub fn after_loss(&self, unsynced: Unsynced, dice: &mut Dice) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for (path, dir) in &self.dirs {
            let mut names = dir.synced.clone();
            let kept = match unsynced {
                Unsynced::Lost => 0,
                Unsynced::Chance => dice.below(dir.since.len() + 1),
            };
            dir.since[..kept].iter().for_each(|(_, name, file)| link(&mut names, name, *file));
            for (name, file) in names {
                let path = path.join(name).strip_prefix(&self.root).unwrap().to_owned();
                found.insert(path, self.content(&self.files[file], unsynced, dice));
            }
        }
        found
    }

    fn content(&self, file: &File, unsynced: Unsynced, dice: &mut Dice) -> Vec<u8> {
        let mut content = file.synced.clone();
        for (_, write) in &file.since {
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Chance => match dice.below(3) {
                    0 => {}
                    1 => write.to(&mut content),
                    _ => write.torn(dice).iter().for_each(|write| write.to(&mut content)),
                },
            }
        }
        content
    }
}

fn link(names: &mut BTreeMap<OsString, usize>, name: &OsStr, file: Option<usize>) {
    match file {
        Some(file) => drop(names.insert(name.to_owned(), file)),
        None => drop(names.remove(name)),
    }
}
