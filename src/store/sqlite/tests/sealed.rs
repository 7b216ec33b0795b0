//! Rows that are not what was written: a bit of the disk has changed.

use super::*;
use crate::store::conformance::{KEEP, accept, new_call, output, run};

/// The refusal that names a row: of a read, or of the writer, which stops at it.
#[track_caller]
fn broken<T: std::fmt::Debug>(answer: Result<T, Error>, row: &str) {
    match answer {
        Err(Error::CorruptRow(text) | Error::Failed(text)) => assert_eq!(text, format!("{row}: its checksum is wrong")),
        other => panic!("{row}: {other:?}"),
    }
}

async fn store_with_function(directory: &Directory) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Disk::open(directory);
    store.create_function(&function("f"), AMPLE).await.unwrap();
    store
}

/// Every column of a table but its keys, with an expression for another value of the same type.
fn changes(sql: &Connection, table: &str, except: &[&str]) -> Vec<String> {
    let mut columns = sql.prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')")).unwrap();
    let columns = columns.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let columns = columns.map(Result::unwrap).filter(|(name, _)| !except.contains(&name.as_str()));
    let change = |(name, kind): (String, String)| match kind.as_str() {
        "INTEGER" => format!("{name} = coalesce({name}, 0) + 1"),
        "TEXT" => format!("{name} = coalesce({name}, '') || 'x'"),
        "BLOB" => format!("{name} = randomblob(coalesce(length({name}), 1))"),
        other => panic!("{name}: {other}"),
    };
    columns.map(change).collect()
}

#[tokio::test]
async fn a_function_that_changed_is_named_and_not_served() {
    let directory = Directory::new();
    let store = store_with_function(&directory).await;
    let sql = directory.sql();
    for change in changes(&sql, "functions", &["name"]) {
        sql.execute_batch(&format!("BEGIN; UPDATE functions SET {change}; COMMIT")).unwrap();
        broken(store.functions().await, "functions (f)");
        // A change of it hides nothing.
        if !change.starts_with("account_id") {
            store.update_function(&function("f")).await.unwrap();
            broken(store.functions().await, "functions (f)");
        }
        sql.execute("DELETE FROM functions", []).unwrap();
        store.create_function(&function("f"), AMPLE).await.unwrap();
        assert_eq!(store.functions().await.unwrap(), [function("f")]);
    }
}

/// Every change of a call but of what finds it, and every loss of what it holds.
fn changes_of_calls() -> Vec<String> {
    let directory = Directory::with_store();
    let sql = directory.sql();
    let of = |table: &str, except: &[&str]| {
        changes(&sql, table, except)
            .into_iter()
            .map(|change| format!("UPDATE {table} SET {change}"))
            .collect::<Vec<_>>()
    };
    let calls = of("calls", &["place", "account_id", "function", "call_id", "state"]);
    [calls, of("payloads", &["place"]), vec!["DELETE FROM payloads".to_owned()]].concat()
}

#[tokio::test]
async fn a_call_that_changed_while_it_waited_is_not_started() {
    for change in changes_of_calls() {
        let directory = Directory::new();
        let store = store_with_function(&directory).await;
        let key = new_call("f", 1).key;
        accept(&store, new_call("f", 1)).await;
        directory.sql().execute(&change, []).unwrap();
        let row = format!("calls ({}): ", key.call_id);
        let refused = store.claim(vec![key]).await.expect_err(&change).to_string();
        assert!(refused.contains(&row), "{change}: {refused}");
        assert!(store.failed().await.contains(&row), "{change}");
    }
}

#[tokio::test]
async fn a_result_that_changed_is_not_served() {
    for change in changes_of_calls() {
        let directory = Directory::new();
        let store = store_with_function(&directory).await;
        let key = new_call("f", 1).key;
        run(&store, new_call("f", 1), output(3), 1, &KEEP).await;
        directory.sql().execute(&change, []).unwrap();
        broken(store.call(&key).await, &format!("calls ({})", key.call_id));
        assert_eq!(store.corruptions(), 1);
        // Others are, and whoever knows of it may throw it away.
        run(&store, new_call("f", 2), output(3), 1, &KEEP).await;
        assert!(store.call(&new_call("f", 2).key).await.is_ok());
        match store.drop_result(&key).await {
            Ok(()) => assert!(change.contains("payloads"), "{change}"),
            refused => broken(refused, &format!("calls ({})", key.call_id)),
        }
    }
}

