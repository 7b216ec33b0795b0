//! A start that breaks off, again and again: a crash in the recovery from a crash is one crash.

use crate::breaking::{Accepted, Data, How, breaks};
use crate::harness::{address, guests};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_recovery_that_breaks_three_times_counts_as_one_crash() {
    let mut places = breaks(&[("recover.before_commit", 0), ("store.before_commit", 0)], &How::ALL);
    places.extend(breaks(&[("recover.after_commit", 0)], &How::HARD));
    places.extend(breaks(&[("store.after_commit", 0)], &How::ALL));
    for at in places {
        // A third crash would end it.
        let accepted = Accepted::new(Data::new(), 2, 3);
        for _ in 0..3 {
            accepted.data.breaks(at);
        }
        assert_eq!(accepted.attempts(&accepted.data.sound()), (2, vec![1; 3]), "{at:?}");
    }
}

#[test]
fn files_that_nothing_names_are_swept_by_the_first_start_that_gets_so_far() {
    for at in breaks(&[("sweep.before_remove", 0)], &How::ALL) {
        let data = Data::new();
        let server = data.sound();
        let target = server.function("f", &guests::prints("fine"), json!({}));
        drop(server);
        fs::write(data.path().join("modules").join(format!("{}.wasm", "0".repeat(64))), "an orphan").unwrap();
        data.breaks(at);
        let server = data.sound();
        assert_eq!(data.files("modules").len(), 1);
        assert_eq!(server.call(&target, "").expect(200).text(), "fine", "{at:?}");
    }
}

/// Makes a file of version 1 of one that a server has left, with its functions and images.
fn downgrade(data: &Data) {
    const VERSION_1: &str = include_str!("../../src/store/sqlite/schema/1.sql");
    const FUNCTIONS: &str = "account_id, name, uuid, created_ms, definition";
    const IMAGES: &str = "account_id, repository, tag, digest, size_bytes, created_ms, info, config";
    let (current, old) = (data.path().join("hyperfunc.db"), data.path().join("old.db"));
    let sql = Connection::open(&old).unwrap();
    sql.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL").unwrap();
    sql.execute_batch(VERSION_1).unwrap();
    sql.execute("ATTACH ?1 AS current", [current.to_str().unwrap()]).unwrap();
    for (table, columns) in [("functions", FUNCTIONS), ("images", IMAGES)] {
        sql.execute_batch(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM current.{table}")).unwrap();
    }
    sql.execute_batch("DETACH current; PRAGMA user_version = 1").unwrap();
    sql.close().unwrap();
    fs::rename(&old, &current).unwrap();
}

#[test]
fn an_upgrade_that_breaks_off_is_done_by_the_next_start() {
    let places = ["migrate.before_rename", "migrate.after_rename", "migrate.before_commit", "migrate.after_commit"];
    for at in breaks(&places.map(|place| (place, 0)), &How::ALL) {
        let data = Data::new();
        let mut server = data.sound();
        server.load("image", &guests::prints("fine"));
        let function: Value = server.create(&json!({"Name": "f", "Config": {"Image": "image"}}));
        server.signal(Signal::TERM);
        assert_eq!(server.ended().code(), Some(0));
        downgrade(&data);
        data.breaks(at);
        let server = data.sound();
        assert_eq!(server.inspect("f"), function, "{at:?}");
        let call = server.enqueue(&address(&function), "");
        assert_eq!(server.wait(&address(&function), &call).expect(200).text(), "fine", "{at:?}");
        assert!(data.path().join("hyperfunc.db.v1").exists(), "{at:?}");
        assert!(!data.path().join("hyperfunc.db.copying").exists(), "{at:?}");
    }
}
