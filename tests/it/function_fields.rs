//! The fields of a Func itself: what is accepted, how it is echoed, and how it is refused (`docs/api.md` section 2).

use crate::harness::fields::{BASE, assert_refused, with};
use crate::harness::{Server, address, guests};
use serde_json::{Value, json};

/// Every field there is, in an order that is not the answer's.
const EVERY_FIELD: &str = r#"{
    "MaxConcurrency": 7, "Fuel": 1000000,
    "NetworkingConfig": {"EndpointsConfig": {"front": {}}},
    "HostConfig": {"NetworkMode": "host", "PublishAllPorts": true, "Links": ["db:alias"], "VolumesFrom": ["data:ro"],
        "PortBindings": {"80/tcp": [{"HostPort": "8080", "HostIp": "127.0.0.1"}]}},
    "Config": {"StopSignal": "SIGKILL", "Labels": {"tier": "web"}, "WorkingDir": "/srv", "Entrypoint": ["echo"],
        "Image": "guest:latest", "Cmd": ["-n", "x"], "ExposedPorts": {"80/tcp": {}}, "Env": ["A=1", "B="], "Tty": true},
    "Timeout": 5, "ContainerSize": "M1", "Name": "whole"
}"#;

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_field_is_echoed_in_its_place() {
    let server = Server::with_guest();
    let created = server.post("/funcs/create", EVERY_FIELD).expect(201);
    let config = concat!(
        r#""Config":{"Tty":true,"Env":["A=1","B="],"ExposedPorts":{"80/tcp":{}},"Cmd":["-n","x"],"#,
        r#""Image":"guest:latest","Entrypoint":["echo"],"WorkingDir":"/srv","Labels":{"tier":"web"},"#,
        r#""StopSignal":"SIGKILL"},"#,
    );
    assert!(created.text().contains(config), "{}", created.text());
    let function = created.json();
    let order = [
        "Name",
        "ContainerSize",
        "Timeout",
        "UUID",
        "Created",
        "Config",
        "HostConfig",
        "NetworkingConfig",
        "Fuel",
        "MaxConcurrency",
        "Warnings",
    ];
    assert_eq!(keys(&function), order);
    let host = json!({
        "VolumesFrom": ["data:ro"],
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        "Links": ["db:alias"],
        "PublishAllPorts": true,
        "NetworkMode": "host",
    });
    assert_eq!(function["HostConfig"], host);
    assert_eq!(function["NetworkingConfig"], json!({"EndpointsConfig": {"front": {}}}));
    let numbers = json!([function["ContainerSize"], function["Timeout"], function["Fuel"], function["MaxConcurrency"]]);
    assert_eq!(numbers, json!(["m1", 5, 1_000_000, 7]));

    let inspected = server.get("/funcs/whole").expect(200);
    let updated = server.put("/funcs/whole", "{}").expect(200);
    for reply in [&created, &inspected, &updated] {
        assert_eq!((reply.header("content-type"), reply.text()), (Some("application/json"), created.text()));
    }
    // A list is answered without warnings.
    let mut listed = function;
    listed.as_object_mut().unwrap().remove("Warnings");
    assert_eq!(server.get("/funcs").expect(200).json()[1], listed);
}

#[test]
fn what_is_not_given_has_its_default_or_is_absent() {
    let server = Server::with_guest();
    let function = server.create(&json!({"Name": "bare", "Config": {"Image": "guest"}}));
    let expected = json!({
        "Name": "bare", "ContainerSize": "s4", "Timeout": 300, "UUID": function["UUID"], "Created": function["Created"],
        "Config": {"Env": [], "Image": "guest", "StopSignal": "SIGTERM"},
        "HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": null},
    });
    assert_eq!(function, expected);
}

