//! Updates: what they keep, clear, change and refuse, and when they take effect (`docs/api.md` section 3).

use crate::harness::fields::{assert_refused, field, only};
use crate::harness::{Server, address, guests};
use serde_json::{Value, json};

/// A function with a value of its own in every field.
const FULL: &str = r#"{
    "Name": "full", "ContainerSize": "m1", "Timeout": 77, "Fuel": 1000000, "MaxConcurrency": 7,
    "Config": {"Tty": true, "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "Cmd": ["c"], "Image": "guest",
        "Entrypoint": ["e"], "WorkingDir": "/srv", "Labels": {"tier": "web"}, "StopSignal": "SIGKILL"},
    "HostConfig": {"NetworkMode": "none", "PublishAllPorts": true, "Links": ["db"], "VolumesFrom": ["data"],
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}},
    "NetworkingConfig": {"EndpointsConfig": {"front": {}}}
}"#;

fn full() -> (Server, Value) {
    let server = Server::with_guest();
    let function = server.post("/funcs/create", FULL).expect(201).json();
    (server, function)
}

#[test]
fn what_an_update_does_not_say_is_kept() {
    let (server, before) = full();
    let silent = [
        ("Name", r#""full""#),
        ("Name", "null"),
        ("Name", r#""""#),
        ("ContainerSize", "null"),
        ("ContainerSize", r#""""#),
        ("Timeout", "null"),
        ("Timeout", "0"),
        ("Refresh", "null"),
        ("Refresh", "false"),
        ("Fuel", "null"),
        ("MaxConcurrency", "null"),
        ("Config", "null"),
        ("Config", "{}"),
        ("Config.Tty", "null"),
        ("Config.Env", "null"),
        ("Config.ExposedPorts", "null"),
        ("Config.ExposedPorts", "{}"),
        ("Config.Cmd", "null"),
        ("Config.Cmd", r#""""#),
        ("Config.Image", "null"),
        ("Config.Image", r#""""#),
        ("Config.Entrypoint", "null"),
        ("Config.Entrypoint", r#""""#),
        ("Config.WorkingDir", "null"),
        ("Config.WorkingDir", r#""""#),
        ("Config.Labels", "null"),
        ("Config.Labels", "{}"),
        ("Config.StopSignal", "null"),
        ("Config.StopSignal", r#""""#),
        ("HostConfig", "null"),
        ("HostConfig", "{}"),
        ("HostConfig.NetworkMode", "null"),
        ("HostConfig.NetworkMode", r#""""#),
        ("HostConfig.Links", "null"),
        ("HostConfig.VolumesFrom", "null"),
        ("HostConfig.PortBindings", "null"),
        ("HostConfig.PortBindings", "{}"),
        ("HostConfig.PublishAllPorts", "null"),
        ("NetworkingConfig", "null"),
        ("NetworkingConfig", "{}"),
        ("NetworkingConfig", r#"{"EndpointsConfig":null}"#),
        ("Unknown", r#"{"a":[1]}"#),
    ];
    for (field, value) in silent {
        let updated = server.put("/funcs/full", &only(field, value)).expect(200);
        assert_eq!(updated.header("content-type"), Some("application/json"));
        assert_eq!(updated.json(), before, "{field} {value}");
    }
    assert_eq!(server.put("/funcs/full", "{}").expect(200).json(), before);
    assert_eq!(server.inspect("full"), before);
}

#[test]
fn empty_variables_and_zeros_clear() {
    let (server, mut expected) = full();
    expected["Config"]["Env"] = json!([]);
    assert_eq!(server.put("/funcs/full", r#"{"Config":{"Env":[]}}"#).expect(200).json(), expected);
    for field in ["Fuel", "MaxConcurrency"] {
        expected.as_object_mut().unwrap().remove(field);
        assert_eq!(server.put("/funcs/full", &only(field, "0")).expect(200).json(), expected, "{field}");
    }
    assert_eq!(server.inspect("full"), expected);
}

#[test]
fn every_field_can_be_changed_and_nothing_else_changes() {
    let (server, mut expected) = full();
    server.load("other", &guests::prints("other"));
    for (name, value) in [
        ("ContainerSize", json!("s2")),
        ("Timeout", json!(5)),
        ("Fuel", json!(9)),
        ("MaxConcurrency", json!(3)),
        ("Config.Tty", json!(null)),
        ("Config.Env", json!(["B=2", "C=3"])),
        ("Config.ExposedPorts", json!({"53/udp": {}})),
        ("Config.Cmd", json!(["x", "y"])),
        ("Config.Image", json!("other")),
        ("Config.Entrypoint", json!(["z"])),
        ("Config.WorkingDir", json!("/tmp")),
        ("Config.Labels", json!({"owner": "me"})),
        ("Config.StopSignal", json!("SIGINT")),
        ("HostConfig.NetworkMode", json!("bridge")),
        ("HostConfig.Links", json!(["cache:c"])),
        ("HostConfig.VolumesFrom", json!(["logs:ro"])),
        ("HostConfig.PortBindings", json!({"53/udp": [{"HostIp": "::1", "HostPort": "1-2"}]})),
        ("HostConfig.PublishAllPorts", json!(null)),
        ("NetworkingConfig", json!({"EndpointsConfig": {"back": {}}})),
    ] {
        // What is off is not shown.
        let sent = if value.is_null() { json!(false) } else { value.clone() };
        let updated = server.put("/funcs/full", &only(name, &sent.to_string())).expect(200).json();
        assert_eq!(field(&updated, name), value, "{name}");
        let (object, key) = match name.split_once('.') {
            Some((outer, inner)) => (&mut expected[outer], inner),
            None => (&mut expected, name),
        };
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            object[key] = value;
        }
        expected["Warnings"] = updated["Warnings"].clone();
        assert_eq!(updated, expected, "{name}");
        assert_eq!(server.inspect("full"), expected, "{name}");
    }
    let server = server.kill_and_restart();
    assert_eq!(server.inspect("full"), expected);
}

#[test]
fn a_refreshed_address_is_new_and_the_old_one_dead_at_once() {
    let server = Server::with_guest();
    let mut seen = vec![server.inspect("base")];
    for _ in 0..5 {
        let old = seen.last().unwrap();
        let new = server.put("/funcs/base", r#"{"Refresh":true}"#).expect(200).json();
        let uuid = new["UUID"].as_str().unwrap();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "a version 4 UUID: {uuid}");
        assert!(seen.iter().all(|seen| seen["UUID"] != uuid), "{uuid} again");
        assert_eq!(server.call(&address(old), "").status, 404);
        server.call(&address(&new), "").expect(200);
        let mut expected = old.clone();
        expected["UUID"] = json!(uuid);
        assert_eq!(new, expected, "nothing else changes");
        assert_eq!(server.inspect("base"), new);
        seen.push(new);
    }
    let server = server.kill_and_restart();
    for (at, function) in seen.iter().enumerate() {
        let expected = if at + 1 == seen.len() { 200 } else { 404 };
        assert_eq!(server.call(&address(function), "").status, expected, "{at}");
    }
    for value in [r#""true""#, "1", "[]", "{}"] {
        assert_refused(&server.put("/funcs/base", &only("Refresh", value)), "Refresh", value);
    }
    assert_eq!(server.inspect("base"), *seen.last().unwrap());
}

#[test]
fn a_function_keeps_its_name() {
    let (server, before) = full();
    for name in [r#""base""#, r#""other""#, r#""FULL""#, r#""full ""#, "5", "[]"] {
        assert_refused(&server.put("/funcs/full", &format!(r#"{{"Name":{name},"Timeout":5}}"#)), "Name", name);
    }
    assert_eq!(server.inspect("full"), before);
}

#[test]
fn a_function_that_is_not_there_is_404() {
    let server = Server::with_guest();
    for name in ["nothing", "base2", "BASE", "no_name", &"x".repeat(300)] {
        let reply = server.put(&format!("/funcs/{name}"), r#"{"Timeout":5}"#).expect(404);
        assert_eq!(reply.text().lines().count(), 1);
    }
    assert_eq!(server.get("/funcs").json().as_array().unwrap().len(), 1, "none was made");
}

#[test]
fn a_refused_update_changes_nothing() {
    let (server, before) = full();
    for (body, field) in [
        (r#"{"Timeout":5,"ContainerSize":"xl"}"#, "ContainerSize"),
        (r#"{"Refresh":true,"Timeout":-1}"#, "Timeout"),
        (r#"{"Refresh":true,"Config":{"Env":[],"Image":"nothing"}}"#, "Config.Image"),
        (r#"{"Fuel":0,"Config":{"Env":["=x"]}}"#, "Config.Env"),
        (r#"{"Config":{"Cmd":[],"Labels":{"sh.hyperfunc.x":""}}}"#, "Config.Labels"),
        (r#"{"HostConfig":{"Links":[],"NetworkMode":"x"}}"#, "HostConfig.NetworkMode"),
        (r#"{"Timeout":5"#, "body"),
        (r#"{"Timeout":5} x"#, "body"),
        (r#"[{"Timeout":5}]"#, "body"),
        ("", "body"),
    ] {
        assert_refused(&server.put("/funcs/full", body), field, body);
        assert_eq!(server.inspect("full"), before, "{body}");
    }
    let server = server.kill_and_restart();
    assert_eq!(server.inspect("full"), before);
    assert_ne!(server.call(&address(&before), "").status, 404, "the address still stands");
}

#[test]
fn an_update_takes_effect_on_the_next_call() {
    let server = Server::start();
    server.load_bytes("toolbox", guests::TOOLBOX);
    server.load("spins", &guests::spins());
    let function = server.create(&json!({"Name": "f", "Config": {"Image": "toolbox", "Cmd": ["echo", "one"]}}));
    let address = address(&function);
    let after = |update: Value| {
        server.put("/funcs/f", &update.to_string()).expect(200);
        server.call(&address, "")
    };
    assert_eq!(server.call(&address, "").expect(200).text(), "one\n");
    assert_eq!(after(json!({"Config": {"Cmd": ["echo", "two"]}})).expect(200).text(), "two\n");
    assert_eq!(after(json!({"Config": {"Entrypoint": "echo"}})).expect(200).text(), "echo two\n");
    let env = after(json!({"Config": {"Entrypoint": "toolbox", "Cmd": "env", "Env": ["A=1"], "WorkingDir": "/srv"}}));
    let env = env.expect(200).text().to_owned();
    assert!(env.lines().any(|line| line == "A=1") && env.lines().any(|line| line == "PWD=/srv"), "{env}");
    let labels = json!({"Config": {"Labels": {"sh.hyperfunc.content-type": "text/csv"}}});
    assert_eq!(after(labels).expect(200).header("content-type"), Some("text/csv"));
    after(json!({"Fuel": 10})).expect(504);
    after(json!({"Fuel": 0})).expect(200);
    after(json!({"Config": {"Image": "spins"}, "Timeout": 1})).expect(504);
    after(json!({"Config": {"Image": "toolbox"}})).expect(200);
}
