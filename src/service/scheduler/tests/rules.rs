//! The scheduler's rules against plain lists: whatever is asked of it, in any order and under any bounds.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Call {
    a: usize,
    f: usize,
    ticket: Ticket,
    bytes: u64,
    need: u64,
}

/// What runs and waits in plain lists, and the rules, so plainly that they can be checked by reading.
struct Model {
    bounds: Bounds,
    running: Vec<Call>,
    waiting: Vec<Call>,
    reserved: Vec<(usize, u64)>,
    max: [[u32; FUNCTIONS]; ACCOUNTS],
    memory_free: u64,
    /// For each account with a call that may start, which others have started one meanwhile.
    passed_by: [Vec<usize>; ACCOUNTS],
    /// For each account, the lane with a call that may start while the other lane had its turn.
    passed_over: [Option<Lane>; ACCOUNTS],
}

const ACCOUNTS: usize = 3;
const FUNCTIONS: usize = 3;

impl Model {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            running: vec![],
            waiting: vec![],
            reserved: vec![],
            max: [[0, 1, 2]; ACCOUNTS],
            memory_free: 0,
            passed_by: Default::default(),
            passed_over: [None; ACCOUNTS],
        }
    }

    fn machine_has_slot(&self) -> bool {
        self.running.len() < self.bounds.running.get()
    }

    /// Whether a call may start but for the limit of the machine.
    fn may_start(&self, a: usize, f: usize, need: u64) -> bool {
        let of_account = self.running.iter().filter(|call| call.a == a).count();
        let of_function = self.running.iter().filter(|call| (call.a, call.f) == (a, f)).count();
        of_account < self.bounds.account_running.get()
            && (self.max[a][f] == 0 || of_function < self.max[a][f] as usize)
            && need <= self.memory_free
    }

    /// The tickets of what may start but for the limit of the machine.
    fn startable(&self, a: usize, lane: Lane) -> BTreeSet<Ticket> {
        let of_lane = self.waiting.iter().filter(|call| call.a == a && call.ticket.lane() == lane);
        of_lane.filter(|call| self.may_start(a, call.f, call.need)).map(|call| call.ticket).collect()
    }

    /// Whether a synchronous call would overtake one of its function, which it may where that waits for memory.
    fn would_overtake(&self, a: usize, f: usize) -> bool {
        self.waiting
            .iter()
            .any(|call| (call.a, call.f) == (a, f) && (call.need == 0 || call.ticket.lane() == Lane::Sync))
    }

    fn has_room(&self, a: usize, bytes: u64) -> bool {
        let waiting = self.waiting.iter().filter(|call| call.a == a).map(|call| call.bytes);
        let reserved = self.reserved.iter().filter(|(of, _)| *of == a).map(|(_, bytes)| *bytes);
        let held: Vec<u64> = waiting.chain(reserved).collect();
        held.len() < self.bounds.account_pending
            && held.iter().sum::<u64>() + bytes <= self.bounds.account_pending_bytes
    }

    /// Who may not start now is not passed by.
    fn forget_passed(&mut self) {
        for a in 0..ACCOUNTS {
            let [of_sync, of_async] = [Lane::Sync, Lane::Async].map(|lane| !self.startable(a, lane).is_empty());
            if !of_sync && !of_async {
                self.passed_by[a].clear();
            }
            let passed = self.passed_over[a];
            self.passed_over[a] = passed.filter(|lane| if *lane == Lane::Sync { of_sync } else { of_async });
        }
    }

    /// Checks and notes what the scheduler starts: that it may, that it is the oldest, and that turns are taken.
    fn start(&mut self, started: Option<Started>) -> Result<bool, TestCaseError> {
        let startable = |model: &Self, a| [Lane::Sync, Lane::Async].map(|lane| !model.startable(a, lane).is_empty());
        let Some(Started { ticket, memory }) = started else {
            let none = (0..ACCOUNTS).all(|a| startable(self, a) == [false, false]);
            prop_assert!(none || !self.machine_has_slot(), "something may start");
            return Ok(false);
        };
        prop_assert!(self.machine_has_slot(), "more run than may");
        let at = self.waiting.iter().position(|call| call.ticket == ticket);
        let Some(at) = at else { return Err(TestCaseError::fail("it does not wait")) };
        let call = self.waiting[at];
        let lane = ticket.lane();
        prop_assert_eq!(self.startable(call.a, lane).into_iter().next(), Some(ticket), "it is not the oldest");
        prop_assert_eq!(memory, call.need);
        prop_assert_ne!(self.passed_over[call.a], Some(lane.other()));
        let other_may = !self.startable(call.a, lane.other()).is_empty();
        self.passed_over[call.a] = other_may.then_some(lane.other());
        let others = (0..ACCOUNTS).filter(|a| *a != call.a && startable(self, *a) != [false, false]);
        for a in others.collect::<Vec<_>>() {
            prop_assert!(!self.passed_by[a].contains(&call.a), "it was another account's turn");
            self.passed_by[a].push(call.a);
        }
        self.passed_by[call.a].clear();
        self.waiting.remove(at);
        self.running.push(call);
        self.memory_free -= memory;
        self.forget_passed();
        Ok(true)
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// `max` here and below: it brings another `MaxConcurrency`.
    Request {
        a: usize,
        f: usize,
        bytes: u64,
        max: Option<u32>,
    },
    Reserve {
        a: usize,
        bytes: u64,
    },
    Unreserve(Index),
    Enqueue {
        reserved: Index,
        f: usize,
        max: Option<u32>,
    },
    Restore {
        a: usize,
        f: usize,
        bytes: u64,
        max: Option<u32>,
    },
    Release(Index),
    /// Of a call that does not run, if none of its function and lane does.
    ReleaseNone {
        a: usize,
        f: usize,
        lane: Lane,
    },
    PutBack {
        call: Index,
        memory: Option<u64>,
    },
    Cancel(Index),
    /// Of a call that does not wait any more.
    CancelStarted(Index),
    SetMax {
        a: usize,
        f: usize,
        max: u32,
    },
    TakeWaiting {
        a: usize,
        f: usize,
    },
    Memory(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    let max = || prop_oneof![4 => Just(None), 1 => (0..4u32).prop_map(Some)];
    let call = || (0..ACCOUNTS, 0..FUNCTIONS, 0..300u64, max());
    let lane = || prop_oneof![Just(Lane::Sync), Just(Lane::Async)];
    prop_oneof![
        6 => call().prop_map(|(a, f, bytes, max)| Op::Request { a, f, bytes, max }),
        6 => (0..ACCOUNTS, 0..300u64).prop_map(|(a, bytes)| Op::Reserve { a, bytes }),
        1 => index().prop_map(Op::Unreserve),
        6 => (index(), 0..FUNCTIONS, max()).prop_map(|(reserved, f, max)| Op::Enqueue { reserved, f, max }),
        1 => call().prop_map(|(a, f, bytes, max)| Op::Restore { a, f, bytes, max }),
        8 => index().prop_map(Op::Release),
        1 => (0..ACCOUNTS, 0..FUNCTIONS, lane()).prop_map(|(a, f, lane)| Op::ReleaseNone { a, f, lane }),
        4 => (index(), prop::option::of(0..50u64)).prop_map(|(call, memory)| Op::PutBack { call, memory }),
        2 => index().prop_map(Op::Cancel),
        1 => index().prop_map(Op::CancelStarted),
        2 => (0..ACCOUNTS, 0..FUNCTIONS, 0..4u32).prop_map(|(a, f, max)| Op::SetMax { a, f, max }),
        1 => (0..ACCOUNTS, 0..FUNCTIONS).prop_map(|(a, f)| Op::TakeWaiting { a, f }),
        3 => (0..60u64).prop_map(Op::Memory),
    ]
}

/// The scheduler and the model, which go through the same.
struct Both {
    scheduler: Scheduler,
    model: Model,
    places: u64,
}

impl Both {
    /// Unique, and only roughly growing.
    fn place(&mut self) -> Place {
        self.places += 1;
        Place(self.places ^ 3)
    }

    fn wait(&mut self, a: usize, f: usize, place: Place, bytes: u64, need: u64) {
        self.model.waiting.push(Call { a, f, ticket: Ticket::Async(place), bytes, need });
    }

    fn release(&mut self, at: usize) -> Call {
        let call = self.model.running.remove(at);
        self.scheduler.release(&account(call.a), &function(call.f), call.ticket.lane());
        call
    }

    fn set_max(&mut self, a: usize, f: usize, max: u32) {
        self.model.max[a][f] = max;
        self.scheduler.set_max_concurrency(&account(a), &function(f), NonZeroU32::new(max));
    }

    /// What a call says of its function's `MaxConcurrency`, which counts from now on.
    fn max(&mut self, a: usize, f: usize, brought: Option<u32>) -> u32 {
        let max = &mut self.model.max[a][f];
        *max = brought.unwrap_or(*max);
        *max
    }

    fn request(&mut self, a: usize, f: usize, bytes: u64, max: u32) -> Result<(), TestCaseError> {
        let may_start =
            self.model.machine_has_slot() && self.model.may_start(a, f, 0) && !self.model.would_overtake(a, f);
        let has_room = self.model.has_room(a, bytes);
        match request(&mut self.scheduler, a, f, max, bytes) {
            Admission::Runs => {
                prop_assert!(may_start);
                let ticket = Ticket::Sync(u64::MAX);
                self.model.running.push(Call { a, f, ticket, bytes, need: 0 });
            }
            Admission::Waits(ticket) => {
                prop_assert!(!may_start && has_room);
                prop_assert!(
                    self.model.waiting.iter().all(|call| call.ticket < ticket || call.ticket.lane() == Lane::Async)
                );
                self.model.waiting.push(Call { a, f, ticket, bytes, need: 0 });
            }
            Admission::Refused => {
                prop_assert!(!may_start && !has_room);
                // What it brought may be lost with it.
                self.set_max(a, f, max);
            }
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Request { a, f, bytes, max } => {
                let max = self.max(a, f, max);
                self.request(a, f, bytes, max)?;
            }
            Op::Reserve { a, bytes } => {
                let has_room = self.model.has_room(a, bytes);
                prop_assert_eq!(self.scheduler.reserve(&account(a), bytes), has_room);
                self.model.reserved.extend(has_room.then_some((a, bytes)));
            }
            Op::Unreserve(index) if !self.model.reserved.is_empty() => {
                let (a, bytes) = self.model.reserved.remove(index.index(self.model.reserved.len()));
                self.scheduler.unreserve(&account(a), bytes);
            }
            Op::Enqueue { reserved, f, max } if !self.model.reserved.is_empty() => {
                let (a, bytes) = self.model.reserved.remove(reserved.index(self.model.reserved.len()));
                let (place, max) = (self.place(), self.max(a, f, max));
                with_request(a, f, max, bytes, |request| self.scheduler.enqueue(request, place));
                self.wait(a, f, place, bytes, 0);
            }
            Op::Restore { a, f, bytes, max } => {
                let (place, max) = (self.place(), self.max(a, f, max));
                with_request(a, f, max, bytes, |request| self.scheduler.restore(request, place));
                self.wait(a, f, place, bytes, 0);
            }
            Op::Release(index) if !self.model.running.is_empty() => {
                self.release(index.index(self.model.running.len()));
            }
            Op::PutBack { call, memory } if !self.model.running.is_empty() => {
                let Call { a, f, ticket, bytes, .. } = self.release(call.index(self.model.running.len()));
                if let Ticket::Async(place) = ticket {
                    let back = |request: Request<'_>| self.scheduler.put_back(request, place, memory);
                    with_request(a, f, self.model.max[a][f], bytes, back);
                    self.wait(a, f, place, bytes, memory.unwrap_or(0));
                }
            }
            Op::Cancel(index) if !self.model.waiting.is_empty() => {
                let call = self.model.waiting.remove(index.index(self.model.waiting.len()));
                let (account, function) = (account(call.a), function(call.f));
                prop_assert!(self.scheduler.cancel(&account, &function, call.ticket));
                prop_assert!(!self.scheduler.cancel(&account, &function, call.ticket));
            }
            Op::ReleaseNone { a, f, lane } => {
                let runs = |call: &Call| (call.a, call.f, call.ticket.lane()) == (a, f, lane);
                if !self.model.running.iter().any(runs) {
                    self.scheduler.release(&account(a), &function(f), lane);
                }
            }
            Op::CancelStarted(index) if !self.model.running.is_empty() => {
                let Call { a, f, ticket, .. } = self.model.running[index.index(self.model.running.len())];
                prop_assert!(!self.scheduler.cancel(&account(a), &function(f), ticket));
            }
            Op::SetMax { a, f, max } => self.set_max(a, f, max),
            Op::TakeWaiting { a, f } => {
                let taken = |call: &Call| (call.a, call.f, call.ticket.lane()) == (a, f, Lane::Async);
                let expected: BTreeSet<_> =
                    self.model.waiting.iter().filter(|call| taken(call)).map(|call| call.ticket).collect();
                self.model.waiting.retain(|call| !taken(call));
                let places = self.scheduler.take_waiting_async(&account(a), &function(f));
                prop_assert!(places.iter().map(|place| Ticket::Async(*place)).eq(expected));
            }
            Op::Memory(free) => self.model.memory_free = free,
            // Of nothing.
            Op::Unreserve(_) | Op::Enqueue { .. } | Op::Release(_) | Op::PutBack { .. } => {}
            Op::Cancel(_) | Op::CancelStarted(_) => {}
        }
        Ok(())
    }

    fn start_all(&mut self) -> Result<(), TestCaseError> {
        self.model.forget_passed();
        while self.model.start(self.scheduler.start_next(self.model.memory_free))? {}
        Ok(())
    }

    fn check_counts(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.scheduler.running(), self.model.running.len());
        prop_assert_eq!(self.scheduler.pending(), self.model.waiting.len());
        for (a, f) in (0..ACCOUNTS).flat_map(|a| (0..FUNCTIONS).map(move |f| (a, f))) {
            let (account, function) = (account(a), function(f));
            let of = |calls: &[Call], lane| {
                calls.iter().filter(|call| (call.a, call.f, call.ticket.lane()) == (a, f, lane)).count()
            };
            let running = of(&self.model.running, Lane::Sync);
            let load = Load { running, pending: of(&self.model.waiting, Lane::Sync) };
            prop_assert_eq!(self.scheduler.sync_load(&account, &function), load);
            let running = running + of(&self.model.running, Lane::Async);
            prop_assert_eq!(self.scheduler.running_of(&account, &function), running);
        }
        Ok(())
    }

    /// All end, and nothing is left behind.
    fn end(&mut self) -> Result<(), TestCaseError> {
        for (a, bytes) in std::mem::take(&mut self.model.reserved) {
            self.scheduler.unreserve(&account(a), bytes);
        }
        self.model.memory_free = u64::MAX;
        self.start_all()?;
        while !self.model.running.is_empty() {
            self.release(0);
            self.start_all()?;
        }
        self.check_counts()?;
        prop_assert!(self.model.waiting.is_empty());
        prop_assert!(self.scheduler.accounts.is_empty() && self.scheduler.turns.accounts.is_empty());
        Ok(())
    }
}

proptest! {
    #[test]
    fn it_keeps_the_rules(
        (running, account_running, account_pending) in (1..6usize, 1..4usize, 0..7usize),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let bounds = bounds(running, account_running, account_pending);
        let mut both = Both { scheduler: Scheduler::new(bounds), model: Model::new(bounds), places: 0 };
        for op in ops {
            both.apply(op)?;
            both.start_all()?;
            both.check_counts()?;
        }
        both.end()?;
    }
}
