//! The scheduler against telling cases.

mod rules;

use super::*;

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

/// Passes a request for function `f` of account `a` on.
fn with_request<T>(a: usize, f: usize, max: u32, bytes: u64, pass: impl FnOnce(Request<'_>) -> T) -> T {
    let (account, function) = (account(a), function(f));
    pass(Request { account: &account, function: &function, max_concurrency: NonZeroU32::new(max), bytes })
}

fn request(scheduler: &mut Scheduler, a: usize, f: usize, max: u32, bytes: u64) -> Admission {
    with_request(a, f, max, bytes, |request| scheduler.request(request))
}

fn restore(scheduler: &mut Scheduler, a: usize, f: usize, max: u32, place: u64) -> Ticket {
    with_request(a, f, max, 0, |request| scheduler.restore(request, Place(place)));
    Ticket::Async(Place(place))
}

fn set_aside(scheduler: &mut Scheduler, f: usize, place: u64, memory: u64) -> Ticket {
    with_request(0, f, 0, 0, |request| scheduler.put_back(request, Place(place), Some(memory)));
    Ticket::Async(Place(place))
}

fn next(scheduler: &mut Scheduler) -> Option<Ticket> {
    scheduler.start_next(0).map(|started| started.ticket)
}

#[test]
fn a_function_at_its_limit_holds_nobody_up() {
    let mut scheduler = Scheduler::new(bounds(2, 2, 10));
    assert_eq!(request(&mut scheduler, 0, 0, 1, 0), Admission::Runs);
    let Admission::Waits(slow) = request(&mut scheduler, 0, 0, 1, 0) else { panic!() };
    assert_eq!(request(&mut scheduler, 0, 1, 0, 0), Admission::Runs);
    let Admission::Waits(other) = request(&mut scheduler, 0, 1, 0, 0) else { panic!() };
    scheduler.release(&account(0), &function(1), Lane::Sync);
    assert_eq!(next(&mut scheduler), Some(other));
    assert_eq!(next(&mut scheduler), None);
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(next(&mut scheduler), Some(slow));
}

#[test]
fn nothing_behind_a_slow_function_waits_for_it_however_many_wait() {
    const CALLS: u64 = 10_000;
    let mut scheduler = Scheduler::new(bounds(2, 2, 0));
    let function_of = |place: u64| usize::try_from(place % 10).unwrap();
    // Function 0 runs once at a time, and its first call never ends.
    for place in 0..CALLS {
        restore(&mut scheduler, 0, function_of(place), u32::from(place % 10 == 0), place);
    }
    assert_eq!(next(&mut scheduler), Some(Ticket::Async(Place(0))));
    for place in (1..CALLS).filter(|place| place % 10 != 0) {
        assert_eq!(next(&mut scheduler), Some(Ticket::Async(Place(place))));
        assert_eq!(next(&mut scheduler), None);
        scheduler.release(&account(0), &function(function_of(place)), Lane::Async);
    }
    assert_eq!(next(&mut scheduler), None);
    assert_eq!((scheduler.running(), scheduler.pending()), (1, 999));
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
        scheduler.release(&running, &function(0), Lane::Sync);
        if let Some(ticket) = next(&mut scheduler) {
            running = if Admission::Waits(ticket) == single { account(1) } else { account(0) };
            order.push(Admission::Waits(ticket));
        }
    }
    assert_eq!(order, [flood[0], single, flood[1], flood[2]]);
}

#[test]
fn lanes_take_turns_and_each_keeps_its_order() {
    let mut scheduler = Scheduler::new(bounds(1, 1, 10));
    assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Runs);
    // Not in the order of their places. The numbers of the lanes have nothing to do with each other.
    let [third, first, second] = [2, 0, 1].map(|place| restore(&mut scheduler, 0, 1, 0, place));
    let Admission::Waits(sync) = request(&mut scheduler, 0, 0, 0, 0) else { panic!() };
    let Admission::Waits(last) = request(&mut scheduler, 0, 0, 0, 0) else { panic!() };
    let mut ended = (0, Lane::Sync);
    let order = [sync, first, last, second, third].map(|expected| {
        scheduler.release(&account(0), &function(ended.0), ended.1);
        ended = (usize::from(expected.lane() == Lane::Async), expected.lane());
        next(&mut scheduler)
    });
    assert_eq!(order, [sync, first, last, second, third].map(Some));
}

