//! `audit`: whether a data directory keeps what was promised (`docs/api.md` sections 5 and 8).

use crate::harness::calls::Tally;
use crate::harness::{Request, Server, address, binary, eventually, guests};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What it said: exit status, stdout, stderr.
fn audit(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = binary().args(["audit", "--data"]).arg(data).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn is_clean(data: &Path) {
    let (status, stdout, stderr) = audit(data, &[]);
    assert_eq!((status, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("every promise holds"), "{stderr}");
}

/// A server with calls in all states: waiting, running, ended well and badly, rotated out, read, removed, and of a function
/// that is gone.
fn in_all_states() -> Server {
    let server = Server::with(&["--max-running", "2", "--output-cache", "1000"]);
    let (cat, fails) = (server.function("cat", &guests::cat(), json!({})), guests::fails(3, "why"));
    let fails = server.function("fails", &fails, json!({}));
    let gone = server.function("gone", &guests::cat(), json!({}));
    for (target, body) in [(&cat, "x".repeat(600)), (&cat, "y".repeat(600)), (&fails, String::new())] {
        let call = server.accept(target, body);
        eventually("its end", || {
            server.get(&format!("{}?keep=1", call.output)).status >= 400 || server.tally(target).finished == 1
        });
    }
    let read = server.accept(&fails, "");
    server.get(&read.wait()).expect(500);
    let removed = server.accept(&gone, "");
    server.ended_call(&removed);
    server.request("DELETE", "/funcs/gone").send().expect(204);
    let keyed =
        || Request::new(server.functions, "POST", cat.strip_suffix("/sync").unwrap()).header("Idempotency-Key", "k");
    let call = server.accept(&cat, "");
    server.ended_call(&call);
    server.request("DELETE", &call.output).send().expect(204);
    let blockers =
        [server.block(), server.accept_and_run(&server.function("again", &guests::sleeps(u64::MAX >> 2), json!({})))];
    for call in &blockers {
        server.get(&call.output).expect(201);
    }
    keyed().send().expect(200);
    server.accept(&cat, "z".repeat(100_000));
    server
}

#[test]
fn a_server_that_keeps_its_promises_is_found_to_do_so() {
    let mut server = in_all_states();
    is_clean(&server.data);
    let (status, stdout, _) = audit(&server.data, &["--json"]);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status, 0);
    for (key, number) in [
        ("FindingsTotal", 0),
        ("Functions", 4),
        ("Images", 5),
        ("Accepted", 10),
        ("Pending", 2),
        ("Running", 2),
        ("Ended", 2),
        ("Gone", 1),
        ("Taken", 2),
        ("Removed", 1),
        ("LeftOver", 0),
    ] {
        assert_eq!(found[key], number, "{key}: {found}");
    }
    server.kill();
    is_clean(&server.data);
    let mut server = server.restart(&["--drain", "0s"]);
    is_clean(&server.data);
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().success());
    is_clean(&server.data);
}

#[test]
fn a_server_under_load_is_audited_beside_it() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..4)
            .map(|thread| {
                let (server, cat) = (&server, &cat);
                scope.spawn(move || {
                    for number in 0..60 {
                        let call = server.accept(cat, "x");
                        let name = format!("f-{thread}-{number}");
                        server.load(&name, &guests::prints(&name));
                        server.create(&json!({"Name": name, "Config": {"Image": name}}));
                        server.get(&call.wait()).expect(200);
                        server.request("DELETE", &format!("/funcs/{name}")).send().expect(204);
                        server.request("DELETE", &format!("/images/{name}")).send().expect(200);
                    }
                })
            })
            .collect();
        while !working.iter().all(|thread| thread.is_finished()) {
            is_clean(&server.data);
        }
    });
}

#[test]
fn what_is_no_data_directory_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = audit(&dir.path().join("nowhere"), &[]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("nowhere") && stderr.contains("no server was ever here"), "{stderr}");
    let (status, _, stderr) = audit(dir.path(), &["--output-cache", "much"]);
    assert!(status == 2 && stderr.contains("--output-cache"), "{stderr}");
}

/// A stopped server's directory, with calls in all states.
fn stopped() -> (PathBuf, tempfile::TempDir) {
    let mut server = in_all_states();
    server.kill();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    copy(&server.data, &data);
    (data, dir)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if entry.is_dir() {
            copy(&entry, &to.join(name));
        } else if name != "hyperfunc.ballast" {
            fs::copy(&entry, to.join(name)).unwrap();
        }
    }
}

