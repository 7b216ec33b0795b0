//! Images are loaded, listed, inspected and removed (`docs/api.md` section 3).

use crate::harness::fields::assert_refused;
use crate::harness::{Reply, Request, Server, address, guests};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn wasm(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// The Id of a module, computed on our own.
fn id(wasm: &[u8]) -> String {
    Sha256::digest(wasm).iter().fold("sha256:".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

fn load(server: &Server, query: &str, wasm: &[u8]) -> Reply {
    let load = server.request("POST", &format!("/images/load?{query}"));
    load.header("Content-Type", "application/wasm").body(wasm).send()
}

fn lines(reply: &Reply) -> Vec<Value> {
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// `RepoTags` of each image in a list.
fn tags(list: &Value) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|image| image["RepoTags"].clone()).collect()
}

fn remove(server: &Server, name: &str) -> Reply {
    server.request("DELETE", &format!("/images/{name}")).send()
}

#[test]
fn a_load_tells_its_progress_and_ends_with_what_has_been_loaded() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    for (name, shown) in [("hello", "hello:latest"), ("acme/hello:1.0", "acme/hello:1.0")] {
        let reply = load(&server, &format!("name={name}"), &module).expect(200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let lines = lines(&reply);
        let (last, steps) = lines.split_last().unwrap();
        assert_eq!(*last, json!({"status": format!("{shown} has been loaded.")}));
        assert!(!steps.is_empty());
        let mut done = 0;
        for step in steps {
            assert_eq!(keys(step), ["status", "progressDetail"], "{step}");
            assert_eq!(keys(&step["progressDetail"]), ["current", "total"], "{step}");
            let current = step["progressDetail"]["current"].as_u64().unwrap();
            assert!(step["status"].is_string() && current >= done, "{step}");
            assert_eq!(step["progressDetail"]["total"], module.len());
            done = current;
        }
        assert_eq!(done, module.len() as u64, "the last step is the whole");
    }
}

#[test]
fn a_quiet_load_is_one_line_and_a_flag_is_spelled_right() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    for quiet in ["1", "true", "True"] {
        let reply = load(&server, &format!("quiet={quiet}&name=hello"), &module).expect(200);
        assert_eq!(lines(&reply), [json!({"status": "hello:latest has been loaded."})], "{quiet}");
    }
    for loud in ["0", "false", "False", ""] {
        let reply = load(&server, &format!("quiet={loud}&name=hello"), &module).expect(200);
        assert!(lines(&reply).len() > 1, "{loud}");
    }
    assert_refused(&load(&server, "quiet=yes&name=other", &module), "quiet", "yes");
    server.get("/images/other/json").expect(404);
}

#[test]
fn the_same_bytes_under_two_names_are_one_module() {
    let server = Server::start();
    let (module, other) = (wasm(&guests::prints("same")), wasm(&guests::prints("other")));
    for name in ["b", "a:1", "acme/c"] {
        server.load_bytes(name, &module);
    }
    server.load_bytes("z", &other);
    let list = server.get("/images/json").expect(200).json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let (id, mut image) = (id(&module), list[0].clone());
    image.as_object_mut().unwrap().remove("Created");
    let expected = json!({
        "Id": id, "RepoTags": ["a:1", "acme/c:latest", "b:latest"],
        "RepoDigests": [format!("a@{id}"), format!("acme/c@{id}"), format!("b@{id}")],
        "Size": module.len(), "VirtualSize": module.len(), "Labels": {},
    });
    assert_eq!(image, expected);
    for name in ["a:1", "acme/c", "b"] {
        let inspected = server.get(&format!("/images/{name}/json")).expect(200).json();
        assert_eq!((&inspected["Id"], &inspected["RepoTags"]), (&expected["Id"], &expected["RepoTags"]), "{name}");
    }
    let modules = std::fs::read_dir(server.data.join("modules")).unwrap().count();
    assert_eq!(modules, 2, "stored once");
}

#[test]
fn a_list_has_the_shape_of_docker() {
    let server = Server::start();
    let empty = server.get("/images/json").expect(200);
    assert_eq!((empty.header("content-type"), empty.text().trim()), (Some("application/json"), "[]"));
    server.load("hello", &guests::prints("hello"));
    let list = server.get("/images/json").expect(200).json();
    let expected = ["Id", "RepoTags", "RepoDigests", "Created", "Size", "VirtualSize", "Labels"];
    assert_eq!(keys(&list[0]), expected);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let created = list[0]["Created"].as_u64().unwrap();
    assert!((now - 60..=now).contains(&created), "{created} is not now in seconds");
    let server = server.kill_and_restart();
    assert_eq!(server.get("/images/json").expect(200).json(), list);
}

#[test]
fn a_list_is_filtered() {
    let server = Server::start();
    for name in ["tool", "tool:1", "acme/tool"] {
        server.load(name, &guests::prints(name));
    }
    let list = |query: &str| {
        let list = server.get(&format!("/images/json{query}")).expect(200).json();
        let mut tags: Vec<String> = tags(&list).iter().map(|tags| tags[0].as_str().unwrap().to_owned()).collect();
        tags.sort_unstable();
        tags
    };
    let every = ["acme/tool:latest", "tool:1", "tool:latest"];
    let filters = |json: &str| format!("?filters={}", utf8_percent_encode(json, NON_ALPHANUMERIC));
    for (query, expected) in [
        (String::new(), every.as_slice()),
        ("?all=1".into(), &every),
        ("?all=0&filter=&filters=".into(), &every),
        ("?filter=tool".into(), &["tool:1", "tool:latest"]),
        ("?filter=tool:1".into(), &["tool:1"]),
        ("?filter=acme/tool".into(), &["acme/tool:latest"]),
        ("?filter=nothing".into(), &[]),
        (filters("{}"), &every),
        (filters(r#"{"reference":["tool:1","acme/tool"]}"#), &["acme/tool:latest", "tool:1"]),
        (filters(r#"{"reference":{"tool:latest":true}}"#), &["tool:latest"]),
        (filters(r#"{"dangling":["false"]}"#), &every),
        (filters(r#"{"dangling":{"true":true}}"#), &[]),
        (filters(r#"{"label":["tier"]}"#), &[]),
    ] {
        assert_eq!(list(&query), expected, "{query}");
    }
    for bad in [r#"{"colour":["red"]}"#, r#"{"reference":["A B"]}"#, "[]", "{"] {
        assert_refused(&server.get(&format!("/images/json{}", filters(bad))), "filters", bad);
    }
    assert_refused(&server.get("/images/json?filter=A%20B"), "filter", "a name that is none");
}

#[test]
fn an_image_is_inspected_by_each_of_its_names() {
    let server = Server::start();
    let (module, other) = (wasm(&guests::prints("hello")), wasm(&guests::prints("other")));
    let id = id(&module);
    for name in ["hello", "localhost:5000/acme/team/hello:1.0"] {
        server.load_bytes(name, &module);
    }
    server.load_bytes("other", &other);
    let hex = &id["sha256:".len()..];
    let by_digest = [format!("hello@{id}"), format!("localhost:5000/acme/team/hello@{id}"), format!("hello:9@{id}")];
    let by_id = [id.clone(), hex.to_owned(), hex[..12].to_owned(), id[..19].to_owned()];
    let names = ["hello", "hello:latest", "localhost:5000/acme/team/hello:1.0"].map(str::to_owned);
    for name in names.iter().chain(&by_digest).chain(&by_id) {
        let image = server.get(&format!("/images/{name}/json")).expect(200).json();
        assert_eq!(image["Id"], id, "{name}");
        assert_eq!(image["RepoTags"], json!(["hello:latest", "localhost:5000/acme/team/hello:1.0"]), "{name}");
    }
    let zeros = format!("sha256:{}", "0".repeat(64));
    let wrong = [format!("other@{id}"), format!("hello@{zeros}"), zeros, "sha256:".to_owned(), "sha256".to_owned()];
    let unknown = ["nothing", "hello:1.0", "acme/hello", "localhost:5000/acme/team/hello", "HELLO", "hello/x"];
    for name in unknown.map(str::to_owned).iter().chain(&wrong) {
        let reply = server.get(&format!("/images/{name}/json")).expect(404);
        assert_eq!((reply.header("content-type"), reply.text().lines().count()), (Some("text/plain"), 1), "{name}");
    }
}

#[test]
fn an_inspected_image_has_the_shape_of_docker_and_what_is_ours() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    server.load_bytes("acme/hello:2", &module);
    let reply = server.get("/images/acme/hello:2/json").expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let image = reply.json();
    let order = [
        "Id",
        "RepoTags",
        "RepoDigests",
        "Created",
        "Size",
        "VirtualSize",
        "Architecture",
        "Os",
        "Config",
        "Imports",
        "Exports",
    ];
    assert_eq!(keys(&image), order);
    assert_eq!(keys(&image["Config"]), ["Entrypoint", "Cmd", "Env", "WorkingDir", "Labels"]);
    let created = image["Created"].as_str().unwrap();
    assert!(created.len() == 24 && created.ends_with('Z') && created.as_bytes()[19] == b'.', "{created}");
    let wasi = ["fd_read", "fd_write", "poll_oneoff", "random_get", "proc_exit"];
    let expected = json!({
        "Id": id(&module), "RepoTags": ["acme/hello:2"], "RepoDigests": [format!("acme/hello@{}", id(&module))],
        "Created": created, "Size": module.len(), "VirtualSize": module.len(), "Architecture": "wasm", "Os": "wasip1",
        "Config": {"Entrypoint": ["hello"], "Cmd": [], "Env": [], "WorkingDir": "", "Labels": {}},
        "Imports": wasi.map(|name| format!("wasi_snapshot_preview1.{name}")), "Exports": ["memory", "_start"],
    });
    assert_eq!(image, expected);
}

#[test]
fn an_id_may_be_cut_short_as_long_as_it_is_unique() {
    let server = Server::start();
    let mut ids = Vec::new();
    // Seventeen Ids cannot have seventeen first digits.
    for text in 'a'..='q' {
        let module = wasm(&guests::prints(&text.to_string()));
        server.load_bytes(&format!("image-{text}"), &module);
        ids.push(id(&module)["sha256:".len()..].to_owned());
    }
    for digits in 1..=4 {
        for id in &ids {
            let prefix = &id[..digits];
            let unique = ids.iter().filter(|other| other.starts_with(prefix)).count() == 1;
            let reply = server.get(&format!("/images/{prefix}/json"));
            assert_eq!(reply.status, if unique { 200 } else { 404 }, "{prefix}");
            assert!(!unique || reply.json()["Id"] == format!("sha256:{id}"), "{prefix}");
        }
    }
}

#[test]
fn a_removed_name_is_untagged_and_the_last_one_deletes() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    let id = id(&module);
    for name in ["hello", "hello:1", "acme/hello"] {
        server.load_bytes(name, &module);
    }
    let reply = remove(&server, "hello").expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.json(), json!([{"Untagged": "hello:latest"}]));
    remove(&server, "hello").expect(404);
    assert_eq!(tags(&server.get("/images/json").json()), [json!(["acme/hello:latest", "hello:1"])]);
    assert_eq!(remove(&server, "acme/hello:latest").expect(200).json(), json!([{"Untagged": "acme/hello:latest"}]));
    assert_eq!(remove(&server, "hello:1").expect(200).json(), json!([{"Untagged": "hello:1"}, {"Deleted": id}]));
    assert_eq!(server.get("/images/json").json(), json!([]));
    remove(&server, &id).expect(404);
    for kept in ["modules", "artifacts"] {
        assert_eq!(std::fs::read_dir(server.data.join(kept)).unwrap().count(), 0, "{kept}");
    }
    let server = server.kill_and_restart();
    assert_eq!(server.get("/images/json").json(), json!([]));
}

#[test]
fn an_id_is_removed_with_its_names_if_it_has_one_or_by_force() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    let id = id(&module);
    server.load_bytes("hello", &module);
    assert_eq!(remove(&server, &id).expect(200).json(), json!([{"Untagged": "hello:latest"}, {"Deleted": id}]));
    for name in ["a", "b"] {
        server.load_bytes(name, &module);
    }
    remove(&server, &id[..19]).expect(409);
    assert_eq!(tags(&server.get("/images/json").json()), [json!(["a:latest", "b:latest"])]);
    let removed = remove(&server, &format!("{id}?force=1")).expect(200).json();
    assert_eq!(removed, json!([{"Untagged": "a:latest"}, {"Untagged": "b:latest"}, {"Deleted": id}]));
}

#[test]
fn an_image_in_use_is_removed_only_by_force() {
    let server = Server::start();
    let module = wasm(&guests::prints("hello"));
    let function = server.function("hello", &guests::prints("hello"), json!({}));
    for query in ["", "?force=0", "?force=false"] {
        let reply = remove(&server, &format!("hello{query}")).expect(409);
        assert!(reply.text().lines().count() == 1 && reply.text().contains("hello"), "{}", reply.text());
    }
    remove(&server, &id(&module)).expect(409);
    assert_refused(&remove(&server, "hello?force=maybe"), "force", "maybe");
    server.call(&function, "").expect(200);

    // Another name of the same module is nobody's.
    server.load_bytes("spare", &module);
    assert_eq!(remove(&server, "spare").expect(200).json(), json!([{"Untagged": "spare:latest"}]));

    let removed = remove(&server, "hello?force=1").expect(200).json();
    assert_eq!(removed, json!([{"Untagged": "hello:latest"}, {"Deleted": id(&module)}]));
    assert_eq!(server.call(&function, "").expect(500).text(), "no such image: hello\n");
    server.load_bytes("hello", &module);
    assert_eq!(server.call(&function, "").expect(200).text(), "hello");
}

#[test]
fn loading_under_a_name_is_a_deployment() {
    let server = Server::start();
    let old = wasm(&guests::sleeps(500_000_000));
    server.load_bytes("app", &old);
    let of = |name: &str, image: &str| address(&server.create(&json!({"Name": name, "Config": {"Image": image}})));
    let (app, pinned) = (of("app", "app"), of("pinned", &format!("app@{}", id(&old))));
    let (functions, running) = (server.functions, app.clone());
    let calling = std::thread::spawn(move || Request::new(functions, "POST", &running).send());
    server.wait_for_running(1);

    server.load("app", &guests::prints("new"));
    assert_eq!(server.call(&app, "").expect(200).text(), "new", "the next call runs the new module");
    assert_eq!(calling.join().unwrap().expect(200).text(), "woke", "a call that runs goes on");
    assert_eq!(server.call(&pinned, "").expect(200).text(), "woke", "a digest is not moved by a tag");

    let list = server.get("/images/json").json();
    assert_eq!(tags(&list).len(), 2, "what a digest pins is kept: {list}");
    let server = server.kill_and_restart();
    assert_eq!(server.call(&app, "").expect(200).text(), "new");
    assert_eq!(server.call(&pinned, "").expect(200).text(), "woke");

    server.load("app", &guests::prints("newer"));
    assert_eq!(server.call(&app, "").expect(200).text(), "newer");
    let replaced = id(&wasm(&guests::prints("new")));
    server.get(&format!("/images/{replaced}/json")).expect(404);
}

#[test]
fn a_module_with_64_bit_memory_runs() {
    let server = Server::start();
    let wide = server.function("wide", &guests::wide_prints("wide"), json!({"ContainerSize": "s1"}));
    assert_eq!(server.call(&wide, "").expect(200).text(), "wide");
    server.put("/funcs/wide", r#"{"Fuel":1000000}"#).expect(200);
    assert_eq!(server.call(&wide, "").expect(200).text(), "wide", "metered too");
}
