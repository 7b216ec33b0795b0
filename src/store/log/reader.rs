//! Reading a log, while it is written.
//!
//! A reader holds open files and a place in the first of them, and nothing else once it has caught up: one that stops
//! reading disturbs nobody. Files are only appended to, and a rotation renames them, so that an open one keeps its
//! lines.

use super::line::{Filter, LINE_BYTES_MAX, Line, decode};
use super::{Log, Selection};
use crate::domain::{CallId, Entry, Gap, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::watch;

/// Entries that [`LogReader::next`] gives at most: whoever reads slowly holds a few times as many.
const ENTRIES_MAX: usize = 64;
/// Entries that are kept back, until their order in time is known: records are written when they are complete, so that
/// those of calls that overlap stand interleaved. Enough for a hundred calls that run at once, of four entries each.
const REORDERED_ENTRIES: usize = 512;
/// Bytes that are read at once: the longest line fits.
const CHUNK_BYTES: usize = LINE_BYTES_MAX;
/// By how much more is read when the last attempt to find the beginning of a tail did not go back far enough.
const TAIL_GROWTH: u64 = 4;

/// Reads one log from where its [`Selection`] begins, and on as it is written.
///
/// One that is two files behind finds what is still there: the lines of a file that came and went meanwhile are not
/// counted. While it has an old file open, that keeps its place on the disk.
pub struct LogReader {
    log: Arc<Log>,
    filter: Filter,
    cursor: Cursor,
    /// The generation of the file that is to be opened next.
    next_generation: u64,
    /// What was read and not yet given, by time, then by place.
    window: BTreeMap<(Timestamp, u64), Entry>,
    /// Entries that were read so far.
    read: u64,
    /// The time of the last entry that was read.
    last_at: Timestamp,
    call: SeenCall,
    /// Entries that are before the tail.
    pub(super) skipped: u64,
    ended: watch::Receiver<bool>,
    /// The end of the log was there before the last look.
    is_over: bool,
}

/// What was read of the one call that is selected.
struct SeenCall {
    id: Option<CallId>,
    last_at: Option<Timestamp>,
    has_ended: bool,
}

impl SeenCall {
    fn sees(&mut self, entry: &Entry) {
        if let (Some(id), Entry::Event(event)) = (self.id, entry) {
            self.last_at = self.last_at.max(Some(event.at));
            self.has_ended |= entry.ends(id);
        }
    }
}

impl LogReader {
    /// Opens the files as they are now.
    pub(super) fn open(log: Arc<Log>, selection: Selection) -> io::Result<Self> {
        let mut reader = Self {
            ended: log.ended.subscribe(),
            log,
            filter: Filter::new(selection.call_id),
            cursor: Cursor::default(),
            next_generation: 0,
            window: BTreeMap::new(),
            read: 0,
            last_at: Timestamp(0),
            call: SeenCall { id: selection.call_id, last_at: None, has_ended: false },
            skipped: 0,
            is_over: false,
        };
        // Whoever waits before the first look is sent to look.
        reader.ended.mark_changed();
        reader.open_newer()?;
        if let Some(tail) = selection.tail {
            reader.go_to_tail(tail)?;
        }
        Ok(reader)
    }

    /// The next entries, 64 at most; none when it has caught up with the writer.
    ///
    /// They come oldest first. Only an entry that is written long after its time, or after this has caught up, comes
    /// late: nobody who follows is kept waiting for what may still be told.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When a file cannot be read.
    #[expect(clippy::should_implement_trait, reason = "that it is at its end now is not for ever")]
    pub fn next(&mut self) -> io::Result<Vec<Entry>> {
        // Before the files: a change after this is seen by `changed`.
        self.is_over = *self.ended.borrow_and_update();
        let mut chunk = Chunk::default();
        let mut entries = Vec::new();
        let mut has_caught_up = false;
        while entries.len() < ENTRIES_MAX {
            if has_caught_up || self.window.len() > REORDERED_ENTRIES {
                match self.window.pop_first() {
                    None => break,
                    Some(_) if self.skipped > 0 => self.skipped -= 1,
                    Some((_, entry)) => entries.push(entry),
                }
            } else if let Some(line) = self.cursor.next_line(&mut chunk)? {
                if self.filter.takes(line) {
                    for entry in entries_of(line, &mut self.last_at) {
                        self.call.sees(&entry);
                        self.window.insert((entry.at(), self.read), entry);
                        self.read += 1;
                    }
                }
            } else {
                has_caught_up = !self.open_newer()?;
            }
        }
        Ok(entries)
    }

    /// When the call that is selected was told of last, also if that is before the tail; `None` if nothing of it was read.
    pub fn call_last_at(&self) -> Option<Timestamp> {
        self.call.last_at
    }

    /// Whether the end of the call that is selected was read, also if that is before the tail.
    pub fn call_has_ended(&self) -> bool {
        self.call.has_ended
    }

    /// Waits until there may be more, once [`LogReader::next`] has given none. `false`: there will be none any more,
    /// since the function was removed or the server ends.
    ///
    /// Dropped before it is ready, it misses nothing.
    pub async fn changed(&mut self) -> bool {
        !self.is_over && self.ended.changed().await.is_ok()
    }

    /// Opens the files that have come since. `false`: there are none.
    ///
    /// The last one that was open may have got more lines before it was rotated: it is complete now, and read again
    /// to its end before the next.
    fn open_newer(&mut self) -> io::Result<bool> {
        let files = self.log.files().open_from(&self.log.dir, &mut self.next_generation)?;
        let is_any = !files.is_empty();
        self.cursor.files.extend(files.into_iter().map(Arc::new));
        Ok(is_any)
    }

    /// Goes to where the last entries begin, without reading much more than these.
    fn go_to_tail(&mut self, tail: u64) -> io::Result<()> {
        let bytes = self.cursor.bytes()?;
        // The last ones by time may stand among others.
        let wanted = tail.saturating_add(REORDERED_ENTRIES as u64);
        let mut span = CHUNK_BYTES as u64;
        loop {
            let start = bytes.saturating_sub(span);
            let cursor = self.cursor.at(start)?;
            let found = self.count(cursor.clone())?;
            if found >= wanted || start == 0 {
                self.cursor = cursor;
                self.skipped = found.saturating_sub(tail);
                return Ok(());
            }
            span = span.saturating_mul(TAIL_GROWTH);
        }
    }

    /// How many entries there are from here on.
    fn count(&self, mut cursor: Cursor) -> io::Result<u64> {
        let (mut chunk, mut found, mut last_at) = (Chunk::default(), 0, self.last_at);
        while let Some(line) = cursor.next_line(&mut chunk)? {
            if self.filter.takes(line) {
                found += entries_of(line, &mut last_at).len() as u64;
            }
        }
        Ok(found)
    }
}

/// What a line tells. One that nobody can read is a gap, at the time of what was read before.
fn entries_of(line: &[u8], last_at: &mut Timestamp) -> Vec<Entry> {
    let entries = match decode(line) {
        Some(Line::Record(record)) => record.events().map(Entry::Event).collect(),
        Some(Line::Gap(gap)) => vec![Entry::Gap(gap)],
        None => vec![Entry::Gap(Gap { at: *last_at, lost: 1 })],
    };
    if let Some(last) = entries.last() {
        *last_at = last.at();
    }
    entries
}

/// A place in files that follow one another. All but the last are complete.
#[derive(Clone, Default)]
struct Cursor {
    files: VecDeque<Arc<File>>,
    /// In the first file: where a line begins, in bytes.
    offset: u64,
}

/// Whole lines, read ahead of a [`Cursor`].
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    used: usize,
}

