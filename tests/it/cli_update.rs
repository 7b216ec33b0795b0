//! `update` of the command line, and what `create` shares with it (`docs/api.md` section 8).

use crate::harness::program::{failed, printed, run};
use crate::harness::{Server, address, guests};
use serde_json::{Value, json};

fn server() -> Server {
    let server = Server::start();
    server.load("image", &guests::prints("hi"));
    server.create(&json!({
        "Name": "f", "ContainerSize": "m1", "Fuel": 1_000_000_000, "MaxConcurrency": 7,
        "Config": {"Image": "image", "Env": ["A=1"], "Cmd": ["c"], "Labels": {"tier": "web"}},
    }));
    server
}

#[test]
fn what_is_not_said_stays() {
    let server = server();
    let before = server.get("/funcs/f").json();
    assert_eq!(printed(run(&server, &["update", "f"])), "Function f is updated.\n");
    assert_eq!(server.get("/funcs/f").json(), before);
    // A variable that this shell does not have is not one.
    printed(run(&server, &["update", "-e", "NOT_SET_ANYWHERE", "f"]));
    assert_eq!(server.get("/funcs/f").json(), before);
}

#[test]
fn what_is_said_takes_the_place_of_what_was() {
    let server = server();
    server.load("other", &guests::prints("other"));
    let arguments = [
        ["--size", "s2"],
        ["--timeout", "9"],
        ["-e", "B=2"],
        ["--image", "other"],
        ["--entrypoint", "e"],
        ["-w", "/w"],
        ["-l", "team=x"],
        ["--fuel", "0"],
        ["--max-concurrency", "0"],
    ];
    let arguments: Vec<&str> = std::iter::once("update").chain(arguments.concat()).chain(["f", "x", "-y"]).collect();
    printed(run(&server, &arguments));
    let func = server.get("/funcs/f").json();
    let config = &func["Config"];
    assert_eq!((&func["ContainerSize"], &func["Timeout"]), (&json!("s2"), &json!(9)));
    assert_eq!((&func["Fuel"], &func["MaxConcurrency"]), (&Value::Null, &Value::Null));
    assert_eq!((&config["Env"], &config["Image"]), (&json!(["B=2"]), &json!("other")));
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["e"]), &json!(["x", "-y"])));
    assert_eq!((&config["WorkingDir"], &config["Labels"]), (&json!("/w"), &json!({"team": "x"})));
    assert_eq!(printed(run(&server, &["call", "--sync", "f"])), "other");
}

#[test]
fn the_environment_is_replaced_or_cleared_as_a_whole() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    std::fs::write(&file, "# of a file\nB=2\n").unwrap();
    let env = || server.get("/funcs/f").json()["Config"]["Env"].clone();
    printed(run(&server, &["func", "update", "--env-file", file.to_str().unwrap(), "-e", "C=3", "f"]));
    assert_eq!(env(), json!(["B=2", "C=3"]));
    printed(run(&server, &["update", "-e", "", "f"]));
    assert_eq!(env(), json!([]));
}

#[test]
fn a_refreshed_function_has_a_new_address_and_no_other() {
    let server = server();
    let old = address(&server.get("/funcs/f").json());
    let said = printed(run(&server, &["update", "--refresh", "f"]));
    let new = address(&server.get("/funcs/f").json());
    assert_ne!(new, old);
    let new = new.trim_end_matches("/sync");
    assert_eq!(said, format!("Function f is updated with the address of http://{}{new}\n", server.address));
    assert_eq!(server.call(&old, "").status, 404);
    assert_eq!(printed(run(&server, &["call", "--sync", "f"])), "hi");
}

#[test]
fn programs_get_the_name_alone_or_what_the_server_answers() {
    let server = server();
    assert_eq!(printed(run(&server, &["update", "-q", "--refresh", "f"])), "f\n");
    let json: Value = serde_json::from_str(&printed(run(&server, &["update", "--json", "--refresh", "f"]))).unwrap();
    assert_eq!(json, server.get("/funcs/f").json());

    assert_eq!(printed(run(&server, &["create", "-q", "--name", "g", "image"])), "g\n");
    let json: Value = serde_json::from_str(&printed(run(&server, &["create", "--json", "image"]))).unwrap();
    assert_eq!(json, server.get(&format!("/funcs/{}", json["Name"].as_str().unwrap())).json());
    for verb in ["create", "update"] {
        assert_eq!(failed(run(&server, &[verb, "-q", "--json", "f"])).0, 2);
    }
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let server = server();
    let output = run(&server, &["update", "-p", "80", "f"]);
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(warnings.lines().all(|line| line.starts_with("hyperfunc: warning: ")), "{warnings}");
    assert!(warnings.contains("HostConfig.PortBindings"), "{warnings}");
}

#[test]
fn a_wrong_update_changes_nothing() {
    let server = server();
    let before = server.get("/funcs/f").json();
    for (arguments, status, words) in [
        (&["update", "nothing"] as &[_], 127, "no such function: nothing"),
        (&["func", "update", "nothing"], 127, "no such function: nothing"),
        (&["update", "--image", "nothing", "f"], 127, "no such image: nothing"),
        (&["update", "--size", "xl", "f"], 1, "ContainerSize: "),
        (&["update", "--timeout", "-1", "f"], 2, "-1"),
        (&["update", "--timeout", "100000", "f"], 1, "Timeout: "),
        (&["update", "-e", "=x", "f"], 1, "Config.Env"),
        (&["update", "--env-file", "/nowhere/env", "f"], 1, "/nowhere/env"),
        (&["update", "--fuel", "much", "f"], 2, "--fuel"),
        (&["update", "--size", "s2"], 2, "NAME"),
        (&["update"], 2, "NAME"),
    ] {
        let (exited, said) = failed(run(&server, arguments));
        assert_eq!((exited, said.contains(words)), (status, true), "{arguments:?}: {said}");
    }
    assert_eq!(server.get("/funcs/f").json(), before);
}
