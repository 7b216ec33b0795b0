//! Files of earlier versions.

use super::*;
use crate::domain::{CallState, Digest, ImageConfig, MemoryKind, ModuleInfo};
use crate::store::conformance::{accept, claim, new_call, output};
use std::ffi::OsString;

const VERSION_1: &str = open::STEPS[0];
const VERSION_2: &str = open::STEPS[1];

pub(super) fn image() -> Image {
    Image {
        account: AccountId::new("a").unwrap(),
        repository: "acme/tool".to_owned(),
        tag: Some("1".to_owned()),
        digest: Digest::new([1; 32]),
        size_bytes: 10,
        created: Timestamp(1),
        info: ModuleInfo { memory: MemoryKind::Wide, initial_memory_bytes: 9, imports: vec![], exports: vec![] },
        config: ImageConfig::default(),
    }
}

/// Makes a file as version 1 did, with functions `f` and `g` and an image; as it is while its server runs.
fn version_1(directory: &Directory) -> Connection {
    let sql = directory.sql();
    sql.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL").unwrap();
    sql.execute_batch(VERSION_1).unwrap();
    sql.pragma_update(None, "user_version", 1).unwrap();
    for name in ["f", "g"] {
        let row = FunctionRow::new(&function(name)).unwrap();
        let values = rusqlite::params![row.account, row.name, row.uuid, row.created_ms, row.definition];
        sql.execute("INSERT INTO functions VALUES (?1, ?2, ?3, ?4, ?5)", values).unwrap();
    }
    let row = ImageRow::new(&image()).unwrap();
    let values = rusqlite::params![
        row.account,
        row.repository,
        row.tag,
        row.digest,
        row.size_bytes,
        row.created_ms,
        row.info,
        row.config
    ];
    sql.execute("INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", values).unwrap();
    sql
}

/// The same as version 2 did, with calls of `f` in every state, of which the last one was read.
fn version_2(directory: &Directory) {
    let sql = version_1(directory);
    sql.execute_batch(VERSION_2).unwrap();
    let call = |place: i64, state: i64, rest: &str| {
        let id = new_call("f", place.unsigned_abs()).key.call_id;
        let insert = format!(
            "INSERT INTO calls (place, account_id, function, call_id, created_ms, state, bytes, ended_ms, verdict,
                variables, body, stdout, stderr) VALUES (?1, 'a', 'f', ?2, 1000, ?3, 1, {rest})"
        );
        sql.execute(&insert, rusqlite::params![place, id.as_bytes(), state]).unwrap();
    };
    call(3, 0, "NULL, NULL, '[]', x'0000000000000003', NULL, NULL");
    call(4, 1, "NULL, NULL, '[]', x'0000000000000004', NULL, NULL");
    call(5, 2, "7, 0, NULL, NULL, x'78', x''");
    call(6, 3, "7, NULL, NULL, NULL, NULL, NULL");
    sql.execute_batch(
        "UPDATE sqlite_sequence SET seq = 9;
        INSERT INTO tallies VALUES ('a', 'f', 1, 1, 1, 0, 1, 1, 1);
        INSERT INTO idempotency_keys VALUES ('a', 'f', zeroblob(32), zeroblob(16), 900);
        PRAGMA user_version = 2",
    )
    .unwrap();
}

