//! Idempotency keys: what a caller calls its call.

use super::*;
use crate::domain::CallKey;
use crate::store::{Enqueued, NewCall, Retention};
use std::time::Duration;

pub(crate) async fn a_key_names_the_call_before(disk: &dyn Disk) {
    let mut store = store_of(disk).await;
    let before = |number| (Enqueued::Before(call_id(number)), None);
    accept(&store, keyed("f", 1, 1)).await;
    assert_eq!(ask(&store, keyed("f", 2, 1), &KEEP).await.unwrap(), before(1));
    // Another key; the same one of another function, of another account.
    accept(&store, keyed("f", 3, 2)).await;
    accept(&store, keyed("g", 4, 1)).await;
    let theirs = NewCall { key: CallKey { account: account("b"), ..key("f", 5) }, ..keyed("f", 5, 1) };
    accept(&store, theirs).await;
    assert_eq!(tally(&store, "f").await, [2, 0, 0, 0]);
    let of_key = async |store: &Arc<dyn Store>, of: &str, idempotency: u8, since| {
        let (key, keyed) = (key(of, 0), keyed(of, 0, idempotency));
        let asked = keyed.idempotency.unwrap();
        store.call_of_key(&key.account, &key.function, asked, Timestamp(since)).await.unwrap()
    };
    let accepted = keyed("f", 1, 1).created.0;
    assert_eq!(of_key(&store, "f", 1, accepted - 1).await, Some(call_id(1)));
    assert_eq!(of_key(&store, "f", 1, accepted).await, None, "it is no younger than that");
    assert_eq!((of_key(&store, "g", 1, 0).await, of_key(&store, "g", 2, 0).await), (Some(call_id(4)), None));
    // Also when nothing is left of the call.
    store.drop_pending(&key("f", 3)).await.unwrap();
    let start = claim(&store, &key("f", 1)).await.unwrap().number;
    store.finish(&key("f", 1), start, output(1), Timestamp(1), &KEEP).await.unwrap();
    store.drop_result(&key("f", 1)).await.unwrap();
    drop(store);
    store = disk.open();
    assert_eq!(ask(&store, keyed("f", 6, 1), &KEEP).await.unwrap(), before(1));
    assert_eq!(of_key(&store, "f", 1, 0).await, Some(call_id(1)));
    assert_eq!(ask(&store, keyed("f", 7, 2), &KEEP).await.unwrap(), before(3));
    assert_eq!(tally(&store, "f").await, [0; 4]);
}

pub(crate) async fn a_key_expires(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { key_ttl: Duration::from_millis(100), ..KEEP };
    let at = |number, now| NewCall { created: Timestamp(now), ..keyed("f", number, 1) };
    accept(&store, at(1, 1_000)).await;
    assert_eq!(ask(&store, at(2, 1_099), &keep).await.unwrap(), (Enqueued::Before(call_id(1)), None));
    // The clock went back.
    assert_eq!(ask(&store, at(2, 1), &keep).await.unwrap(), (Enqueued::Before(call_id(1)), None));
    assert!(!store.expire(Timestamp(1_099), &keep).await.unwrap());
    assert_eq!(ask(&store, at(2, 1_099), &keep).await.unwrap(), (Enqueued::Before(call_id(1)), None));
    assert_eq!(ask(&store, at(3, 1_100), &keep).await.unwrap().0, Enqueued::Accepted);
    // From then on it names the later call.
    assert_eq!(ask(&store, at(4, 1_199), &keep).await.unwrap(), (Enqueued::Before(call_id(3)), None));
    assert!(!store.expire(Timestamp(1_200), &keep).await.unwrap());
    accept(&store, at(5, 1_200)).await;
}

pub(crate) async fn keys_have_a_boundary(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_keys: 2, key_ttl: Duration::from_millis(100), ..KEEP };
    let full = async |call: NewCall| {
        let on_accepted = Box::new(|place| panic!("accepted at {place:?}"));
        let answer = store.enqueue(call.clone(), &keep, on_accepted).await;
        assert!(matches!(answer, Err(Error::KeysFull(2))), "{answer:?}");
        assert_eq!(store.call(&call.key).await.unwrap(), None);
    };
    for (number, idempotency) in [(1, 1), (2, 2)] {
        assert_eq!(ask(&store, keyed("f", number, idempotency), &keep).await.unwrap().0, Enqueued::Accepted);
    }
    full(keyed("f", 3, 3)).await;
    assert_eq!(tally(&store, "f").await, [2, 0, 0, 0]);
    // Full, and still: a call without a key, one with a key that is known, one of another function.
    assert_eq!(ask(&store, new_call("f", 4), &keep).await.unwrap().0, Enqueued::Accepted);
    assert_eq!(ask(&store, keyed("f", 5, 1), &keep).await.unwrap(), (Enqueued::Before(call_id(1)), None));
    assert_eq!(ask(&store, keyed("g", 6, 3), &keep).await.unwrap().0, Enqueued::Accepted);
    // One that is too old is replaced, not added.
    let later = |number, idempotency| NewCall { created: Timestamp(1_100), ..keyed("f", number, idempotency) };
    assert_eq!(ask(&store, later(7, 1), &keep).await.unwrap().0, Enqueued::Accepted);
    full(keyed("f", 8, 3)).await;
    // Those that are forgotten make room.
    assert!(!store.expire(Timestamp(1_100), &keep).await.unwrap());
    assert_eq!(ask(&store, later(9, 3), &keep).await.unwrap().0, Enqueued::Accepted);
    full(later(10, 4)).await;
    assert_eq!(ask(&store, later(11, 1), &keep).await.unwrap(), (Enqueued::Before(call_id(7)), None));
}
