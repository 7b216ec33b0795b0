//! Any sequence of transitions: the store and the model take each step and must agree on it, and after it.

use super::calls::*;
use super::model::{BOUNDS, FUNCTIONS, KEYS, Model, QUOTA, State, owner};
use super::*;
use crate::domain::{CallId, CallKey, CallRequest, CallResult, IdempotencyKey, Place, Verdict};
use crate::store::{Enqueued, KnownCall, NewCall};
use proptest::collection::vec;
use proptest::sample::select;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Debug, Formatter};

/// One of the calls that a step can be about, or else one of all that were ever asked for.
#[derive(Clone)]
struct Pick {
    nth: usize,
    of_all: bool,
}

impl Debug for Pick {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.nth, if self.of_all { " of all" } else { "" })
    }
}

/// How large a result is.
#[derive(Debug, Clone, Copy)]
enum Size {
    Bytes(usize),
    /// As large as the results that are kept leave room for, and so many bytes more.
    RoomAnd(usize),
}

#[derive(Debug, Clone)]
enum Step {
    Accept {
        function: usize,
        key: Option<u8>,
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
        size: Size,
    },
    /// Gives all back that runs.
    Drain,
    DropPending(Pick),
    DropResult(Pick),
    List {
        function: usize,
        after: Pick,
        limit: u32,
    },
    /// In milliseconds. The clock may go back.
    Tick(i64),
    Expire,
    Create(usize),
    Update(usize),
    Remove(usize),
    Reopen,
    Crash,
}

/// Shown a line each.
struct Steps(Vec<Step>);

impl Debug for Steps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let function = || prop_oneof![6 => Just(0), 3 => 1..FUNCTIONS.len()];
    let any_function = || 0..FUNCTIONS.len();
    let call = || (0..30_usize, proptest::bool::weighted(0.2)).prop_map(|(nth, of_all)| Pick { nth, of_all });
    let older = || prop_oneof![6 => Just(0), 1 => Just(1_u32)];
    let size = || {
        prop_oneof![
            6 => (0..12_usize).prop_map(Size::Bytes),
            1 => (29..32_usize).prop_map(Size::Bytes),
            2 => (0..2_usize).prop_map(Size::RoomAnd),
        ]
    };
    let key = proptest::option::of(0..KEYS);
    let accept = (function(), key, 0..12_usize, proptest::bool::weighted(0.05));
    prop_oneof![
        16 => accept.prop_map(|(function, key, bytes, of_an_earlier_function)| {
            Step::Accept { function, key, bytes, of_an_earlier_function }
        }),
        14 => vec(call(), 0..4).prop_map(Step::Claim),
        4 => (call(), older()).prop_map(|(call, older)| Step::GiveBack { call, older }),
        12 => (call(), older(), select(&Verdict::ALL[..]), size())
            .prop_map(|(call, older, verdict, size)| Step::Finish { call, older, verdict, size }),
        1 => Just(Step::Drain),
        2 => call().prop_map(Step::DropPending),
        2 => call().prop_map(Step::DropResult),
        3 => (any_function(), call(), 0..5_u32)
            .prop_map(|(function, after, limit)| Step::List { function, after, limit }),
        // The bounds are multiples of these: they are met to the millisecond.
        8 => select(&[1, 20, 40, -30][..]).prop_map(Step::Tick),
        4 => Just(Step::Expire),
        2 => any_function().prop_map(Step::Create),
        2 => any_function().prop_map(Step::Update),
        1 => any_function().prop_map(Step::Remove),
        2 => Just(Step::Reopen),
        6 => Just(Step::Crash),
    ]
}

/// What was learned of a call, and is never unlearned.
#[derive(Debug, Default)]
struct Learned {
    starts: u32,
    end: Option<KnownCall>,
    is_gone: bool,
    is_forgotten: bool,
}