fn version(sql: &Connection) -> i64 {
    sql.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// All files but the ballast.
fn files(directory: &Directory) -> Vec<OsString> {
    let files = fs::read_dir(directory.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = files.filter(|name| name != "store.ballast").collect();
    files.sort();
    files
}

/// That the store has all that version 1 wrote, and can do what that could not.
async fn check_store(directory: &Directory) {
    let store: Arc<dyn Store> = Disk::open(directory);
    assert_eq!(store.functions().await.unwrap(), [function("f"), function("g")]);
    assert_eq!(store.images().await.unwrap(), [image()]);
    accept(&store, new_call("f", 1)).await;
    assert_eq!(claim(&store, &new_call("f", 1).key).await.unwrap().request, new_call("f", 1).request);
    store.remove_function(&AccountId::new("a").unwrap(), &function("f").name).await.unwrap();
    store.create_function(&function("f"), AMPLE).await.unwrap();
    drop(store);
    assert_eq!(version(&directory.sql()), SCHEMA_VERSION);
    let mode: i64 = directory.sql().pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
    assert_eq!(mode, 2);
}

/// That the copy is a store of version 1 with all that was in it: one that an earlier binary can go back to.
async fn check_copy(directory: &Directory) {
    let path = directory.0.path().join("store.db.v1");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = Directory::new();
    fs::copy(&path, copy.file()).unwrap();
    let sql = copy.sql();
    assert_eq!(version(&sql), 1);
    let sound: String = sql.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let schema = |sql: &Connection| {
        let mut rows = sql.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<Vec<(String, Option<String>)>, _>>().unwrap()
    };
    let fresh = Connection::open_in_memory().unwrap();
    fresh.execute_batch(VERSION_1).unwrap();
    assert_eq!(schema(&sql), schema(&fresh));
    drop(sql);
    check_store(&copy).await;
}

#[tokio::test]
async fn a_file_of_version_1_is_kept_and_upgraded() {
    let directory = Directory::new();
    drop(version_1(&directory));
    check_store(&directory).await;
    check_copy(&directory).await;
    assert_eq!(files(&directory), ["store.db", "store.db.v1"]);
}

#[tokio::test]
async fn a_file_of_version_2_keeps_its_calls() {
    let directory = Directory::new();
    version_2(&directory);
    let store: Arc<dyn Store> = Disk::open(&directory);
    let key = |number| new_call("f", number).key;
    let state = |state| Some(KnownCall::Open(state));
    assert_eq!(store.call(&key(3)).await.unwrap(), state(CallState::Pending));
    assert_eq!(store.call(&key(4)).await.unwrap(), state(CallState::Running));
    assert_eq!(store.call(&key(5)).await.unwrap(), Some(KnownCall::Ended { at: Timestamp(7), result: output(1) }));
    assert_eq!(store.call(&key(6)).await.unwrap(), Some(KnownCall::Gone));
    let function = function("f");
    let tally = store.tally(&function.account, &function.name).await.unwrap();
    assert_eq!(tally, Tally { pending: 1, running: 1, finished: 1, failed: 0 });
    let asked = IdempotencyKey([0; 32]);
    let before = store.call_of_key(&function.account, &function.name, asked, Timestamp(0)).await.unwrap();
    assert_eq!(before, CallId::from_slice(&[0; 16]));
    assert_eq!(claim(&store, &key(3)).await.unwrap().request, new_call("f", 3).request);
    // No place is given twice.
    assert_eq!(accept(&store, new_call("f", 10)).await, Place(10));
    drop(store);
    assert_eq!(files(&directory), ["store.db", "store.db.v2"]);
}

#[tokio::test]
async fn an_upgrade_has_what_a_crashed_server_left_in_its_log() {
    let (crashed, directory) = (Directory::new(), Directory::new());
    let sql = version_1(&crashed);
    for suffix in ["", "-wal"] {
        let name = format!("store.db{suffix}");
        fs::copy(crashed.0.path().join(&name), directory.0.path().join(&name)).unwrap();
    }
    drop(sql);
    assert!(fs::metadata(directory.0.path().join("store.db-wal")).unwrap().len() > 0);
    check_store(&directory).await;
    check_copy(&directory).await;
}

#[tokio::test]
async fn an_upgrade_that_broke_off_is_done_again() {
    // While it copied: a copy that is not whole, with what SQLite may have left beside it, readable by all.
    let directory = Directory::new();
    drop(version_1(&directory));
    for suffix in [".copying", ".copying-journal", ".copying-wal"] {
        let path = directory.0.path().join(format!("store.db{suffix}"));
        fs::write(&path, "half a database").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    check_store(&directory).await;
    check_copy(&directory).await;

    // Between the copy and the steps.
    let directory = Directory::new();
    let sql = version_1(&directory);
    open::copy(&sql, &directory.file(), 1).unwrap();
    drop(sql);
    assert_eq!(files(&directory), ["store.db", "store.db.v1"]);
    assert_eq!(version(&directory.sql()), 1);
    check_store(&directory).await;
    check_copy(&directory).await;

    // In the steps: none is taken alone.
    let directory = Directory::new();
    let sql = version_1(&directory);
    sql.execute_batch("CREATE TABLE tallies (account_id TEXT NOT NULL)").unwrap();
    assert!(matches!(directory.error(), Error::Failed(text) if text.contains("tallies already exists")));
    assert_eq!(version(&sql), 1);
    sql.execute_batch("SELECT * FROM calls").unwrap_err();
    sql.execute_batch("DROP TABLE tallies").unwrap();
    drop(sql);
    check_store(&directory).await;
    check_copy(&directory).await;
}

#[tokio::test]
async fn an_upgrade_happens_once() {
    let directory = Directory::new();
    drop(version_1(&directory));
    drop(directory.store());
    fs::remove_file(directory.0.path().join("store.db.v1")).unwrap();
    check_store(&directory).await;
    assert_eq!(files(&directory), ["store.db"]);
}

#[test]
fn a_damaged_file_is_neither_copied_nor_upgraded() {
    let directory = Directory::new();
    drop(version_1(&directory));
    let mut damaged = fs::read(directory.file()).unwrap();
    damaged[4096..][..64].fill(0xff);
    fs::write(directory.file(), &damaged).unwrap();
    assert!(matches!(directory.error(), Error::Corrupt(_)));
    assert_eq!(fs::read(directory.file()).unwrap(), damaged);
    assert!(!directory.0.path().join("store.db.v1").exists());
}
