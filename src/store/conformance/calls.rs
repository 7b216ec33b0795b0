//! Calls from their acceptance to their end.

use super::*;
use crate::domain::{
    CRASHES_MAX, CallId, CallKey, CallRequest, CallResult, CallState, IdempotencyKey, Listed, Place, Tally, Verdict,
    Waiting,
};
use crate::store::{Enqueued, KnownCall, NewCall, Retention, Start};
use bytes::Bytes;
use std::sync::Mutex;
use std::time::Duration;

/// What nothing is lost by.
pub(crate) const KEEP: Retention = Retention {
    function_bytes: u64::MAX,
    function_calls: u64::MAX,
    function_gone: u64::MAX,
    result_ttl: Duration::MAX,
    gone_ttl: Duration::MAX,
    key_ttl: Duration::MAX,
    function_keys: u64::MAX,
};

/// An id that is greater than those of smaller numbers.
pub(super) fn call_id(number: u64) -> CallId {
    CallId::from_slice(&u128::from(number).to_be_bytes()).unwrap()
}

/// A call of a function of account `a`.
pub(super) fn key(of: &str, number: u64) -> CallKey {
    CallKey { account: account("a"), function: name(of), call_id: call_id(number) }
}

/// A call of a [`function`], with a body that is made of its number.
pub(crate) fn new_call(of: &str, number: u64) -> NewCall {
    NewCall {
        key: key(of, number),
        function_created: function(of).created,
        created: Timestamp(1_000),
        idempotency: None,
        request: CallRequest { body: number.to_be_bytes().to_vec().into(), variables: vec![] },
    }
}

pub(super) fn keyed(of: &str, number: u64, idempotency: u8) -> NewCall {
    NewCall { idempotency: Some(IdempotencyKey([idempotency; 32])), ..new_call(of, number) }
}

/// A result that counts for so many bytes.
pub(crate) fn output(bytes: usize) -> CallResult {
    let (stdout, stderr) = (vec![b'x'; bytes].into(), Bytes::new());
    CallResult { verdict: Verdict::Finished, message: None, content_type: None, stdout, stderr }
}

pub(super) fn waits() -> Option<KnownCall> {
    Some(KnownCall::Open(CallState::Pending))
}

fn runs() -> Option<KnownCall> {
    Some(KnownCall::Open(CallState::Running))
}

pub(super) fn ended(at: i64, result: &CallResult) -> Option<KnownCall> {
    Some(KnownCall::Ended { at: Timestamp(at), result: result.clone() })
}

pub(super) fn is_not_found<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::NotFound))
}

/// Asks for a call; with the place that was told.
pub(super) async fn ask(
    store: &Arc<dyn Store>,
    call: NewCall,
    keep: &Retention,
) -> Result<(Enqueued, Option<Place>), Error> {
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let on_accepted = Box::new(move |place| assert_eq!(tell.lock().unwrap().replace(place), None));
    let answer = store.enqueue(call, keep, on_accepted).await?;
    let place = told.lock().unwrap().take();
    Ok((answer, place))
}