#[test]
fn names_follow_their_grammar() {
    let server = Server::with_guest();
    let create =
        |name: &str| server.post("/funcs/create", &format!(r#"{{"Name":{name},"Config":{{"Image":"guest"}}}}"#));
    let longest = "x".repeat(255);
    for name in ["a", "0", "create", "a-b", "a--b", "0-0", longest.as_str()] {
        let function = create(&json!(name).to_string()).expect(201).json();
        assert_eq!(function["Name"], *name);
        assert_eq!(server.inspect(name), function);
        server.call(&address(&function), "").expect(200);
    }
    let too_long = "x".repeat(256);
    for name in ["", "-", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a b", "é", "a\0", "a\n", too_long.as_str()] {
        assert_refused(&create(&json!(name).to_string()), "Name", name);
    }
    for name in ["null", "5", "true", r#"["a"]"#, r#"{"a":1}"#] {
        assert_refused(&create(name), "Name", name);
    }
    assert_refused(&server.post("/funcs/create", r#"{"Config":{"Image":"guest"}}"#), "Name", "no name");
}

#[test]
fn sizes_are_taken_in_any_case_and_told_in_lower_case() {
    let server = Server::with_guest();
    for size in ["s1", "s2", "s3", "s4", "m1", "m2", "m3", "l1", "l2", "l3"] {
        server.takes("ContainerSize", &format!("{size:?}"), &json!(size));
        server.takes("ContainerSize", &format!("{:?}", size.to_uppercase()), &json!(size));
    }
    for default in ["null", r#""""#] {
        server.takes("ContainerSize", default, &json!("s4"));
    }
    for size in [r#""xl""#, r#""s5""#, r#""s""#, r#""s1 ""#, r#""64MB""#, "4", "true", r#"["s1"]"#, r#"{"s1":{}}"#] {
        server.refuses("ContainerSize", size);
    }
}

#[test]
fn timeouts_are_whole_seconds_up_to_a_day() {
    let server = Server::with_guest();
    for (value, seconds) in [("1", 1), ("86400", 86400), ("0", 300), ("null", 300)] {
        server.takes("Timeout", value, &json!(seconds));
    }
    let far = "9".repeat(40);
    for value in ["-1", "86401", "1.5", "1e400", "-1e400", r#""300""#, "true", "[]", "{}", "9223372036854775808", &far]
    {
        server.refuses("Timeout", value);
    }
}

#[test]
fn fuel_and_concurrency_are_whole_and_zero_is_no_limit() {
    let server = Server::with_guest();
    for (field, largest, too_large) in
        [("Fuel", "18446744073709551615", "18446744073709551616"), ("MaxConcurrency", "4294967295", "4294967296")]
    {
        server.takes(field, "1", &json!(1));
        server.takes(field, largest, &json!(largest.parse::<u64>().unwrap()));
        server.takes(field, "0", &Value::Null);
        server.takes(field, "null", &Value::Null);
        for value in [too_large, "-1", "1.5", "1e400", r#""5""#, "true", "[]", "{}"] {
            server.refuses(field, value);
        }
    }
}

#[test]
fn the_address_and_the_time_in_a_request_are_ignored() {
    let server = Server::with_guest();
    let uuid = r#""e62c014e-386c-42ea-8d07-41d44e98cc3d""#;
    for (field, value) in
        [("UUID", uuid), ("UUID", "5"), ("Created", r#""2017-03-16T07:05:24.473Z""#), ("Created", "[]")]
    {
        let function = server.post("/funcs/create", &with("a", field, value)).expect(201).json();
        let shown = function[field].as_str().unwrap();
        assert!(!value.contains(shown), "{shown}");
        server.request("DELETE", "/funcs/a").send().expect(204);
        let before = server.inspect(BASE);
        assert_eq!(server.put("/funcs/base", &format!(r#"{{"{field}":{value}}}"#)).expect(200).json(), before);
    }
}

#[test]
fn a_module_that_starts_with_more_than_the_size_gives_is_refused() {
    let server = Server::with_guest();
    // s1 is 64 MB: 1024 pages.
    server.load("exact", &guests::module(1024, r#"(func (export "_start"))"#));
    server.load("over", &guests::module(1025, r#"(func (export "_start"))"#));
    let of =
        |name: &str, image: &str, size: &str| json!({"Name": name, "ContainerSize": size, "Config": {"Image": image}});
    let exact = server.create(&of("exact", "exact", "s1"));
    server.call(&address(&exact), "").expect(200);
    assert_refused(&server.try_create(&of("over", "over", "s1")), "ContainerSize", "create");
    assert_eq!(server.get("/funcs/over").status, 404);

    let over = server.create(&of("over", "over", "s2"));
    assert_refused(&server.put("/funcs/over", r#"{"ContainerSize":"s1"}"#), "ContainerSize", "a smaller size");
    assert_refused(&server.put("/funcs/exact", r#"{"Config":{"Image":"over"}}"#), "ContainerSize", "a larger module");
    assert_eq!((server.inspect("over"), server.inspect("exact")), (over, exact));
}

#[test]
fn a_name_is_taken_once() {
    let server = Server::with_guest();
    let before = server.inspect(BASE);
    let reply = server.post("/funcs/create", &with(BASE, "Timeout", "9")).expect(409);
    assert_eq!(reply.text().lines().count(), 1);
    assert!(reply.text().contains(BASE), "{}", reply.text());
    assert_eq!(server.inspect(BASE), before);
    server.request("DELETE", "/funcs/base").send().expect(204);
    let again = server.post("/funcs/create", &with(BASE, "Timeout", "9")).expect(201).json();
    assert_ne!(again["UUID"], before["UUID"]);
}

#[test]
fn a_full_quota_of_functions_says_so() {
    let server = Server::with(&["--quota-functions", "2"]);
    server.load("guest", &guests::start(""));
    for name in ["a", "b"] {
        server.post("/funcs/create", &with(name, "Timeout", "1")).expect(201);
    }
    let reply = server.post("/funcs/create", &with("c", "Timeout", "1")).expect(403);
    assert_eq!(reply.text(), "quota: functions 2 of 2\n");
    assert_eq!(server.get("/funcs/c").status, 404);
    server.put("/funcs/a", r#"{"Timeout":2}"#).expect(200);
    server.request("DELETE", "/funcs/a").send().expect(204);
    server.post("/funcs/create", &with("c", "Timeout", "1")).expect(201);
}