impl Learned {
    /// A call ends once, with one result; what is gone does not come back.
    fn check(&mut self, known: Option<KnownCall>) {
        match &known {
            Some(KnownCall::Open(_)) => assert!(self.end.is_none() && !self.is_gone, "it goes on: {self:?}"),
            Some(KnownCall::Ended { .. }) => {
                assert!(!self.is_gone, "its result is there again: {self:?}");
                assert_eq!(self.end.get_or_insert_with(|| known.clone().unwrap()), known.as_ref().unwrap());
            }
            Some(KnownCall::Gone) => self.is_gone = true,
            None => {}
        }
        assert!(known.is_none() || !self.is_forgotten, "it is known again: {self:?}");
        self.is_forgotten = known.is_none();
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
    learned: HashMap<CallId, Learned>,
    last_place: Place,
    /// Versions of functions so far.
    versions: u8,
    /// What became of what was asked.
    met: &'a RefCell<BTreeSet<String>>,
}

impl<'a> Run<'a> {
    async fn begin(disk: &'a dyn Disk, met: &'a RefCell<BTreeSet<String>>) -> Self {
        let store = disk.open();
        for function in store.functions().await.unwrap() {
            store.remove_function(&function.account, &function.name).await.unwrap();
        }
        let model = Model::at(1_000);
        let (opened, asked, learned, last_place) = (Some(store), vec![key("f", 0)], HashMap::new(), Place(0));
        let mut run = Self { disk, opened, model, asked, learned, last_place, versions: 0, met };
        for function in 0..FUNCTIONS.len() {
            run.take(Step::Create(function)).await;
        }
        run
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.opened.as_ref().unwrap()
    }

    fn agree<T: Debug>(&self, store: Result<T, Error>, model: Result<T, Error>) {
        let (store, model) = (format!("{store:?}"), format!("{model:?}"));
        assert_eq!(store, model, "the store, and the model");
        self.meet(store);
    }

    fn meet(&self, what: String) {
        self.met.borrow_mut().insert(what);
    }

    fn call(&self, pick: &Pick, fits: impl Fn(&State) -> bool) -> CallKey {
        let fitting: Vec<_> = self.model.calls.iter().filter(|call| !pick.of_all && fits(&call.state)).collect();
        match fitting.get(pick.nth % fitting.len().max(1)) {
            Some(call) => call.key.clone(),
            None => self.asked[pick.nth % self.asked.len()].clone(),
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Accept { function, key, bytes, of_an_earlier_function } => {
                self.accept(function, key, bytes, i64::from(of_an_earlier_function)).await;
            }
            Step::Claim(calls) => {
                let calls = calls.iter().map(|call| self.call(call, State::waits)).collect();
                self.claim(calls).await;
            }
            Step::GiveBack { call, older } => {
                let (call, start) = self.start(&call, older);
                self.give_back(&call, start).await;
            }
            Step::Finish { call, older, verdict, size } => {
                let (call, start) = self.start(&call, older);
                self.finish(&call, start, verdict, size).await;
            }
            Step::Drain => {
                let running = self.model.calls.iter().filter(|call| call.state.runs());
                for (call, start) in running.map(|call| (call.key.clone(), call.starts)).collect::<Vec<_>>() {
                    self.give_back(&call, start).await;
                }
            }
            Step::DropPending(call) => {
                let call = self.call(&call, State::waits);
                let answer = self.store().drop_pending(&call).await;
                let expected = self.model.remove(&call, State::waits);
                self.agree(answer, expected);
            }
            Step::DropResult(call) => {
                let call = self.call(&call, State::has_result);
                let answer = self.store().drop_result(&call).await;
                let expected = self.model.remove(&call, State::has_result);
                self.agree(answer, expected);
                // It was read: nobody reads it again.
                assert!(is_not_found(self.store().drop_result(&call).await));
            }
            Step::List { function, after, limit } => {
                self.check_list(function, Some(self.call(&after, |_| true).call_id), limit).await;
            }
            Step::Tick(ms) => self.model.now += ms,
            Step::Expire => {
                while self.store().expire(Timestamp(self.model.now), &BOUNDS).await.unwrap() {}
                self.model.expire();
            }
            Step::Create(function) => {
                let new = self.version(function);
                let answer = self.store().create_function(&new, QUOTA).await;
                let expected = self.model.create(function, new);
                self.agree(answer, expected);
            }
            Step::Update(function) => {
                let new = self.version(function);
                let answer = self.store().update_function(&new).await;
                let expected = self.model.update(function, new);
                self.agree(answer, expected);
            }
            Step::Remove(function) => {
                let (account, name) = owner(function);
                let answer = self.store().remove_function(&account, &name).await;
                let expected = self.model.remove_function(function);
                self.agree(answer, expected);
            }
            Step::Reopen => self.reopen(),
            Step::Crash => self.crash().await,
        }
    }