#[test]
fn a_store_that_has_lost_its_end_is_found_out_by_the_logs() {
    let mut server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let first = server.accept(&cat, "first");
    server.ended_call(&first);
    // Folds all of it into the file: what comes then stands in the log of the store alone.
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().success());
    let mut server = server.restart(&[]);
    let lost = server.accept(&cat, "lost");
    server.ended_call(&lost);
    // Until the logs are written.
    server.get(&cat.strip_suffix("/sync").unwrap().replacen("/call/", "/logs/", 1)).expect(200);
    server.kill();
    is_clean(&server.data);
    fs::File::options().write(true).open(server.data.join("hyperfunc.db-wal")).unwrap().set_len(0).unwrap();
    let (status, stdout, _) = audit(&server.data, &[]);
    assert_eq!(status, 1, "{stdout}");
    assert!(stdout.contains(&format!("call {} was accepted at place 2, and the store ends at 1", lost.id)), "{stdout}");

    // Others get its place, and it is found out all the same.
    let server = server.restart(&[]);
    let other = server.accept(&cat, "other");
    server.ended_call(&other);
    let (status, stdout, _) = audit(&server.data, &[]);
    assert!(
        status == 1 && stdout.contains(&format!("{} was accepted at place 2, where the store has", lost.id)),
        "{stdout}"
    );
}

#[test]
fn a_module_that_is_not_what_it_was_is_named() {
    let (data, _dir) = stopped();
    let module = fs::read_dir(data.join("modules")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&module).unwrap();
    let named = |problem: &str| {
        let (status, stdout, _) = audit(&data, &[]);
        let lines: Vec<_> = stdout.lines().collect();
        assert_eq!((status, lines.len()), (1, 1), "{stdout}");
        assert!(stdout.starts_with(&format!("{}: ", module.display())) && stdout.contains(problem), "{stdout}");
    };
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&module, flipped).unwrap();
        named("its sha256 is not its name");
    }
    fs::write(&module, &whole[1..]).unwrap();
    named("bytes, and its image says");
    fs::remove_file(&module).unwrap();
    named("No such file");
    fs::write(&module, whole).unwrap();
    is_clean(&data);

    // What a crash has left over is no broken promise.
    fs::write(data.join("modules").join("ab".repeat(32) + ".wasm"), "x").unwrap();
    let (status, _, stderr) = audit(&data, &[]);
    assert!(status == 0 && stderr.contains("1 file that no image names"), "{stderr}");
}

#[test]
fn what_ended_calls_keep_beyond_the_bound_is_told() {
    let mut server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for _ in 0..3 {
        let call = server.accept(&cat, "x".repeat(500));
        server.ended_call(&call);
    }
    server.kill();
    let (status, stdout, _) = audit(&server.data, &["--output-cache", "1200"]);
    assert_eq!((status, stdout.as_str()), (1, "tallies (cat): 1500 bytes of results, and 1200 may be\n"));
    // A server with that bound keeps to it.
    let server = server.restart(&["--output-cache", "1200", "--output-ttl", "5s"]);
    server.wait_for_tally(&cat, Tally { finished: 2, ..Tally::default() });
    let (status, stdout, _) = audit(&server.data, &["--output-cache", "1200"]);
    assert_eq!((status, stdout.as_str()), (0, ""));
}

/// Whatever bit of the store's file flips: it is found, or it was of no account.
#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let (data, _dir) = stopped();
    let settings = ["--output-cache", "1000"];
    let path = data.join("hyperfunc.db");
    // A server that has to cut calls off may leave the end of its log to the next one.
    let mut before = Vec::new();
    eventually("the log is folded into the file", || {
        let mut server = Server::on(&data, &["--output-cache", "1000", "--max-running", "2", "--drain", "0s"]);
        before = seen(&server);
        server.signal(rustix::process::Signal::TERM);
        assert!(server.ended().success());
        fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len()) == 0
    });
    is_clean(&data);
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut found, mut harmless) = (0, 0);
    for number in 0..120 {
        // All over the file, at another place in each page.
        let at = number * length / 120 + number * 37 % 4096 % (length / 120);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (number % 8)], at).unwrap();
        let (status, stdout, stderr) = audit(&data, &settings);
        if status == 0 {
            harmless += 1;
            assert_eq!(stdout, "", "{stderr}");
        } else {
            found += 1;
        }
        file.write_all_at(&byte, at).unwrap();
    }
    is_clean(&data);
    assert!(found > 10 && harmless < 110, "{found} found, {harmless} of no account");
    let server = Server::on(&data, &["--output-cache", "1000", "--max-running", "2"]);
    assert_eq!(seen(&server), before);
}

/// What a client sees of functions, images and ended calls.
fn seen(server: &Server) -> Vec<Value> {
    let functions = server.get("/funcs").expect(200).json();
    let lists = functions.as_array().unwrap().iter().map(|function| {
        let status = address(function).strip_suffix("/sync").unwrap().replacen("/call/", "/status/", 1);
        let mut list = server.get(&format!("{status}?list=1")).expect(200).json()["List"].take();
        list.as_array_mut().unwrap().retain(|call| call["Status"] == "FINISHED" || call["Status"] == "FAILED");
        list
    });
    let lists: Vec<_> = lists.collect();
    [functions, server.get("/images/json").expect(200).json()].into_iter().chain(lists).collect()
}
