//! The calls of one account.

use super::by_need::{ByNeed, Key};
use super::{Bounds, Lane, Load, Place, Request, Started, Ticket};
use crate::domain::FunctionName;
use std::collections::HashMap;
use std::num::NonZeroU32;

/// One of a thing for each lane.
#[derive(Debug, Default)]
struct PerLane<T> {
    of_sync: T,
    of_async: T,
}

impl<T> PerLane<T> {
    fn of(&self, lane: Lane) -> &T {
        match lane {
            Lane::Sync => &self.of_sync,
            Lane::Async => &self.of_async,
        }
    }

    fn of_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Sync => &mut self.of_sync,
            Lane::Async => &mut self.of_async,
        }
    }
}

/// The calls of one function.
#[derive(Debug, Default)]
struct Queue {
    /// The bytes that each waiting call holds.
    waiting: PerLane<ByNeed<u64>>,
    running: PerLane<usize>,
    max_concurrency: Option<NonZeroU32>,
}

impl Queue {
    fn running(&self) -> usize {
        self.running.of_sync + self.running.of_async
    }

    fn may_start(&self) -> bool {
        self.max_concurrency.is_none_or(|max| self.running() < max.get() as usize)
    }

    fn is_idle(&self) -> bool {
        self.running() == 0 && self.waiting.of_sync.is_empty() && self.waiting.of_async.is_empty()
    }
}

/// What may start but for the limits of the account and the machine: of each function that has not reached its
/// `MaxConcurrency` the oldest call of each lane and need.
#[derive(Debug, Default)]
struct Ready(PerLane<ByNeed<FunctionName>>);

impl Ready {
    /// Changes what decides whether calls of a function may start, and lists or strikes out its oldest calls.
    fn change(&mut self, function: &FunctionName, queue: &mut Queue, change: impl FnOnce(&mut Queue)) {
        let could = queue.may_start();
        change(queue);
        let may = queue.may_start();
        if could == may {
            return;
        }
        for lane in [Lane::Sync, Lane::Async] {
            for head in queue.waiting.of(lane).heads() {
                if may {
                    self.0.of_mut(lane).insert(head, function.clone());
                } else {
                    self.0.of_mut(lane).remove(head);
                }
            }
        }
    }
}

/// The calls of one account, and its place among the accounts.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Its place in the turns: a new one at each start, and when the first call comes to wait.
    pub(super) turn: u64,
    /// As what it is entered in the turns.
    pub(super) entered: Option<Key>,
    functions: HashMap<FunctionName, Queue>,
    ready: Ready,
    /// Whose turn it is when both lanes have a call that may start.
    next_lane: Lane,
    running: usize,
    waiting: usize,
    reserved: usize,
    /// The bytes of what waits and of what is reserved.
    bytes: u64,
}

impl Account {
    /// Whether nothing of it runs, waits or is on its way to disk.
    pub(super) fn is_idle(&self) -> bool {
        self.functions.is_empty() && self.reserved == 0
    }

    /// Whether a call of it waits.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether one more of its calls may run.
    pub(super) fn has_slot(&self, bounds: &Bounds) -> bool {
        self.running < bounds.account_running.get()
    }

    /// Whether one more call with so many bytes may wait.
    pub(super) fn has_room(&self, bytes: u64, bounds: &Bounds) -> bool {
        let bytes = self.bytes.checked_add(bytes);
        self.waiting + self.reserved < bounds.account_pending
            && bytes.is_some_and(|bytes| bytes <= bounds.account_pending_bytes)
    }

    /// The memory that must be free for any of its calls to start. `None` if none may start.
    pub(super) fn least_need(&self) -> Option<u64> {
        let Ready(PerLane { of_sync, of_async }) = &self.ready;
        [of_sync.least_need(), of_async.least_need()].into_iter().flatten().min()
    }

    /// Both lanes of one function.
    pub(super) fn running_of(&self, function: &FunctionName) -> usize {
        self.functions.get(function).map_or(0, Queue::running)
    }

    pub(super) fn sync_load(&self, function: &FunctionName) -> Load {
        let load = |queue: &Queue| Load { running: queue.running.of_sync, pending: queue.waiting.of_sync.len() };
        self.functions.get(function).map_or(Load { running: 0, pending: 0 }, load)
    }

