//! `restore`: a data directory of a backup, whole or not at all (`docs/api.md` section 8).

use crate::harness::alone::{on, run_on};
use crate::harness::program::{ended, failed, printed};
use crate::harness::{Server, address, eventually, guests};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

/// A backup of a server with a function, its image and a call, all in a directory.
fn backup() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let target = server.function("f", &guests::cat(), json!({}));
    let call = server.accept(&target, "kept");
    server.ended_call(&call).expect(200);
    let file = dir.path().join("b");
    printed(run_on(&server.data, &["backup", "--with-keys", file.to_str().unwrap()]));
    (dir, file)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Tries to restore, and returns what was said of it. Nothing is left but what was there, and the lock.
#[track_caller]
fn refusal(file: &Path, data: &Path) -> String {
    let (status, said) = failed(run_on(data, &["restore", text(file)]));
    assert_eq!((status, said.lines().count()), (1, 1), "{said}");
    for left in ["hyperfunc.db", "restoring", "modules", "keys"] {
        assert!(!data.join(left).exists(), "{left} is left: {said}");
    }
    said
}

/// Restores, and checks that a server finds all there is.
#[track_caller]
fn restores(file: &Path, data: &Path) {
    let said = printed(run_on(data, &["restore", text(file)]));
    assert!(
        said.starts_with(&format!("{}: 1 function, 1 image, 0 queued calls, 1 result, ", data.display())),
        "{said}"
    );
    assert!(!data.join("restoring").exists());
    let server = Server::on(data, &[]);
    let function = server.get("/funcs/f").json();
    assert_eq!(server.call(&address(&function), "x").expect(200).text(), "x");
    let calls = server.list(&address(&function));
    assert_eq!((calls.len(), &calls[0]["Status"]), (1, &json!("FINISHED")));
}

/// The entries of an archive, in order.
fn entries(backup: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(backup);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut contents = Vec::new();
        std::io::copy(&mut entry, &mut contents).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), contents)
    });
    entries.collect()
}

