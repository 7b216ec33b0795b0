//! What was answered survives the loss of power (`docs/api.md` section 5): the system calls of a server are traced, and
//! what a disk may be left with at any of them is handed to another server. A kill shows less: the kernel outlives it,
//! and writes what was never synced.

mod disk;

use crate::harness::calls::output;
use crate::harness::{Connection, Request, Server, address, binary, eventually, guests};
use disk::{Call, Dice, Disk, Unsynced};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

/// How often the power is lost.
const LOSSES: usize = 40;
const CLIENTS: usize = 3;
/// Of each client: with their bodies and outputs, more than the log beside the database holds.
const CALLS: usize = 9;
const BODY: usize = 100_000;

/// The program under a tracer that writes to a file what it does to files and sends over sockets.
fn traced(file: &Path) -> Option<Command> {
    let may = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no strace that may trace");
        return None;
    }
    const CALLS: &str = "trace=openat,rename,renameat,renameat2,unlink,unlinkat,write,writev,pwrite64,sendto,sendmsg,\
        fsync,fdatasync,ftruncate";
    let (program, mut traced) = (binary(), Command::new("strace"));
    // Its tracer is a process beside it, not above it.
    traced.args(["-D", "-f", "-y", "-q", "-xx", "-s", "16777216", "-e", CALLS, "-e", "signal=kill", "-o"]);
    traced.arg(file).arg(program.get_program());
    for (name, _) in program.get_envs() {
        traced.env_remove(name);
    }
    Some(traced)
}

/// What a server was asked for, and has answered.
#[derive(Default)]
struct Played {
    /// By the name of the function and its image, what it answers to whoever inspects it.
    functions: HashMap<String, Value>,
    /// By its id, where a call was made and what it was given.
    calls: HashMap<String, (String, Vec<u8>)>,
}

fn play(server: &Server) -> Played {
    let mut played = Played::default();
    let target = server.function("cat", &guests::cat(), json!({}));
    thread::scope(|scope| {
        let target = &target;
        let calling = move |client: usize| {
            let mut connection = Connection::open(server.functions);
            let calls = (0..CALLS).map(move |call| {
                let body: Vec<u8> = (0..BODY).map(|at| ((at / 7) ^ (client * CALLS + call)) as u8).collect();
                let id = connection.try_enqueue(server, target, &body).unwrap();
                (id, (target.clone(), body))
            });
            calls.collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || calling(client))).collect();
        for number in 0..4 {
            let name = format!("named-{number}");
            server.load(&name, &guests::prints(&name));
            let function = server.create(&json!({"Name": name, "Config": {"Image": name}}));
            played.functions.insert(name, function);
        }
        played.calls.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    });
    played
}

impl Played {
    /// Checks that a server has all that was answered.
    fn check(&self, server: &Server, answers: &str, what: &str) -> usize {
        let mut answered = 0;
        for (name, function) in &self.functions {
            let is_loaded = answers.contains(&format!("{name}:latest has been loaded"));
            let image = server.get(&format!("/images/{name}/json"));
            assert!(image.status == 200 || !is_loaded, "{what}: {name} is lost");
            let is_created = answers.contains(&format!(r#"{{"Name":"{name}""#));
            if is_created {
                assert_eq!(server.get(&format!("/funcs/{name}")).expect(200).json(), *function, "{what}");
                assert_eq!(server.call(&address(function), "").expect(200).text(), name, "{what}");
            }
            answered += usize::from(is_loaded) + usize::from(is_created);
        }
        for (id, (target, body)) in self.calls.iter().filter(|(id, _)| answers.contains(id.as_str())) {
            let found = Request::new(server.functions, "GET", &format!("{}/wait", output(target, id))).send();
            assert_eq!(found.status, 200, "{what}: {id}: {}", String::from_utf8_lossy(&found.body));
            assert!(found.body == *body, "{what}: {id} has other bytes");
            answered += 1;
        }
        answered
    }
}

/// Writes files below a new directory, as it was before.
fn lay_out(files: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>, data: &Path) {
    for dir in ["", "modules", "artifacts", "uploads", "keys"] {
        fs::create_dir_all(data.join(dir)).unwrap();
    }
    for (path, bytes) in files {
        fs::write(data.join(path), bytes).unwrap();
    }
}

#[test]
fn what_was_answered_survives_the_loss_of_power() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("trace"));
    let Some(traced) = traced(&file) else { return };
    let mut server = Server::try_as(traced, &data, &["--max-running", "2"]).unwrap();
    let played = play(&server);
    let pid = server.pid();
    server.kill();
    let read = || String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    let is_end = |line: &str| line.starts_with(&format!("{pid} ")) && line.ends_with("+++ killed by SIGKILL +++");
    eventually("the end of the trace", || read().lines().any(is_end));
    let trace = read();
    let mut calls = Call::all(&trace);
    calls.sort_by_key(|call| call.ended);
    let sent: Vec<_> = calls.iter().filter_map(|call| Some((call.begun, call.sent()?))).collect();
    assert!(sent.len() >= played.calls.len(), "the answers are not in the trace");

    let (lines, mut most) = (trace.lines().count(), 0);
    for loss in 0..LOSSES {
        let mut dice = Dice::new(loss as u64 + 1);
        // Every other time just when an answer goes out, and all is lost that may be.
        let (at, unsynced) = match loss % 2 {
            0 => (sent[sent.len() * (loss + 2) / (LOSSES + 2)].0 + 1, Unsynced::Lost),
            _ => (dice.below(lines), Unsynced::Chance),
        };
        let mut disk = Disk::new(&data);
        calls.iter().filter(|call| call.ended < at).for_each(|call| disk.take(call));
        let answers: String = sent.iter().filter(|(begun, _)| *begun < at).map(|(_, sent)| sent.as_str()).collect();
        let after = dir.path().join("after");
        lay_out(&disk.after_loss(unsynced, &mut dice), &after);
        let what = format!("loss {loss}, {unsynced:?}, line {at} of {lines}");
        let server = Server::try_on(&after, &[]).unwrap_or_else(|log| panic!("{what}: {log}"));
        most = most.max(played.check(&server, &answers, &what));
        drop(server);
        fs::remove_dir_all(&after).unwrap();
    }
    assert!(most > played.calls.len(), "nothing was answered before: {most}");
}
