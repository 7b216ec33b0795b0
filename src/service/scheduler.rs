//! Who runs next: a pure data structure, no lock, no clock, no await.
//!
//! Within an account the oldest call that may start, starts; a call whose function has reached its
//! `MaxConcurrency` is passed over, not waited for. Accounts with waiting calls take turns
//! (`docs/api.md` section 4). Whatever waits here waits for a limit: after each change, all that may start has been
//! started.

use crate::domain::{AccountId, FunctionName};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};

/// The bounds of running and waiting.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Calls that may run at once on this machine.
    pub running: NonZeroUsize,
    /// Calls of one account that may run at once.
    pub account_running: NonZeroUsize,
    /// Calls of one account that may wait.
    pub account_pending: usize,
    /// Bytes of request bodies of one account that may wait.
    pub account_pending_bytes: u64,
}

/// One waiting call. Tickets grow in the order of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What became of a request to start a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It runs: [`Scheduler::release`] gives its slot back.
    Runs,
    /// It waits, until [`Scheduler::start_next`] names its ticket or [`Scheduler::cancel`] takes it out.
    Waits(Ticket),
    /// Too many calls of this account wait already, or too many bytes.
    Refused,
}

/// What the scheduler needs to know of a call.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose it is.
    pub account: &'a AccountId,
    /// What it calls.
    pub function: &'a FunctionName,
    /// The function's `MaxConcurrency` now.
    pub max_concurrency: Option<NonZeroU32>,
    /// The bytes that it holds while it waits.
    pub bytes: u64,
}

/// The calls that run and wait.
#[derive(Debug)]
pub struct Scheduler {
    bounds: Bounds,
    accounts: HashMap<AccountId, Account>,
    /// Accounts with waiting calls, the next one to have a turn first.
    turns: VecDeque<AccountId>,
    running: usize,
    pending: usize,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Account {
    functions: HashMap<FunctionName, Queue>,
    /// The oldest ticket of each function that has not reached its `MaxConcurrency`.
    ready: BTreeMap<Ticket, FunctionName>,
    running: usize,
    pending: usize,
    pending_bytes: u64,
}

/// The calls of one function.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Ticket, u64)>,
    running: usize,
    max_concurrency: Option<NonZeroU32>,
}

impl Queue {
    fn may_start(&self) -> bool {
        self.max_concurrency.is_none_or(|max| self.running < max.get() as usize)
    }
}

