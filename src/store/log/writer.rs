//! The one thread that writes the logs.
//!
//! Of each batch it writes what belongs to one function at once. What cannot be written is lost, and counted: calls
//! never learn of it. When the function's log can be written again, the first thing it says is how much is missing.

use super::buffer::{Batch, Buffer};
use super::files::Files;
use super::line::{LINE_BYTES_MAX, encode_gap, encode_record};
use super::{Log, Loss};
use crate::domain::{Gap, Record};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Files that stay open between batches.
const OPEN_FILES_MAX: usize = 64;
/// Bytes of one write: bounds what is kept of a batch in the form of lines.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Writes until the buffer is at its end. `file_bytes_max` is when a file is full.
pub(super) fn serve(buffer: &Buffer, file_bytes_max: u64) {
    /// However the thread ends, nobody waits for it any more.
    struct Closing<'a>(&'a Buffer);
    impl Drop for Closing<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    let _closing = Closing(buffer);
    let mut writer =
        Writer { buffer, file_bytes_max, open: VecDeque::new(), line: Vec::new(), lines: Lines::default() };
    let mut batch = Batch::default();
    while buffer.take(&mut batch) {
        writer.write(&batch);
        batch.clear();
        buffer.batch_written();
    }
}

struct Writer<'a> {
    buffer: &'a Buffer,
    file_bytes_max: u64,
    /// The logs whose file was opened, oldest first.
    open: VecDeque<Arc<Log>>,
    /// One line: kept for its memory.
    line: Vec<u8>,
    lines: Lines,
}

/// Lines that are about to be written together.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// The records among them.
    records: u64,
    /// The lost ones that the gap among them tells of.
    lost: u64,
}

/// What becomes a line.
enum Told<'a> {
    Record(&'a Record),
    Gap(Gap),
}

impl Writer<'_> {
    fn write(&mut self, batch: &Batch) {
        let mut by_log: Vec<_> = batch.records.iter().map(|(log, record)| (log, record)).collect();
        // Stable: the records of one log keep their order.
        by_log.sort_by_key(|(log, _)| Arc::as_ptr(log));
        for group in by_log.chunk_by(|(log, _), (other, _)| Arc::ptr_eq(log, other)) {
            let records: Vec<&Record> = group.iter().map(|(_, record)| *record).collect();
            self.write_log(group[0].0, &records);
        }
        // Those that had no other record in the batch.
        for log in &batch.lossy {
            if log.loss.gap().is_some() {
                self.write_log(log, &[]);
            }
        }
    }

    fn write_log(&mut self, log: &Arc<Log>, records: &[&Record]) {
        let mut files = log.files();
        if files.has_ended() {
            return;
        }
        let was_open = files.is_open();
        let mut unwritten = records.len() as u64;
        let result = self.append(log, &mut files, records, &mut unwritten);
        let has_failed = result.is_err();
        if has_failed != mem::replace(&mut files.is_failing, has_failed) {
            match &result {
                Ok(()) => {
                    tracing::info!(account = log.account.as_str(), function = %log.name, "the log is written again")
                }
                Err(e) => tracing::warn!(
                    account = log.account.as_str(),
                    function = %log.name,
                    "the log cannot be written, so that what happens is lost: {e}"
                ),
            }
        }
        let is_new = files.is_open() && !was_open;
        drop(files);
        self.lose(&log.loss, unwritten, records);
        log.ended.send_modify(|_| ());
        if is_new {
            self.keep_open(log);
        }
    }

    /// Writes records, and what was lost before or between them. Counts `unwritten` down with each that is written.
    fn append(&mut self, log: &Log, files: &mut Files, records: &[&Record], unwritten: &mut u64) -> io::Result<()> {
        let gap = log.loss.gap();
        let is_first = |gap: &Gap| records.first().is_some_and(|record| record.last_at() >= Some(gap.at));
        let (before, after) = if gap.as_ref().is_some_and(is_first) { (gap, None) } else { (None, gap) };
        let told = before.map(Told::Gap).into_iter();
        let told = told.chain(records.iter().map(|record| Told::Record(record))).chain(after.map(Told::Gap));
        self.lines.clear();
        for told in told {
            self.line.clear();
            match told {
                Told::Record(record) => encode_record(record, &mut self.line)?,
                Told::Gap(gap) => encode_gap(gap, &mut self.line)?,
            }
            let bytes = self.line.len() as u64;
            if bytes > self.file_bytes_max.min(LINE_BYTES_MAX as u64) {
                continue;
            }
            let file_bytes = files.current_bytes(&log.dir)? + self.lines.bytes.len() as u64;
            let is_full = file_bytes + bytes > self.file_bytes_max;
            if is_full || self.lines.bytes.len() >= WRITE_BYTES_MAX {
                self.write_lines(log, files, unwritten)?;
            }
            if is_full {
                files.rotate(&log.dir)?;
            }
            self.lines.add(&self.line, &told);
        }
        self.write_lines(log, files, unwritten)
    }

    fn write_lines(&mut self, log: &Log, files: &mut Files, unwritten: &mut u64) -> io::Result<()> {
        if !self.lines.bytes.is_empty() {
            files.append(&log.dir, &self.lines.bytes)?;
            self.buffer.bytes_written.fetch_add(self.lines.bytes.len() as u64, Ordering::Relaxed);
            *unwritten -= self.lines.records;
            log.loss.settle(self.lines.lost);
            self.lines.clear();
        }
        Ok(())
    }

    fn lose(&self, loss: &Loss, unwritten: u64, records: &[&Record]) {
        if unwritten > 0 {
            self.buffer.records_lost.fetch_add(unwritten, Ordering::Relaxed);
            loss.add(unwritten, records.last().and_then(|record| record.last_at()));
        }
    }

    /// Closes the file that was opened first when there are too many.
    fn keep_open(&mut self, log: &Arc<Log>) {
        self.open.push_back(Arc::clone(log));
        if self.open.len() > OPEN_FILES_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.files().close();
        }
    }
}

impl Lines {
    fn add(&mut self, line: &[u8], told: &Told<'_>) {
        self.bytes.extend_from_slice(line);
        match told {
            Told::Record(_) => self.records += 1,
            Told::Gap(gap) => self.lost += gap.lost,
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.lost = 0;
    }
}
