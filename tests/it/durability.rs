//! What is answered stays, whatever happens to the process or its files (`docs/api.md` section 5).

use crate::harness::{Connection, Server, address, guests};
use hyperfunc::domain::Digest;
use hyperfunc::image::ImageFiles;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What was answered for one function: its creation and, if it came to that, its update.
struct Answered {
    name: String,
    created: Value,
    updated: Option<Value>,
}

#[test]
fn what_was_answered_survives_a_kill_at_any_moment() {
    let mut server = Server::start();
    server.load("image", &guests::prints("kept"));
    let mut expected: Vec<Answered> = Vec::new();
    for round in 0..12 {
        thread::scope(|scope| {
            let server = &server;
            let changing: Vec<_> =
                (0..3).map(|thread| scope.spawn(move || change(server, &format!("f-{round}-{thread}")))).collect();
            thread::sleep(Duration::from_millis(3 + round * 9));
            server.signal(rustix::process::Signal::KILL);
            expected.extend(changing.into_iter().flat_map(|thread| thread.join().unwrap()));
        });
        server = server.kill_and_restart();
        for Answered { name, created, updated } in &expected {
            let found = server.get(&format!("/funcs/{name}")).expect(200).json();
            match updated {
                Some(updated) => assert_eq!(found, *updated),
                // An update without an answer has happened or not.
                None => assert!(found == *created || found["ContainerSize"] == "s1", "{found}"),
            }
        }
    }
    assert!(expected.len() > 12, "killed before anything was done: {}", expected.len());
    let function = server.get(&format!("/funcs/{}", expected[0].name)).json();
    assert_eq!(server.call(&address(&function), "").text(), "kept");
}

/// Creates functions and updates each, until the server is gone.
fn change(server: &Server, prefix: &str) -> Vec<Answered> {
    let ask = |method: &str, target: &str, body: Value| {
        let mut connection = Connection::try_open(server.address)?;
        connection.send(&server.request(method, target).json(&body));
        connection.try_reply().filter(|reply| reply.status < 300).map(|reply| reply.json())
    };
    let mut answered = Vec::new();
    loop {
        let name = format!("{prefix}-{}", answered.len());
        let function = json!({"Name": name, "Config": {"Image": "image"}});
        let Some(created) = ask("POST", "/funcs/create", function) else { return answered };
        let change = json!({"ContainerSize": "s1", "Refresh": true});
        let updated = ask("PUT", &format!("/funcs/{name}"), change);
        answered.push(Answered { name, created, updated });
    }
}

#[test]
fn an_image_is_there_whole_or_not_at_all() {
    let mut server = Server::start();
    let mut loaded: Vec<String> = Vec::new();
    for round in 0..8 {
        let names = thread::scope(|scope| {
            let server = &server;
            let loading = scope.spawn(move || {
                let mut names = Vec::new();
                loop {
                    let name = format!("image-{round}-{}", names.len());
                    let wasm = wat::parse_str(guests::prints(&name)).unwrap();
                    let Some(mut connection) = Connection::try_open(server.address) else { return names };
                    let load = server.request("POST", &format!("/images/load?quiet=1&name={name}"));
                    connection.send(&load.header("Content-Type", "application/wasm").body(wasm));
                    let Some(200) = connection.try_reply().map(|reply| reply.status) else { return names };
                    names.push(name);
                }
            });
            thread::sleep(Duration::from_millis(20 + round * 11));
            server.signal(rustix::process::Signal::KILL);
            loading.join().unwrap()
        });
        server = server.kill_and_restart();
        loaded.extend(names);
        assert_eq!(files(&server.data, "uploads"), Vec::<PathBuf>::new());
    }
    // Each that was answered runs; of one that was not, there is a name with its module or nothing.
    let images = server.get("/images/json").json();
    let named = images.as_array().unwrap().len();
    assert!(!loaded.is_empty() && named >= loaded.len());
    assert_eq!(files(&server.data, "modules").len(), named);
    for name in &loaded {
        let function = server.create(&json!({"Name": name, "Config": {"Image": name}}));
        assert_eq!(server.call(&address(&function), "").text(), name);
    }
}

fn files(data: &Path, dir: &str) -> Vec<PathBuf> {
    fs::read_dir(data.join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_damaged_artifact_is_compiled_again_and_a_damaged_module_never_runs() {
    let mut server = Server::start();
    let address = server.function("f", &guests::prints("fine"), json!({}));
    server.kill();
    for artifact in files(&server.data, "artifacts") {
        let mut bytes = fs::read(&artifact).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&artifact, bytes).unwrap();
    }
    let mut server = server.kill_and_restart();
    assert_eq!(server.call(&address, "").expect(200).text(), "fine");

    server.kill();
    files(&server.data, "artifacts").iter().for_each(|artifact| fs::remove_file(artifact).unwrap());
    for module in files(&server.data, "modules") {
        let mut bytes = fs::read(&module).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&module, bytes).unwrap();
    }
    let server = server.kill_and_restart();
    let reply = server.call(&address, "").expect(500);
    assert!(reply.text().starts_with("server error, call "), "{}", reply.text());
    crate::harness::eventually("the log says why", || server.log().contains("the module is corrupt"));
    assert!(!reply.text().contains("modules"), "a path is told");
}

#[test]
fn a_damaged_or_newer_store_is_not_served_from() {
    let mut server = Server::start();
    server.function("f", &guests::prints("fine"), json!({}));
    server.kill();
    let database = server.data.join("hyperfunc.db");
    // What the log beside the file holds is folded into it by whoever opens it first.
    drop(server_that_ends(&server.data));
    let sound = fs::read(&database).unwrap();

    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&database, newer).unwrap();
    let error = Server::try_on(&server.data, &[]).err().expect("a refusal");
    assert!(error.contains("schema 99"), "{error}");

    let mut damaged = sound.clone();
    damaged[4096..].fill(0xa5);
    fs::write(&database, damaged).unwrap();
    let error = Server::try_on(&server.data, &[]).err().expect("a refusal");
    assert!(error.contains("hyperfunc.db"), "{error}");

    fs::write(&database, sound).unwrap();
    let server = Server::on(&server.data, &[]);
    assert_eq!(server.get("/funcs").json().as_array().unwrap().len(), 1);
}

