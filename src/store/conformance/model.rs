//! Any sequence of transitions, against a model that is plain enough to be believed.

use super::calls::*;
use super::*;
use crate::domain::{
    CRASHES_MAX, CallId, CallKey, CallRequest, CallResult, CallState, IdempotencyKey, Listed, Place, Tally, Verdict,
    Waiting,
};
use crate::store::{Enqueued, KnownCall, NewCall, Retention, Start};
use proptest::collection::vec;
use proptest::sample::select;
use std::cmp::Reverse;
use std::time::Duration;

/// Small enough to be reached in a few steps.
const BOUNDS: Retention = Retention {
    function_bytes: 30,
    function_calls: 3,
    function_gone: 2,
    result_ttl: Duration::from_millis(100),
    gone_ttl: Duration::from_millis(60),
    key_ttl: Duration::from_millis(120),
    function_keys: 2,
};
const FUNCTIONS: [(&str, &str); 3] = [("a", "f"), ("a", "g"), ("b", "f")];

/// One of the calls that a step can be about, or else one of all that were ever asked for.
#[derive(Debug, Clone)]
struct Pick {
    fits: bool,
    nth: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        function: usize,
        idempotency: Option<u8>,
        bytes: usize,
        of_an_earlier_function: bool,
    },
    Claim(Vec<Pick>),
    /// Of a start that is so much older than the last one.
    GiveBack {
        call: Pick,
        older: u32,
    },
    Finish {
        call: Pick,
        older: u32,
        verdict: Verdict,
        bytes: usize,
    },
    DropPending(Pick),
    DropResult(Pick),
    List {
        function: usize,
        after: Pick,
        limit: u32,
    },
    Wait(i64),
    Expire,
    Replace(usize),
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let function = || prop_oneof![3 => Just(0), 1 => 1..FUNCTIONS.len()];
    let call = || (proptest::bool::weighted(0.8), 0..30_usize).prop_map(|(fits, nth)| Pick { fits, nth });
    let older = || prop_oneof![6 => Just(0), 1 => Just(1_u32)];
    let bytes = || prop_oneof![6 => 0..12_usize, 1 => 29..32_usize];
    let enqueue = (function(), proptest::option::of(0..4_u8), bytes(), proptest::bool::weighted(0.05));
    prop_oneof![
        8 => enqueue.prop_map(|(function, idempotency, bytes, of_an_earlier_function)| {
            Step::Enqueue { function, idempotency, bytes, of_an_earlier_function }
        }),
        6 => vec(call(), 0..4).prop_map(Step::Claim),
        2 => (call(), older()).prop_map(|(call, older)| Step::GiveBack { call, older }),
        6 => (call(), older(), select(&Verdict::ALL[..]), bytes())
            .prop_map(|(call, older, verdict, bytes)| Step::Finish { call, older, verdict, bytes }),
        1 => call().prop_map(Step::DropPending),
        1 => call().prop_map(Step::DropResult),
        2 => (function(), call(), 0..5_u32)
            .prop_map(|(function, after, limit)| Step::List { function, after, limit }),
        // The bounds are multiples of these: they are met to the millisecond.
        4 => select(&[1, 20, 40][..]).prop_map(Step::Wait),
        2 => Just(Step::Expire),
        1 => (0..FUNCTIONS.len() * 4).prop_filter_map("seldom", |f| (f % 4 == 0).then_some(Step::Replace(f / 4))),
        1 => Just(Step::Reopen),
        3 => Just(Step::Crash),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Pending,
    Running,
    Ended(i64, CallResult),
    Gone(i64),
}

impl State {
    fn waits(&self) -> bool {
        *self == Self::Pending
    }

    fn has_result(&self) -> bool {
        matches!(self, Self::Ended(..))
    }
}

#[derive(Debug)]
struct Call {
    key: CallKey,
    place: Place,
    created: i64,
    request: CallRequest,
    starts: u32,
    crashes: u32,
    state: State,
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
struct Model {
    now: i64,
    /// In the order of acceptance.
    calls: Vec<Call>,
    keys: Vec<Key>,
    /// When each function came into being.
    created: [i64; FUNCTIONS.len()],
}

fn is_of(key: &CallKey, function: usize) -> bool {
    (key.account.as_str(), key.function.as_str()) == FUNCTIONS[function]
}

fn before(now: i64, age: Duration) -> i64 {
    now - age.as_millis() as i64
}

impl Model {
    fn function(&self, function: usize) -> Function {
        let (of, called) = FUNCTIONS[function];
        let (account, uuid) = (account(of), FunctionUuid::from_random([function as u8; 16]));
        Function { account, uuid, created: Timestamp(self.created[function]), ..super::function(called) }
    }