    /// A version of a function that no other is like.
    fn version(&mut self, function: usize) -> Function {
        self.versions += 1;
        let (account, name) = owner(function);
        let (uuid, created) = (FunctionUuid::from_random([self.versions; 16]), Timestamp(self.versions.into()));
        let mut version = Function { account, uuid, created, ..super::function(name.as_str()) };
        version.definition.config.tty = self.versions.is_multiple_of(2);
        version
    }

    async fn accept(&mut self, function: usize, key: Option<u8>, bytes: usize, earlier: i64) {
        // Ids follow the order of acceptance nearly.
        let call_id = call_id((self.asked.len() as u64 + 1) ^ 1);
        let (account, name) = owner(function);
        let call_key = CallKey { account, function: name, call_id };
        let created = self.model.functions[function].as_ref().map_or(0, |function| function.created.0);
        let variables = vec![("NAME".into(), "value".to_owned())];
        let request = CallRequest { body: vec![b'i'; bytes].into(), variables };
        let call = NewCall {
            key: call_key.clone(),
            function_created: Timestamp(created - earlier),
            created: Timestamp(self.model.now),
            idempotency: key.map(idempotency),
            request: request.clone(),
        };
        self.asked.push(call_key.clone());
        let expected = self.model.accept(function, call.function_created, key, call_id);
        let answer = ask(self.store(), call, &BOUNDS).await;
        let place = answer.as_ref().ok().and_then(|(_, place)| *place);
        assert_eq!(place.is_some(), matches!(expected, Ok(Enqueued::Accepted)), "a place, or none");
        self.agree(answer.map(|(enqueued, _)| enqueued), expected);
        if let Some(place) = place {
            assert!(place > self.last_place, "{place:?} after {:?}", self.last_place);
            self.last_place = place;
            let (created, state) = (self.model.now, State::Pending);
            let call = model::Call { key: call_key, place, created, request, starts: 0, crashes: 0, state, end: 0 };
            self.model.calls.push(call);
        }
    }

    async fn claim(&mut self, calls: Vec<CallKey>) {
        let expected: Vec<_> = calls.iter().map(|call| self.model.claim(call)).collect();
        let starts = self.store().claim(calls.clone()).await.unwrap();
        assert_eq!(starts, expected);
        for (call, start) in calls.iter().zip(starts) {
            let Some(start) = start else { continue };
            let learned = self.learned.entry(call.call_id).or_default();
            assert_eq!(start.number, learned.starts + 1, "every start has a number");
            learned.starts = start.number;
        }
    }

    /// The last start of a call, or an older one.
    fn start(&mut self, call: &Pick, older: u32) -> (CallKey, u32) {
        let key = self.call(call, State::runs);
        let last = self.model.find(&key).map_or(1, |call| call.starts);
        (key, last.saturating_sub(older))
    }

    async fn give_back(&mut self, call: &CallKey, start: u32) {
        let answer = self.store().give_back(call, start).await;
        let expected = self.model.end(call, start, State::Pending);
        self.agree(answer, expected);
    }

