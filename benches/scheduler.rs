//! What it costs to be let in: alone, and with thousands waiting, in either lane.
//!
//! `cargo bench --bench scheduler`

#![allow(missing_docs, clippy::expect_used, reason = "criterion's macros; a bench fails by panicking")]

use criterion::{Criterion, criterion_group, criterion_main};
use hyperfunc::domain::Place;
use hyperfunc::domain::{AccountId, FunctionName};
use hyperfunc::service::scheduler::{Admission, Bounds, Lane, Request, Scheduler, Ticket};
use std::hint::black_box;
use std::num::NonZeroUsize;

fn scheduler(running: usize) -> Scheduler {
    let running = NonZeroUsize::new(running).expect("not zero");
    Scheduler::new(Bounds {
        running,
        account_running: running,
        account_pending: 100_000,
        account_pending_bytes: u64::MAX,
    })
}

fn functions() -> Vec<FunctionName> {
    (0..100).map(|index| FunctionName::new(&format!("function-{index}")).expect("a name")).collect()
}

fn request<'a>(account: &'a AccountId, function: &'a FunctionName) -> Request<'a> {
    Request { account, function, max_concurrency: None, bytes: 1000 }
}

fn bench(criterion: &mut Criterion) {
    let account = AccountId::open_to_this_machine();
    let functions = functions();
    let mut group = criterion.benchmark_group("scheduler");

    group.bench_function("start_and_release", |bencher| {
        let mut scheduler = scheduler(100);
        bencher.iter(|| {
            let admission = scheduler.request(request(&account, &functions[0]));
            assert_eq!(admission, Admission::Runs);
            scheduler.release(&account, &functions[0], Lane::Sync);
            black_box(scheduler.start_next(0))
        });
    });

    // One ends, the oldest of 10 000 starts, and another comes to wait.
    group.bench_function("turn_with_10000_waiting", |bencher| {
        let mut scheduler = scheduler(1);
        let mut order = (0..10_001).map(|index| &functions[index % functions.len()]).cycle();
        let mut running = order.next().expect("endless");
        let mut waiting = std::collections::VecDeque::new();
        scheduler.request(request(&account, running));
        for _ in 0..10_000 {
            let function = order.next().expect("endless");
            scheduler.request(request(&account, function));
            waiting.push_back(function);
        }
        bencher.iter(|| {
            scheduler.release(&account, running, Lane::Sync);
            assert!(scheduler.start_next(0).is_some());
            running = waiting.pop_front().expect("one waits");
            scheduler.request(request(&account, running));
            waiting.push_back(running);
        });
    });
    group.finish();
}

/// Asynchronous calls: alone, and 10 000 of 100 functions that wait while the machine is full.
fn bench_async(criterion: &mut Criterion) {
    let account = AccountId::open_to_this_machine();
    let functions = functions();
    let function_of = |place: u64| &functions[usize::try_from(place).expect("a few thousand") % functions.len()];
    let mut group = criterion.benchmark_group("scheduler_async");

    group.bench_function("reserve_enqueue_start_release", |bencher| {
        let mut scheduler = scheduler(100);
        let mut places = (0..).map(Place);
        bencher.iter(|| {
            assert!(scheduler.reserve(&account, 1000));
            scheduler.enqueue(request(&account, &functions[0]), places.next().expect("endless"));
            assert!(scheduler.start_next(0).is_some());
            scheduler.release(&account, &functions[0], Lane::Async);
        });
    });

    // Of the 10 000 so many are set aside for memory that never becomes free, in the sizes that functions have.
    for set_aside in [0, 5000] {
        group.bench_function(format!("turn_with_10000_waiting_{set_aside}_set_aside"), |bencher| {
            let mut scheduler = scheduler(1);
            let mut next = 0;
            while next < 10_000 {
                let size = (next < set_aside).then_some(4 << (20 + next % 8));
                scheduler.put_back(request(&account, function_of(next)), Place(next), size);
                next += 1;
            }
            let mut running = scheduler.start_next(0).expect("all may start").ticket;
            bencher.iter(|| {
                let Ticket::Async(Place(place)) = running else { return };
                scheduler.release(&account, function_of(place), Lane::Async);
                running = scheduler.start_next(0).expect("the others wait").ticket;
                assert!(scheduler.reserve(&account, 1000));
                scheduler.enqueue(request(&account, function_of(next)), Place(next));
                next += 1;
            });
        });
    }

    // Out of the middle, and back into it.
    group.bench_function("cancel_and_restore_with_10000_waiting", |bencher| {
        let mut scheduler = scheduler(1);
        (0..10_000).for_each(|place| scheduler.restore(request(&account, function_of(place)), Place(place)));
        let mut places = (0..10_000).map(|place| place * 7919 % 10_000).cycle();
        bencher.iter(|| {
            let place = places.next().expect("endless");
            assert!(scheduler.cancel(&account, function_of(place), Ticket::Async(Place(place))));
            scheduler.restore(request(&account, function_of(place)), Place(place));
        });
    });
    group.finish();
}

/// One account is busy; a thousand others wait for a slot of their own, or for memory.
fn bench_accounts(criterion: &mut Criterion) {
    let account = AccountId::open_to_this_machine();
    let functions = functions();
    let mut group = criterion.benchmark_group("scheduler_1000_accounts");
    for (of_what, memory) in [("their_limit", None), ("memory", Some(1))] {
        group.bench_function(format!("turn_while_they_wait_for_{of_what}"), |bencher| {
            let mut scheduler = Scheduler::new(Bounds {
                running: NonZeroUsize::new(10_000).expect("not zero"),
                account_running: NonZeroUsize::MIN,
                account_pending: 10,
                account_pending_bytes: u64::MAX,
            });
            for index in 0..1000 {
                let other = AccountId::new(&format!("other-{index}")).expect("an id");
                scheduler.put_back(request(&other, &functions[0]), Place(2 * index), memory);
                assert_eq!(scheduler.start_next(0).is_some(), memory.is_none());
                scheduler.put_back(request(&other, &functions[0]), Place(2 * index + 1), memory);
            }
            bencher.iter(|| {
                scheduler.restore(request(&account, &functions[0]), Place(10_000));
                assert!(scheduler.start_next(0).is_some());
                assert!(scheduler.start_next(0).is_none());
                scheduler.release(&account, &functions[0], Lane::Async);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench, bench_async, bench_accounts);
criterion_main!(benches);