impl Scheduler {
    /// Nothing runs, nothing waits.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, accounts: HashMap::new(), turns: VecDeque::new(), running: 0, pending: 0, next_ticket: 0 }
    }

    /// Calls that run now.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Calls that wait now.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Calls of one function that run now.
    pub fn running_of(&self, account: &AccountId, function: &FunctionName) -> usize {
        self.accounts.get(account).and_then(|account| account.functions.get(function)).map_or(0, |queue| queue.running)
    }

    /// Starts a call, lets it wait, or refuses it.
    pub fn request(&mut self, request: Request<'_>) -> Admission {
        // No clone of the account's id in the usual case.
        if !self.accounts.contains_key(request.account) {
            self.accounts.insert(request.account.clone(), Account::default());
        }
        let Some(account) = self.accounts.get_mut(request.account) else { return Admission::Refused };
        let queue = account.functions.entry(request.function.clone()).or_default();
        queue.max_concurrency = request.max_concurrency;
        let room = self.running < self.bounds.running.get() && account.running < self.bounds.account_running.get();
        // What waits in this queue waits for the same limits, so nobody is overtaken.
        if room && queue.waiting.is_empty() && queue.may_start() {
            queue.running += 1;
            account.running += 1;
            self.running += 1;
            return Admission::Runs;
        }
        let bytes = account.pending_bytes.saturating_add(request.bytes);
        if account.pending >= self.bounds.account_pending || bytes > self.bounds.account_pending_bytes {
            account.forget_idle(request.function);
            self.forget_idle(request.account);
            return Admission::Refused;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        queue.waiting.push_back((ticket, request.bytes));
        if queue.waiting.len() == 1 && queue.may_start() {
            account.ready.insert(ticket, request.function.clone());
        }
        account.pending += 1;
        account.pending_bytes = bytes;
        if account.pending == 1 {
            self.turns.push_back(request.account.clone());
        }
        self.pending += 1;
        Admission::Waits(ticket)
    }

    /// Gives the slot of a call back that has ended. Ask [`Scheduler::start_next`] then.
    pub fn release(&mut self, account_id: &AccountId, function: &FunctionName) {
        let Some(account) = self.accounts.get_mut(account_id) else { return };
        let Some(queue) = account.functions.get_mut(function) else { return };
        queue.running -= 1;
        account.running -= 1;
        self.running -= 1;
        account.settle(function);
        self.forget_idle(account_id);
    }

    /// The next call that starts now, if one may; ask until there is none.
    pub fn start_next(&mut self) -> Option<Ticket> {
        if self.running >= self.bounds.running.get() {
            return None;
        }
        for _ in 0..self.turns.len() {
            let account_id = self.turns.pop_front()?;
            let started = self.accounts.get_mut(&account_id).and_then(|account| account.start(&self.bounds));
            // An account keeps its place in the turns as long as something of it waits.
            if self.accounts.get(&account_id).is_some_and(|account| account.pending > 0) {
                self.turns.push_back(account_id);
            }
            if started.is_some() {
                self.running += 1;
                self.pending -= 1;
                return started;
            }
        }
        None
    }

    /// Takes a waiting call out. `false` if it does not wait any more: it has been started.
    pub fn cancel(&mut self, account_id: &AccountId, function: &FunctionName, ticket: Ticket) -> bool {
        let Some(account) = self.accounts.get_mut(account_id) else { return false };
        let Some(queue) = account.functions.get_mut(function) else { return false };
        let Ok(at) = queue.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return false };
        let bytes = queue.waiting.remove(at).map_or(0, |(_, bytes)| bytes);
        account.ready.remove(&ticket);
        account.pending -= 1;
        account.pending_bytes -= bytes;
        self.pending -= 1;
        account.settle(function);
        if account.pending == 0 {
            self.turns.retain(|waiting| waiting != account_id);
        }
        self.forget_idle(account_id);
        true
    }

    /// A function's `MaxConcurrency` has changed. Ask [`Scheduler::start_next`] then.
    pub fn set_max_concurrency(&mut self, account: &AccountId, function: &FunctionName, max: Option<NonZeroU32>) {
        let Some(account) = self.accounts.get_mut(account) else { return };
        let Some(queue) = account.functions.get_mut(function) else { return };
        queue.max_concurrency = max;
        account.settle(function);
    }

    fn forget_idle(&mut self, account_id: &AccountId) {
        if self.accounts.get(account_id).is_some_and(|account| account.functions.is_empty()) {
            self.accounts.remove(account_id);
        }
    }
}

impl Account {
    fn start(&mut self, bounds: &Bounds) -> Option<Ticket> {
        if self.running >= bounds.account_running.get() {
            return None;
        }
        let (ticket, function) = self.ready.pop_first()?;
        let queue = self.functions.get_mut(&function)?;
        let (_, bytes) = queue.waiting.pop_front()?;
        queue.running += 1;
        self.running += 1;
        self.pending -= 1;
        self.pending_bytes -= bytes;
        self.settle(&function);
        Some(ticket)
    }

    /// Brings `ready` in line with a function's queue, and forgets a queue that holds nothing.
    fn settle(&mut self, function: &FunctionName) {
        let Some(queue) = self.functions.get(function) else { return };
        if let Some((oldest, _)) = queue.waiting.front() {
            if queue.may_start() {
                self.ready.insert(*oldest, function.clone());
            } else {
                self.ready.remove(oldest);
            }
        }
        self.forget_idle(function);
    }