fn header(name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    // As it is: `set_path` would refuse the worst.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}

fn append(archive: &mut Vec<u8>, header: &tar::Header, contents: &[u8]) {
    archive.extend(header.as_bytes());
    archive.extend(contents);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// An archive of these entries.
fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, contents) in entries {
        append(&mut archive, &header(name, contents.len() as u64), contents);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn hex(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The archive with another manifest, whose checksum is right.
fn forged(backup: &[u8], forge: impl FnOnce(&mut Value, &mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut entries = entries(backup);
    let mut manifest: Value = serde_json::from_slice(&entries[0].1).unwrap();
    let mut files = entries.split_off(2);
    forge(&mut manifest, &mut files);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let sum = format!("{}  manifest.json\n", hex(&manifest));
    let own = [("manifest.json".to_owned(), manifest), ("manifest.sha256".to_owned(), sum.into_bytes())];
    archive(&own.into_iter().chain(files).collect::<Vec<_>>())
}

#[test]
fn a_directory_that_is_in_use_or_not_empty_is_left_alone() {
    let (dir, file) = backup();
    let refused = |data: &Path, what: &str| {
        let (status, said) = failed(run_on(data, &["restore", text(&file)]));
        assert!(status == 1 && said.contains(what) && said.contains(text(data)), "{what}: {said}");
    };
    let mut server = Server::start();
    server.function("mine", &guests::prints("mine"), json!({}));
    refused(&server.data, &format!("another server uses it: process {}", server.pid()));
    server.kill();
    refused(&server.data, "is not empty: it has ");
    assert_eq!(server.restart(&[]).get("/funcs/mine").status, 200);

    let data = dir.path().join("data");
    for name in ["hyperfunc.db", "modules/", "keys/", "file"] {
        fs::create_dir(&data).unwrap();
        match name.strip_suffix('/') {
            Some(name) => fs::create_dir(data.join(name)).unwrap(),
            None => fs::write(data.join(name), "mine").unwrap(),
        }
        refused(&data, &format!("is not empty: it has {}", name.trim_end_matches('/')));
        assert!(data.join(name).exists() && !data.join("restoring").exists());
        fs::remove_dir_all(&data).unwrap();
    }
    fs::create_dir_all(data.join("lost+found")).unwrap();
    let lock = File::create(data.join("lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    refused(&data, "another server uses it");
    drop(lock);
    restores(&file, &data);
    refused(&data, "is not empty: it has ");
}

#[test]
fn a_backup_that_is_cut_off_or_changed_is_refused_with_the_place() {
    let (dir, file) = backup();
    let sound = fs::read(&file).unwrap();
    let (data, damaged) = (dir.path().join("data"), dir.path().join("damaged"));
    let tries = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        let said = refusal(&damaged, &data);
        assert!(said.contains(text(&damaged)), "{said}");
        said
    };
    let lengths = (0..40).map(|step| sound.len() * step / 40).chain([1, 511, 512, 513, sound.len() - 1]);
    for length in lengths {
        let said = tries(&sound[..length]);
        assert!(said.contains("is damaged: ") || said.contains("is no backup of hyperfunc"), "{length}: {said}");
    }
    assert!(tries(&[&sound[..], b"x"].concat()).contains("its length"));
    for step in 0..150 {
        let mut flipped = sound.clone();
        let at = sound.len() * step / 150 + step % 7;
        flipped[at] ^= 1 << (step % 8);
        let said = tries(&flipped);
        assert!(said.contains("is damaged: ") || said.contains("is no backup of hyperfunc"), "byte {at}: {said}");
    }
    // The entry is named that it is in.
    for (name, contents) in entries(&sound) {
        let mut flipped = sound.clone();
        let at = sound.windows(contents.len()).position(|window| window == contents).unwrap();
        flipped[at + contents.len() / 2] ^= 4;
        let said = tries(&flipped);
        assert!(said.contains(&name) || name == "manifest.sha256" && said.contains("manifest.json"), "{name}: {said}");
    }
    for other in [&b""[..], b"text", &[0; 4096], &fs::read("/proc/self/exe").unwrap()[..100_000]] {
        assert!(tries(other).contains("is no backup of hyperfunc"));
    }
    restores(&file, &data);
}

#[test]
fn a_backup_cut_off_on_its_way_through_a_pipe_is_refused_too() {
    let (dir, file) = backup();
    let sound = fs::read(&file).unwrap();
    for left in [1, 1024, 1025, sound.len() / 2] {
        let data = dir.path().join("data");
        let mut child = on(&data, &["restore", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&sound[..sound.len() - left]).unwrap();
        let (status, said) = failed(ended(child));
        assert!(status == 1 && said.contains("is cut off"), "{said}");
        assert!(!data.join("hyperfunc.db").exists() && !data.join("restoring").exists());
    }
}

#[test]
fn what_has_no_place_in_a_backup_is_not_unpacked() {
    let (dir, file) = backup();
    let sound = fs::read(&file).unwrap();
    let (data, hostile) = (dir.path().join("deep/data"), dir.path().join("hostile"));
    let tries = |bytes: &[u8], what: &str| {
        fs::write(&hostile, bytes).unwrap();
        let said = refusal(&hostile, &data);
        assert!(said.contains(what), "{what}: {said}");
    };
    for name in ["../evil", "/tmp/evil", "keys/../../evil", "modules/../../evil", "lock", "keys/a/b", "artifacts/x"] {
        let evil = b"evil".to_vec();
        let entry = json!({"Name": name, "Size": 4, "Sha256": hex(&evil)});
        let named = forged(&sound, |manifest, files| {
            manifest["Entries"].as_array_mut().unwrap().push(entry);
            files.push((name.to_owned(), evil.clone()));
        });
        tries(&named, "has no place in a backup");
        // One that the manifest does not name, behind the others and between them.
        let unnamed = forged(&sound, |_, files| files.push((name.to_owned(), evil.clone())));
        tries(&unnamed, "its length");
        let instead = forged(&sound, |_, files| files[1].0 = name.to_owned());
        tries(&instead, "its header is another");
    }
    let first_module = entries(&sound)[3].0.clone();
    assert!(first_module.starts_with("modules/"));
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory, tar::EntryType::Fifo] {
        let mut link = header(&first_module, 0);
        link.set_entry_type(kind);
        link.set_link_name("/etc/passwd").unwrap();
        link.set_cksum();
        let at = sound.windows(first_module.len()).rposition(|window| window == first_module.as_bytes()).unwrap();
        let mut linked = sound.clone();
        linked[at..at + 512].copy_from_slice(link.as_bytes());
        tries(&linked, "its header is another");
    }
    for size in [1 << 40, u64::MAX / 2, u64::MAX] {
        let huge = forged(&sound, |manifest, _| manifest["Entries"][0]["Size"] = json!(size));
        tries(&huge, "is damaged: ");
    }
    let mut first = Vec::new();
    append(&mut first, &header("manifest.json", 1 << 40), b"{}");
    tries(&first, "is too large");
    let twice = forged(&sound, |manifest, files| {
        let again = manifest["Entries"][1].clone();
        manifest["Entries"].as_array_mut().unwrap().push(again);
        files.push(files[1].clone());
    });
    tries(&twice, "has no place in a backup");
    assert!(!dir.path().join("evil").exists() && !dir.path().join("deep/evil").exists());
    // The forger forges well.
    fs::write(&hostile, forged(&sound, |_, _| {})).unwrap();
    restores(&hostile, &data);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (dir, file) = backup();
    let sound = fs::read(&file).unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let tries = |bytes: &[u8], what: &str| {
        fs::write(&other, bytes).unwrap();
        let said = refusal(&other, &data);
        assert!(said.contains(what), "{what}: {said}");
    };
    let newer = "hyperfunc 9.9.9";
    let format = forged(&sound, |manifest, _| {
        (manifest["Format"], manifest["Hyperfunc"]) = (json!(2), json!("9.9.9"));
        manifest.as_object_mut().unwrap().remove("Entries");
    });
    tries(&format, &format!("format 2, written by {newer}, and this version knows 1"));
    let schema = forged(&sound, |manifest, _| {
        (manifest["Schema"], manifest["Hyperfunc"]) = (json!(99), json!("9.9.9"));
    });
    tries(&schema, &format!("{newer} with schema 99"));
    let without = forged(&sound, |manifest, files| {
        manifest["Entries"].as_array_mut().unwrap().remove(1);
        files.remove(1);
    });
    tries(&without, "it tells of another store");
    tries(&forged(&sound, |manifest, _| manifest["Functions"] = json!(2)), "it tells of another store");

    let database = |sql: &str, what: &str| {
        let path = dir.path().join("store.db");
        fs::write(&path, &entries(&sound)[2].1).unwrap();
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let contents = fs::read(&path).unwrap();
        let swapped = forged(&sound, |manifest, files| {
            manifest["Entries"][0]["Size"] = json!(contents.len());
            manifest["Entries"][0]["Sha256"] = json!(hex(&contents));
            files[0].1 = contents;
        });
        tries(&swapped, what);
    };
    database("PRAGMA user_version = 99", "schema 99");
    database("PRAGMA user_version = 0", "a database, but not one of hyperfunc");
    database("DELETE FROM functions", "of f, which is not there");
    database("CREATE TRIGGER t AFTER DELETE ON functions BEGIN DELETE FROM images; END", "has triggers, views");
    database("CREATE VIEW v AS SELECT 1", "has triggers, views");
    database("CREATE VIRTUAL TABLE v USING fts5 (x)", "or virtual tables");
    let endless = "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT * FROM n";
    database(&format!("DROP TABLE functions; CREATE VIEW functions AS {endless}"), "has triggers, views");
}

#[test]
fn one_that_was_broken_off_is_seen_and_can_be_run_again() {
    let (dir, file) = backup();
    let sound = fs::read(&file).unwrap();
    let data = dir.path().join("data");
    let mut child = on(&data, &["restore", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&sound[..sound.len() - 1024]).unwrap();
    eventually("it is nearly done", || data.join("restoring/keys/artifacts").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!data.join("hyperfunc.db").exists());
    let refusal = Server::try_on(&data, &[]).err().expect("a refusal");
    assert!(refusal.contains("a restore into it was broken off: run it again"), "{refusal}");
    assert!(!data.join("hyperfunc.db").exists());
    // Killed a moment later: all but the store was moved.
    fs::rename(data.join("restoring/modules"), data.join("modules")).unwrap();
    assert!(Server::try_on(&data, &[]).is_err());
    restores(&file, &data);
    // And again: all was moved, but not tidied up.
    fs::create_dir(data.join("restoring")).unwrap();
    let server = Server::on(&data, &[]);
    assert_eq!(server.get("/funcs").json().as_array().unwrap().len(), 1);
    assert!(!data.join("restoring").exists());
}

#[test]
fn a_backup_of_an_older_store_is_taken_over_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let [old, file, data] = ["old", "b", "data"].map(|name| dir.path().join(name));
    fs::create_dir(&old).unwrap();
    let sql = rusqlite::Connection::open(old.join("hyperfunc.db")).unwrap();
    sql.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL").unwrap();
    sql.execute_batch(include_str!("../../src/store/sqlite/schema/1.sql")).unwrap();
    sql.pragma_update(None, "user_version", 1).unwrap();
    let said = printed(run_on(&old, &["backup", text(&file)]));
    assert!(said.contains(": 0 functions, 0 images, 0 queued calls, 0 results, "), "{said}");
    printed(run_on(&data, &["restore", text(&file)]));
    assert!(!data.join("hyperfunc.db.v1").exists());
    let server = Server::on(&data, &[]);
    assert!(data.join("hyperfunc.db.v1").exists());
    server.function("f", &guests::prints("fine"), json!({}));
}
