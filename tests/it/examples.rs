//! The built guest examples do what their pages say.

use crate::harness::{Server, address, guests};
use serde_json::json;

const HELLO: &[u8] = include_bytes!("../../guest-examples/hello/hello.wasm");
const ECHO: &[u8] = include_bytes!("../../guest-examples/echo/echo.wasm");

#[test]
fn hello_greets_and_echo_answers_with_what_it_got() {
    let server = Server::start();
    server.load_bytes("hello", HELLO);
    server.load_bytes("echo", ECHO);
    let function = |name: &str| address(&server.create(&json!({"Name": name, "Config": {"Image": name}})));
    assert_eq!(server.call(&function("hello"), "").text(), "Hello, World!\n");
    let bytes: Vec<u8> = (0..1 << 20).map(|index: u32| (index * 7) as u8).collect();
    assert!(server.call(&function("echo"), bytes.clone()).expect(200).body == bytes);
}

#[test]
fn the_toolbox_has_its_applets() {
    let server = Server::start();
    server.load_bytes("toolbox", guests::TOOLBOX);
    let call = |name: &str, cmd: &[&str], body: &str| {
        let function = json!({"Name": name, "Config": {"Image": "toolbox", "Cmd": cmd, "Env": ["A=1"]}});
        server.call(&address(&server.create(&function)), body)
    };
    assert_eq!(call("echo", &["echo", "a", "b"], "").text(), "a b\n");
    assert_eq!(call("cat", &["cat"], "x\ny").text(), "x\ny");
    assert!(call("env", &["env"], "").text().contains("A=1\n"));
    assert_eq!(call("rev", &["rev"], "abc\n").text(), "cba\n");
    assert_eq!(call("wc", &["wc"], "one two\nthree\n").text().split_whitespace().collect::<Vec<_>>(), ["2", "3", "14"]);
    assert_eq!(call("sleep", &["sleep", "0.01"], "").expect(200).text(), "");
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert!(call("sha256", &["sha256"], "").text().starts_with(empty));
    assert!(call("exit", &["exit", "3"], "").expect(500).text().starts_with("exit status 3"));
    assert!(call("nothing", &["nothing"], "").expect(500).text().starts_with("exit status 127"));
}