pub(crate) async fn accept(store: &Arc<dyn Store>, call: NewCall) -> Place {
    match ask(store, call, &KEEP).await.unwrap() {
        (Enqueued::Accepted, Some(place)) => place,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn claim(store: &Arc<dyn Store>, call: &CallKey) -> Option<Start> {
    let mut starts = store.claim(vec![call.clone()]).await.unwrap();
    assert_eq!(starts.len(), 1);
    starts.remove(0)
}

/// Takes a call from its acceptance to its end.
pub(crate) async fn run(store: &Arc<dyn Store>, call: NewCall, result: CallResult, now: i64, keep: &Retention) {
    let key = call.key.clone();
    accept(store, call).await;
    let start = claim(store, &key).await.unwrap().number;
    store.finish(&key, start, result, Timestamp(now), keep).await.unwrap();
}

pub(super) async fn recover(store: &Arc<dyn Store>, now: i64) -> (Vec<Waiting>, Vec<CallKey>) {
    store.recover(interrupted(), Timestamp(now), &KEEP).await.unwrap()
}

pub(super) fn interrupted() -> CallResult {
    CallResult::failed("interrupted")
}

pub(super) async fn tally(store: &Arc<dyn Store>, of: &str) -> [u64; 4] {
    let Tally { pending, running, finished, failed } = store.tally(&account("a"), &name(of)).await.unwrap();
    [pending, running, finished, failed]
}

/// The numbers of the calls in a list.
async fn list(store: &Arc<dyn Store>, of: &str, after: Option<u64>, limit: u32) -> Vec<u64> {
    let listed = store.list_calls(&account("a"), &name(of), after.map(call_id), limit).await.unwrap();
    listed.iter().map(|call| u128::from_be_bytes(*call.call_id.as_bytes()) as u64).collect()
}

/// A store with functions `f` and `g` of account `a`, and `f` of account `b`.
pub(super) async fn store_of(disk: &dyn Disk) -> Arc<dyn Store> {
    let store = disk.open();
    let theirs = Function { account: account("b"), uuid: FunctionUuid::from_random([9; 16]), ..function("f") };
    for function in [function("f"), function("g"), theirs] {
        store.create_function(&function, AMPLE).await.unwrap();
    }
    store
}

pub(crate) async fn keeps_every_field_of_a_call(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let check = async |request: CallRequest, created| {
        let call = NewCall { created, request: request.clone(), ..new_call("f", 1) };
        let place = accept(&store, call).await;
        let waiting = Waiting { key: key("f", 1), place, created, bytes: request.bytes() };
        assert_eq!(recover(&store, 0).await, (vec![waiting], vec![]));
        let listed = Listed { call_id: call_id(1), created, state: CallState::Pending, message: None };
        assert_eq!(store.list_calls(&account("a"), &name("f"), None, 9).await.unwrap(), [listed]);
        assert_eq!(claim(&store, &key("f", 1)).await, Some(Start { number: 1, request }));
        store.give_back(&key("f", 1), 1).await.unwrap();
        store.drop_pending(&key("f", 1)).await.unwrap();
    };
    for_all((any_value::call_request(), any::<i64>()), async |(request, created)| {
        check(request, Timestamp(created)).await;
    });
    for body in [vec![], vec![0; 3], (0..=255).cycle().take(1 << 20).collect()] {
        check(CallRequest { body: body.into(), variables: vec![] }, Timestamp(1)).await;
    }
}

pub(crate) async fn keeps_every_field_of_a_result(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let check = async |result: CallResult, at| {
        run(&store, new_call("f", 1), result.clone(), at, &KEEP).await;
        assert_eq!(store.call(&key("f", 1)).await.unwrap(), ended(at, &result));
        let listed = store.list_calls(&account("a"), &name("f"), None, 9).await.unwrap();
        assert_eq!((listed[0].state, &listed[0].message), (result.verdict.state(), &result.message));
        store.drop_result(&key("f", 1)).await.unwrap();
    };
    for_all((any_value::call_result(), any::<i64>()), async |(result, at)| check(result, at).await);
    for bytes in [0, 1 << 20] {
        let stderr = Bytes::from(vec![0; 1 << 16]);
        check(CallResult { stderr, ..output(bytes) }, 1).await;
    }
}

pub(crate) async fn places_grow_in_the_order_of_acceptance(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for number in 0..u64::from(AT_ONCE) {
        let (store, told) = (Arc::clone(&store), Arc::clone(&told));
        tasks.spawn(async move {
            let tell = Arc::clone(&told);
            let of = ["f", "g"][(number % 2) as usize];
            let on_accepted = Box::new(move |place| tell.lock().unwrap().push((place, call_id(number))));
            let answer = store.enqueue(new_call(of, number), &KEEP, on_accepted).await;
            assert_eq!(answer.unwrap(), Enqueued::Accepted);
            assert!(told.lock().unwrap().iter().any(|(_, told)| *told == call_id(number)), "its caller is first");
        });
    }
    tasks.join_all().await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told.len(), usize::from(AT_ONCE));
    assert!(told.is_sorted_by(|(one, _), (next, _)| one < next), "{told:?}");
    let (waiting, _) = recover(&store, 0).await;
    assert_eq!(waiting.iter().map(|call| (call.place, call.key.call_id)).collect::<Vec<_>>(), told);
}

pub(crate) async fn a_place_is_taken_once(disk: &dyn Disk) {
    let mut store = store_of(disk).await;
    let mut last = Place(0);
    for number in 0..6 {
        let place = accept(&store, new_call("f", number)).await;
        assert!(place > last, "{place:?} after {last:?}");
        last = place;
        // The greatest place is free again, in each of the ways there are, and also after a restart.
        match number % 3 {
            0 => store.drop_pending(&key("f", number)).await.unwrap(),
            1 => {
                let start = claim(&store, &key("f", number)).await.unwrap().number;
                store.finish(&key("f", number), start, output(1), Timestamp(1), &KEEP).await.unwrap();
                store.drop_result(&key("f", number)).await.unwrap();
            }
            _ => {
                store.remove_function(&account("a"), &name("f")).await.unwrap();
                store.create_function(&function("f"), AMPLE).await.unwrap();
                drop(store);
                store = disk.open();
            }
        }
    }
}

pub(crate) async fn a_call_needs_its_function(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let missing = NewCall { key: key("h", 1), ..keyed("f", 1, 1) };
    let theirs = NewCall { key: CallKey { account: account("c"), ..key("f", 1) }, ..keyed("f", 1, 1) };
    let earlier = NewCall { function_created: Timestamp(0), ..keyed("f", 1, 1) };
    for call in [missing, theirs, earlier] {
        let on_accepted = Box::new(|place| panic!("accepted at {place:?}"));
        assert!(is_not_found(store.enqueue(call.clone(), &KEEP, on_accepted).await));
        assert_eq!(store.call(&call.key).await.unwrap(), None);
        let tally = store.tally(&call.key.account, &call.key.function).await.unwrap();
        assert_eq!(tally, Tally::default());
    }
    assert_eq!(recover(&store, 0).await, (vec![], vec![]));
    // Not even the key.
    accept(&store, keyed("f", 2, 1)).await;
}

pub(crate) async fn an_id_is_taken_once(disk: &dyn Disk) {
    let store = store_of(disk).await;
    accept(&store, new_call("f", 1)).await;
    let again = NewCall { key: key("g", 1), ..keyed("g", 1, 1) };
    assert!(matches!(ask(&store, again, &KEEP).await, Err(Error::Failed(_))));
    assert_eq!((tally(&store, "f").await, tally(&store, "g").await), ([1, 0, 0, 0], [0; 4]));
    accept(&store, keyed("g", 2, 1)).await;
}

pub(crate) async fn a_call_is_claimed_once(disk: &dyn Disk) {
    let store = store_of(disk).await;
    for number in 1..=3 {
        accept(&store, new_call("f", number)).await;
    }
    let theirs = CallKey { account: account("b"), ..key("f", 1) };
    let asked = vec![key("f", 3), theirs, key("g", 2), key("f", 9), key("f", 1), key("f", 3)];
    let starts = store.claim(asked).await.unwrap();
    let bodies: Vec<_> = starts.iter().map(|start| start.as_ref().map(|start| &start.request.body[..])).collect();
    let body = |number: u64| number.to_be_bytes();
    assert_eq!(bodies, [Some(&body(3)[..]), None, None, None, Some(&body(1)), None]);
    assert_eq!(tally(&store, "f").await, [1, 2, 0, 0]);
    assert_eq!(claim(&store, &key("f", 1)).await, None);
    assert_eq!(store.claim(vec![]).await.unwrap(), []);
    assert_eq!(claim(&store, &key("f", 2)).await.unwrap().number, 1);
}

pub(crate) async fn claims_at_once_start_each_call_once(disk: &dyn Disk) {
    let store = store_of(disk).await;
    accept(&store, new_call("f", 1)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let store = Arc::clone(&store);
        tasks.spawn(async move { claim(&store, &key("f", 1)).await });
    }
    assert_eq!(tasks.join_all().await.iter().flatten().count(), 1);
}

pub(crate) async fn every_start_has_a_number(disk: &dyn Disk) {
    let mut store = store_of(disk).await;
    accept(&store, new_call("f", 1)).await;
    let mut number = 0;
    for _ in 0..CRASHES_MAX - 1 {
        // Starts that are given back do not count as crashes, however many there are.
        for _ in 0..CRASHES_MAX {
            number += 1;
            assert_eq!(claim(&store, &key("f", 1)).await.unwrap().number, number);
            store.give_back(&key("f", 1), number).await.unwrap();
            assert_eq!(store.call(&key("f", 1)).await.unwrap(), waits());
        }
        number += 1;
        assert_eq!(claim(&store, &key("f", 1)).await.unwrap().number, number);
        drop(store);
        store = disk.open();
        let (waiting, failed) = recover(&store, 1).await;
        assert_eq!((waiting.len(), failed), (1, vec![]));
    }
    let start = claim(&store, &key("f", 1)).await.unwrap();
    assert_eq!((start.number, start.request), (number + 1, new_call("f", 1).request));
}

pub(crate) async fn only_the_start_that_runs_ends_a_call(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let call = key("f", 1);
    accept(&store, new_call("f", 1)).await;
    let refused = async |call: &CallKey, start| {
        is_not_found(store.finish(call, start, output(1), Timestamp(1), &KEEP).await)
            && is_not_found(store.give_back(call, start).await)
    };
    // It waits.
    assert!(refused(&call, 0).await && refused(&call, 1).await);
    assert_eq!((store.call(&call).await.unwrap(), tally(&store, "f").await), (waits(), [1, 0, 0, 0]));
    // It waits again, and then runs anew.
    assert_eq!(claim(&store, &call).await.unwrap().number, 1);
    store.give_back(&call, 1).await.unwrap();
    assert!(refused(&call, 1).await);
    assert_eq!(claim(&store, &call).await.unwrap().number, 2);
    let theirs = CallKey { account: account("b"), ..call.clone() };
    for (call, start) in [(&call, 1), (&call, 3), (&theirs, 2), (&key("g", 1), 2), (&key("f", 2), 2)] {
        assert!(refused(call, start).await, "{call:?} {start}");
    }
    assert_eq!((store.call(&call).await.unwrap(), tally(&store, "f").await), (runs(), [0, 1, 0, 0]));
    // It has ended.
    store.finish(&call, 2, output(2), Timestamp(2), &KEEP).await.unwrap();
    assert!(refused(&call, 2).await);
    assert_eq!((store.call(&call).await.unwrap(), tally(&store, "f").await), (ended(2, &output(2)), [0, 0, 1, 0]));
}

pub(crate) async fn what_leaves_the_store_was_in_that_state(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let dropped =
        async |call: &CallKey| (store.drop_pending(call).await.is_ok(), store.drop_result(call).await.is_ok());
    let others = [CallKey { account: account("b"), ..key("f", 1) }, key("g", 1), key("f", 2)];
    let nobody_elses = async || {
        for other in &others {
            assert_eq!(store.call(other).await.unwrap(), None);
            assert_eq!(dropped(other).await, (false, false));
        }
    };
    assert_eq!(dropped(&key("f", 1)).await, (false, false));

    accept(&store, new_call("f", 1)).await;
    nobody_elses().await;
    assert_eq!(store.function_of_call(&account("a"), call_id(1)).await.unwrap(), Some(name("f")));
    assert_eq!(store.function_of_call(&account("b"), call_id(1)).await.unwrap(), None);
    assert_eq!(dropped(&key("f", 1)).await, (true, false));
    assert_eq!(store.function_of_call(&account("a"), call_id(1)).await.unwrap(), None);

    accept(&store, new_call("f", 1)).await;
    assert_eq!(claim(&store, &key("f", 1)).await.unwrap().number, 1);
    assert_eq!(dropped(&key("f", 1)).await, (false, false));
    assert_eq!(store.call(&key("f", 1)).await.unwrap(), runs());

    let keep = Retention { function_calls: 1, ..KEEP };
    store.finish(&key("f", 1), 1, output(1), Timestamp(1), &keep).await.unwrap();
    nobody_elses().await;
    assert_eq!(dropped(&key("f", 1)).await, (false, true));
    assert_eq!((store.call(&key("f", 1)).await.unwrap(), tally(&store, "f").await), (None, [0; 4]));

    for number in [1, 3] {
        run(&store, new_call("f", number), output(1), 1, &keep).await;
    }
    assert_eq!(store.call(&key("f", 1)).await.unwrap(), Some(KnownCall::Gone));
    assert_eq!(store.function_of_call(&account("a"), call_id(1)).await.unwrap(), Some(name("f")));
    assert_eq!(dropped(&key("f", 1)).await, (false, false));
    assert_eq!(store.call(&key("f", 1)).await.unwrap(), Some(KnownCall::Gone));
}

pub(crate) async fn a_crash_takes_the_calls_back_to_their_places(disk: &dyn Disk) {
    let mut store = store_of(disk).await;
    let mut places = Vec::new();
    for number in 1..=4 {
        places.push(accept(&store, new_call(["f", "g"][number as usize % 2], number)).await);
    }
    let [first, second, third, fourth] = [key("g", 1), key("f", 2), key("g", 3), key("f", 4)];
    for crash in 1..=CRASHES_MAX {
        assert_eq!(store.claim(vec![second.clone(), third.clone()]).await.unwrap().iter().flatten().count(), 2);
        if crash == CRASHES_MAX {
            // The start that would have been the last but for the drain.
            store.give_back(&third, CRASHES_MAX).await.unwrap();
        }
        drop(store);
        store = disk.open();
        let (waiting, failed) = recover(&store, 7).await;
        let mut expected: Vec<_> = [&first, &second, &third, &fourth].into_iter().zip(&places).collect();
        if crash == CRASHES_MAX {
            expected.remove(1);
            assert_eq!(failed, std::slice::from_ref(&second));
        } else {
            assert_eq!(failed, []);
        }
        assert_eq!(waiting.iter().map(|call| (&call.key, &call.place)).collect::<Vec<_>>(), expected);
    }
    assert_eq!(store.call(&second).await.unwrap(), ended(7, &interrupted()));
    assert_eq!((tally(&store, "f").await, tally(&store, "g").await), ([1, 0, 0, 1], [2, 0, 0, 0]));
    // Recovering once more changes nothing.
    assert_eq!(recover(&store, 8).await.0.len(), 3);
    assert_eq!(store.call(&second).await.unwrap(), ended(7, &interrupted()));
}

pub(crate) async fn an_interrupted_call_counts_among_the_results(disk: &dyn Disk) {
    let mut store = store_of(disk).await;
    run(&store, new_call("f", 1), output(1), 1, &KEEP).await;
    accept(&store, new_call("f", 2)).await;
    let keep = Retention { function_calls: 1, ..KEEP };
    for _ in 0..CRASHES_MAX {
        assert!(claim(&store, &key("f", 2)).await.is_some());
        drop(store);
        store = disk.open();
        store.recover(interrupted(), Timestamp(7), &keep).await.unwrap();
    }
    assert_eq!(store.call(&key("f", 1)).await.unwrap(), Some(KnownCall::Gone));
    assert_eq!(store.call(&key("f", 2)).await.unwrap(), ended(7, &interrupted()));
    assert_eq!(tally(&store, "f").await, [0, 0, 0, 1]);
}

pub(crate) async fn a_function_takes_its_calls_with_it(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_calls: 1, ..KEEP };
    run(&store, keyed("f", 1, 1), output(1), 1, &keep).await;
    run(&store, new_call("f", 2), output(1), 1, &keep).await;
    accept(&store, new_call("f", 3)).await;
    accept(&store, new_call("f", 4)).await;
    run(&store, keyed("g", 5, 1), output(1), 1, &keep).await;
    let theirs = NewCall { key: CallKey { account: account("b"), ..key("f", 6) }, ..new_call("f", 6) };
    accept(&store, theirs.clone()).await;
    assert_eq!(claim(&store, &key("f", 3)).await.unwrap().number, 1);
    store.remove_function(&account("a"), &name("f")).await.unwrap();

    let check = async || {
        for number in 1..=4 {
            assert_eq!(store.call(&key("f", number)).await.unwrap(), None, "{number}");
            assert_eq!(store.function_of_call(&account("a"), call_id(number)).await.unwrap(), None);
        }
        assert!(is_not_found(store.finish(&key("f", 3), 1, output(1), Timestamp(1), &keep).await));
        assert!(is_not_found(store.give_back(&key("f", 3), 1).await));
        assert_eq!((tally(&store, "f").await, list(&store, "f", None, 9).await), ([0; 4], vec![]));
        assert!(!store.expire(Timestamp(i64::MAX), &KEEP).await.unwrap());
    };
    check().await;
    let next = Function { created: Timestamp(2), ..function("f") };
    store.create_function(&next, AMPLE).await.unwrap();
    check().await;
    assert!(is_not_found(ask(&store, new_call("f", 7), &KEEP).await));
    accept(&store, NewCall { function_created: next.created, ..keyed("f", 7, 1) }).await;
    assert_eq!(tally(&store, "f").await, [1, 0, 0, 0]);
    // Nothing of the others.
    assert_eq!(store.call(&key("g", 5)).await.unwrap(), ended(1, &output(1)));
    assert_eq!(store.call(&theirs.key).await.unwrap(), waits());
}