    fn forget_idle(&mut self, function: &FunctionName) {
        if self.functions.get(function).is_some_and(|queue| queue.running == 0 && queue.waiting.is_empty()) {
            self.functions.remove(function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(running: usize, account_running: usize, account_pending: usize) -> Bounds {
        Bounds {
            running: NonZeroUsize::new(running).unwrap(),
            account_running: NonZeroUsize::new(account_running).unwrap(),
            account_pending,
            account_pending_bytes: 1000,
        }
    }

    fn account(index: usize) -> AccountId {
        AccountId::new(&format!("account{index}")).unwrap()
    }

    fn function(index: usize) -> FunctionName {
        FunctionName::new(&format!("f{index}")).unwrap()
    }

    fn request(scheduler: &mut Scheduler, a: usize, f: usize, max: u32, bytes: u64) -> Admission {
        scheduler.request(Request {
            account: &account(a),
            function: &function(f),
            max_concurrency: NonZeroU32::new(max),
            bytes,
        })
    }

    #[test]
    fn a_function_at_its_limit_holds_nobody_up() {
        let mut scheduler = Scheduler::new(bounds(2, 2, 10));
        assert_eq!(request(&mut scheduler, 0, 0, 1, 0), Admission::Runs);
        let Admission::Waits(slow) = request(&mut scheduler, 0, 0, 1, 0) else { panic!() };
        assert_eq!(request(&mut scheduler, 0, 1, 0, 0), Admission::Runs);
        let Admission::Waits(other) = request(&mut scheduler, 0, 1, 0, 0) else { panic!() };
        scheduler.release(&account(0), &function(1));
        assert_eq!(scheduler.start_next(), Some(other));
        assert_eq!(scheduler.start_next(), None);
        scheduler.release(&account(0), &function(0));
        assert_eq!(scheduler.start_next(), Some(slow));
    }

    #[test]
    fn accounts_take_turns() {
        let mut scheduler = Scheduler::new(bounds(1, 1, 10));
        assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Runs);
        let flood: Vec<_> = (0..3).map(|_| request(&mut scheduler, 0, 0, 0, 0)).collect();
        let single = request(&mut scheduler, 1, 0, 0, 0);
        let mut order = Vec::new();
        let mut running = account(0);
        while scheduler.running() > 0 {
            scheduler.release(&running, &function(0));
            if let Some(ticket) = scheduler.start_next() {
                running = if Admission::Waits(ticket) == single { account(1) } else { account(0) };
                order.push(Admission::Waits(ticket));
            }
        }
        assert_eq!(order, [flood[0], single, flood[1], flood[2]]);
    }

    #[test]
    fn waiting_is_bounded_in_number_and_bytes_exactly() {
        let mut scheduler = Scheduler::new(bounds(1, 1, 2));
        assert_eq!(request(&mut scheduler, 0, 0, 0, 5000), Admission::Runs);
        assert!(matches!(request(&mut scheduler, 0, 0, 0, 1000), Admission::Waits(_)));
        assert_eq!(request(&mut scheduler, 0, 0, 0, 1), Admission::Refused);
        assert!(matches!(request(&mut scheduler, 0, 0, 0, 0), Admission::Waits(_)));
        assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Refused);
    }

    #[test]
    fn a_raised_limit_starts_what_waited_for_it() {
        let mut scheduler = Scheduler::new(bounds(9, 9, 9));
        assert_eq!(request(&mut scheduler, 0, 0, 1, 0), Admission::Runs);
        let Admission::Waits(ticket) = request(&mut scheduler, 0, 0, 1, 0) else { panic!() };
        scheduler.set_max_concurrency(&account(0), &function(0), None);
        assert_eq!(scheduler.start_next(), Some(ticket));
    }

    /// The same rules, written so plainly that they can be checked by reading.
    struct Model {
        bounds: Bounds,
        running: Vec<(usize, usize)>,
        waiting: Vec<(Ticket, usize, usize, u64)>,
        max: [u32; 3],
        turns: Vec<usize>,
    }

    impl Model {
        fn may_start(&self, a: usize, f: usize) -> bool {
            let of_account = self.running.iter().filter(|(account, _)| *account == a).count();
            let of_function = self.running.iter().filter(|call| **call == (a, f)).count();
            self.running.len() < self.bounds.running.get()
                && of_account < self.bounds.account_running.get()
                && (self.max[f] == 0 || of_function < self.max[f] as usize)
        }

        fn next(&mut self) -> Option<Ticket> {
            let turns = self.turns.clone();
            for a in turns {
                let first = self.waiting.iter().position(|w| w.1 == a && self.may_start(w.1, w.2));
                if let Some(at) = first {
                    let (ticket, a, f, _) = self.waiting.remove(at);
                    self.running.push((a, f));
                    let turn = self.turns.iter().position(|t| *t == a).unwrap();
                    let skipped: Vec<_> = self.turns.drain(..turn).collect();
                    self.turns.remove(0);
                    self.turns.extend(skipped);
                    if self.waiting.iter().any(|w| w.1 == a) {
                        self.turns.push(a);
                    }
                    return Some(ticket);
                }
            }
            None
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Request { a: usize, f: usize, bytes: u64 },
        Release(prop::sample::Index),
        Cancel(prop::sample::Index),
        SetMax { f: usize, max: u32 },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..2usize, 0..3usize, 0..300u64).prop_map(|(a, f, bytes)| Op::Request { a, f, bytes }),
            3 => any::<prop::sample::Index>().prop_map(Op::Release),
            1 => any::<prop::sample::Index>().prop_map(Op::Cancel),
            1 => (0..3usize, 0..3u32).prop_map(|(f, max)| Op::SetMax { f, max }),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_the_model_does(ops in prop::collection::vec(op(), 1..80)) {
            let bounds = bounds(3, 2, 5);
            let mut scheduler = Scheduler::new(bounds);
            let mut model = Model { bounds, running: vec![], waiting: vec![], max: [0, 1, 2], turns: vec![] };
            for op in ops {
                match op {
                    Op::Request { a, f, bytes } => {
                        let pending = model.waiting.iter().filter(|w| w.1 == a);
                        let (count, held) = pending.fold((0, 0), |(n, sum), w| (n + 1, sum + w.3));
                        match request(&mut scheduler, a, f, model.max[f], bytes) {
                            Admission::Runs => {
                                prop_assert!(model.may_start(a, f));
                                model.running.push((a, f));
                            }
                            Admission::Waits(ticket) => {
                                prop_assert!(!model.may_start(a, f));
                                prop_assert!(count < 5 && held + bytes <= 1000);
                                if count == 0 { model.turns.push(a); }
                                model.waiting.push((ticket, a, f, bytes));
                            }
                            Admission::Refused => {
                                prop_assert!(!model.may_start(a, f));
                                prop_assert!(count >= 5 || held + bytes > 1000);
                            }
                        }
                    }
                    Op::Release(index) if !model.running.is_empty() => {
                        let (a, f) = model.running.remove(index.index(model.running.len()));
                        scheduler.release(&account(a), &function(f));
                    }
                    Op::Cancel(index) if !model.waiting.is_empty() => {
                        let (ticket, a, f, _) = model.waiting.remove(index.index(model.waiting.len()));
                        prop_assert!(scheduler.cancel(&account(a), &function(f), ticket));
                        prop_assert!(!scheduler.cancel(&account(a), &function(f), ticket));
                        if !model.waiting.iter().any(|w| w.1 == a) { model.turns.retain(|t| *t != a); }
                    }
                    Op::SetMax { f, max } => {
                        model.max[f] = max;
                        (0..2).for_each(|a| scheduler.set_max_concurrency(&account(a), &function(f), NonZeroU32::new(max)));
                    }
                    Op::Release(_) | Op::Cancel(_) => {}
                }
                loop {
                    let (got, expected) = (scheduler.start_next(), model.next());
                    prop_assert_eq!(got, expected);
                    if got.is_none() { break; }
                }
                prop_assert_eq!(scheduler.running(), model.running.len());
                prop_assert_eq!(scheduler.pending(), model.waiting.len());
            }
            // When all has ended, nothing is left behind.
            loop {
                while model.next().is_some() { prop_assert!(scheduler.start_next().is_some()); }
                let Some((a, f)) = model.running.pop() else { break };
                scheduler.release(&account(a), &function(f));
            }
            prop_assert!(scheduler.accounts.is_empty() && scheduler.turns.is_empty());
        }
    }
}
