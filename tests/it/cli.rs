//! The command line, through the real program (`docs/api.md` section 8).

use crate::harness::program::{failed, printed, run, run_with};
use crate::harness::{Server, binary, guests};
use serde_json::{Value, json};
use std::path::PathBuf;

fn toolbox() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("guest-examples/toolbox/toolbox.wasm");
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_session_goes_from_a_file_to_an_answer() {
    let server = Server::start();
    assert_eq!(printed(run(&server, &["load", &toolbox(), "-t", "ubuntu"])), "ubuntu:latest has been loaded.\n");

    let created = printed(run(&server, &["create", "--name", "hello", "ubuntu", "echo", "Hello", "--World"]));
    let function = server.get("/funcs/hello").json();
    let uuid = function["UUID"].as_str().unwrap();
    let address = format!("http://{}/call/hello/{uuid}", server.address);
    assert_eq!(created, format!("hello is created with the address of {address}\n"));
    assert_eq!(printed(run(&server, &["call", "--sync", "hello"])), "Hello --World\n");

    let listed = printed(run(&server, &["ls"]));
    let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "SIZE", "TIMEOUT", "IMAGE", "COMMAND", "CREATED"]);
    assert_eq!(words[1][..7], ["hello", "s4", "300s", "ubuntu", "echo", "Hello", "--World"]);
    assert_eq!(printed(run(&server, &["ls", "-q"])), "hello\n");
    assert_eq!(printed(run(&server, &["ls", "-q", "-f", "name=other"])), "");
    let json: Value = serde_json::from_str(&printed(run(&server, &["ls", "--json"]))).unwrap();
    assert_eq!(json, json!([function]));

    let inspected = printed(run(&server, &["inspect", "hello"]));
    assert_eq!(serde_json::from_str::<Value>(&inspected).unwrap(), json!([function]));
    let order = ["\"Name\"", "\"ContainerSize\"", "\"UUID\"", "\"Config\"", "\"NetworkingConfig\""];
    assert!(order.map(|key| inspected.find(key).unwrap()).is_sorted(), "{inspected}");

    let images = printed(run(&server, &["images"]));
    let words: Vec<&str> = images.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("ubuntu", "latest"));
    assert_eq!(printed(run(&server, &["images", "-q"])).trim_end(), words[2]);
    assert_eq!(printed(run(&server, &["images", "-q", "other"])), "");

    assert_eq!(printed(run(&server, &["rm", "hello"])), "hello\n");
    assert_eq!(server.get("/funcs/hello").status, 404);
}

#[test]
fn the_hyper_command_lines_verbs_are_there_too() {
    let server = Server::start();
    server.load("image", &guests::prints("hi"));
    printed(run(&server, &["func", "create", "--name", "f", "image"]));
    assert_eq!(printed(run(&server, &["func", "ls", "-q"])), "f\n");
    assert_eq!(printed(run(&server, &["func", "call", "--sync", "f"])), "hi");
    assert!(printed(run(&server, &["func", "inspect", "f"])).contains("\"Name\": \"f\""));
    printed(run(&server, &["func", "rm", "f"]));
}

#[test]
fn create_sends_what_its_flags_say() {
    let server = Server::start();
    server.load("image", &guests::prints("hi"));
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let (env, labels) = (file("env", "# a comment\n\nA=1\nB=2\n"), file("labels", "team=x\n"));
    let arguments = [
        ["--name", "f"],
        ["--size", "M1"],
        ["--timeout", "7"],
        ["-e", "C=3"],
        ["-e", "NOT_SET_ANYWHERE"],
        ["--env-file", &env],
        ["--entrypoint", "e"],
        ["-w", "/w"],
        ["-l", "plain"],
        ["--label-file", &labels],
        ["--expose", "53/udp"],
        ["-p", "127.0.0.1:8080:80"],
        ["--link", "a:b"],
        ["--volumes-from", "v:ro"],
        ["--stop-signal", "9"],
        ["--fuel", "1000000"],
        ["--max-concurrency", "2"],
        ["-t", "-P"],
    ];
    let arguments: Vec<&str> =
        std::iter::once("create").chain(arguments.concat()).chain(["image", "x", "-y"]).collect();
    let output = run(&server, &arguments);
    assert_eq!(output.status.code(), Some(0));
    let warnings = String::from_utf8(output.stderr).unwrap();
    for field in ["Config.ExposedPorts", "HostConfig.Links", "HostConfig.PortBindings", "Config.StopSignal"] {
        assert!(warnings.contains(field), "{field} is not warned of: {warnings}");
    }
    let mut function = server.get("/funcs/f").json();
    for key in ["UUID", "Created", "Warnings", "NetworkingConfig"] {
        function.as_object_mut().unwrap().remove(key);
    }
    let expected = json!({
        "Name": "f", "ContainerSize": "m1", "Timeout": 7,
        "Config": {
            "Tty": true, "Env": ["A=1", "B=2", "C=3"], "ExposedPorts": {"53/udp": {}, "80/tcp": {}}, "Cmd": ["x", "-y"],
            "Image": "image", "Entrypoint": ["e"], "WorkingDir": "/w", "Labels": {"plain": "", "team": "x"},
            "StopSignal": "9",
        },
        "HostConfig": {
            "VolumesFrom": ["v:ro"], "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "Links": ["a:b"], "PublishAllPorts": true, "NetworkMode": "bridge",
        },
        "Fuel": 1_000_000, "MaxConcurrency": 2,
    });
    assert_eq!(function, expected);
}

