//! A disk that is full: what is new is refused, nothing is lost, and deleting makes room (`docs/api.md` section 5).

use crate::harness::calls::{Accepted, Tally};
use crate::harness::{Server, address, eventually, guests};
use rustix::process::Signal;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const MB: usize = 1 << 20;
const FULL: &str = "the disk is full\n";

/// A file system of its own, in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, and says so, where nothing may be mounted.
    fn of(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("skipped: no file system can be mounted here");
        None
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Leaves no room to anybody.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("of-others");
        let mut file = File::create(&path).unwrap();
        let block = vec![1; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that was killed a moment ago may still hold a file.
        for _ in 0..100 {
            if Command::new("umount").arg(self.0.path()).status().is_ok_and(|umount| umount.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// A server that runs one call at a time, and is busy with one for ever.
fn busy_server(disk: &SmallDisk) -> (Server, Accepted) {
    let server = Server::on(&disk.data(), &["--max-running", "1"]);
    let blocker = server.block();
    (server, blocker)
}

/// Accepts calls of a function until the disk is full.
fn accept_until_full(server: &Server, target: &str) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    loop {
        let body = vec![b'a' + u8::try_from(accepted.len() % 26).unwrap(); MB];
        let asynchronous = target.strip_suffix("/sync").unwrap();
        let reply = server.call(asynchronous, body);
        if reply.status == 503 {
            assert_eq!((reply.text(), reply.header("retry-after")), (FULL, Some("1")));
            return accepted;
        }
        accepted.push(Accepted::of(target, reply));
        assert!(accepted.len() < 200, "no end of the disk");
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

#[test]
fn what_is_new_is_refused_and_nothing_is_lost() {
    for megabytes in [8, 32, 64] {
        let Some(disk) = SmallDisk::of(megabytes) else { return };
        let (server, blocker) = busy_server(&disk);
        let target = server.function("cat", &guests::cat(), json!({}));
        let accepted = accept_until_full(&server, &target);
        assert!(!accepted.is_empty());
        let waits = Tally { pending: accepted.len() as u64, ..Tally::default() };
        assert_eq!(server.tally(&target), waits);
        // All that changes something is refused alike, and what only asks is not.
        let function = json!({"Name": "more", "Config": {"Image": "cat", "Labels": {"x": "x".repeat(500_000)}}});
        assert_eq!(server.try_create(&function).expect(503).text(), FULL);
        server.get("/funcs/more").expect(404);
        server.get("/funcs/cat").expect(200);
        server.get("/version").expect(200);

        // Whoever kills it now loses nothing either.
        let server = server.kill_and_restart_with(&["--max-running", "1"]);
        assert_eq!(server.tally(&target), waits);
        // Deleting works, one call after another, and then all of them run.
        let (dropped, kept) = accepted.split_at(accepted.len() / 2 + 1);
        for call in dropped {
            server.cancel(call);
        }
        server.cancel(&blocker);
        for (number, call) in (dropped.len()..).zip(kept) {
            let letter = b'a' + u8::try_from(number % 26).unwrap();
            let reply = server.get(&call.wait()).expect(200);
            assert!(
                reply.body.len() == MB && reply.body.iter().all(|byte| *byte == letter),
                "{megabytes} MB: {number}"
            );
        }
        server.wait_for_tally(&target, Tally::default());
        let again = server.accept(&target, "again");
        assert_eq!(server.get(&again.wait()).expect(200).text(), "again");
    }
}

#[test]
fn whatever_is_deleted_makes_room() {
    let Some(disk) = SmallDisk::of(32) else { return };
    let (server, _blocker) = busy_server(&disk);
    let mut target = server.function("cat", &guests::cat(), json!({}));
    let other = server.function("other", &guests::cat(), json!({}));
    let ballast = disk.data().join("hyperfunc.ballast");
    let before = size(&ballast);
    assert_eq!(before, 8 * MB as u64);
    for _ in 0..3 {
        let accepted = accept_until_full(&server, &target);
        assert!(accepted.len() > 5, "{}", accepted.len());
        server.request("DELETE", "/funcs/cat").send().expect(204);
        // At once: nothing has to be waited for.
        let waits = server.accept(&other, vec![b'x'; MB]);
        server.cancel(&waits);
        assert_eq!(size(&ballast), before, "the next deletion has room too");
        target = address(&server.create(&json!({"Name": "cat", "Config": {"Image": "cat"}})));
    }
}

#[test]
fn many_who_fill_the_disk_at_once_leave_room_for_deleting() {
    let Some(disk) = SmallDisk::of(32) else { return };
    let (server, _blocker) = busy_server(&disk);
    let target = server.function("cat", &guests::cat(), json!({}));
    let ballast = disk.data().join("hyperfunc.ballast");
    let before = size(&ballast);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        server.call(target.strip_suffix("/sync").unwrap(), vec![b'x'; MB]);
                    }
                });
            }
        });
        assert_eq!(size(&ballast), before);
        let waiting = server.list(&target);
        assert!(waiting.len() > 5, "{}", waiting.len());
        for call in waiting.iter().take(3) {
            let output = crate::harness::calls::output(&target, call["CallId"].as_str().unwrap());
            server.request("DELETE", &output).send().expect(204);
        }
    }
}

#[test]
fn a_result_waits_in_memory_until_there_is_room() {
    let Some(disk) = SmallDisk::of(32) else { return };
    let mut server = Server::on(&disk.data(), &["--drain", "1"]);
    let target = server.function("late", &guests::sleeps(300_000_000), json!({}));
    let call = server.accept_and_run(&target);
    let sync = server.function("cat", &guests::cat(), json!({}));
    let others = disk.fill();
    eventually("it is told", || server.log().contains("calls cannot go on"));
    server.get(&call.output).expect(201);
    // What leaves no trace goes on.
    assert_eq!(server.call(&sync, "x").expect(200).text(), "x");
    fs::remove_file(&others).unwrap();
    assert_eq!(server.get(&call.wait()).expect(200).text(), "woke");

    // A server that is told to end meanwhile ends, and its successor runs the call again.
    let call = server.accept_and_run(&target);
    let others = disk.fill();
    eventually("it is told", || server.log().matches("calls cannot go on").count() > 1);
    server.signal(Signal::TERM);
    assert!(server.ended().success());
    fs::remove_file(&others).unwrap();
    let server = server.restart(&[]);
    assert_eq!(server.get(&call.wait()).expect(200).text(), "woke");
}

#[test]
fn an_image_that_finds_no_room_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::of(16) else { return };
    let server = Server::on(&disk.data(), &[]);
    server.load("small", &guests::prints("x"));
    let mut large = wat::parse_str(guests::prints("x")).unwrap();
    // A custom section of 14 MB.
    let bytes = 14 * MB as u32;
    large.push(0);
    let mut length = bytes + 2;
    while length >= 0x80 {
        large.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    large.push(length as u8);
    large.extend([1, b'x']);
    large.resize(large.len() + bytes as usize, 0);
    assert_eq!(server.try_load("large", &large).expect(503).text(), FULL);
    server.get("/images/large/json").expect(404);
    assert_eq!(fs::read_dir(disk.data().join("uploads")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(disk.data().join("modules")).unwrap().count(), 1);
    server.request("DELETE", "/images/small").send().expect(200);
    server.load("small", &guests::prints("x"));
}
