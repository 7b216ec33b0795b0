//! `backup`: one file that holds all that was accepted (`docs/api.md` section 8).

use crate::harness::alone::{on, run_on};
use crate::harness::calls::{A_YEAR, Accepted, Tally, asynchronous};
use crate::harness::guests::{self, Stamped};
use crate::harness::program::{ended, failed, printed};
use crate::harness::{Request, Server, address, binary, eventually};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tempfile::TempDir;

/// A server with a function `f`, and a place for backups of it.
fn with_one() -> (Server, TempDir) {
    let server = Server::start();
    server.function("f", &guests::prints("fine"), json!({}));
    (server, tempfile::tempdir().unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a backup.
#[track_caller]
fn back_up(data: &Path, file: &Path) -> String {
    printed(run_on(data, &["backup", text(file)]))
}

/// Makes a data directory of it, and starts a server there.
#[track_caller]
fn restored(file: &Path, data: &Path, arguments: &[&str]) -> Server {
    printed(run_on(data, &["restore", text(file)]));
    Server::on(data, arguments)
}

/// What is in a backup, as any program sees it.
fn entries(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(file).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), contents)
    });
    entries.collect()
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Makes calls, one after the other, until it is told to stop; each is its own body.
fn make_calls(server: &Server, target: &str, accepted: &AtomicBool, stop: &AtomicBool) -> Vec<(Accepted, String)> {
    let mut calls = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let body = format!("call {}", calls.len());
        calls.push((server.accept(target, body.as_str()), body));
        accepted.store(calls.len() >= 20, Ordering::Relaxed);
    }
    calls
}

#[test]
fn all_that_was_accepted_before_it_began_goes_on_elsewhere() {
    let server = Server::with(&["--max-running", "2"]);
    // It blocks those behind it; where it is started again, it does not.
    let waits = server.function("waits", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 1, "Fuel": 1_000_000_000}));
    let runs = server.accept_and_run(&waits);
    server.load("waits", &guests::stamps(0));
    let waiting: Vec<_> = (0..40).map(|number| server.accept(&waits, number.to_string())).collect();
    let keyed = |server: &Server| {
        let call = server.request("POST", asynchronous(&waits)).header("Idempotency-Key", "k").body("keyed").send();
        Accepted::of(&waits, call)
    };
    let key = keyed(&server);
    let fails = server.function("fails", &guests::fails(3, "no luck"), json!({"Config": {"Labels": {"team": "x"}}}));
    let failed = server.accept(&fails, "");
    server.wait_for_tally(&fails, Tally { failed: 1, ..Tally::default() });
    server.load("unused:1.0", &guests::prints("unused"));
    let echo = server.function("echo", &guests::cat(), json!({}));
    let (funcs, images) = (server.get("/funcs").json(), server.get("/images/json").json());

    let dir = tempfile::tempdir().unwrap();
    let (accepted, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let file = dir.path().join("b.tar");
    let (calls, first, said) = thread::scope(|scope| {
        let load = scope.spawn(|| make_calls(&server, &echo, &accepted, &stop));
        eventually("calls are made", || accepted.load(Ordering::Relaxed));
        let first = server.list(&echo).len();
        let backup = run_on(&server.data, &["backup", text(&file)]);
        stop.store(true, Ordering::Relaxed);
        (load.join().unwrap(), first, printed(backup))
    });
    assert!(said.starts_with(&format!("{}: 3 functions, 4 images, ", text(&file))), "{said}");
    let queued = said.split(", ").nth(2).unwrap().strip_suffix(" queued calls").unwrap();
    assert!(queued.parse::<usize>().unwrap() >= 42, "{said}");
    assert!(first >= 20);

    let elsewhere = restored(&file, &dir.path().join("elsewhere"), &["--max-running", "1"]);
    assert_eq!(elsewhere.get("/funcs").json(), funcs);
    assert_eq!(elsewhere.get("/images/json").json(), images);
    assert_eq!(keyed(&elsewhere).id, key.id);
    let get = |target: &str| Request::new(elsewhere.functions, "GET", target).send();
    // The one that ran is one whose start was lost.
    let again = Stamped::of(&get(&runs.wait()).expect(200).body);
    assert_eq!(again.attempt, 2);
    let mut last = again.at;
    for (number, call) in waiting.iter().enumerate() {
        let found = Stamped::of(&get(&call.wait()).expect(200).body);
        assert_eq!((found.body.as_str(), found.attempt), (number.to_string().as_str(), 1));
        assert!(found.at > last, "{number} came too early");
        last = found.at;
    }
    assert_eq!(Stamped::of(&get(&key.wait()).expect(200).body).body, "keyed");
    assert_eq!(get(&format!("{}/stderr", failed.output)).expect(200).text(), "no luck");
    assert_eq!(get(&failed.output).expect(500).text(), "exit status 3: no luck\n");
    let mut were_there = true;
    for (number, (call, body)) in calls.iter().enumerate() {
        let reply = get(&call.wait());
        let is_there = reply.status == 200;
        assert!(is_there || (number >= first && reply.status == 404), "call {number} of {first}: {reply:?}");
        assert!(!is_there || reply.text() == *body);
        assert!(were_there || !is_there, "call {number} is there, and one before it is not");
        were_there = is_there;
    }
}

