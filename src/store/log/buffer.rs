//! What waits to be written: filled by calls, emptied by the writer.
//!
//! A call pays for a short lock, and wakes the writer only when it is the first to put something in: the writer then
//! lets more come together before it takes all of it at once.

use super::Log;
use crate::domain::Record;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Records that may wait; further ones are lost. With the longest streams they take 16 MB.
pub(super) const BUFFER_RECORDS: usize = 16 << 10;
/// How long the writer lets records come together.
const GATHERING: Duration = Duration::from_millis(20);

/// The buffer of all functions.
pub(super) struct Buffer {
    records_max: usize,
    state: Mutex<State>,
    /// Tells the writer that there is something to do.
    filled: Condvar,
    /// Tells those who wait in [`Buffer::flush`] that a batch was written.
    written: Condvar,
    /// Bytes that the writer has written.
    pub(super) bytes_written: AtomicU64,
    /// Records that were lost.
    pub(super) records_lost: AtomicU64,
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Batch {
    /// In the order in which they came.
    pub(super) records: Vec<(Arc<Log>, Record)>,
    /// Logs that lost records because the buffer was full, once each.
    pub(super) lossy: Vec<Arc<Log>>,
}

#[derive(Default)]
struct State {
    waiting: Batch,
    /// Batches that the writer has taken, and written, since it started.
    batches_taken: u64,
    batches_written: u64,
    /// Somebody waits for what is in the buffer.
    is_urgent: bool,
    /// The writer is to end.
    is_closing: bool,
    /// Nobody writes any more.
    is_closed: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.lossy.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.lossy.clear();
    }
}

impl Buffer {
    /// An empty one, for a writer.
    pub(super) fn new(records_max: usize) -> Self {
        Self {
            records_max,
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            bytes_written: AtomicU64::new(0),
            records_lost: AtomicU64::new(0),
        }
    }

    /// One that takes nothing.
    pub(super) fn closed() -> Self {
        let buffer = Self::new(0);
        buffer.close();
        buffer
    }

    /// Nothing in here leaves the state half changed: it is as good as before when a thread has panicked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a record to the writer, or counts it as lost when there is no room.
    pub(super) fn push(&self, log: &Arc<Log>, record: Record) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        let waiting = state.waiting.records.len();
        if waiting >= self.records_max {
            self.records_lost.fetch_add(1, Ordering::Relaxed);
            log.loss.add(1, record.last_at());
            if !log.is_lossy.swap(true, Ordering::Relaxed) {
                state.waiting.lossy.push(Arc::clone(log));
            }
            return;
        }
        state.waiting.records.push((Arc::clone(log), record));
        drop(state);
        if waiting == 0 || waiting + 1 == self.records_max / 2 {
            self.filled.notify_one();
        }
    }

    /// Waits until all that was pushed before is written, or lost.
    pub(super) fn flush(&self) {
        let mut state = self.state();
        let target = if state.waiting.is_empty() { state.batches_taken } else { state.batches_taken + 1 };
        if state.batches_written < target && !state.is_closed {
            state.is_urgent = true;
            self.filled.notify_one();
            let is_behind = |state: &mut State| state.batches_written < target && !state.is_closed;
            drop(self.written.wait_while(state, is_behind));
        }
    }

    /// Waits for a batch, which is put in place of the empty one. `false`: there will be none any more.
    ///
    /// For the writer alone.
    pub(super) fn take(&self, batch: &mut Batch) -> bool {
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_closing;
        let state = self.filled.wait_while(self.state(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let gathers = |state: &mut State| {
            !state.is_urgent && !state.is_closing && state.waiting.records.len() < self.records_max / 2
        };
        let gathered = self.filled.wait_timeout_while(state, GATHERING, gathers);
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            // Under the same lock as the look: what is pushed from now on is known to go nowhere.
            state.is_closed = true;
            return false;
        }
        mem::swap(&mut state.waiting, batch);
        state.is_urgent = false;
        state.batches_taken += 1;
        for log in &batch.lossy {
            log.is_lossy.store(false, Ordering::Relaxed);
        }
        true
    }

    /// Tells that the batch that was taken last is written, or lost.
    pub(super) fn batch_written(&self) {
        self.state().batches_written += 1;
        self.written.notify_all();
    }

    /// Whether the writer has taken all that was pushed.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// Asks the writer to write what is left, and to end.
    pub(super) fn end(&self) {
        self.state().is_closing = true;
        self.filled.notify_one();
    }

    /// Nobody writes any more: what comes goes nowhere, and nobody waits for it.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.waiting = Batch::default();
        drop(state);
        self.written.notify_all();
    }
}