pub(crate) async fn calls_are_listed_in_pages(disk: &dyn Disk) {
    let store = store_of(disk).await;
    let keep = Retention { function_calls: 2, ..KEEP };
    for number in 1..=3 {
        // The first is gone by the third.
        run(&store, new_call("f", number), CallResult::failed("why"), 1, &keep).await;
        accept(&store, new_call("g", 10 + number)).await;
    }
    for number in 4..=6 {
        accept(&store, new_call("f", number)).await;
    }
    assert!(claim(&store, &key("f", 5)).await.is_some());
    let listed = store.list_calls(&account("a"), &name("f"), None, 9).await.unwrap();
    let states: Vec<_> = listed.iter().map(|call| (call.state.text(), call.message.as_deref())).collect();
    let failed = ("FAILED", Some("why"));
    assert_eq!(states, [failed, failed, ("PENDING", None), ("RUNNING", None), ("PENDING", None)]);
    assert_eq!(list(&store, "f", None, 9).await, [2, 3, 4, 5, 6]);
    assert_eq!(list(&store, "f", None, 2).await, [2, 3]);
    assert_eq!(list(&store, "f", None, 0).await, [0; 0]);
    assert_eq!(list(&store, "f", Some(3), 2).await, [4, 5]);
    assert_eq!(list(&store, "f", Some(5), 2).await, [6]);
    assert_eq!(list(&store, "f", Some(6), 2).await, [0; 0]);
    // A call that is gone still has its place.
    assert_eq!(list(&store, "f", Some(1), 2).await, [2, 3]);
    let theirs = store.list_calls(&account("b"), &name("f"), None, 9).await.unwrap();
    assert_eq!(theirs, []);
}

