//! What is not loaded, and why (`docs/api.md` sections 3 and 6).

use crate::harness::fields::assert_refused;
use crate::harness::{Reply, Server, guests};
use serde_json::json;

fn wasm(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// A module of exactly so many bytes.
fn sized(bytes: usize) -> Vec<u8> {
    let padded =
        |pad: usize| wasm(&format!(r#"(module (func (export "_start")) (@custom "pad" "{}"))"#, "x".repeat(pad)));
    let module = (0..bytes).map(|less| padded(bytes - less)).find(|module| module.len() == bytes);
    module.expect("a module of that size")
}

/// Loads in chunks, without saying how much there is.
fn load_chunked(server: &Server, name: &str, wasm: &[u8]) -> Reply {
    let mut chunks = Vec::new();
    for chunk in wasm.chunks(1000) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    let load = server.request("POST", &format!("/images/load?name={name}")).header("Content-Type", "application/wasm");
    load.header("Transfer-Encoding", "chunked").body(chunks).send()
}

/// Checks that a module is not loaded in either way, for a reason that has these words, and that no function is made
/// of it.
#[track_caller]
fn refused(server: &Server, wasm: &[u8], words: &[&str]) {
    let quiet = server.try_load("bad", wasm);
    let load = server.request("POST", "/images/load?name=bad").header("Content-Type", "application/wasm");
    for reply in [quiet, load.body(wasm).send(), load_chunked(server, "bad", wasm)] {
        assert_refused(&reply, "", &words.join(" "));
        for word in words {
            assert!(reply.text().contains(word), "{word}: {}", reply.text());
        }
    }
    server.get("/images/bad/json").expect(404);
    let create = server.try_create(&json!({"Name": "bad", "Config": {"Image": "bad"}}));
    assert_refused(&create, "Config.Image", "create");
}

#[test]
fn what_is_no_module_is_refused() {
    let server = Server::start();
    refused(&server, b"", &["not a WebAssembly module"]);
    refused(&server, b"#!/bin/sh\nexit 1\n", &["not a WebAssembly module"]);
    refused(&server, b"\x7fELF", &["not a WebAssembly module"]);
    refused(&server, b"(module)", &["not a WebAssembly module"]);
    refused(&server, b"\0asm", &["not a valid module"]);
    refused(&server, b"\0asm\x02\0\0\0", &["version"]);
    refused(&server, &wasm("(component)"), &["component"]);
    let garbage = [b"\0asm\x01\0\0\0".as_slice(), &[0xff; 64]].concat();
    refused(&server, &garbage, &["not a valid module"]);
    let ill_typed = wasm(r#"(module (func (export "_start") (drop (i32.add (i32.const 1) (i64.const 1)))))"#);
    refused(&server, &ill_typed, &["not a valid module", "type mismatch"]);
    assert_eq!(server.get("/images/json").json(), json!([]));
}

#[test]
fn a_module_that_is_cut_off_anywhere_is_refused() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    for len in (0..module.len()).step_by(7).chain([module.len() - 1]) {
        let reply = server.try_load("bad", &module[..len]);
        assert_refused(&reply, "", &format!("{len} bytes"));
    }
    server.get("/images/bad/json").expect(404);
    server.load_bytes("good", &module);
}

#[test]
fn imports_that_are_not_there_are_named() {
    let server = Server::start();
    for (import, named) in [
        (r#"(import "env" "f" (func))"#, "env.f"),
        (r#"(import "wasi_snapshot_preview1" "fd_wriet" (func))"#, "wasi_snapshot_preview1.fd_wriet"),
        (
            r#"(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
            "wasi_unstable.fd_write",
        ),
        (r#"(import "env" "memory" (memory 1))"#, "env.memory"),
        (r#"(import "env" "table" (table 1 funcref))"#, "env.table"),
        (r#"(import "env" "g" (global i32))"#, "env.g"),
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32) (result i32)))"#,
            "wasi_snapshot_preview1.fd_write",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i64) (result i32)))"#,
            "fd_write with a type",
        ),
        (r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32)))"#, "fd_write with a type"),
        (r#"(import "wasi_snapshot_preview1" "fd_write" (global i32))"#, "wasi_snapshot_preview1.fd_write"),
    ] {
        let memory = if import.contains("(memory") { "" } else { r#"(memory (export "memory") 1)"# };
        refused(&server, &wasm(&format!(r#"(module {import} {memory} (func (export "_start")))"#)), &[named]);
    }
}

#[test]
fn a_module_that_is_no_command_is_told_what_is_missing() {
    let server = Server::start();
    for (body, words) in [
        ("", &["_start"] as &[_]),
        ("(func $_start)", &["_start"]),
        (r#"(func (export "main"))"#, &["_start"]),
        (r#"(func (export "_initialize"))"#, &["_start", "reactor"]),
        (r#"(memory (export "_start") 1)"#, &["_start"]),
        (r#"(func (export "_start") (param i32))"#, &["_start"]),
        (r#"(func (export "_start") (result i32) (i32.const 0))"#, &["_start"]),
        (
            r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) (memory 1) (func (export "_start"))"#,
            &["memory"],
        ),
        (
            r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32))) (func (export "_start"))"#,
            &["memory"],
        ),
    ] {
        refused(&server, &wasm(&format!("(module {body})")), words);
    }
    // Without an import nothing needs its memory.
    server.load("bare", r#"(module (func (export "_start")))"#);
    server.load("private", r#"(module (memory 1) (func (export "_start")))"#);
}

#[test]
fn a_module_has_one_memory_of_its_own_and_four_tables_at_most() {
    let server = Server::start();
    let with = |parts: &str| wasm(&format!(r#"(module {parts} (func (export "_start")))"#));
    refused(&server, &with(r#"(memory (export "memory") 1) (memory 1)"#), &["memor"]);
    refused(&server, &with(r#"(memory (export "memory") 1 1 shared)"#), &["shared"]);
    refused(&server, &with(&"(table 1 funcref)".repeat(5)), &["5 tables", "4"]);
    // Each guest would take a second memory, for a heap of references.
    refused(&server, &with("(table 1 externref)"), &["not a valid module"]);
    server.load_bytes("four", &with(&"(table 1 funcref)".repeat(4)));
}

#[test]
fn an_image_has_a_name() {
    let server = Server::start();
    let module = wasm(&guests::start(""));
    let digest = format!("name=hello@sha256:{}", "0".repeat(64));
    for query in [
        "",
        "name=",
        "name",
        "Name=hello",
        "name=Hello",
        "name=a%20b",
        "name=a//b",
        "name=/a",
        "name=..",
        "name=a:",
        "name=:1",
        "name=a:b:c",
        "name=a%00",
        "name=a@sha256:12",
        &digest,
    ] {
        let load = server.request("POST", &format!("/images/load?{query}")).header("Content-Type", "application/wasm");
        assert_refused(&load.body(module.as_slice()).send(), "name", query);
    }
    let long = format!("name={}", "x".repeat(256));
    let load = server.request("POST", &format!("/images/load?{long}")).header("Content-Type", "application/wasm");
    assert_refused(&load.body(module.as_slice()).send(), "name", "256 bytes");
    assert_eq!(server.get("/images/json").json(), json!([]));
    server.load_bytes(&"x".repeat(255), &module);
}

#[test]
fn a_module_is_sent_as_one() {
    let server = Server::start();
    let module = wasm(&guests::start(""));
    let load = || server.request("POST", "/images/load?name=hello");
    for content_type in ["application/json", "text/plain", "application/octet-stream", "application/x-tar"] {
        load().header("Content-Type", content_type).body(module.as_slice()).send().expect(415);
    }
    load().body(module.as_slice()).send().expect(415);
    server.get("/images/hello/json").expect(404);
    load().header("Content-Type", "application/wasm; x=y").body(module.as_slice()).send().expect(200);
}

#[test]
fn a_module_may_be_as_large_as_the_limit_and_no_larger() {
    const LIMIT: usize = 5000;
    let server = Server::with(&["--max-image-bytes", "5000"]);
    let (exact, over) = (sized(LIMIT), sized(LIMIT + 1));
    for reply in [server.try_load("over", &over), load_chunked(&server, "over", &over)] {
        let reply = reply.expect(413);
        assert!(reply.text().lines().count() == 1 && reply.text().contains("5000"), "{}", reply.text());
    }
    server.get("/images/over/json").expect(404);
    server.try_load("told", &exact).expect(200);
    load_chunked(&server, "chunked", &exact).expect(200);
    let list = server.get("/images/json").json();
    assert_eq!((&list[0]["RepoTags"], &list[0]["Size"]), (&json!(["chunked:latest", "told:latest"]), &json!(LIMIT)));
    assert_eq!(std::fs::read_dir(server.data.join("uploads")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_full_quota_of_images_says_so() {
    let server = Server::with(&["--quota-images", "2"]);
    let module = wasm(&guests::start(""));
    for name in ["a", "a:2"] {
        server.load_bytes(name, &module);
    }
    for reply in [server.try_load("b", &module), load_chunked(&server, "b", &module)] {
        assert_eq!(reply.expect(403).text(), "quota: images 2 of 2\n");
    }
    server.get("/images/b/json").expect(404);
    server.load("a", &guests::prints("a name that is there may be loaded anew"));
    server.request("DELETE", "/images/a").send().expect(200);
    server.load_bytes("b", &module);
}

#[test]
fn a_full_quota_of_image_bytes_says_so() {
    let (first, second) = (sized(3000), sized(2000));
    let server = Server::with(&["--quota-image-bytes", "5000"]);
    server.load_bytes("a", &first);
    let reply = server.try_load("b", &sized(2001)).expect(403);
    assert_eq!(reply.text(), "quota: image bytes 3000 of 5000\n");
    server.get("/images/b/json").expect(404);
    server.load_bytes("b", &second);
    server.load_bytes("again", &first);
    let reply = server.try_load("c", &sized(60)).expect(403);
    assert_eq!(reply.text(), "quota: image bytes 5000 of 5000\n");
    server.load_bytes("b", &sized(60));
    server.load_bytes("c", &sized(1000));
}
