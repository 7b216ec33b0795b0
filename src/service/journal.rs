//! What a call says in its function's log: noted as it happens, and told together as long as nobody could tell the
//! difference, since telling each event by itself would cost a short call more than it does itself.

use super::directory::Callable;
use super::now;
use crate::domain::{CallId, CallRequest, Called, Digest, Outcome, Record, Short, Started, Stopped, Timestamp, Usage};
use crate::store::FunctionLog;
use std::time::Duration;

/// The events of one call. Dropped, it tells what was noted and not told.
pub(super) struct Journal {
    log: FunctionLog,
    record: Record,
    /// What is told if nobody sees the call end.
    abandoned: Option<&'static str>,
}

impl Journal {
    /// Of a call that comes in now.
    pub(super) fn called(function: &Callable, call_id: CallId, request: &CallRequest) -> Self {
        let mut journal = Self::going_on(function, call_id);
        journal.record.called = Some(Called { at: now(), stdin: Short::of(&request.body) });
        journal
    }

    /// Of a call that was told of before.
    pub(super) fn going_on(function: &Callable, call_id: CallId) -> Self {
        Self { log: function.log().clone(), record: Record::new(call_id), abandoned: None }
    }

    /// It waits: told at once, since that may take a while.
    pub(super) fn waits(&mut self) {
        self.record.pending = Some(now());
        self.tell();
    }

    /// Should nobody see its end, it is told to have failed so.
    pub(super) fn if_abandoned(&mut self, message: &'static str) {
        self.abandoned = Some(message);
    }

    /// It runs.
    pub(super) fn runs(&mut self, digest: Digest) {
        self.abandoned = None;
        self.record.running = Some(Started { at: now(), digest });
    }

    /// It has ended; without a message it has finished.
    pub(super) fn ended(&mut self, message: Option<String>, outcome: Option<&Outcome>) {
        let (stdout, stderr, usage) = match outcome {
            Some(outcome) => (Short::of(&outcome.stdout), Short::of(&outcome.stderr.head), outcome.usage),
            None => (Short::default(), Short::default(), Usage::default()),
        };
        self.abandoned = None;
        self.record.ended = Some(Stopped { at: self.end(usage.duration), message, stdout, stderr, usage });
        self.tell();
    }

    /// When it has ended: of a start that was not told yet, without another look at the clock.
    fn end(&self, duration: Duration) -> Timestamp {
        match &self.record.running {
            Some(started) => Timestamp(started.at.0 + i64::try_from(duration.as_millis()).unwrap_or(0)),
            None => now(),
        }
    }

    /// Tells what was noted and not told.
    pub(super) fn tell(&mut self) {
        let empty = Record::new(self.record.call_id);
        let record = std::mem::replace(&mut self.record, empty);
        if record.last_at().is_some() {
            self.log.push(record);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(message) = self.abandoned {
            self.ended(Some(message.to_owned()), None);
        }
        self.tell();
    }
}