    pub(super) fn reserve(&mut self, bytes: u64) {
        self.reserved += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn unreserve(&mut self, bytes: u64) {
        if self.reserved > 0 {
            self.reserved -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Starts a synchronous call of an account that has a slot, unless its function holds it up.
    pub(super) fn start_at_once(&mut self, request: &Request<'_>) -> bool {
        let queue = self.functions.entry(request.function.clone()).or_default();
        self.ready.change(request.function, queue, |queue| queue.max_concurrency = request.max_concurrency);
        // What else waits for the same limits is older. A call that is set aside waits for memory.
        let overtakes = !queue.waiting.of_sync.is_empty() || queue.waiting.of_async.head(0).is_some();
        if overtakes || !queue.may_start() {
            return false;
        }
        self.ready.change(request.function, queue, |queue| queue.running.of_sync += 1);
        self.running += 1;
        true
    }

    /// Lets a call wait, however many do.
    pub(super) fn wait(&mut self, request: &Request<'_>, ticket: Ticket, need: u64) {
        let (lane, key) = (ticket.lane(), Key { need, order: ticket.order() });
        let queue = self.functions.entry(request.function.clone()).or_default();
        self.ready.change(request.function, queue, |queue| queue.max_concurrency = request.max_concurrency);
        let waiting = queue.waiting.of_mut(lane);
        let head = waiting.head(need);
        waiting.insert(key, request.bytes);
        if queue.may_start() && head.is_none_or(|head| key < head) {
            let ready = self.ready.0.of_mut(lane);
            head.and_then(|head| ready.remove(head));
            ready.insert(key, request.function.clone());
        }
        self.waiting += 1;
        self.bytes = self.bytes.saturating_add(request.bytes);
    }

    /// Starts the oldest call that may start and needs no more memory than is free, of the lane whose turn it is if
    /// it has one.
    pub(super) fn start(&mut self, memory_free: u64) -> Option<Started> {
        let lanes = [self.next_lane, self.next_lane.other()];
        let oldest = |lane| Some((lane, self.ready.0.of(lane).first_fitting(memory_free)?));
        let (lane, key) = lanes.into_iter().find_map(oldest)?;
        let ready = self.ready.0.of_mut(lane);
        let function = ready.remove(key)?;
        let queue = self.functions.get_mut(&function)?;
        let waiting = queue.waiting.of_mut(lane);
        let bytes = waiting.remove(key)?;
        if let Some(head) = waiting.head(key.need) {
            ready.insert(head, function.clone());
        }
        self.ready.change(&function, queue, |queue| *queue.running.of_mut(lane) += 1);
        self.next_lane = lane.other();
        self.running += 1;
        self.waiting -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(Started { ticket: Ticket::new(lane, key.order), memory: key.need })
    }

    /// Whether such a call ran.
    pub(super) fn release(&mut self, function: &FunctionName, lane: Lane) -> bool {
        let Some(queue) = self.functions.get_mut(function) else { return false };
        if *queue.running.of(lane) == 0 {
            return false;
        }
        self.ready.change(function, queue, |queue| *queue.running.of_mut(lane) -= 1);
        self.running -= 1;
        if queue.is_idle() {
            self.functions.remove(function);
        }
        true
    }

    /// Whether such a call waited.
    pub(super) fn cancel(&mut self, function: &FunctionName, ticket: Ticket) -> bool {
        let Some(queue) = self.functions.get_mut(function) else { return false };
        let (waiting, ready) = (queue.waiting.of_mut(ticket.lane()), self.ready.0.of_mut(ticket.lane()));
        let Some(key) = waiting.find(ticket.order()) else { return false };
        let bytes = waiting.remove(key).unwrap_or_default();
        // The next one of its need takes its place, if it was the oldest and may start.
        if let (Some(function), Some(head)) = (ready.remove(key), waiting.head(key.need)) {
            ready.insert(head, function);
        }
        self.waiting -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        if queue.is_idle() {
            self.functions.remove(function);
        }
        true
    }

    /// Takes out all asynchronous calls of a function that wait, the oldest first.
    pub(super) fn take_waiting_async(&mut self, function: &FunctionName) -> Vec<Place> {
        let Some(queue) = self.functions.get_mut(function) else { return Vec::new() };
        let taken = std::mem::take(&mut queue.waiting.of_async);
        taken.heads().for_each(|head| drop(self.ready.0.of_async.remove(head)));
        self.waiting -= taken.len();
        self.bytes = taken.iter().fold(self.bytes, |left, (_, bytes)| left.saturating_sub(*bytes));
        if queue.is_idle() {
            self.functions.remove(function);
        }
        let mut places: Vec<Place> = taken.iter().map(|(key, _)| Place(key.order)).collect();
        places.sort_unstable();
        places
    }

    pub(super) fn set_max_concurrency(&mut self, function: &FunctionName, max: Option<NonZeroU32>) {
        if let Some(queue) = self.functions.get_mut(function) {
            self.ready.change(function, queue, |queue| queue.max_concurrency = max);
        }
    }
}