pub(crate) async fn a_list_goes_on_behind_a_call_that_was_read(disk: &dyn Disk) {
    let store = store_of(disk).await;
    // Ids follow the order of acceptance nearly.
    for number in [1, 2, 4, 3, 5, 7, 6, 8] {
        run(&store, new_call("f", number), output(1), 1, &KEEP).await;
    }
    accept(&store, new_call("g", 9)).await;
    assert_eq!(list(&store, "f", Some(3), 9).await, [5, 7, 6, 8]);
    store.drop_result(&key("f", 3)).await.unwrap();
    // What was shown may be shown again, and nothing is left out.
    assert_eq!(list(&store, "f", Some(3), 9).await, [4, 5, 7, 6, 8]);
    store.drop_result(&key("f", 5)).await.unwrap();
    assert_eq!(list(&store, "f", Some(5), 9).await, [7, 6, 8]);
    assert_eq!(list(&store, "f", Some(5), 1).await, [7]);
    store.drop_result(&key("f", 8)).await.unwrap();
    assert_eq!(list(&store, "f", Some(8), 9).await, [0; 0]);
    assert_eq!(list(&store, "f", Some(0), 9).await, [1, 2, 4, 7, 6]);
    // A call of another function tells no more than its id.
    assert_eq!(list(&store, "f", Some(9), 9).await, [0; 0]);
}