#[test]
fn both_lanes_count_for_max_concurrency() {
    let mut scheduler = Scheduler::new(bounds(9, 9, 9));
    assert_eq!(request(&mut scheduler, 0, 0, 1, 0), Admission::Runs);
    let waits = restore(&mut scheduler, 0, 0, 1, 0);
    assert_eq!(next(&mut scheduler), None);
    assert_eq!(scheduler.sync_load(&account(0), &function(0)), Load { running: 1, pending: 0 });
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(next(&mut scheduler), Some(waits));
    assert!(matches!(request(&mut scheduler, 0, 0, 1, 0), Admission::Waits(_)));
    assert_eq!(scheduler.running_of(&account(0), &function(0)), 1);
    assert_eq!(scheduler.sync_load(&account(0), &function(0)), Load { running: 0, pending: 1 });
}

#[test]
fn waiting_is_bounded_in_number_and_bytes_exactly() {
    let mut scheduler = Scheduler::new(bounds(1, 1, 3));
    assert_eq!(request(&mut scheduler, 0, 0, 0, 5000), Admission::Runs);
    assert!(!scheduler.reserve(&account(0), 1001));
    assert!(scheduler.reserve(&account(0), 400));
    assert!(matches!(request(&mut scheduler, 0, 0, 0, 600), Admission::Waits(_)));
    assert_eq!(request(&mut scheduler, 0, 0, 0, 1), Admission::Refused);
    assert!(!scheduler.reserve(&account(0), 1));
    // A reservation that comes to wait takes no more room than it had.
    with_request(0, 0, 0, 400, |request| scheduler.enqueue(request, Place(0)));
    assert!(!scheduler.reserve(&account(0), 1));
    assert!(scheduler.reserve(&account(0), 0));
    assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Refused);
    assert!(!scheduler.reserve(&account(0), 0));
    // Nobody else's room is taken.
    assert!(scheduler.reserve(&account(1), 1000));
    scheduler.unreserve(&account(0), 0);
    assert!(matches!(request(&mut scheduler, 0, 0, 0, 0), Admission::Waits(_)));
}

#[test]
fn what_was_accepted_once_is_never_refused() {
    let mut scheduler = Scheduler::new(bounds(1, 1, 2));
    for place in 0..5 {
        restore(&mut scheduler, 0, 0, 0, place);
    }
    assert_eq!(next(&mut scheduler), Some(Ticket::Async(Place(0))));
    assert!(!scheduler.reserve(&account(0), 0));
    // Put back, it has its old place.
    scheduler.release(&account(0), &function(0), Lane::Async);
    with_request(0, 0, 0, 0, |request| scheduler.put_back(request, Place(0), None));
    assert_eq!(scheduler.pending(), 5);
    for place in 0..5 {
        assert_eq!(next(&mut scheduler), Some(Ticket::Async(Place(place))));
        assert_eq!(scheduler.reserve(&account(0), 0), place >= 3);
        scheduler.release(&account(0), &function(0), Lane::Async);
    }
}

#[test]
fn a_raised_limit_starts_what_waited_for_it() {
    let mut scheduler = Scheduler::new(bounds(9, 9, 9));
    assert_eq!(request(&mut scheduler, 0, 0, 1, 0), Admission::Runs);
    let Admission::Waits(ticket) = request(&mut scheduler, 0, 0, 1, 0) else { panic!() };
    scheduler.set_max_concurrency(&account(0), &function(0), None);
    assert_eq!(next(&mut scheduler), Some(ticket));
    // Also if it comes with a call: that one is not the oldest.
    let Admission::Waits(older) = request(&mut scheduler, 0, 0, 1, 0) else { panic!() };
    let Admission::Waits(newer) = request(&mut scheduler, 0, 0, 3, 0) else { panic!() };
    assert_eq!(next(&mut scheduler), Some(older));
    assert_eq!(next(&mut scheduler), None);
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(next(&mut scheduler), Some(newer));
}

