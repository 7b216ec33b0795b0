//! What only this backend can be asked about calls.

use super::*;
use crate::store::conformance::{KEEP, accept, claim, new_call, output, run};
use std::sync::atomic::{AtomicBool, Ordering};

fn count_calls(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM calls", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_call_is_told_once_it_is_on_disk() {
    let directory = Directory::new();
    let store = directory.store();
    store.create_function(&function("f"), AMPLE).await.unwrap();
    let (sql, (tell, told)) = (directory.sql(), mpsc::channel());
    let on_accepted = Box::new(move |_| tell.send(count_calls(&sql)).unwrap());
    store.enqueue(new_call("f", 1), &KEEP, on_accepted).await.unwrap();
    assert_eq!(told.try_recv(), Ok(1));
}

#[tokio::test]
async fn a_call_is_told_though_its_caller_has_left() {
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    store.create_function(&function("f"), AMPLE).await.unwrap();
    let release = stall(&store).await;
    let (tell, told) = mpsc::channel();
    let on_accepted = Box::new(move |place| tell.send(place).unwrap());
    ask_and_leave(store.enqueue(new_call("f", 1), &KEEP, on_accepted)).await;
    drop(release);
    assert_eq!(told.recv(), Ok(Place(1)));
}

#[tokio::test]
async fn a_call_that_is_not_on_disk_is_not_told() {
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    store.create_function(&function("f"), AMPLE).await.unwrap();
    let limit = |pages: &'static str| {
        store.writer.run(move |sql| Ok(sql.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?))
    };
    limit("1").await.unwrap();
    let is_told = Arc::new(AtomicBool::new(false));
    let enqueue = |number, bytes| {
        let (mut call, tell) = (new_call("f", number), Arc::clone(&is_told));
        call.request.body = vec![0; bytes].into();
        store.enqueue(call, &KEEP, Box::new(move |_| tell.store(true, Ordering::Relaxed)))
    };
    // The one that fits is in the same commit.
    let release = stall(&store).await;
    let (small, large, ()) = tokio::join!(enqueue(1, 1), enqueue(2, 30_000), async { drop(release) });
    assert!(matches!((&small, &large), (Err(Error::DiskFull), Err(Error::DiskFull))), "{small:?} {large:?}");
    assert!(!is_told.load(Ordering::Relaxed));
    assert_eq!(count_calls(&directory.sql()), 0);
    limit("1000").await.unwrap();
    enqueue(1, 30_000).await.unwrap();
    assert!(is_told.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_call_that_breaks_a_rule_is_named() {
    let directory = Directory::new();
    let store: Arc<dyn Store> = Disk::open(&directory);
    store.create_function(&function("f"), AMPLE).await.unwrap();
    let key = new_call("f", 1).key;
    run(&store, new_call("f", 1), output(1), 1, &KEEP).await;
    let sql = directory.sql();
    let corrupt = |error: Option<Error>, problem: &str| match error {
        Some(Error::CorruptRow(text)) => {
            assert!(text.starts_with(&format!("calls ({}): ", key.call_id)) && text.contains(problem), "{text}");
        }
        other => panic!("{problem}: {other:?}"),
    };
    for (change, back, problem) in [
        ("verdict = NULL", "verdict = 0", "verdict: is none"),
        ("message = 'why'", "message = NULL", "message: a failure without one, or one without a failure"),
        ("verdict = 1", "verdict = 0", "message: a failure without one, or one without a failure"),
        ("ended_ms = NULL", "ended_ms = 1", "ended_ms: is missing"),
    ] {
        sql.execute(&format!("UPDATE calls SET {change}"), []).unwrap();
        seal_again(&sql);
        corrupt(store.call(&key).await.err(), problem);
        sql.execute(&format!("UPDATE calls SET {back}"), []).unwrap();
    }
    seal_again(&sql);
    assert!(store.call(&key).await.is_ok());

    sql.execute("UPDATE calls SET function = 'F'", []).unwrap();
    seal_again(&sql);
    corrupt(store.function_of_call(&key.account, key.call_id).await.err(), "Name: ");
    sql.execute("DELETE FROM calls", []).unwrap();

    accept(&store, new_call("f", 1)).await;
    sql.execute("UPDATE payloads SET variables = '{'", []).unwrap();
    seal_again(&sql);
    // A call that cannot be started would wait for ever: the store is not to be trusted then.
    let reason = store.claim(vec![key.clone()]).await.unwrap_err().to_string();
    assert!(reason.contains(&format!("calls ({}): variables: ", key.call_id)), "{reason}");
    assert!(store.failed().await.contains("variables: "));
    assert!(matches!(store.give_back(&key, 1).await, Err(Error::Failed(_))), "it writes no more");
    sql.execute("UPDATE payloads SET variables = '[]'", []).unwrap();
    seal_again(&sql);
    drop((store, sql));
    let store: Arc<dyn Store> = Disk::open(&directory);
    assert_eq!(claim(&store, &key).await.unwrap().number, 1);
}