#[tokio::test]
async fn a_state_that_changed_is_not_believed() {
    let directory = Directory::new();
    let store = store_with_function(&directory).await;
    let key = new_call("f", 1).key;
    let row = format!("calls ({})", key.call_id);
    run(&store, new_call("f", 1), output(3), 1, &KEEP).await;
    let sql = directory.sql();
    for state in [0, 1, 3] {
        sql.execute("UPDATE calls SET state = ?1", [state]).unwrap();
        broken(store.call(&key).await, &row);
        broken(store.function_of_call(&key.account, key.call_id).await, &row);
        if state < 3 {
            broken(store.list_calls(&key.account, &key.function, None, 10).await, &row);
        }
    }
    drop(store);
    // An ended call does not start again because of it.
    for state in [0, 1] {
        sql.execute("UPDATE calls SET state = ?1", [state]).unwrap();
        let store = directory.store();
        broken(store.recover(output(0), Timestamp(1), &KEEP).await, &row);
    }
}

#[tokio::test]
async fn a_tally_that_changed_is_neither_believed_nor_changed() {
    let directory = Directory::with_store();
    let all = changes(&directory.sql(), "tallies", &["account_id", "function"]);
    for change in all.iter().chain(&["bytes = 1 << 40".to_owned(), "pending = 0".to_owned()]) {
        let directory = Directory::new();
        let store = store_with_function(&directory).await;
        let key = new_call("f", 2).key;
        run(&store, new_call("f", 1), output(3), 1, &KEEP).await;
        accept(&store, new_call("f", 2)).await;
        directory.sql().execute(&format!("UPDATE tallies SET {change}"), []).unwrap();
        broken(store.tally(&key.account, &key.function).await, "tallies (f)");
        // Nothing is thrown away because of it.
        let keep = Retention { function_bytes: 100, ..KEEP };
        assert!(store.expire(Timestamp(2), &keep).await.is_err() || !change.starts_with("bytes = 1"), "{change}");
        broken(store.claim(vec![key.clone()]).await.map_err(last_line), "tallies (f)");
        assert!(store.failed().await.contains("tallies (f)"), "{change}");
        assert!(matches!(store.call(&new_call("f", 1).key).await, Ok(Some(KnownCall::Ended { .. }))), "{change}");
    }
}

/// What a writer that has failed before says, without the name of its file.
fn last_line(error: Error) -> Error {
    match error {
        Error::Failed(text) => Error::Failed(text.rsplit("store.db: ").next().unwrap_or_default().to_owned()),
        other => other,
    }
}

#[tokio::test]
async fn a_result_whose_row_changed_stays_where_it_is() {
    for change in ["verdict = 1 - verdict", "bytes = bytes + 7", "ended_ms = 0"] {
        let directory = Directory::new();
        let store = store_with_function(&directory).await;
        let key = new_call("f", 1).key;
        let row = format!("calls ({})", key.call_id);
        run(&store, new_call("f", 1), output(3), 1, &KEEP).await;
        directory.sql().execute(&format!("UPDATE calls SET {change}"), []).unwrap();
        broken(store.drop_result(&key).await, &row);
        // Neither age nor number takes it away, and others come and go.
        let one = Retention { function_calls: 1, result_ttl: Duration::ZERO, gone_ttl: Duration::ZERO, ..KEEP };
        for number in 2..5 {
            run(&store, new_call("f", number), output(3), 1, &one).await;
        }
        assert!(!store.expire(Timestamp(10), &one).await.unwrap());
        assert_eq!(store.call(&new_call("f", 4).key).await.unwrap(), None);
        broken(store.call(&key).await, &row);
        store.remove_function(&key.account, &key.function).await.unwrap();
        assert_eq!(store.call(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_key_that_changed_is_not_believed() {
    let directory = Directory::new();
    let store = store_with_function(&directory).await;
    let call = NewCall { idempotency: Some(IdempotencyKey([7; 32])), ..new_call("f", 1) };
    let key = call.key.clone();
    accept(&store, call).await;
    directory.sql().execute("UPDATE idempotency_keys SET created_ms = created_ms + 1", []).unwrap();
    let asked = store.call_of_key(&key.account, &key.function, IdempotencyKey([7; 32]), Timestamp(0)).await;
    broken(asked, &format!("idempotency_keys ({})", key.call_id));
}

#[tokio::test]
async fn an_image_that_changed_is_named_and_not_served() {
    let directory = Directory::new();
    let store: Arc<dyn Store> = Disk::open(&directory);
    let sql = directory.sql();
    let image = upgrade::image();
    for change in changes(&sql, "images", &["repository"]) {
        store.put_image(&image, Displaced::Forget, AMPLE).await.unwrap();
        assert_eq!(store.images().await.unwrap(), std::slice::from_ref(&image));
        sql.execute(&format!("UPDATE images SET {change}"), []).unwrap();
        broken(store.images().await, "images (acme/tool)");
        sql.execute("DELETE FROM images", []).unwrap();
    }
}
