//! What a store should know after any transitions, plain enough to be believed.

use super::calls::*;
use super::*;
use crate::domain::{
    CRASHES_MAX, CallId, CallKey, CallRequest, CallResult, CallState, Listed, Place, Tally, Verdict, Waiting,
};
use crate::store::{Enqueued, KnownCall, Retention, Start};
use std::cmp::Reverse;
use std::time::Duration;

/// Small enough to be reached in a few steps.
pub(super) const BOUNDS: Retention = Retention {
    function_bytes: 30,
    function_calls: 3,
    function_gone: 2,
    result_ttl: Duration::from_millis(100),
    gone_ttl: Duration::from_millis(60),
    key_ttl: Duration::from_millis(120),
    function_keys: 2,
};
/// One less than the functions of account `a`.
pub(super) const QUOTA: Quota = Quota { functions: 2, ..AMPLE };
/// What functions there may be.
pub(super) const FUNCTIONS: [(&str, &str); 4] = [("a", "f"), ("a", "g"), ("b", "f"), ("a", "h")];
/// What calls are called by their callers: one more than is remembered of a function.
pub(super) const KEYS: u8 = 3;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Pending,
    Running,
    Ended(i64, CallResult),
    Gone(i64),
}

impl State {
    pub(super) fn waits(&self) -> bool {
        *self == Self::Pending
    }

    pub(super) fn runs(&self) -> bool {
        *self == Self::Running
    }

    pub(super) fn has_result(&self) -> bool {
        matches!(self, Self::Ended(..))
    }
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: CallKey,
    pub(super) place: Place,
    pub(super) created: i64,
    pub(super) request: CallRequest,
    pub(super) starts: u32,
    pub(super) crashes: u32,
    pub(super) state: State,
    /// Counts ends: what ended first has the least.
    pub(super) end: u64,
}

impl Call {
    fn kept_bytes(&self) -> Option<u64> {
        match &self.state {
            State::Ended(_, result) => Some(result.kept_bytes()),
            State::Pending | State::Running | State::Gone(_) => None,
        }
    }
}

#[derive(Debug)]
struct Key {
    function: usize,
    idempotency: u8,
    call_id: CallId,
    created: i64,
}

/// All that a store should know.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: i64,
    pub(super) functions: [Option<Function>; FUNCTIONS.len()],
    /// In the order of acceptance.
    pub(super) calls: Vec<Call>,
    keys: Vec<Key>,
    ends: u64,
}

pub(super) fn owner(function: usize) -> (AccountId, FunctionName) {
    let (of, called) = FUNCTIONS[function];
    (account(of), name(called))
}

fn is_of(key: &CallKey, function: usize) -> bool {
    (key.account.as_str(), key.function.as_str()) == FUNCTIONS[function]
}

fn before(now: i64, age: Duration) -> i64 {
    now - age.as_millis() as i64
}