/// Runs a server until it has ended by itself.
fn server_that_ends(data: &Path) -> Server {
    let mut server = Server::on(data, &[]);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    server
}

#[test]
fn a_failed_sync_stops_the_server() {
    let mut server = Server::start();
    server.load("image", &guests::prints("fine"));
    let Some(mut tracing) = fail_syncs(&server, None) else { return };
    let function = json!({"Name": "f", "Config": {"Image": "image"}});
    let mut connection = server.connect();
    connection.send(&server.request("POST", "/funcs/create").json(&function));
    // Whether an answer makes it out before the end is chance; a success would be a lie.
    let reply = connection.try_reply();
    assert!(reply.is_none_or(|reply| reply.status == 500));
    assert_eq!(server.ended().code(), Some(1));
    assert!(server.log().contains("hyperfunc.db"), "{}", server.log());
    let _ = tracing.wait();
}

#[test]
fn a_failed_sync_of_a_module_or_its_directory_stops_the_server() {
    for (only, named) in [(None, "/uploads/"), (Some("modules"), "/modules")] {
        let mut server = Server::start();
        let address = server.function("f", &guests::prints("old"), json!({}));
        let only = only.map(|dir| server.data.join(dir));
        let Some(mut tracing) = fail_syncs(&server, only.as_deref()) else { return };
        let load = server.request("POST", "/images/load?quiet=1&name=f").header("Content-Type", "application/wasm");
        let mut connection = server.connect();
        connection.send(&load.body(wat::parse_str(guests::prints("new")).unwrap()));
        // As above.
        let reply = connection.try_reply();
        assert!(reply.is_none_or(|reply| reply.status == 500), "{named}");
        assert_eq!(server.ended().code(), Some(1), "{named}: {}", server.log());
        let log = server.log();
        let reason = log.lines().find(|line| line.contains("cannot be trusted any more")).unwrap_or_default();
        assert!(reason.contains(named), "{named}: {log}");
        let _ = tracing.wait();
        let server = server.restart(&[]);
        assert_eq!(server.call(&address, "").expect(200).text(), "old", "{named}");
        assert_eq!(files(&server.data, "modules").len(), 1, "{named}");
        assert_eq!(files(&server.data, "uploads"), Vec::<PathBuf>::new(), "{named}");
    }
}

/// Lets the syncs of a server fail from now on, all or those of one file; `None`, and it says why, if that cannot be.
fn fail_syncs(server: &Server, only: Option<&Path>) -> Option<Child> {
    let may = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no strace that may trace");
        return None;
    }
    let mut tracing = Command::new("strace");
    tracing.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]);
    if let Some(only) = only {
        tracing.arg("-P").arg(only);
    }
    let tracing = tracing.arg("-p").arg(server.pid().to_string()).stderr(Stdio::null()).spawn().unwrap();
    crate::harness::eventually("strace traces", || server.status("TracerPid") != 0);
    Some(tracing)
}

#[test]
fn an_artifact_of_another_version_is_compiled_again() {
    let mut server = Server::start();
    let address = server.function("f", &guests::prints("fine"), json!({}));
    server.kill();
    let [artifact] = files(&server.data, "artifacts").try_into().unwrap();
    let name = artifact.file_name().unwrap().to_str().unwrap();
    let (digest, flavour) = name.split_once('.').unwrap();
    let digest = Digest::new(<[u8; 32]>::try_from(unhex(digest)).unwrap());
    // Of the same server, with its seal, but what is in it was written by another version of the engine.
    let images = ImageFiles::open(&server.data, [0; 32]).unwrap();
    let mut other = images.artifact(digest, flavour).unwrap();
    let (_, locked) = include_str!("../../Cargo.lock").split_once("name = \"wasmtime\"\nversion = \"").unwrap();
    let major = locked.split('.').next().unwrap();
    let version = [&[u8::try_from(major.len()).unwrap()], major.as_bytes()].concat();
    let found: Vec<_> = (0..other.len()).filter(|at| other[*at..].starts_with(&version)).collect();
    assert!(!found.is_empty(), "the version is elsewhere in the artifact");
    found.iter().for_each(|at| other[at + 1] = b'0');
    images.keep_artifact(digest, flavour, &other).unwrap();
    let foreign = fs::read(&artifact).unwrap();

    let server = server.restart(&[]);
    assert_eq!(server.call(&address, "").expect(200).text(), "fine");
    assert_ne!(fs::read(&artifact).unwrap(), foreign, "it is still there");
    assert!(server.log().contains("there is no artifact that this version can load"), "{}", server.log());
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// With the feature that the tests of faults are built with, it can.
#[cfg(not(feature = "failpoints"))]
#[test]
fn a_server_cannot_be_broken_by_its_environment() {
    let mut serve = crate::harness::binary();
    let break_all = ["accept.before_commit", "store.before_commit", "call.runs"].map(|place| format!("{place}=panic"));
    serve.env("FAILPOINTS", break_all.join(";")).env("FAILPOINT_CLOCK", "/dev/null");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::try_as(serve, &dir.path().join("data"), &[]).unwrap();
    let target = server.function("f", &guests::prints("fine"), json!({}));
    let call = server.enqueue(&target, "");
    assert_eq!(server.wait(&target, &call).expect(200).text(), "fine");
}
