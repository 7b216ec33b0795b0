//! Calls that come, wait, leave and end, in whatever order their threads meet: `shuttle` chooses who goes on at each
//! lock and each wait, again and again.
//!
//! A synchronous call that is left waiting is found as a deadlock.

use super::*;
use crate::domain::{CallId, Change, ConfigChange, Definition, Function, FunctionUuid, ImageReference};
use crate::domain::{CallKey, Place, Timestamp, Waiting};
use crate::service::open_calls::OpenCalls;
use crate::store::Logs;
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Runner, future, thread};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// Orders that are tried of each scene, by chance alone and with few changes of the thread at telling moments.
const ORDERS: usize = 1_000;
/// Changes of the thread at such moments.
const CHANGES: usize = 3;
const BUDGET_BYTES: u64 = 100;
/// Account, name, `MaxConcurrency`.
const FUNCTIONS: [(&str, &str, u32); 4] = [("a", "one", 1), ("a", "free", 0), ("b", "free", 0), ("b", "two", 2)];
const ONE: usize = 0;
const FREE: usize = 1;
const THEIRS: usize = 2;
const TWO: usize = 3;

fn explore(scene: fn()) {
    let mut config = shuttle::Config::new();
    // A frame of a build without optimisation is large.
    config.stack_size = 1 << 19;
    Runner::new(RandomScheduler::new(ORDERS), config.clone()).run(scene);
    Runner::new(PctScheduler::new(CHANGES, ORDERS), config).run(scene);
}

fn callable(function: usize) -> Arc<Callable> {
    let (account, name, max_concurrency) = FUNCTIONS[function];
    let (account, name) = (AccountId::new(account).unwrap(), FunctionName::new(name).unwrap());
    let log = Logs::disabled().function(&account, &name);
    let (uuid, definition) = (FunctionUuid::from_random([0; 16]), definition(max_concurrency));
    Callable::new(Function { account, name, uuid, created: Timestamp(1), definition }, log)
}

fn definition(max_concurrency: u32) -> Definition {
    let config = ConfigChange { image: Some(ImageReference::parse("x").unwrap()), ..ConfigChange::default() };
    Definition::create(Change { config, max_concurrency: Some(max_concurrency), ..Change::default() }).unwrap()
}

/// Ready at some time, and perhaps just when something else has happened.
async fn soon() {
    future::yield_now().await;
    thread::yield_now();
}

/// Where calls run.
struct Stage {
    permits: Permits,
    bounds: Bounds,
    budget: Arc<MemoryBudget>,
    functions: Vec<Arc<Callable>>,
    /// As many calls of each function may run at once. A `MaxConcurrency` that is lowered ends no call.
    max: Vec<AtomicU32>,
    /// The calls of each function that run, as they see it.
    running: std::sync::Mutex<Vec<usize>>,
    open_calls: OpenCalls,
    next_place: AtomicU64,
    /// The asynchronous calls that were accepted and have not ended, by place.
    open: std::sync::Mutex<BTreeSet<u64>>,
    /// Those of them that were short of memory.
    short: std::sync::Mutex<BTreeSet<u64>>,
    /// The functions that are on disk. Accepting and removing come one after the other there.
    on_disk: shuttle::sync::Mutex<BTreeSet<usize>>,
}

impl Stage {
    fn new(running: usize, account_running: usize, account_pending: usize) -> (Self, mpsc::Receiver<Granted>) {
        let bounds = Bounds {
            running: NonZeroUsize::new(running).unwrap(),
            account_running: NonZeroUsize::new(account_running).unwrap(),
            account_pending,
            account_pending_bytes: 1_000,
        };
        let budget = Arc::new(MemoryBudget::new(BUDGET_BYTES));
        let (permits, grants) = Permits::new(bounds, Arc::clone(&budget));
        let max = |(_, _, max)| if max == 0 { u32::MAX } else { max };
        let stage = Self {
            permits,
            bounds,
            budget,
            functions: (0..FUNCTIONS.len()).map(callable).collect(),
            max: FUNCTIONS.map(max).map(AtomicU32::new).into(),
            running: std::sync::Mutex::new(vec![0; FUNCTIONS.len()]),
            open_calls: OpenCalls::default(),
            next_place: AtomicU64::new(1),
            open: std::sync::Mutex::default(),
            short: std::sync::Mutex::default(),
            on_disk: shuttle::sync::Mutex::new((0..FUNCTIONS.len()).collect()),
        };
        (stage, grants)
    }

