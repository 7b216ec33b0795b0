//! What the file takes up once its calls are gone.

use super::*;
use crate::store::conformance::{KEEP, accept, new_call, output, run};

const MB: usize = 1 << 20;
/// What a file holds beside its free pages, with room for more than there is.
const SMALL: u64 = 6 * MB as u64;

const NOTHING: Retention = Retention { result_ttl: Duration::ZERO, gone_ttl: Duration::ZERO, ..KEEP };

/// Expires until there is nothing more to do; how often it was asked.
async fn expire(store: &Arc<dyn Store>) -> u32 {
    let mut asked = 1;
    while store.expire(Timestamp(2), &NOTHING).await.unwrap() {
        asked += 1;
        assert!(asked < 1_000, "no end");
    }
    asked
}

fn pages(directory: &Directory) -> u64 {
    directory.sql().pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0)).unwrap().into()
}

async fn fill_with_results(store: &Arc<dyn Store>) {
    store.create_function(&function("f"), AMPLE).await.unwrap();
    for number in 0..40 {
        run(store, new_call("f", number), output(MB), 1, &KEEP).await;
    }
}

#[tokio::test]
async fn expired_results_give_their_space_back() {
    let directory = Directory::new();
    let store: Arc<dyn Store> = Disk::open(&directory);
    fill_with_results(&store).await;
    let full = pages(&directory);
    assert!(full * 4096 > 40 * MB as u64);
    // Some at once, so that no other writer waits for long.
    assert!(store.expire(Timestamp(2), &NOTHING).await.unwrap());
    // Pages that say where the others belong go with them.
    assert!(pages(&directory) >= full - 1_010);
    let asked = expire(&store).await;
    assert!((5..20).contains(&asked), "{asked}");
    assert!(pages(&directory) * 4096 < SMALL, "{} pages", pages(&directory));
    assert_eq!(expire(&store).await, 1);
    drop(store);
    assert!(fs::metadata(directory.file()).unwrap().len() < SMALL);
    drop(directory.store());
}

#[tokio::test]
async fn a_removed_function_gives_its_space_back() {
    let directory = Directory::new();
    let store: Arc<dyn Store> = Disk::open(&directory);
    fill_with_results(&store).await;
    for number in 40..50 {
        let mut call = new_call("f", number);
        call.request.body = vec![0; MB].into();
        accept(&store, call).await;
    }
    store.remove_function(&function("f").account, &function("f").name).await.unwrap();
    expire(&store).await;
    drop(store);
    assert!(fs::metadata(directory.file()).unwrap().len() < SMALL);
}

#[tokio::test]
async fn free_space_is_used_again() {
    let directory = Directory::new();
    let store: Arc<dyn Store> = Disk::open(&directory);
    let keep = Retention { function_bytes: 5 * MB as u64, ..KEEP };
    store.create_function(&function("f"), AMPLE).await.unwrap();
    for number in 0..40 {
        run(&store, new_call("f", number), output(MB), 1, &keep).await;
    }
    // The last one comes before the oldest goes.
    assert!(pages(&directory) * 4096 < 7 * MB as u64, "{} pages", pages(&directory));
}

#[tokio::test]
async fn what_calls_brought_and_what_is_gone_takes_no_pages() {
    const CALLS: u64 = 1_000;
    let directory = Directory::new();
    let store: Arc<dyn Store> = Disk::open(&directory);
    let keep = Retention { function_bytes: MB as u64 / 10, ..KEEP };
    store.create_function(&function("f"), AMPLE).await.unwrap();
    // Each of them fills a page as it waits, and most of one as it has ended.
    let brings = |number| {
        let mut call = new_call("f", number);
        call.request.body = vec![0; 3_000].into();
        call
    };
    for (number, left) in (0..CALLS).map(|number| (number, 0)).chain((CALLS..2 * CALLS).map(|number| (number, 3_000))) {
        run(&store, brings(number), output(left), 1, &keep).await;
    }
    let kept = 2 * CALLS * 256 + keep.function_bytes * 120 / 100;
    assert!(pages(&directory) * 4096 < kept, "{} pages", pages(&directory));
}

#[tokio::test]
async fn a_file_that_cannot_shrink_is_left_as_large_as_it_is() {
    let directory = Directory::new();
    let sql = directory.sql();
    sql.execute_batch("PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = WAL").unwrap();
    for step in open::STEPS {
        sql.execute_batch(step).unwrap();
    }
    sql.pragma_update(None, "user_version", SCHEMA_VERSION).unwrap();
    drop(sql);
    let store: Arc<dyn Store> = Disk::open(&directory);
    fill_with_results(&store).await;
    assert_eq!(expire(&store).await, 1);
}
