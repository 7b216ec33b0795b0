//! `inspect -f` (`docs/api.md` section 8). What templates mean is tested beside their code.

use crate::harness::program::{failed, printed, run};
use crate::harness::{Server, binary, guests};
use serde_json::{Value, json};

fn server() -> Server {
    let server = Server::start();
    server.load("image", &guests::prints("hi"));
    for name in ["f", "g"] {
        server.create(&json!({"Name": name, "Config": {"Image": "image", "Env": ["A=1", "B=2"], "Cmd": ["x", "-y"]}}));
    }
    server
}

#[test]
fn a_template_makes_a_line_of_each_function() {
    let server = server();
    let made = |template: &str| printed(run(&server, &["inspect", "-f", template, "f"]));
    let func = server.get("/funcs/f").json();
    assert_eq!(made("{{.UUID}}"), format!("{}\n", func["UUID"].as_str().unwrap()));
    assert_eq!(made("{{.Config.Image}}: {{index .Config.Env 0}}, {{len .Config.Cmd}}"), "image: A=1, 2\n");
    assert_eq!(made("{{range .Config.Env}}{{println .}}{{end}}"), "A=1\nB=2\n\n");
    assert_eq!(made("{{if .Fuel}}{{.Fuel}}{{else}}not metered{{end}}"), "not metered\n");
    for (template, part) in [("{{json .}}", &func), ("{{json .Config}}", &func["Config"])] {
        assert_eq!(serde_json::from_str::<Value>(&made(template)).unwrap(), *part);
    }
    assert_eq!(printed(run(&server, &["func", "inspect", "--format", "{{.Name}}", "f", "g"])), "f\ng\n");
}

#[test]
fn what_is_not_there_is_said_beside_what_is() {
    let server = server();
    let output = run(&server, &["inspect", "-f", "{{.Name}}", "f", "nothing", "g"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"f\ng\n".as_slice()));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "hyperfunc: no such function: nothing\n");
    // Without a template there is JSON in any case.
    let output = run(&server, &["inspect", "nothing"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(127), b"[]\n".as_slice()));
}

#[test]
fn a_wrong_template_is_wrong_usage_before_anybody_is_asked() {
    // Nobody listens there.
    let output = binary().args(["inspect", "--server", "http://127.0.0.1:1", "-f", "{{.Name}}{{if}}", "f"]).output();
    let (status, said) = failed(output.unwrap());
    assert_eq!(status, 2);
    assert!(said.contains("--format") && said.contains("at column 10: a value is missing"), "{said}");
}

#[test]
fn a_template_for_other_data_fails_with_its_place() {
    let server = server();
    let (status, said) = failed(run(&server, &["inspect", "-f", "{{index .Config.Env 2}}", "f"]));
    assert_eq!((status, said.as_str()), (1, "hyperfunc: --format: at column 3: index 2 of a list of 2\n"));
}