impl Cursor {
    /// The length of all files together, in bytes.
    fn bytes(&self) -> io::Result<u64> {
        self.files.iter().map(|file| Ok(file.metadata()?.len())).sum()
    }

    /// The place of the first line that begins at `start` or after it, in bytes from the beginning of the first file.
    fn at(&self, start: u64) -> io::Result<Self> {
        let mut cursor = Self { files: self.files.clone(), offset: start };
        while cursor.files.len() > 1 {
            let bytes = cursor.files[0].metadata()?.len();
            if cursor.offset < bytes {
                break;
            }
            cursor.files.pop_front();
            cursor.offset -= bytes;
        }
        if cursor.offset > 0 {
            // From the byte before: if that ends a line, only an empty rest is passed.
            cursor.offset -= 1;
            cursor.next_line(&mut Chunk::default())?;
        }
        Ok(cursor)
    }

    /// The next line without its end; `None` where the last file ends.
    fn next_line<'a>(&mut self, chunk: &'a mut Chunk) -> io::Result<Option<&'a [u8]>> {
        if chunk.used == chunk.bytes.len() {
            self.fill(chunk)?;
        }
        let rest = &chunk.bytes[chunk.used..];
        if rest.is_empty() {
            return Ok(None);
        }
        let line = rest.split(|&b| b == b'\n').next().unwrap_or(rest);
        // The last line of a complete file may have no end.
        let bytes = rest.len().min(line.len() + 1);
        chunk.used += bytes;
        self.offset += bytes as u64;
        Ok(Some(line))
    }

    /// Reads whole lines from here on; none where the last file ends.
    fn fill(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        chunk.used = 0;
        loop {
            let Some(file) = self.files.front() else {
                chunk.bytes.clear();
                return Ok(());
            };
            let is_complete = self.files.len() > 1;
            chunk.bytes.resize(CHUNK_BYTES, 0);
            let read = read_at(file, &mut chunk.bytes, self.offset)?;
            let ended = chunk.bytes[..read].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            // A torn line in the middle of a log, or something longer than our lines: it is none of them.
            let is_broken = ended == 0 && (is_complete || read == CHUNK_BYTES);
            chunk.bytes.truncate(if is_broken { read } else { ended });
            if !chunk.bytes.is_empty() || !is_complete {
                return Ok(());
            }
            self.files.pop_front();
            self.offset = 0;
        }
    }
}

/// Fills `bytes` as far as the file goes.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}
