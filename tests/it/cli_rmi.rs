//! `rmi` (`docs/api.md` section 8).

use crate::harness::program::{failed, printed, run};
use crate::harness::{Server, guests};

#[test]
fn an_image_loses_its_name_and_then_its_module() {
    let server = Server::start();
    for name in ["one", "acme/tool:2"] {
        server.load(name, &guests::prints("hi"));
    }
    let id = server.get("/images/one/json").json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(printed(run(&server, &["rmi", "one"])), "Untagged: one:latest\n");
    assert_eq!(printed(run(&server, &["rmi", "acme/tool:2"])), format!("Untagged: acme/tool:2\nDeleted: {id}\n"));
    assert_eq!(printed(run(&server, &["images", "-q"])), "");
}

#[test]
fn an_image_that_is_used_goes_by_force_alone() {
    let server = Server::start();
    server.function("f", &guests::prints("hi"), serde_json::json!({}));
    let image = server.get("/funcs/f").json()["Config"]["Image"].as_str().unwrap().to_owned();
    let (status, said) = failed(run(&server, &["rmi", &image]));
    assert_eq!((status, said.contains("in use by the function f")), (1, true), "{said}");
    assert!(printed(run(&server, &["rmi", "-f", &image])).starts_with("Untagged: "));
    let (status, said) = failed(run(&server, &["call", "--sync", "f"]));
    assert_eq!((status, said.contains("no such image: ")), (127, true), "{said}");
}

#[test]
fn what_can_be_removed_is_and_what_cannot_is_said() {
    let server = Server::start();
    for name in ["one", "two"] {
        server.load(name, &guests::prints(name));
    }
    let output = run(&server, &["rmi", "one", "nothing", "two"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "hyperfunc: no such image: nothing\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches("Untagged: ").count(), 2);
    assert_eq!(printed(run(&server, &["images", "-q"])), "");
    for (arguments, status) in
        [(&["rmi", "nothing"] as &[_], 127), (&["rmi", "nothing", "neither"], 1), (&["rmi"], 2), (&["rmi", ""], 2)]
    {
        assert_eq!(failed(run(&server, arguments)).0, status, "{arguments:?}");
    }
}