    /// Runs a call: no more run at once than may.
    fn run(&self, function: usize) {
        self.running.lock().unwrap()[function] += 1;
        let load = self.permits.load();
        assert!(load.running <= self.bounds.running.get(), "{load:?}");
        let check = || {
            let running = self.running.lock().unwrap();
            assert!(running.iter().sum::<usize>() <= self.bounds.running.get(), "{running:?}");
            for account in ["a", "b"] {
                let of_account = running.iter().zip(FUNCTIONS).filter(|(_, (of, _, _))| *of == account);
                let count: usize = of_account.map(|(running, _)| running).sum();
                assert!(count <= self.bounds.account_running.get(), "{running:?}");
            }
            for (running, max) in running.iter().zip(&self.max) {
                assert!(*running <= max.load(Ordering::Relaxed) as usize, "{running} of {max:?}");
            }
        };
        check();
        thread::yield_now();
        check();
        self.running.lock().unwrap()[function] -= 1;
    }

    /// Calls and waits for the end of the call, at most until `too_long` is ready.
    fn call_sync(&self, function: usize, too_long: impl Future<Output = ()>) -> Result<(), Busy> {
        let permit = block_on(self.permits.acquire(&self.functions[function], 10, too_long, || ()))?;
        self.run(function);
        drop(permit);
        Ok(())
    }

    fn call_and_wait(&self, function: usize) {
        self.call_sync(function, std::future::pending()).unwrap();
    }

    /// Calls, and leaves at some time if the call still waits then.
    fn call_and_leave(&self, function: usize) {
        let permit = block_on(async {
            tokio::select! {
                biased;
                permit = self.permits.acquire(&self.functions[function], 10, std::future::pending(), || ()) => Some(permit),
                () = soon() => None,
            }
        });
        if let Some(permit) = permit {
            let _permit = permit.unwrap();
            self.run(function);
        }
    }

    /// Accepts an asynchronous call, if it gets onto the disk.
    fn accept(&self, function: usize) -> Result<Arc<OpenCall>, Busy> {
        let callable = &self.functions[function];
        let reservation = self.permits.reserve(callable, 10)?;
        let on_disk = self.on_disk.lock().unwrap();
        if !on_disk.contains(&function) {
            return Err(Busy::Removed);
        }
        let number = self.next_place.fetch_add(1, Ordering::Relaxed);
        let call_id = CallId::from_slice(&u128::from(number).to_be_bytes()).unwrap();
        let key = CallKey { account: callable.account.clone(), function: callable.name.clone(), call_id };
        let waiting = Waiting { key, place: Place(number), created: Timestamp(1), bytes: 10 };
        let call = self.open_calls.open(waiting, callable);
        assert!(self.open.lock().unwrap().insert(number));
        reservation.wait(Arc::clone(&call), callable);
        drop(on_disk);
        Ok(call)
    }

    /// A call has ended, or was taken out: once.
    fn end(&self, call: &OpenCall) {
        assert!(self.open.lock().unwrap().remove(&call.waiting.place.0), "it ends twice");
    }

    fn withdraw(&self, call: &OpenCall) {
        if self.permits.withdraw(call) {
            self.end(call);
        }
    }

    fn remove(&self, function: usize) {
        assert!(self.on_disk.lock().unwrap().remove(&function));
        let callable = &self.functions[function];
        callable.remove();
        for call in self.permits.withdraw_all(&callable.account, &callable.name) {
            self.end(&call);
        }
        let state = self.permits.lock();
        let is_of = |waiter: &Waiter| matches!(waiter, Waiter::Async(call) if call.is_of(callable));
        assert!(!state.waiting.values().any(is_of), "a call of it waits");
    }