#[test]
fn an_option_is_never_taken_for_the_command() {
    let server = Server::start();
    server.load("image", &guests::prints("hi"));
    let config = |name: &str| server.get(&format!("/funcs/{name}")).json()["Config"].clone();
    printed(run(&server, &["create", "image", "-eA=1", "--name=f", "word", "-eB=2", "--size"]));
    assert_eq!((&config("f")["Env"], &config("f")["Cmd"]), (&json!(["A=1"]), &json!(["word", "-eB=2", "--size"])));
    printed(run(&server, &["update", "f", "-eC=3"]));
    assert_eq!((&config("f")["Env"], &config("f")["Cmd"]), (&json!(["C=3"]), &json!(["word", "-eB=2", "--size"])));
    printed(run(&server, &["create", "--name", "g", "image", "--", "-x"]));
    assert_eq!(config("g")["Cmd"], json!(["-x"]));

    let wrong =
        [["create", "image", "--nmae", "h"], ["update", "f", "--sise", "s1"], ["bench", "f", "--duratoin", "1s"]];
    for arguments in wrong {
        let (status, said) = failed(run(&server, &arguments));
        assert!(status == 2 && said.contains("a similar argument exists"), "{said}");
    }
    assert_eq!(printed(run(&server, &["ls", "-q"])), "f\ng\n");
}

#[test]
fn a_function_without_a_name_gets_one() {
    let server = Server::start();
    server.load("acme/some_tool:2", &guests::prints("hi"));
    for _ in 0..2 {
        assert!(printed(run(&server, &["create", "acme/some_tool:2"])).starts_with("some-tool-"));
    }
    assert_eq!(server.get("/funcs").json().as_array().unwrap().len(), 2);
}

#[test]
fn stdin_goes_in_and_stdout_comes_out_byte_for_byte() {
    let server = Server::start();
    server.function("cat", &guests::cat(), json!({}));
    let bytes: Vec<u8> = (0..1 << 20).map(|index| (index * 7) as u8).collect();
    let output = run_with(&server, &["call", "--sync", "cat"], &bytes);
    assert_eq!((output.status.code(), output.stdout == bytes), (Some(0), true));
    let (status, said) = failed(run_with(&server, &["call", "--sync", "cat"], &[&bytes[..], b"x"].concat()));
    assert_eq!((status, said.contains("1048576 bytes")), (1, true), "{said}");
}

#[test]
fn with_two_listeners_functions_are_called_on_theirs() {
    let server = Server::with(&["--func-listen", "127.0.0.1:0"]);
    server.load("image", &guests::prints("hi"));
    let created = printed(run(&server, &["create", "--name", "f", "image"]));
    assert!(created.contains(&format!("http://{}/call/f/", server.functions)), "{created}");
    assert_eq!(printed(run(&server, &["call", "--sync", "f"])), "hi");

    let server = Server::with(&["--public-url", "https://functions.example.org/"]);
    server.load("image", &guests::prints("hi"));
    let created = printed(
        binary().args(["create", "--server", &format!("http://{}", server.address), "image"]).output().unwrap(),
    );
    assert!(created.contains(" https://functions.example.org/call/image-"), "{created}");
}

#[test]
fn failures_say_what_is_wrong_and_where() {
    let server = Server::start();
    server.load("image", &guests::fails(3, "no luck"));
    printed(run(&server, &["create", "--name", "f", "image"]));
    for (arguments, status, words) in [
        (&["inspect", "nothing", "f"] as &[_], 1, "no such function: nothing"),
        (&["inspect", "nothing"], 127, "no such function: nothing"),
        (&["call", "--sync", "nothing"], 127, "no such function: nothing"),
        (&["call", "--sync", "f"], 3, "exit status 3: no luck"),
        (&["rm", "nothing"], 127, "no such function: nothing"),
        (&["rm", "nothing", "neither"], 1, "no such function: neither"),
        (&["create", "--name", "f", "image"], 1, "a function named f exists already"),
        (&["create", "--name", "F", "image"], 1, "Name: "),
        (&["create", "nothing"], 127, "no such image: nothing"),
        (&["create", "--size", "xl", "image"], 1, "ContainerSize: "),
        (&["ls", "-f", "colour=red"], 1, "filters: "),
        (&["ls", "-f", "name"], 1, "KEY=VALUE"),
        (&["load", "/nowhere/x.wasm"], 127, "/nowhere/x.wasm"),
        (&["load", "/proc/self/status", "-t", "x"], 126, "not a WebAssembly module"),
        (&["load", "/proc/self/status", "-t", "X"], 1, "not an image name"),
        (&["create", "--env-file", "/nowhere/env", "image"], 1, "/nowhere/env"),
    ] {
        let output = run(&server, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains(words)), (Some(status), true), "{arguments:?}: {said}");
        assert!(said.starts_with("hyperfunc: "), "{said}");
    }
    for arguments in [&["create"] as &[_], &["launch"], &["ls", "-q", "--json"], &["--server", "x", "ls"]] {
        assert_eq!(run(&server, arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn without_a_server_it_says_where_it_looked() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let (status, said) = failed(binary().args(["ls", "--server", &url]).output().unwrap());
    assert_eq!(status, 125);
    assert!(said.contains(&url) && said.contains("hyperfunc serve"), "{said}");
    let version = printed(binary().args(["version", "--server", &url]).output().unwrap());
    assert!(version.starts_with("client: hyperfunc ") && version.contains("server: none answers"), "{version}");
    for url in ["https://localhost", "localhost:8080"] {
        assert_eq!(binary().args(["ls", "--server", url]).output().unwrap().status.code(), Some(2), "{url}");
    }
}

#[test]
fn the_server_says_where_it_is_and_its_data() {
    let server = Server::start();
    assert!(server.data.join("hyperfunc.db").is_file());
    let version = printed(run(&server, &["version"]));
    assert!(version.contains(&format!("API 1.23, at http://{}", server.address)), "{version}");
}