#[test]
fn keys_are_in_it_only_if_they_are_asked_for() {
    let (server, dir) = with_one();
    let (without, with) = (dir.path().join("without"), dir.path().join("with"));
    let key = fs::read(server.data.join("keys/artifacts")).unwrap();
    back_up(&server.data, &without);
    printed(run_on(&server.data, &["backup", "--with-keys", text(&with)]));
    let modules = names(&server.data.join("modules")).into_iter().map(|name| format!("modules/{name}"));
    let expected: Vec<String> =
        ["hyperfunc.db", "manifest.json", "manifest.sha256"].map(str::to_owned).into_iter().chain(modules).collect();
    assert_eq!(entries(&without).into_keys().collect::<Vec<_>>(), expected);
    let found = entries(&with);
    assert_eq!((found.len(), found.get("keys/artifacts")), (expected.len() + 1, Some(&key)));
    // Whoever may read it may call all functions.
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&with), 0o600);

    // What is none stays where it is, and is named.
    let foreign = server.data.join("keys/foreign");
    for make in
        [|path: &Path| fs::write(path, [0; 65 << 10]), |path: &Path| std::os::unix::fs::symlink("/etc/passwd", path)]
    {
        make(&foreign).unwrap();
        let (_, said) = failed(run_on(&server.data, &["backup", "--with-keys", text(&dir.path().join("none"))]));
        assert!(said.contains("keys/foreign: is no key"), "{said}");
        fs::remove_file(&foreign).unwrap();
    }

    let [without, with] = [(without, "a"), (with, "b")].map(|(file, data)| {
        let server = restored(&file, &dir.path().join(data), &[]);
        let function = server.get("/funcs/f").json();
        assert_eq!(server.call(&address(&function), "").expect(200).text(), "fine");
        for (path, expected) in [("", 0o700), ("modules", 0o700), ("keys", 0o700), ("hyperfunc.db", 0o600)] {
            assert_eq!(mode(&server.data.join(path)), expected, "{path}");
        }
        fs::read(server.data.join("keys/artifacts")).unwrap()
    });
    assert!(with == key && without != key);
}

#[test]
fn it_holds_what_a_killed_server_has_left() {
    let (mut server, dir) = with_one();
    let target = server.function("g", &guests::sleeps_before_attempt(2), json!({}));
    let call = server.accept_and_run(&target);
    server.kill();
    assert!(fs::metadata(server.data.join("hyperfunc.db-wal")).unwrap().len() > 0);
    let said = back_up(&server.data, &dir.path().join("b"));
    assert!(said.contains(": 2 functions, 2 images, 1 queued call, 0 results, "), "{said}");
    let elsewhere = restored(&dir.path().join("b"), &dir.path().join("data"), &[]);
    assert_eq!(elsewhere.wait(&target, &call.id).expect(200).text(), "2");
    // Nothing has happened to the original.
    assert_eq!(server.restart(&[]).wait(&target, &call.id).expect(200).text(), "2");
}

#[test]
fn a_result_that_was_read_is_not_in_it() {
    let (server, dir) = with_one();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let secret = "a secret that was read ".repeat(40);
    let read = server.accept(&cat, secret.as_str());
    assert_eq!(server.get(&read.wait()).expect(200).text(), secret);
    server.wait_for_tally(&cat, Tally::default());
    back_up(&server.data, &dir.path().join("b"));
    let backup = fs::read(dir.path().join("b")).unwrap();
    assert!(!backup.windows(22).any(|window| window == b"a secret that was read"));
    let elsewhere = restored(&dir.path().join("b"), &dir.path().join("data"), &[]);
    elsewhere.output(&cat, &read.id).expect(404);
}

#[test]
fn images_may_come_and_go_meanwhile() {
    let (server, dir) = with_one();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                server.load("comes", &guests::prints(&number.to_string()));
                server.request("DELETE", "/images/comes").send().expect(200);
                number += 1;
            }
            number
        });
        let done: Vec<_> = (0..20)
            .map(|number| {
                let file = dir.path().join(format!("{number}.tar"));
                let backup = run_on(&server.data, &["backup", text(&file)]);
                (backup, run_on(&dir.path().join(number.to_string()), &["restore", text(&file)]))
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert!(changing.join().unwrap() > 3);
        for said in done.into_iter().flat_map(|(backup, restore)| [printed(backup), printed(restore)]) {
            assert!(said.contains(": 1 function, 1 image, ") || said.contains(": 1 function, 2 images, "), "{said}");
        }
    });
}

