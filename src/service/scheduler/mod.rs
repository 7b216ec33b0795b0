//! Who runs next: a pure data structure, no lock, no clock, no await.
//!
//! Calls wait in two lanes, synchronous and asynchronous ones. Within a lane of an account the oldest call that may
//! start, starts; a call whose function has reached its `MaxConcurrency`, counted over both lanes, is passed over, not
//! waited for. When both lanes of an account have a call that may start they take turns, and so do accounts
//! (`docs/api.md` section 4).
//!
//! A call waits here for a limit, or for memory once it was ended for want of it. The scheduler keeps no count of the
//! machine's memory: it is told what is free.
//!
//! After each change, and whenever memory has become free, [`Scheduler::start_next`] is asked until it has none: then
//! all that may start has been started, and a synchronous call that starts at once overtakes nobody but those that
//! wait for memory.

mod account;
mod by_need;
#[cfg(test)]
mod tests;

use crate::domain::{AccountId, FunctionName, Place};
use account::Account;
use by_need::{ByNeed, Key};
use std::collections::HashMap;
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

/// How a call is waited for, and the queue that it stands in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Its client waits for its end.
    #[default]
    Sync,
    /// It is on disk, and whoever wants its output comes for it.
    Async,
}

impl Lane {
    fn other(self) -> Self {
        match self {
            Self::Sync => Self::Async,
            Self::Async => Self::Sync,
        }
    }
}

/// One waiting call. In each lane tickets grow in the order of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ticket {
    /// A synchronous call, counted by the scheduler.
    Sync(u64),
    /// An asynchronous call.
    Async(Place),
}

impl Ticket {
    fn new(lane: Lane, order: u64) -> Self {
        match lane {
            Lane::Sync => Self::Sync(order),
            Lane::Async => Self::Async(Place(order)),
        }
    }

    /// The lane that it waits in.
    pub fn lane(self) -> Lane {
        match self {
            Self::Sync(_) => Lane::Sync,
            Self::Async(_) => Lane::Async,
        }
    }

    fn order(self) -> u64 {
        match self {
            Self::Sync(order) | Self::Async(Place(order)) => order,
        }
    }
}

/// What became of a request to start a synchronous call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It runs: [`Scheduler::release`] gives its slot back.
    Runs,
    /// It waits, until [`Scheduler::start_next`] names its ticket or [`Scheduler::cancel`] takes it out.
    Waits(Ticket),
    /// Too many calls of this account wait already, or too many bytes.
    Refused,
}

/// A waiting call that runs now: [`Scheduler::release`] gives its slot back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Which.
    pub ticket: Ticket,
    /// The bytes of memory that it was set aside for, else 0. They are to be charged before anything else starts.
    pub memory: u64,
}

/// How many calls there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub pending: usize,
}

/// What the scheduler needs to know of a call.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose it is.
    pub account: &'a AccountId,
    /// What it calls.
    pub function: &'a FunctionName,
    /// The function's `MaxConcurrency` now. Another than before counts for all calls of the function.
    pub max_concurrency: Option<NonZeroU32>,
    /// The bytes that it holds while it waits.
    pub bytes: u64,
}

/// The calls that run and wait.
#[derive(Debug)]
pub struct Scheduler {
    bounds: Bounds,
    accounts: HashMap<AccountId, Account>,
    turns: Turns,
    running: usize,
    pending: usize,
    next_ticket: u64,
}

/// The accounts that have a slot and a call that may start, the next one to have a turn first. An account needs as much
/// memory as the least needy of its calls.
#[derive(Debug, Default)]
struct Turns {
    accounts: ByNeed<AccountId>,
    next: u64,
}

impl Turns {
    /// The place behind all others.
    fn last(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Enters an account as what it is after a change, or strikes it out. It keeps its place in the turns, also while
    /// it is not entered.
    fn enter(&mut self, id: &AccountId, account: &mut Account, bounds: &Bounds) {
        let need = if account.has_slot(bounds) { account.least_need() } else { None };
        let key = need.map(|need| Key { need, order: account.turn });
        let before = std::mem::replace(&mut account.entered, key);
        if before == key {
            return;
        }
        before.and_then(|before| self.accounts.remove(before));
        if let Some(key) = key {
            self.accounts.insert(key, id.clone());
        }
    }
}

impl Scheduler {
    /// Nothing runs, nothing waits.
    pub fn new(bounds: Bounds) -> Self {
        let (accounts, turns) = (HashMap::new(), Turns::default());
        Self { bounds, accounts, turns, running: 0, pending: 0, next_ticket: 0 }
    }

    /// Calls that run now.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Calls that wait now, those not counted that are on their way to disk.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Calls of one function that run now, in both lanes.
    pub fn running_of(&self, account: &AccountId, function: &FunctionName) -> usize {
        self.accounts.get(account).map_or(0, |account| account.running_of(function))
    }

    /// Synchronous calls of one function that run and wait now.
    pub fn sync_load(&self, account: &AccountId, function: &FunctionName) -> Load {
        self.accounts.get(account).map_or(Load { running: 0, pending: 0 }, |account| account.sync_load(function))
    }

