//! What ended calls left, within its bounds.

use super::calls::*;
use super::*;
use crate::domain::{CallResult, CallState, Verdict};
use crate::store::{KnownCall, NewCall, Retention};
use std::time::Duration;

/// What is known of these calls of `f`: their results, `None` for one that is gone.
async fn results<const N: usize>(store: &Arc<dyn Store>, numbers: [u64; N]) -> [Option<usize>; N] {
    let mut found = [None; N];
    for (found, number) in found.iter_mut().zip(numbers) {
        *found = match store.call(&key("f", number)).await.unwrap() {
            Some(KnownCall::Ended { result, .. }) => Some(result.stdout.len()),
            Some(KnownCall::Gone) => None,
            other => panic!("{number}: {other:?}"),
        };
    }
    found
}

async fn store_of(disk: &dyn Disk) -> Arc<dyn Store> {
    let store = disk.open();
    for called in ["f", "g"] {
        store.create_function(&function(called), AMPLE).await.unwrap();
    }
    store
}

pub(crate) async fn results_share_their_bytes(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_bytes: 30, ..KEEP };
    run(&store, new_call("g", 9), output(30), 1, &keep).await;
    for number in 1..=3 {
        run(&store, new_call("f", number), output(10), 1, &keep).await;
    }
    assert_eq!(results(&store, [1, 2, 3]).await, [Some(10); 3]);
    // A result of nothing fits; one byte does not.
    run(&store, new_call("f", 4), CallResult { verdict: Verdict::Failed, ..CallResult::failed("why") }, 1, &keep).await;
    assert_eq!(results(&store, [1, 2, 3, 4]).await, [Some(10), Some(10), Some(10), Some(0)]);
    run(&store, new_call("f", 5), output(1), 1, &keep).await;
    assert_eq!(results(&store, [1, 2, 3, 4, 5]).await, [None, Some(10), Some(10), Some(0), Some(1)]);
    // stderr counts as well, and as many go as must.
    let both = CallResult { stderr: vec![0; 9].into(), ..output(10) };
    run(&store, new_call("f", 6), both, 1, &keep).await;
    assert_eq!(results(&store, [2, 3, 4, 5, 6]).await, [None, Some(10), Some(0), Some(1), Some(10)]);
    assert_eq!(tally(&store, "f").await, [0, 0, 3, 1]);
    // One that was read has made room.
    store.drop_result(&key("f", 6)).await.unwrap();
    run(&store, new_call("f", 7), output(19), 1, &keep).await;
    assert_eq!(results(&store, [3, 4, 5, 7]).await, [Some(10), Some(0), Some(1), Some(19)]);
    assert_eq!(store.call(&key("g", 9)).await.unwrap(), ended(1, &output(30)));
}

pub(crate) async fn a_result_larger_than_the_bound_is_gone_at_once(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_bytes: 30, ..KEEP };
    run(&store, new_call("f", 1), output(31), 5, &keep).await;
    assert_eq!(results(&store, [1]).await, [None]);
    assert_eq!(tally(&store, "f").await, [0; 4]);
    run(&store, new_call("f", 2), output(30), 5, &keep).await;
    assert_eq!(results(&store, [1, 2]).await, [None, Some(30)]);
}

pub(crate) async fn results_are_counted(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_calls: 2, ..KEEP };
    accept(&store, new_call("f", 9)).await;
    for number in 1..=3 {
        run(&store, new_call("f", number), output(0), 1, &keep).await;
        run(&store, new_call("g", 10 + number), output(0), 1, &KEEP).await;
    }
    assert_eq!(results(&store, [1, 2, 3]).await, [None, Some(0), Some(0)]);
    assert_eq!((tally(&store, "f").await, tally(&store, "g").await), ([1, 0, 2, 0], [0, 0, 3, 0]));
}

pub(crate) async fn the_result_that_ended_first_goes_first(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_calls: 2, ..KEEP };
    for number in 1..=3 {
        accept(&store, new_call("f", number)).await;
        assert_eq!(claim(&store, &key("f", number)).await.unwrap().number, 1);
    }
    for (number, at) in [(2, 1), (3, 2), (1, 3)] {
        store.finish(&key("f", number), 1, output(0), Timestamp(at), &keep).await.unwrap();
    }
    assert_eq!(results(&store, [1, 2, 3]).await, [Some(0), None, Some(0)]);
    // The clock on the wall was put back: what ends now is the newest all the same.
    run(&store, new_call("f", 4), output(0), 0, &keep).await;
    assert_eq!(results(&store, [1, 3, 4]).await, [Some(0), None, Some(0)]);
    let keep = Retention { function_gone: 1, ..keep };
    run(&store, new_call("f", 5), output(0), -1, &keep).await;
    assert_eq!(results(&store, [1, 4, 5]).await, [None, Some(0), Some(0)]);
    assert_eq!(store.call(&key("f", 3)).await.unwrap(), None);
}

