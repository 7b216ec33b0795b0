//! Functions are listed, inspected and removed (`docs/api.md` section 3).

use crate::harness::fields::{BASE, assert_refused, with};
use crate::harness::{Reply, Request, Server, address, guests};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|function| function["Name"].as_str().unwrap()).collect()
}

fn filtered(server: &Server, filters: &str) -> Reply {
    server.get(&format!("/funcs?filters={}", utf8_percent_encode(filters, NON_ALPHANUMERIC)))
}

#[test]
fn functions_are_listed_by_name_each_as_inspected() {
    let server = Server::start();
    let empty = server.get("/funcs").expect(200);
    assert_eq!((empty.header("content-type"), empty.text().trim()), (Some("application/json"), "[]"));
    server.load("guest", &guests::start(""));
    for name in ["b", "a10", "a-b", "a2", "0", "a"] {
        server.post("/funcs/create", &with(name, "Timeout", "5")).expect(201);
    }
    let list = server.get("/funcs").expect(200).json();
    assert_eq!(names(&list), ["0", "a", "a-b", "a10", "a2", "b"]);
    for function in list.as_array().unwrap() {
        assert_eq!(server.inspect(function["Name"].as_str().unwrap()), *function);
    }
    let server = server.kill_and_restart();
    assert_eq!(server.get("/funcs").expect(200).json(), list);
}

#[test]
fn a_list_is_filtered_by_each_key_in_both_forms() {
    let server = Server::start();
    for image in ["tool", "acme/tool:1"] {
        server.load(image, &guests::start(""));
    }
    for (name, image, size, labels) in [
        ("a", "tool", "s1", json!({"tier": "web", "owner": "me"})),
        ("b", "tool:latest", "s2", json!({"tier": "db"})),
        ("c", "acme/tool:1", "s1", json!({"tier": "web"})),
        ("d", "acme/tool:1", "s4", json!({})),
    ] {
        let config = json!({"Image": image, "Labels": labels});
        server.create(&json!({"Name": name, "ContainerSize": size, "Config": config}));
    }
    for (filters, expected) in [
        (r#"{}"#, &["a", "b", "c", "d"] as &[_]),
        (r#"{"name":["b"]}"#, &["b"]),
        (r#"{"name":{"b":true}}"#, &["b"]),
        (r#"{"name":["d","a","nothing"]}"#, &["a", "d"]),
        (r#"{"name":{"d":true,"a":true,"b":false}}"#, &["a", "d"]),
        (r#"{"name":["nothing"]}"#, &[]),
        (r#"{"image":["tool"]}"#, &["a", "b"]),
        (r#"{"image":{"tool:latest":true}}"#, &["a", "b"]),
        (r#"{"image":["acme/tool:1"]}"#, &["c", "d"]),
        (r#"{"image":["acme/tool"]}"#, &[]),
        (r#"{"size":["s1"]}"#, &["a", "c"]),
        (r#"{"size":{"S2":true,"s4":true}}"#, &["b", "d"]),
        (r#"{"label":["tier"]}"#, &["a", "b", "c"]),
        (r#"{"label":["tier=web"]}"#, &["a", "c"]),
        (r#"{"label":{"tier=web":true,"owner=me":true}}"#, &["a"]),
        (r#"{"label":["tier=we"]}"#, &[]),
        (r#"{"size":["s1"],"label":["tier=web"],"name":["c","d"]}"#, &["c"]),
    ] {
        assert_eq!(names(&filtered(&server, filters).expect(200).json()), expected, "{filters}");
    }
    assert_eq!(names(&server.get("/funcs?filters=").expect(200).json()).len(), 4);
    for filters in [
        r#"{"colour":["red"]}"#,
        r#"{"name":["a"],"colour":{"red":true}}"#,
        r#"{"Name":["a"]}"#,
        r#"{"size":["xl"]}"#,
        r#"{"image":["A B"]}"#,
        r#"{"name":"a"}"#,
        r#"{"name":[5]}"#,
        "[]",
        "name=a",
        "{",
    ] {
        assert_refused(&filtered(&server, filters), "filters", filters);
    }
}

#[test]
fn what_is_not_there_is_404() {
    let server = Server::with_guest();
    for name in ["nothing", "BASE", "bas", "base-", "base_", "base%00", "%C3%A9", &"x".repeat(256)] {
        for method in ["GET", "DELETE"] {
            let reply = server.request(method, &format!("/funcs/{name}")).send().expect(404);
            assert_eq!((reply.header("content-type"), reply.text().lines().count()), (Some("text/plain"), 1), "{name}");
        }
    }
    for path in ["/nothing", "/funcs/base/json", "/funcs/base/a/b", "/v1.23", "/v1.x/funcs", "/v2.0/funcs", "/images"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_removed_function_is_gone_with_its_address() {
    let server = Server::with_guest();
    let function = server.inspect(BASE);
    let reply = server.request("DELETE", "/funcs/base").send().expect(204);
    assert_eq!(reply.body, b"");
    server.get("/funcs/base").expect(404);
    server.call(&address(&function), "").expect(404);
    server.request("DELETE", "/funcs/base").send().expect(404);
    let server = server.kill_and_restart();
    assert_eq!(server.get("/funcs").expect(200).json(), json!([]));
    server.call(&address(&function), "").expect(404);
}

#[test]
fn a_function_whose_call_runs_is_removed_only_by_force_which_ends_the_call() {
    let server = Server::start();
    let spinning = server.function("spins", &guests::spins(), json!({}));
    let other = server.function("other", &guests::prints("other"), json!({}));
    let functions = server.functions;
    let calling = std::thread::spawn(move || Request::new(functions, "POST", &spinning).send());
    server.wait_for_running(1);
    for query in ["", "?force=0", "?force=false", "?force=False", "?force="] {
        let reply = server.request("DELETE", &format!("/funcs/spins{query}")).send().expect(409);
        assert_eq!((reply.header("content-type"), reply.text().lines().count()), (Some("text/plain"), 1), "{query}");
    }
    for query in ["yes", "2", "TRUE", "force", "-1"] {
        let reply = server.request("DELETE", &format!("/funcs/spins?force={query}")).send();
        assert_refused(&reply, "force", query);
    }
    assert_eq!(server.get("/info").json()["Running"], 1, "nothing has ended it");
    server.request("DELETE", "/funcs/spins?force=1").send().expect(204);
    let ended = calling.join().unwrap().expect(500);
    assert_eq!(ended.text(), "cancelled\n");
    server.wait_for_running(0);
    server.get("/funcs/spins").expect(404);
    assert_eq!(server.call(&other, "").expect(200).text(), "other");
}

#[test]
fn force_is_spelled_in_three_ways_and_needs_no_running_call() {
    let server = Server::with_guest();
    for query in ["force=1", "force=true", "force=True", "force=0", "a=b&force=1", "force=1&force=x", "a=b?force=1"] {
        server.post("/funcs/create", &with("a", "Timeout", "5")).expect(201);
        server.request("DELETE", &format!("/funcs/a?{query}")).send().expect(204);
        server.get("/funcs/a").expect(404);
    }
}