#[test]
fn the_data_directory_is_found_as_the_server_finds_it() {
    let (server, dir) = with_one();
    let settings = dir.path().join("settings.toml");
    fs::write(&settings, format!("data = {:?}\nmax-running = 3\n", text(&server.data))).unwrap();
    let xdg = dir.path().join("xdg");
    fs::create_dir(&xdg).unwrap();
    std::os::unix::fs::symlink(&server.data, xdg.join("hyperfunc")).unwrap();
    type Way<'a> = (&'a str, &'a [(&'a str, &'a Path)], &'a [&'a str]);
    let ways: [Way; 5] = [
        ("flag", &[("HYPERFUNC_DATA", Path::new("/nowhere"))], &["--data", text(&server.data)]),
        ("variable", &[("HYPERFUNC_DATA", &server.data)], &[]),
        ("settings", &[], &["--config", text(&settings)]),
        ("settings by a variable", &[("HYPERFUNC_CONFIG", &settings), ("XDG_DATA_HOME", Path::new("/nowhere"))], &[]),
        ("default", &[("XDG_DATA_HOME", &xdg)], &[]),
    ];
    for (way, variables, arguments) in ways {
        let mut program = binary();
        program.arg("backup").args(arguments).arg(dir.path().join(way)).envs(variables.iter().copied());
        let child = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(printed(ended(child)).contains(": 1 function, 1 image, "), "{way}");
    }
}

#[test]
fn programs_read_what_was_written_as_json() {
    let (server, dir) = with_one();
    let file = dir.path().join("b");
    let said: Value = serde_json::from_str(&printed(run_on(&server.data, &["backup", "--json", text(&file)]))).unwrap();
    let data = dir.path().join("data");
    let restored: Value = serde_json::from_str(&printed(run_on(&data, &["restore", "--json", text(&file)]))).unwrap();
    let created = said["Created"].as_str().unwrap();
    let bytes = fs::metadata(&file).unwrap().len();
    let expected = |key: &str, path: &Path| json!({key: text(path), "Created": created, "Functions": 1, "Images": 1, "Queued": 0, "Results": 0, "Bytes": bytes});
    assert!(created.ends_with('Z'), "{created}");
    assert_eq!((said.clone(), restored), (expected("File", &file), expected("Data", &data)));
    let manifest: Value = serde_json::from_slice(&entries(&file)["manifest.json"]).unwrap();
    assert_eq!((&manifest["Format"], &manifest["Created"]), (&json!(1), &json!(created)));
}

#[test]
fn it_goes_through_a_pipe() {
    let (server, dir) = with_one();
    let mut writing = on(&server.data, &["backup", "-"]).spawn().unwrap();
    let mut reading = on(&dir.path().join("data"), &["restore", "-"]);
    let reading = reading.stdin(writing.stdout.take().unwrap()).spawn().unwrap();
    assert!(printed(ended(reading)).contains(": 1 function, 1 image, "));
    let written = ended(writing);
    let said = String::from_utf8(written.stderr).unwrap();
    assert!(written.status.success() && said.starts_with("stdout: 1 function, "), "{said}");
    let elsewhere = Server::on(&dir.path().join("data"), &[]);
    assert_eq!(elsewhere.get("/funcs").json(), server.get("/funcs").json());

    let mut full = on(&server.data, &["backup", "-"]);
    let full = full.stdout(File::options().write(true).open("/dev/full").unwrap()).spawn().unwrap();
    assert_eq!(failed(ended(full)), (1, "hyperfunc: stdout: the disk is full\n".to_owned()));
}

#[test]
fn a_file_that_is_there_is_kept() {
    let (server, dir) = with_one();
    let file = dir.path().join("b");
    fs::write(&file, "precious").unwrap();
    let (status, said) = failed(run_on(&server.data, &["backup", text(&file)]));
    assert!(status == 1 && said.contains("is there already; --force replaces it"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    printed(run_on(&server.data, &["backup", "--force", text(&file)]));
    assert!(entries(&file).contains_key("hyperfunc.db"));

    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for other in [&link, &dir.path().to_owned(), &PathBuf::from("/dev/null")] {
        let (status, said) = failed(run_on(&server.data, &["backup", "--force", text(other)]));
        assert!(status == 1 && said.contains("is no file"), "{said}");
    }
    assert_eq!(names(dir.path()), ["b", "link"]);
}

#[test]
fn one_that_was_broken_off_makes_way_and_one_that_is_at_work_does_not() {
    let (server, dir) = with_one();
    let file = dir.path().join("b");
    let left = ["b.partial", "b.partial.db", "b.partial.db-journal"];
    for left in left {
        fs::write(dir.path().join(left), "left by one that was killed".repeat(100_000)).unwrap();
    }
    let at_work = File::open(dir.path().join("b.partial")).unwrap();
    flock(&at_work, FlockOperation::NonBlockingLockExclusive).unwrap();
    let (status, said) = failed(run_on(&server.data, &["backup", text(&file)]));
    assert!(status == 1 && said.contains("another backup is being written to it"), "{said}");
    assert_eq!(names(dir.path()), left);
    drop(at_work);
    back_up(&server.data, &file);
    assert_eq!(names(dir.path()), ["b"]);
    assert_eq!(fs::metadata(&file).unwrap().len() % 512, 0);
    restored(&file, &dir.path().join("data"), &[]);
}

#[test]
fn without_room_there_is_no_file() {
    let (server, dir) = with_one();
    let cat = server.function("cat", &guests::cat(), json!({}));
    // More than SQLite holds in memory while it copies.
    for _ in 0..6 {
        let call = server.accept(&cat, vec![b'x'; 1_000_000]);
        server.ended_call(&call).expect(200);
    }
    let with_room = |kilobytes: u32| {
        // No file may be larger, which to a program is much as if there were no room.
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kilobytes * 2);
        let backup = on(&server.data, &["backup", text(&dir.path().join("b"))]);
        let mut limited = Command::new("sh");
        limited.args(["-c", &limit, "sh"]).arg(backup.get_program()).args(backup.get_args());
        ended(limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    // For a little of the copy, most of it, and nearly all of the backup.
    for kilobytes in [4, 32, 3_000, 5_700, 5_880] {
        let (status, said) = failed(with_room(kilobytes));
        assert!(status == 1 && said.lines().count() == 1, "{kilobytes} KB: {said}");
        assert_eq!(names(dir.path()), Vec::<String>::new(), "{kilobytes} KB");
    }
    printed(with_room(100_000));
    assert_eq!(names(dir.path()), ["b"]);
}

#[test]
fn what_is_damaged_or_not_there_is_named_and_no_file_appears() {
    let (mut server, dir) = with_one();
    server.kill();
    // What the log beside the file holds is folded into it.
    let mut server = server.restart(&[]);
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().success());
    let refused = |what: &str| {
        let (status, said) = failed(run_on(&server.data, &["backup", text(&dir.path().join("b"))]));
        assert!(status == 1 && said.contains(what) && said.lines().count() == 1, "{what}: {said}");
        assert_eq!(names(dir.path()), Vec::<String>::new());
    };
    let module = server.data.join("modules").join(&names(&server.data.join("modules"))[0]);
    let sound = fs::read(&module).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for damaged in [&flipped[..], &sound[..sound.len() - 1], &[&sound[..], b"x"].concat(), b""] {
        fs::write(&module, damaged).unwrap();
        refused(&format!("{}: the module is corrupt", text(&module)));
    }
    fs::remove_file(&module).unwrap();
    refused(&format!("{}: an image names this module, and it is not there", text(&module)));
    fs::write(&module, &sound).unwrap();

    let database = server.data.join("hyperfunc.db");
    let sound = fs::read(&database).unwrap();
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&database, newer).unwrap();
    refused("schema 99");
    let mut damaged = sound.clone();
    damaged[4096..].fill(0xa5);
    fs::write(&database, damaged).unwrap();
    refused(text(&database));
    fs::write(&database, "no database at all, but long enough to be one".repeat(100)).unwrap();
    refused(text(&database));
    fs::remove_file(&database).unwrap();
    refused("is no data directory of hyperfunc: it has no hyperfunc.db");
    fs::write(&database, sound).unwrap();
    back_up(&server.data, &dir.path().join("b"));
}

#[test]
fn wrong_arguments_are_told() {
    let (server, dir) = with_one();
    let missing = dir.path().join("not/there");
    let no_settings = ["backup", "--config", text(&missing), "b"];
    for arguments in [&["backup"][..], &["backup", "a", "b"], &["restore"], &["restore", "--force", "a"], &no_settings]
    {
        assert_eq!(failed(run_on(&server.data, arguments)).0, 2, "{arguments:?}");
    }
    let told = |data: &Path, arguments: &[&str], what: &str| {
        let (status, said) = failed(run_on(data, arguments));
        assert!(status == 1 && said.contains(what), "{what}: {said}");
    };
    told(&missing, &["backup", text(&dir.path().join("b"))], "is no data directory of hyperfunc");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    told(&file, &["backup", text(&dir.path().join("b"))], "is no data directory of hyperfunc");
    told(&server.data, &["backup", text(&missing)], "not/there");
    told(&server.data, &["backup", "/"], "is no file");
    told(&file, &["restore", text(&missing)], "not/there");
    assert_eq!(names(dir.path()), ["file"]);
}
