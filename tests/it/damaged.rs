//! Bits that flip on the disk: what they were in is named, and never served (`docs/api.md` section 5).

use crate::harness::{Request, Server, address, eventually, guests};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::path::Path;

const METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

/// Ends a server, and others with these arguments, until all is in the file of the store: one that has to cut calls off may
/// leave the end of its log to the next.
fn end(mut server: Server, arguments: &[&str]) -> Server {
    loop {
        server.signal(Signal::TERM);
        assert!(server.ended().success());
        if fs::metadata(server.data.join("hyperfunc.db-wal")).map_or(0, |log| log.len()) == 0 {
            return server;
        }
        server = server.restart(arguments);
    }
}

/// Flips a bit wherever `marker` stands in the store of a server that has ended.
fn flip(data: &Path, marker: &str) {
    let path = data.join("hyperfunc.db");
    let mut file = fs::read(&path).unwrap();
    let found: Vec<_> =
        file.windows(marker.len()).enumerate().filter(|(_, bytes)| *bytes == marker.as_bytes()).collect();
    let places: Vec<_> = found.into_iter().map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "{marker} is nowhere");
    for at in places {
        file[at] ^= 1;
    }
    fs::write(path, file).unwrap();
}

fn corruptions(server: &Server) -> String {
    let metrics = Request::new(server.metrics.unwrap(), "GET", "/metrics").send().expect(200);
    let line = metrics.text().lines().find(|line| line.starts_with("hyperfunc_corruptions_total ")).unwrap().to_owned();
    line.split_once(' ').unwrap().1.to_owned()
}

#[test]
fn an_output_that_has_changed_is_not_served_and_others_are() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let calls = ["a sound output", "a marked output"].map(|body| {
        let call = server.accept(&cat, body);
        server.ended_call(&call);
        call
    });
    let server = end(server, &[]);
    flip(&server.data, "a marked output");
    let server = server.restart(&METRICS);
    let [sound, marked] = &calls;
    for (asked, suffix) in ["", "?keep=1", "/wait", "/stderr"].into_iter().enumerate() {
        let reply = server.get(&format!("{}{suffix}", marked.output)).expect(500);
        assert!(reply.text().starts_with("server error"), "{suffix}: {}", reply.text());
        assert_eq!(corruptions(&server), (asked + 1).to_string(), "{suffix}");
    }
    let named = format!("calls ({}): its checksum is wrong", marked.id);
    eventually("it is named", || server.log().contains(&named));
    assert_eq!(server.get(&sound.output).expect(200).text(), "a sound output");
    // Who knows of it may throw it away.
    server.request("DELETE", &marked.output).send().expect(204);
    server.get(&marked.output).expect(404);
    assert_eq!(server.call(&cat, "x").expect(200).text(), "x");
}

#[test]
fn a_module_that_has_changed_is_not_run_and_others_are() {
    let server = Server::start();
    let marked = server.function("marked", &guests::prints("a marked guest"), json!({}));
    let sound = server.function("sound", &guests::prints("a sound guest"), json!({}));
    let server = end(server, &[]);
    // Its native code would be sound still.
    fs::remove_dir_all(server.data.join("artifacts")).unwrap();
    for module in fs::read_dir(server.data.join("modules")).unwrap() {
        let path = module.unwrap().path();
        let mut wasm = fs::read(&path).unwrap();
        if let Some(at) = wasm.windows(14).position(|bytes| bytes == b"a marked guest") {
            wasm[at] = b'A';
            fs::write(path, wasm).unwrap();
        }
    }
    let server = server.restart(&METRICS);
    let reply = server.call(&marked, "").expect(500);
    assert!(reply.text().starts_with("server error, call "), "{}", reply.text());
    eventually("it is named", || server.log().contains("its sha256 is not its name"));
    assert_eq!(corruptions(&server), "1");
    assert_eq!(server.call(&sound, "").expect(200).text(), "a sound guest");
    // Loading it again heals it.
    server.load("marked", &guests::prints("a marked guest"));
    assert_eq!(server.call(&marked, "").expect(200).text(), "a marked guest");
}

#[test]
fn a_call_that_has_changed_while_it_waited_stops_the_server() {
    let settings = ["--max-running", "1", "--drain", "0s"];
    let server = Server::with(&settings);
    server.block();
    let cat = server.function("cat", &guests::cat(), json!({}));
    let call = server.accept(&cat, "a marked body");
    let server = end(server, &settings);
    flip(&server.data, "a marked body");
    let mut server = server.restart(&[]);
    assert_eq!(server.ended().code(), Some(1));
    let named = format!("hyperfunc.db: calls ({}): its checksum is wrong", call.id);
    assert!(server.log().contains(&named), "{}", server.log());
}

#[test]
fn a_function_that_has_changed_stops_the_start() {
    let server = Server::start();
    let function = json!({"Name": "f", "Config": {"Image": "f", "Cmd": ["a marked word"]}});
    server.load("f", &guests::cat());
    let before = server.create(&function);
    let server = end(server, &[]);
    let sound = fs::read(server.data.join("hyperfunc.db")).unwrap();
    flip(&server.data, "a marked word");
    let said = Server::try_on(&server.data, &[]).err().expect("a server");
    assert_eq!(said, "hyperfunc: store: the store is corrupt: functions (f): its checksum is wrong\n");
    fs::write(server.data.join("hyperfunc.db"), sound).unwrap();
    let server = server.restart(&[]);
    assert_eq!(server.get("/funcs/f").expect(200).json(), before);
    assert!(address(&before).starts_with("/call/f/"));
}

#[test]
fn a_store_that_is_gone_stops_the_start_and_its_modules_stay() {
    let server = Server::start();
    server.load("f", &guests::cat());
    let server = end(server, &[]);
    let modules = || fs::read_dir(server.data.join("modules")).unwrap().count();
    let store = server.data.join("hyperfunc.db");
    let whole = fs::read(&store).unwrap();
    for damage in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "").unwrap()] {
        damage(&store);
        let said = Server::try_on(&server.data, &[]).err().expect("a server");
        assert!(said.contains("hyperfunc.db: is not there, or empty, and modules are"), "{said}");
        assert_eq!(modules(), 1);
    }
    fs::write(&store, whole).unwrap();
    server.restart(&[]).get("/images/f/json").expect(200);
}
