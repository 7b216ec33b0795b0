//! What it costs to be let in: alone, and with thousands waiting.
//!
//! `cargo bench --bench scheduler`

#![allow(missing_docs, clippy::expect_used, reason = "criterion's macros; a bench fails by panicking")]

use criterion::{Criterion, criterion_group, criterion_main};
use hyperfunc::domain::{AccountId, FunctionName};
use hyperfunc::service::scheduler::{Admission, Bounds, Request, Scheduler};
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

fn request<'a>(account: &'a AccountId, function: &'a FunctionName) -> Request<'a> {
    Request { account, function, max_concurrency: None, bytes: 1000 }
}

fn bench(criterion: &mut Criterion) {
    let account = AccountId::open_to_this_machine();
    let functions: Vec<_> =
        (0..100).map(|index| FunctionName::new(&format!("function-{index}")).expect("a name")).collect();
    let mut group = criterion.benchmark_group("scheduler");

    group.bench_function("start_and_release", |bencher| {
        let mut scheduler = scheduler(100);
        bencher.iter(|| {
            let admission = scheduler.request(request(&account, &functions[0]));
            assert_eq!(admission, Admission::Runs);
            scheduler.release(&account, &functions[0]);
            black_box(scheduler.start_next())
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
            scheduler.release(&account, running);
            assert!(scheduler.start_next().is_some());
            running = waiting.pop_front().expect("one waits");
            scheduler.request(request(&account, running));
            waiting.push_back(running);
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