    fn set_max_concurrency(&self, function: usize, max: u32) {
        self.max[function].fetch_max(max, Ordering::Relaxed);
        let callable = &self.functions[function];
        let function = Function { definition: definition(max), ..Function::clone(callable) };
        self.permits.take_max_concurrency(&callable.updated(function));
    }

    /// Runs a call that was granted. The first start of every fourth ends for want of memory.
    fn run_granted(&self, granted: Granted) {
        let call = Arc::clone(&granted.call);
        let function = self.functions.iter().position(|function| call.is_of(function)).unwrap();
        self.run(function);
        let place = call.waiting.place.0;
        if place.is_multiple_of(4) && self.short.lock().unwrap().insert(place) {
            drop(granted);
            self.permits.put_back(call, &self.functions[function], Some(BUDGET_BYTES));
        } else {
            let kept = if place.is_multiple_of(4) { BUDGET_BYTES } else { 0 };
            assert_eq!(granted.aside.as_ref().map_or(0, |_| self.budget.charged()), kept);
            self.end(&call);
            drop(granted);
        }
    }

    /// The worker: runs all that is granted, each in a thread of its own, until it is told that nobody asks any more.
    fn work(&self, mut grants: mpsc::Receiver<Granted>, stop: &CancellationToken) {
        let next = async |grants: &mut mpsc::Receiver<Granted>| {
            tokio::select! {
                biased;
                granted = grants.recv() => granted,
                () = stop.cancelled() => None,
            }
        };
        // The end of one may let another start.
        while let Some(first) = block_on(next(&mut grants)) {
            thread::scope(|scope| {
                scope.spawn(|| self.run_granted(first));
                while let Some(granted) = block_on(next(&mut grants)) {
                    scope.spawn(|| self.run_granted(granted));
                }
            });
        }
    }

    /// All actors act at the same time. Then nothing runs, nor waits, nor keeps a place.
    fn play(self, grants: mpsc::Receiver<Granted>, actors: &[fn(&Self)]) {
        self.play_until_idle(grants, actors);
        assert_eq!(self.permits.load(), Load { running: 0, pending: 0 });
        assert!(self.open.lock().unwrap().is_empty(), "calls that have not ended");
        for callable in [&self.functions[FREE], &self.functions[THEIRS]] {
            let bytes = self.bounds.account_pending_bytes / self.bounds.account_pending as u64;
            let all = (0..self.bounds.account_pending).map(|_| self.permits.reserve(callable, bytes));
            assert!(all.collect::<Vec<_>>().iter().all(Result::is_ok), "a place that nobody has");
        }
    }

    /// As [`Self::play`], but asynchronous calls may be left waiting.
    fn play_until_idle(&self, grants: mpsc::Receiver<Granted>, actors: &[fn(&Self)]) {
        let stop = CancellationToken::new();
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.work(grants, &stop));
            let actors: Vec<_> = actors.iter().map(|act| scope.spawn(|| act(self))).collect();
            actors.into_iter().for_each(|actor| actor.join().unwrap());
            stop.cancel();
            worker.join().unwrap();
        });
        assert_eq!(self.permits.load().running, 0);
        assert_eq!(*self.running.lock().unwrap(), [0; FUNCTIONS.len()]);
        assert_eq!(self.budget.charged(), 0);
        for callable in &self.functions {
            let load = self.permits.sync_load(&callable.account, &callable.name);
            assert_eq!(load, Load { running: 0, pending: 0 });
        }
    }
}

#[test]
fn synchronous_calls_share_the_slots_and_all_have_their_turn() {
    explore(|| {
        let (stage, grants) = Stage::new(2, 1, 9);
        stage.play(grants, &[|s| s.call_and_wait(ONE), |s| s.call_and_wait(FREE), |s| s.call_and_wait(THEIRS)]);
        let (stage, grants) = Stage::new(9, 9, 9);
        stage.play(grants, &[|s| s.call_and_wait(ONE), |s| s.call_and_wait(ONE), |s| s.call_and_wait(ONE)]);
    });
}

