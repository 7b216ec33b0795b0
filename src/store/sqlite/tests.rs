mod damaged;
mod plans;
mod queue;
mod sealed;
mod space;
mod upgrade;

use super::calls::seal_of_call;
use super::writer::Problem;
use super::*;
use crate::store::conformance::{AMPLE, Disk, conformance_tests, function};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;
use tempfile::TempDir;

/// A directory that ends with the test.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One in which a store was made.
    fn with_store() -> Self {
        let directory = Self::new();
        drop(directory.store());
        directory
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("store.db")
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.file()).unwrap()
    }

    /// The file, past the store.
    fn sql(&self) -> Connection {
        let sql = Connection::open(self.file()).unwrap();
        seal::register(&sql).unwrap();
        sql
    }

    fn error(&self) -> Error {
        SqliteStore::open(&self.file()).err().expect("opened")
    }
}

impl Disk for Directory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store())
    }
}

conformance_tests!(Directory::new());

/// Makes the checksums those of what is in the rows.
fn seal_again(sql: &Connection) {
    let seals = concat!(
        "UPDATE functions SET checksum = seal(account_id, name, uuid, created_ms, definition);
        UPDATE images SET checksum = seal(account_id, repository, tag, digest, size_bytes, created_ms, info, config);
        UPDATE calls SET payload = coalesce((SELECT seal(variables, body, stdout, stderr) FROM payloads
            WHERE payloads.place = calls.place), seal(NULL, NULL, NULL, NULL));
        UPDATE calls SET checksum = ",
        seal_of_call!()
    );
    sql.execute_batch(seals).unwrap();
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM functions", [], |row| row.get(0)).unwrap()
}

fn insert(connection: &Connection, name: &str) -> Result<(), Problem> {
    functions::create(connection, &FunctionRow::new(&function(name)).unwrap(), function(name).name, AMPLE)
}

/// Holds the writer in an operation of its own until the sender is dropped, so that a batch gathers behind it.
async fn stall(store: &Arc<SqliteStore>) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let work = move |_: &Connection| {
            begun.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        };
        store.writer.run(work).await
    });
    has_begun.await.unwrap();
    release
}