    /// A call that is ended while it runs fails like any other.
    async fn finish(&mut self, call: &CallKey, start: u32, verdict: Verdict, size: Size) {
        let bytes = match size {
            Size::Bytes(bytes) => bytes,
            Size::RoomAnd(more) => self.model.bytes_left(call) as usize + more,
        };
        let message = (verdict != Verdict::Finished).then(|| "why".to_owned());
        let result = CallResult { verdict, message, ..output(bytes) };
        let now = Timestamp(self.model.now);
        let answer = self.store().finish(call, start, result.clone(), now, &BOUNDS).await;
        let expected = self.model.end(call, start, State::Ended(now.0, result));
        self.agree(answer, expected);
    }

    fn reopen(&mut self) {
        self.opened = None;
        self.opened = Some(self.disk.open());
    }

    async fn crash(&mut self) {
        self.reopen();
        let mut expected = self.model.crash();
        let now = Timestamp(self.model.now);
        let (waiting, mut failed) = self.store().recover(interrupted(), now, &BOUNDS).await.unwrap();
        expected.sort_by_key(|call| call.call_id);
        failed.sort_by_key(|call| call.call_id);
        assert_eq!(failed, expected);
        assert_eq!(waiting, self.model.waiting());
        failed.iter().for_each(|_| self.meet("interrupted".to_owned()));
    }

    async fn check_list(&self, function: usize, after: Option<CallId>, limit: u32) {
        let (account, name) = owner(function);
        let listed = self.store().list_calls(&account, &name, after, limit).await.unwrap();
        assert_eq!(listed, self.model.list(function, after, limit), "{name} after {after:?}");
    }

    /// `all`: those that are forgotten as well, which only a store that reads them anew could bring back.
    async fn check(&mut self, all: bool) {
        self.model.check_bounds();
        assert_eq!(self.store().functions().await.unwrap(), self.model.functions());
        for function in 0..FUNCTIONS.len() {
            let (account, name) = owner(function);
            assert_eq!(self.store().tally(&account, &name).await.unwrap(), self.model.tally(function), "{name}");
            self.check_list(function, None, u32::MAX).await;
            for key in 0..KEYS {
                let ever = Timestamp(i64::MIN);
                let known = self.store().call_of_key(&account, &name, idempotency(key), ever).await.unwrap();
                assert_eq!(known, self.model.of_key(function, key), "key {key} of {name}");
            }
        }
        for call in self.asked.clone() {
            self.check_call(&call, all).await;
        }
    }

    async fn check_call(&mut self, call: &CallKey, all: bool) {
        let expected = self.model.known(call);
        let learned = self.learned.entry(call.call_id).or_default();
        if learned.is_forgotten && expected.is_none() && !all {
            return;
        }
        let known = self.store().call(call).await.unwrap();
        assert_eq!(known, expected, "{call:?}");
        if known == Some(KnownCall::Gone) {
            self.meet("gone".to_owned());
        }
        let function = self.store().function_of_call(&call.account, call.call_id).await.unwrap();
        assert_eq!(function.as_ref(), known.as_ref().map(|_| &call.function));
        self.learned.entry(call.call_id).or_default().check(known);
    }
}

fn idempotency(key: u8) -> IdempotencyKey {
    IdempotencyKey([key; 32])
}

pub(crate) async fn any_sequence_of_transitions_agrees_with_the_model(disk: &dyn Disk) {
    let met = RefCell::new(BTreeSet::new());
    for_all(vec(step(), 1..120).prop_map(Steps), async |Steps(steps)| {
        let mut run = Run::begin(disk, &met).await;
        for step in steps {
            let all = matches!(step, Step::Reopen | Step::Crash);
            run.take(step).await;
            run.check(all).await;
        }
        run.check(true).await;
    });
    // It has been everywhere.
    let [refused, others] =
        [["NotFound", "NameTaken", "QuotaFull", "KeysFull"], ["Accepted", "Before", "interrupted", "gone"]];
    for what in refused.into_iter().chain(others) {
        assert!(met.borrow().iter().any(|met| met.contains(what)), "never met: {what}");
    }
}