#[test]
fn a_call_that_waits_too_long_takes_no_slot_with_it() {
    fn call_shortly(stage: &Stage) {
        let called = stage.call_sync(ONE, soon());
        assert!(matches!(called, Ok(()) | Err(Busy::WaitedTooLong)), "{called:?}");
    }
    explore(|| {
        let (stage, grants) = Stage::new(1, 1, 9);
        stage.play(grants, &[|s| s.call_and_wait(ONE), call_shortly, call_shortly, |s| s.call_and_wait(ONE)]);
    });
}

#[test]
fn a_client_that_leaves_takes_no_slot_with_it() {
    explore(|| {
        let (stage, grants) = Stage::new(1, 1, 9);
        let leave = |s: &Stage| s.call_and_leave(FREE);
        stage.play(grants, &[|s| s.call_and_wait(FREE), leave, leave, |s| s.call_and_wait(FREE)]);
    });
}

#[test]
fn asynchronous_calls_run_once_or_are_withdrawn_once() {
    fn accept_and_withdraw(stage: &Stage) {
        let call = stage.accept(FREE).unwrap();
        stage.withdraw(&call);
        assert!(!stage.permits.withdraw(&call), "it is withdrawn twice");
    }
    explore(|| {
        let (stage, grants) = Stage::new(2, 1, 9);
        let accept = |s: &Stage| drop(s.accept(ONE).unwrap());
        stage.play(grants, &[accept, accept_and_withdraw, accept_and_withdraw, |s| s.call_and_wait(THEIRS)]);
    });
}

#[test]
fn both_lanes_share_the_slots() {
    explore(|| {
        let (stage, grants) = Stage::new(2, 2, 9);
        let accept = |s: &Stage| (0..2).for_each(|_| drop(s.accept(TWO).unwrap()));
        stage.play(grants, &[accept, |s| s.call_and_wait(TWO), |s| s.call_and_leave(TWO), accept]);
    });
}

#[test]
fn what_waits_is_bounded_at_every_instant() {
    fn call(stage: &Stage) {
        let called = stage.call_sync(ONE, std::future::pending());
        assert!(matches!(called, Ok(()) | Err(Busy::PendingFull)), "{called:?}");
    }
    fn accept(stage: &Stage) {
        let accepted = stage.accept(ONE);
        assert!(matches!(accepted, Ok(_) | Err(Busy::PendingFull)), "{accepted:?}");
    }
    fn watch(stage: &Stage) {
        for _ in 0..4 {
            let load = stage.permits.load();
            assert!(load.pending <= 2, "{load:?}");
        }
    }
    explore(|| {
        let (stage, grants) = Stage::new(9, 9, 2);
        stage.play(grants, &[call, call, accept, accept, watch]);
    });
}

#[test]
fn a_removed_function_leaves_nobody_waiting() {
    fn call(stage: &Stage) {
        let called = stage.call_sync(ONE, std::future::pending());
        assert!(matches!(called, Ok(()) | Err(Busy::Removed)), "{called:?}");
    }
    fn accept(stage: &Stage) {
        let accepted = stage.accept(ONE);
        assert!(matches!(accepted, Ok(_) | Err(Busy::Removed)), "{accepted:?}");
    }
    explore(|| {
        let (stage, grants) = Stage::new(1, 1, 9);
        stage.play(grants, &[call, accept, accept, |s| s.remove(ONE), |s| s.call_and_wait(FREE)]);
    });
    explore(|| {
        let (stage, _grants) = Stage::new(1, 1, 9);
        let first = block_on(stage.permits.acquire(&stage.functions[ONE], 0, std::future::pending(), || ()));
        // They are told at once, not when they would have had their turn.
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(stage.call_sync(ONE, std::future::pending()), Err(Busy::Removed)));
            scope.spawn(|| stage.remove(ONE));
        });
        drop(first);
        assert_eq!(stage.permits.load(), Load::default());
    });
}

