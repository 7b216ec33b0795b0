//! Files of earlier versions.

use super::*;
use crate::domain::{Digest, ImageConfig, MemoryKind, ModuleInfo};
use crate::store::conformance::{accept, claim, new_call};
use std::ffi::OsString;

const VERSION_1: &str = include_str!("../schema/1.sql");

fn image() -> Image {
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
        insert(&sql, name).unwrap();
    }
    images::put(&sql, &ImageRow::new(&image()).unwrap(), Displaced::Forget, AMPLE).unwrap();
    sql
}

fn version(sql: &Connection) -> i64 {
    sql.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn files(directory: &Directory) -> Vec<OsString> {
    let mut files: Vec<_> = fs::read_dir(directory.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
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
    assert_eq!(functions::all(&sql).unwrap(), [function("f"), function("g")]);
    assert_eq!(images::all(&sql).unwrap(), [image()]);
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