/// Asks, and leaves before the answer.
async fn ask_and_leave<T>(answer: impl Future<Output = T>) {
    let mut answer = pin!(answer);
    std::future::poll_fn(|context| {
        assert!(answer.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[test]
fn the_file_is_set_up_for_its_work() {
    let directory = Directory::new();
    let _store = directory.store();
    let sql = directory.sql();
    let pragma =
        |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
    assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
    assert_eq!(pragma("auto_vacuum"), 2.into());
    assert_eq!(pragma("user_version"), SCHEMA_VERSION.into());
    for suffix in ["", "-wal", "-shm"] {
        let path = directory.0.path().join(format!("store.db{suffix}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
}

#[tokio::test]
async fn the_writer_syncs_every_commit() {
    let directory = Directory::new();
    let store = directory.store();
    let pragmas = |sql: &Connection| {
        let one = |name| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok([one("synchronous")?, one("foreign_keys")?, one("fullfsync")?])
    };
    assert_eq!(store.writer.run(pragmas).await.unwrap(), [2, 1, 1]);
}

#[test]
fn a_newer_file_is_left_alone() {
    let directory = Directory::new();
    drop(directory.store());
    directory.sql().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let before = fs::read(directory.file()).unwrap();
    let error = directory.error();
    assert!(
        matches!(error, Error::TooNew { found, known: SCHEMA_VERSION } if found == SCHEMA_VERSION + 1),
        "{error:?}"
    );
    assert_eq!(fs::read(directory.file()).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_file_is_reported_by_name() {
    let corrupt = |directory: &Directory| match directory.error() {
        Error::Corrupt(text) => assert!(text.starts_with(directory.file().to_str().unwrap()), "{text}"),
        other => panic!("{other:?}"),
    };
    let directory = Directory::new();
    fs::write(directory.file(), "no database, but as long as the header of one ".repeat(100)).unwrap();
    corrupt(&directory);

    let directory = Directory::new();
    let store = directory.store();
    for i in 0..50 {
        store.create_function(&function(&format!("f{i}")), AMPLE).await.unwrap();
    }
    drop(store);
    let whole = fs::read(directory.file()).unwrap();
    assert!(whole.len() > 5 * 4096, "{}", whole.len());
    for page in 1..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..][..64].fill(0xff);
        fs::write(directory.file(), &damaged).unwrap();
        corrupt(&directory);
    }
    fs::write(directory.file(), &whole[..whole.len() - 4096]).unwrap();
    corrupt(&directory);
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let directory = Directory::new();
    directory.sql().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = directory.error();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("not one of hyperfunc")), "{error:?}");
    directory.sql().execute_batch("SELECT x FROM theirs").unwrap();
}

#[test]
fn a_missing_directory_is_named() {
    let error = SqliteStore::open(Path::new("/no/such/store.db")).err().unwrap();
    assert!(error.to_string().contains("/no/such/store.db: No such file"), "{error}");
}

#[tokio::test]
async fn a_row_that_breaks_a_rule_is_named() {
    let directory = Directory::new();
    let store = directory.store();
    store.create_function(&function("f"), AMPLE).await.unwrap();
    for (change, problem) in [
        ("definition = 'x'", "definition: expected value"),
        ("definition = '{}'", "definition: missing field"),
        ("definition = json_set(definition, '$.extra', 1)", "definition: unknown field"),
        ("definition = json_set(definition, '$.timeout_seconds', 0)", "Timeout: 0 is not"),
        ("definition = json_set(definition, '$.size', 'xl')", "ContainerSize: \"xl\" is none"),
        ("definition = json_set(definition, '$.config.image', '?')", "Config.Image: \"?\""),
        ("definition = json_set(definition, '$.config.working_dir', 'x')", "Config.WorkingDir: \"x\""),
        ("definition = json_set(definition, '$.host.network_mode', 'x')", "HostConfig.NetworkMode: \"x\""),
    ] {
        let sql = directory.sql();
        let before: String = sql.query_row("SELECT definition FROM functions", [], |row| row.get(0)).unwrap();
        sql.execute(&format!("UPDATE functions SET {change}"), []).unwrap();
        seal_again(&sql);
        match store.functions().await {
            Err(Error::CorruptRow(text)) => {
                assert!(text.starts_with("functions (a, f): ") && text.contains(problem), "{text}");
            }
            other => panic!("{change}: {other:?}"),
        }
        sql.execute("UPDATE functions SET definition = ?1", [before]).unwrap();
    }
    directory.sql().execute("UPDATE functions SET name = 'F'", []).unwrap();
    seal_again(&directory.sql());
    assert!(store.functions().await.unwrap_err().to_string().contains("functions (a, F): Name: "));
}

#[tokio::test]
async fn an_image_that_breaks_a_rule_is_named() {
    let directory = Directory::new();
    let store = directory.store();
    let insert = "INSERT INTO images VALUES ('a', ?1, ?2, zeroblob(32), 1, 1, ?3, '{}', 0)";
    for (repository, tag, problem) in [
        ("R", Some("t"), "images (a, R, t): \"R:t\" is not an image name"),
        ("r", Some("?"), "images (a, r, ?): \"r:?\" has a bad tag"),
        ("r:t", None, "images (a, r:t, no tag): repository: has a tag"),
        ("r", None, "images (a, r, no tag): info: "),
    ] {
        directory.sql().execute(insert, rusqlite::params![repository, tag, "{\"memory\":\"huge\"}"]).unwrap();
        seal_again(&directory.sql());
        let error = store.images().await.unwrap_err();
        assert!(matches!(&error, Error::CorruptRow(text) if text.starts_with(problem)), "{error:?}");
        directory.sql().execute("DELETE FROM images", []).unwrap();
    }
}

#[tokio::test]
async fn what_is_answered_is_in_the_file() {
    let directory = Directory::new();
    let store = directory.store();
    let sql = directory.sql();
    for i in 1..=20 {
        store.create_function(&function(&format!("f{i}")), AMPLE).await.unwrap();
        assert_eq!(count(&sql), i);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_commit_and_is_answered_after_it() {
    const BATCH: i64 = 100;
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    let release = stall(&store).await;
    let mut answers = tokio::task::JoinSet::new();
    for i in 0..BATCH {
        let work = move |sql: &Connection| insert(sql, &format!("f{i}"));
        let (asked, has_asked) = tokio::sync::oneshot::channel();
        let store = Arc::clone(&store);
        answers.spawn(async move {
            let mut answer = pin!(store.writer.run(work));
            ask_and_leave(answer.as_mut()).await;
            asked.send(()).unwrap();
            answer.await
        });
        has_asked.await.unwrap();
    }
    // The last of the batch sees all of it, and nobody outside any of it.
    let (outside, (seen, has_seen), (resume, resumed)) = (directory.sql(), mpsc::channel(), mpsc::channel::<()>());
    let last = move |sql: &Connection| {
        seen.send((count(sql), count(&outside))).unwrap();
        let _ = resumed.recv();
        Ok(())
    };
    let last = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.writer.run(last).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(release);
    assert_eq!(tokio::task::block_in_place(|| has_seen.recv()).unwrap(), (BATCH, 0));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(answers.try_join_next().is_none());
    drop(resume);
    last.await.unwrap().unwrap();
    assert_eq!(count(&directory.sql()), BATCH);
    assert!(answers.join_all().await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_is_refused_is_undone_alone() {
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    let release = stall(&store).await;
    let refused = |sql: &Connection| {
        insert(sql, "refused")?;
        Err::<(), _>(Problem::Refused(Error::NotFound))
    };
    let breaks_a_constraint = |sql: &Connection| {
        insert(sql, "half")?;
        sql.execute("INSERT INTO functions VALUES ('a', 'x', x'00', 1, '', 0)", [])?;
        Ok(())
    };
    let (first, second, third, fourth, ()) = tokio::join!(
        store.writer.run(|sql| insert(sql, "first")),
        store.writer.run(refused),
        store.writer.run(breaks_a_constraint),
        store.writer.run(|sql| insert(sql, "fourth")),
        async { drop(release) },
    );
    assert!(first.is_ok() && fourth.is_ok());
    assert!(matches!(second, Err(Error::NotFound)));
    assert!(matches!(third, Err(Error::Failed(text)) if text.contains("CHECK")));
    let names: Vec<_> = store.functions().await.unwrap().iter().map(|f| f.name.to_string()).collect();
    assert_eq!(names, ["first", "fourth"]);
}

#[tokio::test]
async fn a_full_disk_writes_nothing_and_passes() {
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    let limit = |pages: &'static str| {
        store.writer.run(move |sql| {
            sql.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            Ok(())
        })
    };
    limit("1").await.unwrap();
    let mut large = function("large");
    large.definition.config.cmd = vec!["x".repeat(30_000)];
    let release = stall(&store).await;
    let batch_mate = function("small");
    let (small, full, ()) =
        tokio::join!(store.create_function(&batch_mate, AMPLE), store.create_function(&large, AMPLE), async {
            drop(release)
        });
    assert!(matches!(full, Err(Error::DiskFull)), "{full:?}");
    assert!(matches!(small, Err(Error::DiskFull)), "{small:?}");
    assert_eq!(store.functions().await.unwrap(), []);
    limit("1000").await.unwrap();
    store.create_function(&large, AMPLE).await.unwrap();
    assert_eq!(store.functions().await.unwrap(), [large]);
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_written_any_more() {
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    store.create_function(&function("before"), AMPLE).await.unwrap();
    let release = stall(&store).await;
    // The commit itself fails: a reference that is checked only there points to nothing.
    let fails_at_commit = |sql: &Connection| {
        sql.execute_batch(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT;
             CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED) STRICT;
             INSERT INTO child VALUES (1);",
        )?;
        Ok(())
    };
    let (in_it, cause, ()) =
        tokio::join!(store.writer.run(|sql| insert(sql, "in-it")), store.writer.run(fails_at_commit), async {
            drop(release)
        },);
    for answer in [in_it, cause, store.create_function(&function("after"), AMPLE).await] {
        assert!(matches!(&answer, Err(Error::Failed(text)) if text.contains("FOREIGN KEY")), "{answer:?}");
    }
    assert_eq!(store.functions().await.unwrap(), [function("before")]);
    drop(store);
    assert_eq!(directory.store().functions().await.unwrap(), [function("before")]);
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_all_that_follow() {
    let directory = Directory::new();
    let store = directory.store();
    let panics = |sql: &Connection| -> Result<(), Problem> {
        insert(sql, "half")?;
        panic!("a test's")
    };
    assert!(matches!(store.writer.run(panics).await, Err(Error::Failed(_))));
    assert!(matches!(store.create_function(&function("after"), AMPLE).await, Err(Error::Failed(_))));
    drop(store);
    assert_eq!(directory.store().functions().await.unwrap(), []);
}

#[tokio::test]
async fn a_lock_of_another_program_passes() {
    let directory = Directory::new();
    let store = directory.store();
    store.writer.run(|sql| Ok(sql.busy_timeout(Duration::from_millis(10))?)).await.unwrap();
    let other = directory.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.create_function(&function("f"), AMPLE).await;
    assert!(matches!(refused, Err(Error::Locked)), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    store.create_function(&function("f"), AMPLE).await.unwrap();
    assert_eq!(store.functions().await.unwrap(), [function("f")]);
}

#[tokio::test]
async fn what_was_asked_happens_though_nobody_waits_for_it() {
    let directory = Directory::new();
    let store = Arc::new(directory.store());
    let release = stall(&store).await;
    for i in 0..10 {
        ask_and_leave(store.create_function(&function(&format!("f{i}")), AMPLE)).await;
    }
    drop(release);
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
    }
    // Waits for the queue.
    drop(store);
    assert_eq!(directory.store().functions().await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_copy_of_the_files_without_a_shutdown_has_all_that_was_answered() {
    let (directory, crashed) = (Directory::new(), Directory::new());
    let store = directory.store();
    for i in 0..20 {
        store.create_function(&function(&format!("f{i:02}")), AMPLE).await.unwrap();
    }
    for suffix in ["", "-wal"] {
        let name = format!("store.db{suffix}");
        fs::copy(directory.0.path().join(&name), crashed.0.path().join(&name)).unwrap();
    }
    let expected = store.functions().await.unwrap();
    assert_eq!(expected.len(), 20);
    assert_eq!(crashed.store().functions().await.unwrap(), expected);
}

#[tokio::test]
async fn a_closed_store_is_one_file_and_its_ballast() {
    let directory = Directory::new();
    let store = directory.store();
    store.create_function(&function("f"), AMPLE).await.unwrap();
    store.functions().await.unwrap();
    drop(store);
    let files = fs::read_dir(directory.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(files, ["store.ballast", "store.db"]);
}