#[test]
fn a_call_that_is_set_aside_starts_when_its_memory_is_free_and_holds_nobody_up() {
    let mut scheduler = Scheduler::new(bounds(9, 9, 9));
    let (large, small) = (set_aside(&mut scheduler, 0, 0, 100), set_aside(&mut scheduler, 0, 1, 10));
    let newer = restore(&mut scheduler, 0, 0, 0, 2);
    assert_eq!(scheduler.start_next(9), Some(Started { ticket: newer, memory: 0 }));
    assert_eq!(scheduler.start_next(9), None);
    assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Runs);
    let newest = restore(&mut scheduler, 0, 0, 0, 3);
    assert_eq!(scheduler.start_next(99), Some(Started { ticket: small, memory: 10 }));
    assert_eq!(scheduler.start_next(100), Some(Started { ticket: large, memory: 100 }));
    assert_eq!(scheduler.start_next(0), Some(Started { ticket: newest, memory: 0 }));
    // Memory alone is not enough.
    scheduler.set_max_concurrency(&account(0), &function(0), NonZeroU32::new(5));
    set_aside(&mut scheduler, 0, 0, 100);
    scheduler.set_max_concurrency(&account(0), &function(0), NonZeroU32::new(5));
    assert_eq!(scheduler.start_next(u64::MAX), None);
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(scheduler.start_next(u64::MAX), Some(Started { ticket: large, memory: 100 }));
}

#[test]
fn memory_alone_starts_nothing_of_an_account_at_its_limit() {
    let mut scheduler = Scheduler::new(bounds(9, 1, 9));
    let large = set_aside(&mut scheduler, 0, 0, 100);
    assert_eq!(request(&mut scheduler, 0, 1, 0, 0), Admission::Runs);
    assert_eq!(scheduler.start_next(100), None);
    scheduler.release(&account(0), &function(1), Lane::Sync);
    assert_eq!(scheduler.start_next(100), Some(Started { ticket: large, memory: 100 }));
}

#[test]
fn the_waiting_calls_of_a_function_are_taken_out_together() {
    let mut scheduler = Scheduler::new(bounds(1, 1, 9));
    assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Runs);
    let Admission::Waits(sync) = request(&mut scheduler, 0, 0, 0, 0) else { panic!() };
    restore(&mut scheduler, 0, 0, 0, 3);
    set_aside(&mut scheduler, 0, 2, 100);
    set_aside(&mut scheduler, 0, 5, 50);
    let other = restore(&mut scheduler, 0, 1, 0, 4);
    assert_eq!(scheduler.take_waiting_async(&account(0), &function(0)), [2, 3, 5].map(Place));
    assert_eq!(scheduler.take_waiting_async(&account(0), &function(0)), []);
    assert_eq!(scheduler.pending(), 2);
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(scheduler.start_next(u64::MAX).map(|started| started.ticket), Some(sync));
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(scheduler.start_next(u64::MAX).map(|started| started.ticket), Some(other));
    scheduler.release(&account(0), &function(1), Lane::Async);
    assert_eq!(scheduler.start_next(u64::MAX), None);
    assert!(scheduler.accounts.is_empty() && scheduler.turns.accounts.is_empty());
}

#[test]
fn a_slot_is_given_back_once() {
    let mut scheduler = Scheduler::new(bounds(1, 1, 9));
    assert_eq!(request(&mut scheduler, 0, 0, 0, 0), Admission::Runs);
    let waits = restore(&mut scheduler, 0, 0, 0, 0);
    // Not in the other lane, nor that of another function, nor of one that waits.
    scheduler.release(&account(0), &function(0), Lane::Async);
    scheduler.release(&account(0), &function(1), Lane::Sync);
    assert_eq!((scheduler.running(), next(&mut scheduler)), (1, None));
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(next(&mut scheduler), Some(waits));
    scheduler.release(&account(0), &function(0), Lane::Sync);
    assert_eq!(scheduler.running(), 1);
}
