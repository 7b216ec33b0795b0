//! Whether the log of writes is whole, before SQLite takes from it what it can read.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong, and takes that for its end: so it finds the last
//! commit after a crash. A bit that flips in the middle looks the same to it, and everything that was committed behind
//! would be gone without a word. But each commit is synced before the next one begins, and the header before the first,
//! so that a crash leaves at most one behind a broken frame. Each start begins a new turn of the log, so that a second
//! crash does not add its own.
//!
//! The form of the file is <https://sqlite.org/fileformat2.html#the_write_ahead_log>.

use super::Error;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The first bytes, but for the last bit, which says in which order checksums take theirs.
const MAGIC: u32 = 0x377f_0682;
/// Commits behind a broken frame that no crash leaves there.
const COMMITS_TOO_MANY: usize = 2;

/// Checks the log of the store at `path`, which nobody has open.
///
/// # Errors
/// [`Error::Corrupt`] if there is more in it than SQLite would read; [`Error::Failed`] when it cannot be read.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let shown = Path::new(&name).display();
    let fail = |e: io::Error| Error::Failed(format!("{shown}: {e}"));
    let log = match File::open(&name) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(fail)?,
    };
    let has_commits = log.metadata().map_err(fail)?.len() > HEADER_BYTES as u64;
    if has_commits && fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        // SQLite would begin anew, and throw the log away.
        return Err(Error::Corrupt(format!("{}: is not there, or empty, and its log is", path.display())));
    }
    match readable_bytes(BufReader::new(log)).map_err(fail)? {
        None => Ok(()),
        Some(bytes) => Err(Error::Corrupt(format!(
            "{shown}: it can be read up to byte {bytes}, and more was committed behind that: restore a backup, or cut it \
             off there to go on without the rest"
        ))),
    }
}

/// How much of a log can be read, if there are commits behind that; `None` if it is as a server or a crash leaves it.
fn readable_bytes(mut log: impl Read) -> io::Result<Option<usize>> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let mut sum = Checksum::of_header(&header);
    let page_bytes = match sum.map(|_| word(&header, 8)) {
        Some(1) => 1 << 16,
        Some(bytes) if bytes >= 512 => bytes as usize,
        // Unreadable: pages of our own are so large.
        _ => 4096,
    };
    let salts = sum.map(|_| [word(&header, 16), word(&header, 20)]);
    let mut readable = if salts.is_some() { HEADER_BYTES } else { 0 };
    // Of each turn of the log, which its frames tell by their salts. An earlier turn may stand behind this one.
    let mut commits_behind: HashMap<[u32; 2], usize> = HashMap::new();
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    while fill(&mut log, &mut frame)? {
        let of_frame = [word(&frame, 8), word(&frame, 12)];
        sum = sum.filter(|_| Some(of_frame) == salts).and_then(|sum| sum.goes_on(&frame));
        if sum.is_some() {
            readable += frame.len();
        } else if word(&frame, 4) != 0 && salts.is_none_or(|salts| salts == of_frame) {
            *commits_behind.entry(of_frame).or_default() += 1;
        }
    }
    Ok(commits_behind.values().any(|commits| *commits >= COMMITS_TOO_MANY).then_some(readable))
}

/// `false` if the log ends before.
fn fill(log: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// A checksum over all that was read so far.
#[derive(Clone, Copy)]
struct Checksum {
    sums: [u32; 2],
    is_big_endian: bool,
}

impl Checksum {
    /// `None` if the header is none.
    fn of_header(header: &[u8]) -> Option<Self> {
        let magic = word(header, 0);
        let start = Self { sums: [0; 2], is_big_endian: magic & 1 == 1 };
        let sum = start.over(&header[..24]);
        (magic & !1 == MAGIC && sum.sums == [word(header, 24), word(header, 28)]).then_some(sum)
    }

    /// `None` if the frame does not go on from here.
    fn goes_on(self, frame: &[u8]) -> Option<Self> {
        let sum = self.over(&frame[..8]).over(&frame[FRAME_HEADER_BYTES..]);
        (sum.sums == [word(frame, 16), word(frame, 20)]).then_some(sum)
    }

    fn over(self, bytes: &[u8]) -> Self {
        let [mut first, mut second] = self.sums;
        let read = |bytes: &[u8]| {
            let word = word(bytes, 0);
            if self.is_big_endian { word } else { word.swap_bytes() }
        };
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(read(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(read(&pair[4..])).wrapping_add(first);
        }
        Self { sums: [first, second], ..self }
    }
}