impl Model {
    /// An empty store, and what the clock says.
    pub(super) fn at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    /// By account and name.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions: Vec<_> = self.functions.iter().flatten().cloned().collect();
        functions.sort_by_key(|function| (function.account.clone(), function.name.clone()));
        functions
    }

    pub(super) fn create(&mut self, function: usize, new: Function) -> Result<(), Error> {
        if self.functions[function].is_some() {
            return Err(Error::NameTaken(new.name));
        }
        let used = self.functions.iter().flatten().filter(|other| other.account == new.account).count() as u64;
        if used >= QUOTA.functions {
            return Err(Error::QuotaFull { kind: QuotaKind::Functions, used, limit: QUOTA.functions });
        }
        self.functions[function] = Some(new);
        Ok(())
    }

    /// Its calls stay.
    pub(super) fn update(&mut self, function: usize, new: Function) -> Result<(), Error> {
        let current = self.functions[function].as_mut().ok_or(Error::NotFound)?;
        *current = Function { created: current.created, ..new };
        Ok(())
    }

    pub(super) fn remove_function(&mut self, function: usize) -> Result<(), Error> {
        self.functions[function].take().ok_or(Error::NotFound)?;
        self.calls.retain(|call| !is_of(&call.key, function));
        self.keys.retain(|key| key.function != function);
        Ok(())
    }

    fn of(&self, function: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| is_of(&call.key, function))
    }

    pub(super) fn find(&mut self, key: &CallKey) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.key == *key)
    }

    pub(super) fn known(&self, key: &CallKey) -> Option<KnownCall> {
        let call = self.calls.iter().find(|call| call.key == *key)?;
        Some(match &call.state {
            State::Pending => KnownCall::Open(CallState::Pending),
            State::Running => KnownCall::Open(CallState::Running),
            State::Ended(at, result) => KnownCall::Ended { at: Timestamp(*at), result: result.clone() },
            State::Gone(_) => KnownCall::Gone,
        })
    }

    pub(super) fn tally(&self, function: usize) -> Tally {
        let mut tally = Tally::default();
        for call in self.of(function) {
            match &call.state {
                State::Pending => tally.pending += 1,
                State::Running => tally.running += 1,
                State::Ended(_, result) if result.verdict == Verdict::Finished => tally.finished += 1,
                State::Ended(..) => tally.failed += 1,
                State::Gone(_) => {}
            }
        }
        tally
    }

    pub(super) fn list(&self, function: usize, after: Option<CallId>, limit: u32) -> Vec<Listed> {
        let calls: Vec<_> = self.of(function).collect();
        let first = match after {
            None => 0,
            Some(after) => match calls.iter().position(|call| call.key.call_id == after) {
                Some(known) => known + 1,
                None => calls.iter().position(|call| call.key.call_id > after).unwrap_or(calls.len()),
            },
        };
        let listed = calls[first..].iter().filter_map(|call| {
            let (state, message) = match &call.state {
                State::Pending => (CallState::Pending, None),
                State::Running => (CallState::Running, None),
                State::Ended(_, result) => (result.verdict.state(), result.message.clone()),
                State::Gone(_) => return None,
            };
            Some(Listed { call_id: call.key.call_id, created: Timestamp(call.created), state, message })
        });
        listed.take(limit as usize).collect()
    }

    /// What becomes of a call of the function that was created then.
    pub(super) fn accept(
        &mut self,
        function: usize,
        created: Timestamp,
        idempotency: Option<u8>,
        call_id: CallId,
    ) -> Result<Enqueued, Error> {
        self.functions[function].as_ref().filter(|function| function.created == created).ok_or(Error::NotFound)?;
        let Some(idempotency) = idempotency else { return Ok(Enqueued::Accepted) };
        let created = self.now;
        let count = self.keys.iter().filter(|key| key.function == function).count() as u64;
        let known = self.keys.iter_mut().find(|key| key.function == function && key.idempotency == idempotency);
        match known {
            Some(key) if key.created > before(created, BOUNDS.key_ttl) => return Ok(Enqueued::Before(key.call_id)),
            Some(key) => (key.call_id, key.created) = (call_id, created),
            None if count >= BOUNDS.function_keys => return Err(Error::KeysFull(BOUNDS.function_keys)),
            None => self.keys.push(Key { function, idempotency, call_id, created }),
        }
        Ok(Enqueued::Accepted)
    }

    /// The call that a key names, however old the key is.
    pub(super) fn of_key(&self, function: usize, idempotency: u8) -> Option<CallId> {
        let is_meant = |key: &&Key| (key.function, key.idempotency) == (function, idempotency);
        self.keys.iter().find(is_meant).map(|key| key.call_id)
    }

    pub(super) fn claim(&mut self, key: &CallKey) -> Option<Start> {
        let call = self.find(key).filter(|call| call.state.waits())?;
        (call.state, call.starts) = (State::Running, call.starts + 1);
        Some(Start { number: call.starts, request: call.request.clone() })
    }

    /// Ends a start.
    pub(super) fn end(&mut self, key: &CallKey, start: u32, state: State) -> Result<(), Error> {
        let end = self.ends + 1;
        let running = self.find(key).filter(|call| call.state.runs() && call.starts == start);
        let running = running.ok_or(Error::NotFound)?;
        (running.state, running.end) = (state, end);
        self.ends = end;
        self.keep_bounds();
        Ok(())
    }

    /// Removes a call that is in such a state.
    pub(super) fn remove(&mut self, key: &CallKey, is_in_state: impl Fn(&State) -> bool) -> Result<(), Error> {
        let is_meant = |call: &Call| call.key == *key && is_in_state(&call.state);
        let at = self.calls.iter().position(is_meant).ok_or(Error::NotFound)?;
        self.calls.remove(at);
        Ok(())
    }

    /// The bytes that a result of the function may have so that no other has to go.
    pub(super) fn bytes_left(&self, key: &CallKey) -> u64 {
        let of_function = |call: &&Call| (&call.key.account, &call.key.function) == (&key.account, &key.function);
        BOUNDS.function_bytes - self.calls.iter().filter(of_function).filter_map(Call::kept_bytes).sum::<u64>()
    }

    /// The calls that wait, by place.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.calls.iter().filter(|call| call.state.waits()).map(|call| Waiting {
            key: call.key.clone(),
            place: call.place,
            created: Timestamp(call.created),
            bytes: call.request.bytes(),
        });
        waiting.collect()
    }

    /// What is kept is within its bounds, and no call has come back too often.
    pub(super) fn check_bounds(&self) {
        for account in ["a", "b"] {
            let count = self.functions().iter().filter(|function| function.account.as_str() == account).count() as u64;
            assert!(count <= QUOTA.functions, "{count} functions");
        }
        for function in 0..FUNCTIONS.len() {
            let results: Vec<u64> = self.of(function).filter_map(Call::kept_bytes).collect();
            assert!(results.len() as u64 <= BOUNDS.function_calls, "{results:?}");
            assert!(results.iter().sum::<u64>() <= BOUNDS.function_bytes, "{results:?}");
            let gone = self.of(function).filter(|call| matches!(call.state, State::Gone(_))).count() as u64;
            assert!(gone <= BOUNDS.function_gone, "{gone} calls that are gone");
            let keys = self.keys.iter().filter(|key| key.function == function).count() as u64;
            assert!(keys <= BOUNDS.function_keys, "{keys} keys");
        }
        for call in &self.calls {
            assert!(call.crashes <= call.starts, "{call:?}");
            assert!(call.crashes < CRASHES_MAX || !(call.state.waits() || call.state.runs()), "{call:?}");
        }
    }

    fn keep_bounds(&mut self) {
        for function in 0..FUNCTIONS.len() {
            let calls = || self.calls.iter().enumerate().filter(|(_, call)| is_of(&call.key, function));
            // The last end first, whatever the clock said.
            let ended = calls().filter_map(|(index, call)| match &call.state {
                State::Ended(_, result) => Some((Reverse(call.end), index, result.kept_bytes())),
                _ => None,
            });
            let mut ended: Vec<_> = ended.collect();
            ended.sort();
            let now = self.now;
            let (mut count, mut bytes, mut is_full) = (0, 0, false);
            for (_, index, kept) in ended {
                (count, bytes) = (count + 1, bytes + kept);
                is_full |= count > BOUNDS.function_calls || bytes > BOUNDS.function_bytes;
                if is_full {
                    self.calls[index].state = State::Gone(now);
                }
            }
            self.keep_gone(function);
        }
    }

    fn keep_gone(&mut self, function: usize) {
        let gone = self.of(function).filter_map(|call| match call.state {
            State::Gone(_) => Some((Reverse(call.end), call.key.clone())),
            _ => None,
        });
        let mut gone: Vec<_> = gone.collect();
        gone.sort_by_key(|(age, _)| *age);
        for (_, key) in gone.into_iter().skip(BOUNDS.function_gone as usize) {
            self.remove(&key, |_| true).unwrap();
        }
    }

    pub(super) fn expire(&mut self) {
        let now = self.now;
        for call in &mut self.calls {
            if matches!(call.state, State::Ended(at, _) if at <= before(now, BOUNDS.result_ttl)) {
                call.state = State::Gone(now);
            }
        }
        self.calls.retain(|call| !matches!(call.state, State::Gone(at) if at <= before(now, BOUNDS.gone_ttl)));
        self.keys.retain(|key| key.created > before(now, BOUNDS.key_ttl));
        self.keep_bounds();
    }

    /// The calls that have failed by this crash.
    pub(super) fn crash(&mut self) -> Vec<CallKey> {
        let running = self.calls.iter_mut().filter(|call| call.state.runs());
        let crashed = running.map(|call| {
            call.crashes += 1;
            call.state = State::Pending;
            (call.key.clone(), call.starts, call.crashes)
        });
        let last: Vec<_> = crashed.filter(|(_, _, crashes)| *crashes == CRASHES_MAX).collect();
        let mut failed = Vec::new();
        for (key, start, _) in last {
            self.find(&key).unwrap().state = State::Running;
            self.end(&key, start, State::Ended(self.now, interrupted())).unwrap();
            failed.push(key);
        }
        failed
    }
}