pub(crate) async fn calls_that_are_gone_are_counted(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_calls: 1, function_gone: 2, ..KEEP };
    for number in 1..=3 {
        run(&store, new_call("f", number), output(1), 1, &keep).await;
    }
    assert_eq!(results(&store, [1, 2, 3]).await, [None, None, Some(1)]);
    run(&store, new_call("f", 4), output(1), 1, &keep).await;
    assert_eq!(results(&store, [2, 3, 4]).await, [None, None, Some(1)]);
    assert_eq!(store.call(&key("f", 1)).await.unwrap(), None);
    assert_eq!(store.function_of_call(&account("a"), key("f", 1).call_id).await.unwrap(), None);
    // What expires counts as what was rotated out does.
    let expire = Retention { result_ttl: Duration::ZERO, ..keep };
    assert!(!store.expire(Timestamp(2), &expire).await.unwrap());
    assert_eq!(store.call(&key("f", 2)).await.unwrap(), None);
    assert_eq!(results(&store, [3, 4]).await, [None, None]);
    let none = Retention { function_gone: 0, ..keep };
    run(&store, new_call("f", 5), output(1), 1, &none).await;
    assert_eq!(store.call(&key("f", 4)).await.unwrap(), None);
    assert_eq!(results(&store, [5]).await, [Some(1)]);
}

pub(crate) async fn smaller_bounds_hold_without_another_result(disk: &dyn Disk) {
    let store = store_of(disk).await;
    for number in 1..=4 {
        run(&store, new_call("f", number), output(10), 1, &KEEP).await;
    }
    let keep = Retention { function_bytes: 29, ..KEEP };
    assert!(!store.expire(Timestamp(2), &keep).await.unwrap());
    assert_eq!(results(&store, [1, 2, 3, 4]).await, [None, None, Some(10), Some(10)]);
    assert!(!store.expire(Timestamp(2), &Retention { function_calls: 1, ..KEEP }).await.unwrap());
    assert_eq!(results(&store, [1, 2, 3, 4]).await, [None, None, None, Some(10)]);
}

pub(crate) async fn results_expire(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let ms = Duration::from_millis;
    let keep = Retention { result_ttl: ms(100), gone_ttl: ms(50), ..KEEP };
    run(&store, new_call("f", 1), output(1), 1_000, &keep).await;
    run(&store, new_call("f", 2), CallResult::failed("why"), 1_001, &keep).await;
    accept(&store, new_call("f", 3)).await;
    accept(&store, new_call("f", 4)).await;
    assert!(claim(&store, &key("f", 4)).await.is_some());
    let expire = async |now| assert!(!store.expire(Timestamp(now), &keep).await.unwrap());
    expire(1_099).await;
    assert_eq!(tally(&store, "f").await, [1, 1, 1, 1]);
    expire(1_100).await;
    assert_eq!(results(&store, [1, 2]).await, [None, Some(0)]);
    assert_eq!(tally(&store, "f").await, [1, 1, 0, 1]);
    // Late: it is gone from now on.
    expire(1_120).await;
    assert_eq!(results(&store, [1, 2]).await, [None, None]);
    assert_eq!(tally(&store, "f").await, [1, 1, 0, 0]);
    expire(1_149).await;
    assert_eq!(results(&store, [1, 2]).await, [None, None]);
    expire(1_150).await;
    assert_eq!((store.call(&key("f", 1)).await.unwrap(), results(&store, [2]).await), (None, [None]));
    expire(1_170).await;
    assert_eq!(store.call(&key("f", 2)).await.unwrap(), None);
    // What has not ended does not expire.
    expire(i64::MAX).await;
    assert_eq!(store.call(&key("f", 3)).await.unwrap(), waits());
    assert_eq!(store.call(&key("f", 4)).await.unwrap(), Some(KnownCall::Open(CallState::Running)));
}

pub(crate) async fn whatever_expires_is_forgotten_in_the_end(disk: &dyn Disk) {
    const CALLS: u64 = 1_100;
    let store = store_of(disk).await;
    let mut tasks = JoinSet::new();
    for number in 0..CALLS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut idempotency = [0; 32];
            idempotency[..8].copy_from_slice(&number.to_be_bytes());
            let idempotency = Some(crate::domain::IdempotencyKey(idempotency));
            let of = ["f", "g"][(number % 2) as usize];
            run(&store, NewCall { idempotency, ..new_call(of, number) }, output(1), 1, &KEEP).await;
        });
    }
    tasks.join_all().await;
    assert_eq!((tally(&store, "f").await, tally(&store, "g").await), ([0, 0, 550, 0], [0, 0, 550, 0]));
    let keep = Retention { result_ttl: Duration::ZERO, gone_ttl: Duration::ZERO, key_ttl: Duration::ZERO, ..KEEP };
    let mut rounds = 0;
    while store.expire(Timestamp(2_000), &keep).await.unwrap() {
        rounds += 1;
        assert!(rounds < 100, "no end");
    }
    assert_eq!((tally(&store, "f").await, tally(&store, "g").await), ([0; 4], [0; 4]));
    for number in 0..CALLS {
        assert_eq!(store.call(&key(["f", "g"][(number % 2) as usize], number)).await.unwrap(), None);
    }
    // The keys are forgotten: there is room for one.
    let one = Retention { function_keys: 1, ..KEEP };
    let idempotency = Some(crate::domain::IdempotencyKey([0; 32]));
    let call = NewCall { idempotency, ..new_call("f", CALLS) };
    assert_eq!(ask(&store, call, &one).await.unwrap().0, crate::store::Enqueued::Accepted);
}