    /// Starts a synchronous call, lets it wait, or refuses it.
    ///
    /// Ask [`Scheduler::start_next`] then, if it brought another `MaxConcurrency`.
    pub fn request(&mut self, request: Request<'_>) -> Admission {
        let room = self.running < self.bounds.running.get();
        let account = self.accounts.entry(request.account.clone()).or_default();
        if room && account.has_slot(&self.bounds) && account.start_at_once(&request) {
            self.running += 1;
            self.turns.enter(request.account, account, &self.bounds);
            return Admission::Runs;
        }
        if !account.has_room(request.bytes, &self.bounds) {
            self.settle(request.account);
            return Admission::Refused;
        }
        let ticket = Ticket::Sync(self.next_ticket);
        self.next_ticket += 1;
        self.wait(&request, ticket, 0);
        Admission::Waits(ticket)
    }

    /// Keeps room for an asynchronous call on its way to disk: it counts against the bounds of what may wait. `false` if
    /// there is none.
    ///
    /// [`Scheduler::enqueue`] makes it a waiting call, [`Scheduler::unreserve`] gives the room back.
    #[must_use]
    pub fn reserve(&mut self, account_id: &AccountId, bytes: u64) -> bool {
        let account = self.accounts.entry(account_id.clone()).or_default();
        let has_room = account.has_room(bytes, &self.bounds);
        if has_room {
            account.reserve(bytes);
        } else {
            self.settle(account_id);
        }
        has_room
    }

    /// The asynchronous call that room was kept for did not get onto the disk.
    pub fn unreserve(&mut self, account_id: &AccountId, bytes: u64) {
        if let Some(account) = self.accounts.get_mut(account_id) {
            account.unreserve(bytes);
            self.settle(account_id);
        }
    }

    /// The asynchronous call that room was kept for, with the same bytes, is on disk: it waits. Ask
    /// [`Scheduler::start_next`] then. Calls may come in another order than that of their places.
    pub fn enqueue(&mut self, request: Request<'_>, place: Place) {
        self.unreserve(request.account, request.bytes);
        self.restore(request, place);
    }

    /// An asynchronous call was found on disk, where it was accepted before: it waits, however many do. Ask
    /// [`Scheduler::start_next`] when all have been restored.
    pub fn restore(&mut self, request: Request<'_>, place: Place) {
        self.wait(&request, Ticket::Async(place), 0);
    }

    /// An asynchronous call that was started, and released, waits again in its old place, however many wait. Ask
    /// [`Scheduler::start_next`] then.
    ///
    /// `memory` sets it aside: it was ended because the machine's memory had no room, and starts again when so many
    /// bytes are free. Until then it holds nobody up. More than the machine's budget is never free.
    pub fn put_back(&mut self, request: Request<'_>, place: Place, memory: Option<u64>) {
        self.wait(&request, Ticket::Async(place), memory.unwrap_or(0));
    }

    /// Gives the slot of a call back that has ended. Ask [`Scheduler::start_next`] then.
    pub fn release(&mut self, account_id: &AccountId, function: &FunctionName, lane: Lane) {
        let Some(account) = self.accounts.get_mut(account_id) else { return };
        if account.release(function, lane) {
            self.running -= 1;
            self.settle(account_id);
        }
    }

    /// The next call that starts now, if one may; ask until there is none. A call that is set aside is passed over
    /// unless `memory_free`, the bytes that are free of the machine's memory, are enough for it.
    pub fn start_next(&mut self, memory_free: u64) -> Option<Started> {
        if self.running >= self.bounds.running.get() {
            return None;
        }
        let key = self.turns.accounts.first_fitting(memory_free)?;
        let account_id = self.turns.accounts.get(key)?.clone();
        let account = self.accounts.get_mut(&account_id)?;
        let started = account.start(memory_free)?;
        account.turn = self.turns.last();
        self.turns.enter(&account_id, account, &self.bounds);
        self.running += 1;
        self.pending -= 1;
        Some(started)
    }

    /// Takes a waiting call out. `false` if it does not wait any more: it has been started.
    pub fn cancel(&mut self, account_id: &AccountId, function: &FunctionName, ticket: Ticket) -> bool {
        let Some(account) = self.accounts.get_mut(account_id) else { return false };
        let waited = account.cancel(function, ticket);
        if waited {
            self.pending -= 1;
            self.settle(account_id);
        }
        waited
    }

    /// Takes out all asynchronous calls of a function that wait, the oldest first: the function was removed.
    pub fn take_waiting_async(&mut self, account_id: &AccountId, function: &FunctionName) -> Vec<Place> {
        let Some(account) = self.accounts.get_mut(account_id) else { return Vec::new() };
        let taken = account.take_waiting_async(function);
        self.pending -= taken.len();
        self.settle(account_id);
        taken
    }

    /// A function's `MaxConcurrency` has changed. Ask [`Scheduler::start_next`] then.
    pub fn set_max_concurrency(&mut self, account_id: &AccountId, function: &FunctionName, max: Option<NonZeroU32>) {
        let Some(account) = self.accounts.get_mut(account_id) else { return };
        account.set_max_concurrency(function, max);
        self.settle(account_id);
    }

    fn wait(&mut self, request: &Request<'_>, ticket: Ticket, need: u64) {
        let account = self.accounts.entry(request.account.clone()).or_default();
        if !account.has_waiting() {
            account.turn = self.turns.last();
        }
        account.wait(request, ticket, need);
        self.turns.enter(request.account, account, &self.bounds);
        self.pending += 1;
    }

    /// Brings the turns in line with an account, and forgets it if it holds nothing.
    fn settle(&mut self, account_id: &AccountId) {
        let Some(account) = self.accounts.get_mut(account_id) else { return };
        self.turns.enter(account_id, account, &self.bounds);
        if account.is_idle() {
            self.accounts.remove(account_id);
        }
    }
}