    fn of(&self, function: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| is_of(&call.key, function))
    }

    fn find(&mut self, key: &CallKey) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.key == *key)
    }

    fn known(&self, key: &CallKey) -> Option<KnownCall> {
        let call = self.calls.iter().find(|call| call.key == *key)?;
        Some(match &call.state {
            State::Pending => KnownCall::Open(CallState::Pending),
            State::Running => KnownCall::Open(CallState::Running),
            State::Ended(at, result) => KnownCall::Ended { at: Timestamp(*at), result: result.clone() },
            State::Gone(_) => KnownCall::Gone,
        })
    }

    fn tally(&self, function: usize) -> Tally {
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

    fn list(&self, function: usize, after: Option<CallId>, limit: u32) -> Vec<Listed> {
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

    /// What becomes of a call that is asked for; `None`: too many keys.
    fn enqueue(&mut self, function: usize, idempotency: Option<u8>, call_id: CallId) -> Option<Enqueued> {
        let Some(idempotency) = idempotency else { return Some(Enqueued::Accepted) };
        let created = self.now;
        let count = self.keys.iter().filter(|key| key.function == function).count() as u64;
        let known = self.keys.iter_mut().find(|key| key.function == function && key.idempotency == idempotency);
        match known {
            Some(key) if key.created > before(created, BOUNDS.key_ttl) => return Some(Enqueued::Before(key.call_id)),
            Some(key) => (key.call_id, key.created) = (call_id, created),
            None if count >= BOUNDS.function_keys => return None,
            None => self.keys.push(Key { function, idempotency, call_id, created }),
        }
        Some(Enqueued::Accepted)
    }

    fn claim(&mut self, key: &CallKey) -> Option<Start> {
        let call = self.find(key).filter(|call| call.state == State::Pending)?;
        (call.state, call.starts) = (State::Running, call.starts + 1);
        Some(Start { number: call.starts, request: call.request.clone() })
    }

    /// Ends a start; `false` if it does not run.
    fn end(&mut self, key: &CallKey, start: u32, state: State) -> bool {
        let running = self.find(key).filter(|call| call.state == State::Running && call.starts == start);
        let runs = running.is_some();
        running.into_iter().for_each(|call| call.state = state.clone());
        self.keep_bounds();
        runs
    }

    /// Removes a call that is in such a state; `false` if it is not.
    fn remove(&mut self, key: &CallKey, is_in_state: impl Fn(&State) -> bool) -> bool {
        let count = self.calls.len();
        self.calls.retain(|call| call.key != *key || !is_in_state(&call.state));
        self.calls.len() < count
    }

    fn keep_bounds(&mut self) {
        for function in 0..FUNCTIONS.len() {
            let calls = || self.calls.iter().enumerate().filter(|(_, call)| is_of(&call.key, function));
            // Newest first, and of those that ended at once, the one that was accepted later.
            let ended = calls().filter_map(|(index, call)| match &call.state {
                State::Ended(at, result) => Some((Reverse((*at, call.place)), index, result.kept_bytes())),
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
            State::Gone(at) => Some((Reverse((at, call.place)), call.key.clone())),
            _ => None,
        });
        let mut gone: Vec<_> = gone.collect();
        gone.sort_by_key(|(age, _)| *age);
        for (_, key) in gone.into_iter().skip(BOUNDS.function_gone as usize) {
            self.remove(&key, |_| true);
        }
    }

    fn expire(&mut self) {
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
    fn crash(&mut self) -> Vec<CallKey> {
        let running = self.calls.iter_mut().filter(|call| call.state == State::Running);
        let crashed = running.map(|call| {
            call.crashes += 1;
            call.state = State::Pending;
            (call.key.clone(), call.starts, call.crashes)
        });
        let last: Vec<_> = crashed.filter(|(_, _, crashes)| *crashes == CRASHES_MAX).collect();
        let mut failed = Vec::new();
        for (key, start, _) in last {
            self.find(&key).unwrap().state = State::Running;
            assert!(self.end(&key, start, State::Ended(self.now, interrupted())));
            failed.push(key);
        }
        failed
    }
}

/// A store and what it should know.
struct Run<'a> {
    disk: &'a dyn Disk,
    /// `None` while it is opened again.
    opened: Option<Arc<dyn Store>>,
    model: Model,
    /// All calls that ever were asked for.
    asked: Vec<CallKey>,
    last_place: Place,
}

impl<'a> Run<'a> {
    async fn begin(disk: &'a dyn Disk) -> Self {
        let store = disk.open();
        for function in store.functions().await.unwrap() {
            store.remove_function(&function.account, &function.name).await.unwrap();
        }
        let model = Model { now: 1_000, ..Model::default() };
        for function in 0..FUNCTIONS.len() {
            store.create_function(&model.function(function), AMPLE).await.unwrap();
        }
        Self { disk, opened: Some(store), model, asked: vec![key("f", 0)], last_place: Place(0) }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.opened.as_ref().unwrap()
    }

    fn call(&self, pick: &Pick, fits: impl Fn(&State) -> bool) -> CallKey {
        let fitting: Vec<_> = self.model.calls.iter().filter(|call| pick.fits && fits(&call.state)).collect();
        match fitting.get(pick.nth % fitting.len().max(1)) {
            Some(call) => call.key.clone(),
            None => self.asked[pick.nth % self.asked.len()].clone(),
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Enqueue { function, idempotency, bytes, of_an_earlier_function } => {
                let earlier = i64::from(of_an_earlier_function);
                self.enqueue(function, idempotency, bytes, earlier).await;
            }
            Step::Claim(calls) => {
                let calls: Vec<_> = calls.iter().map(|call| self.call(call, State::waits)).collect();
                let expected: Vec<_> = calls.iter().map(|call| self.model.claim(call)).collect();
                assert_eq!(self.store().claim(calls).await.unwrap(), expected);
            }
            Step::GiveBack { call, older } => {
                let (call, start) = self.start(&call, older);
                let answer = self.store().give_back(&call, start).await;
                same(answer, self.model.end(&call, start, State::Pending));
            }
            Step::Finish { call, older, verdict, bytes } => {
                let (call, start) = self.start(&call, older);
                let message = (verdict != Verdict::Finished).then(|| "why".to_owned());
                let result = CallResult { verdict, message, ..output(bytes) };
                let now = Timestamp(self.model.now);
                let answer = self.store().finish(&call, start, result.clone(), now, &BOUNDS).await;
                same(answer, self.model.end(&call, start, State::Ended(now.0, result)));
            }
            Step::DropPending(call) => {
                let call = self.call(&call, State::waits);
                let answer = self.store().drop_pending(&call).await;
                same(answer, self.model.remove(&call, State::waits));
            }
            Step::DropResult(call) => {
                let call = self.call(&call, State::has_result);
                let answer = self.store().drop_result(&call).await;
                same(answer, self.model.remove(&call, State::has_result));
            }
            Step::List { function, after, limit } => {
                self.check_list(function, Some(self.call(&after, |_| true).call_id), limit).await;
            }
            Step::Wait(ms) => self.model.now += ms,
            Step::Expire => {
                while self.store().expire(Timestamp(self.model.now), &BOUNDS).await.unwrap() {}
                self.model.expire();
            }
            Step::Replace(function) => self.replace(function).await,
            Step::Reopen => self.reopen(),
            Step::Crash => self.crash().await,
        }
    }

    /// The last start of a call, or an older one.
    fn start(&mut self, call: &Pick, older: u32) -> (CallKey, u32) {
        let key = self.call(call, |state| *state == State::Running);
        let last = self.model.find(&key).map_or(1, |call| call.starts);
        (key, last.saturating_sub(older))
    }

    async fn enqueue(&mut self, function: usize, idempotency: Option<u8>, bytes: usize, earlier: i64) {
        // Ids follow the order of acceptance nearly.
        let call_id = call_id((self.asked.len() as u64 + 1) ^ 1);
        let Function { account, name, created, .. } = self.model.function(function);
        let key = CallKey { account, function: name, call_id };
        let variables = vec![("NAME".into(), "value".to_owned())];
        let request = CallRequest { body: vec![b'i'; bytes].into(), variables };
        let call = NewCall {
            key: key.clone(),
            function_created: Timestamp(created.0 - earlier),
            created: Timestamp(self.model.now),
            idempotency: idempotency.map(|byte| IdempotencyKey([byte; 32])),
            request: request.clone(),
        };
        self.asked.push(key.clone());
        let answer = ask(self.store(), call, &BOUNDS).await;
        if earlier > 0 {
            assert!(is_not_found(answer));
            return;
        }
        match (self.model.enqueue(function, idempotency, call_id), answer) {
            (Some(Enqueued::Accepted), Ok((Enqueued::Accepted, Some(place)))) => {
                assert!(place > self.last_place, "{place:?} after {:?}", self.last_place);
                self.last_place = place;
                let (created, state) = (self.model.now, State::Pending);
                self.model.calls.push(Call { key, place, created, request, starts: 0, crashes: 0, state });
            }
            (Some(Enqueued::Before(expected)), Ok((Enqueued::Before(found), None))) if expected == found => {}
            (None, Err(Error::KeysFull(limit))) if limit == BOUNDS.function_keys => {}
            (expected, answer) => panic!("{expected:?}, and the store: {answer:?}"),
        }
    }

    /// Removes a function, and makes another of its name.
    async fn replace(&mut self, function: usize) {
        let Function { account, name, .. } = self.model.function(function);
        self.store().remove_function(&account, &name).await.unwrap();
        self.model.calls.retain(|call| !is_of(&call.key, function));
        self.model.keys.retain(|key| key.function != function);
        self.model.created[function] += 1;
        self.store().create_function(&self.model.function(function), AMPLE).await.unwrap();
    }

    fn reopen(&mut self) {
        self.opened = None;
        self.opened = Some(self.disk.open());
    }

    async fn crash(&mut self) {
        self.reopen();
        let mut expected = self.model.crash();
        let (waiting, mut failed) =
            self.store().recover(interrupted(), Timestamp(self.model.now), &BOUNDS).await.unwrap();
        expected.sort_by_key(|call| call.call_id);
        failed.sort_by_key(|call| call.call_id);
        assert_eq!(failed, expected);
        let pending = self.model.calls.iter().filter(|call| call.state == State::Pending);
        let expected = pending.map(|call| Waiting {
            key: call.key.clone(),
            place: call.place,
            created: Timestamp(call.created),
            bytes: call.request.bytes(),
        });
        assert_eq!(waiting, expected.collect::<Vec<_>>());
    }

    async fn check_list(&self, function: usize, after: Option<CallId>, limit: u32) {
        let Function { account, name, .. } = self.model.function(function);
        let listed = self.store().list_calls(&account, &name, after, limit).await.unwrap();
        assert_eq!(listed, self.model.list(function, after, limit), "{name} after {after:?}");
    }

    async fn check(&self) {
        for function in 0..FUNCTIONS.len() {
            let Function { account, name, .. } = self.model.function(function);
            assert_eq!(self.store().tally(&account, &name).await.unwrap(), self.model.tally(function), "{name}");
            self.check_list(function, None, u32::MAX).await;
        }
        for key in &self.asked {
            let known = self.model.known(key);
            let function = self.store().function_of_call(&key.account, key.call_id).await.unwrap();
            assert_eq!(function.as_ref(), known.as_ref().map(|_| &key.function));
            assert_eq!(self.store().call(key).await.unwrap(), known, "{key:?}");
        }
    }
}

/// Whether the store did it just as the model did.
fn same(answer: Result<(), Error>, happened: bool) {
    match answer {
        Ok(()) => assert!(happened, "the store did what it should not have"),
        Err(Error::NotFound) => assert!(!happened, "the store refused"),
        Err(other) => panic!("{other}"),
    }
}

pub(crate) async fn any_sequence_of_transitions_agrees_with_the_model(disk: &dyn Disk) {
    for_all(vec(step(), 1..120), async |steps| {
        let mut run = Run::begin(disk).await;
        for step in steps {
            run.take(step).await;
            run.check().await;
        }
    });
}