#[test]
fn a_drain_starts_nothing_and_tells_those_who_wait() {
    fn call(stage: &Stage) {
        let called = stage.call_sync(ONE, std::future::pending());
        assert!(matches!(called, Ok(()) | Err(Busy::Draining)), "{called:?}");
    }
    fn accept(stage: &Stage) {
        let accepted = stage.accept(ONE);
        assert!(matches!(accepted, Ok(_) | Err(Busy::Draining)), "{accepted:?}");
    }
    fn drain(stage: &Stage) {
        stage.permits.drain();
        assert!(stage.permits.draining());
        let mut before = usize::MAX;
        for _ in 0..4 {
            let running = stage.permits.load().running;
            assert!(running <= before, "{running} after {before}");
            before = running;
        }
        assert_eq!(stage.call_sync(FREE, std::future::pending()), Err(Busy::Draining));
    }
    explore(|| {
        let (stage, grants) = Stage::new(2, 2, 9);
        stage.play_until_idle(grants, &[call, call, accept, accept, drain]);
        // What waits, waits on disk for the next server.
        assert_eq!(stage.permits.load().pending, stage.open.lock().unwrap().len());
    });
}

#[test]
fn workers_that_are_gone_leave_nobody_waiting() {
    fn call(stage: &Stage) {
        let called = stage.call_sync(ONE, std::future::pending());
        assert!(matches!(called, Ok(()) | Err(Busy::Draining)), "{called:?}");
    }
    explore(|| {
        let (stage, grants) = Stage::new(1, 1, 9);
        thread::scope(|scope| {
            scope.spawn(|| drop(grants));
            scope.spawn(|| stage.accept(ONE).map(drop));
            (0..3).for_each(|_| drop(scope.spawn(|| call(&stage))));
        });
        assert_eq!(stage.permits.load().running, 0);
    });
}

#[test]
fn another_max_concurrency_counts_at_once() {
    fn change(stage: &Stage) {
        stage.set_max_concurrency(ONE, 3);
        stage.set_max_concurrency(ONE, 1);
        let function = &stage.functions[ONE];
        let mut before = usize::MAX;
        for _ in 0..4 {
            let running = stage.permits.running_of(&function.account, &function.name);
            assert!(running <= before.max(1), "{running} after {before}");
            before = running;
        }
        stage.set_max_concurrency(ONE, 2);
    }
    explore(|| {
        let (stage, grants) = Stage::new(9, 9, 9);
        let accept = |s: &Stage| drop(s.accept(ONE).unwrap());
        stage.play(grants, &[|s| s.call_and_wait(ONE), |s| s.call_and_wait(ONE), accept, accept, change]);
    });
    explore(|| {
        let (stage, _grants) = Stage::new(9, 9, 9);
        let first = block_on(stage.permits.acquire(&stage.functions[ONE], 0, std::future::pending(), || ()));
        // Nothing but the change lets a second one start.
        thread::scope(|scope| {
            scope.spawn(|| stage.call_and_wait(ONE));
            scope.spawn(|| stage.set_max_concurrency(ONE, 2));
        });
        drop(first);
        assert_eq!(stage.permits.load(), Load::default());
    });
}

#[test]
fn a_call_that_was_short_of_memory_starts_when_that_is_free() {
    explore(|| {
        let (stage, grants) = Stage::new(2, 2, 9);
        // Two of them: each waits for all the memory there is.
        stage.next_place.store(4, Ordering::Relaxed);
        let accept = |s: &Stage| drop(s.accept(FREE).unwrap());
        let accept_later = |s: &Stage| {
            s.next_place.fetch_max(8, Ordering::Relaxed);
            s.accept(FREE).unwrap();
        };
        stage.play(grants, &[accept, accept_later, |s| s.call_and_wait(FREE)]);
    });
}

#[test]
fn whatever_happens_at_once_nothing_is_lost() {
    fn act(stage: &Stage) {
        for _ in 0..3 {
            let function = thread_rng().gen_range(0..FUNCTIONS.len());
            match thread_rng().gen_range(0..6) {
                0 => stage.call_and_wait(function),
                1 => drop(stage.call_sync(function, soon())),
                2 => stage.call_and_leave(function),
                3 => drop(stage.accept(function).unwrap()),
                4 => stage.withdraw(&stage.accept(function).unwrap()),
                _ => stage.set_max_concurrency(function, thread_rng().gen_range(1..4)),
            }
        }
    }
    explore(|| {
        let (stage, grants) = Stage::new(2, 1, 20);
        stage.play(grants, &[act as fn(&Stage); 4]);
    });
}
