//! The example that the API started from: its request gets its answer, field for field and in its order.

use crate::harness::{Server, address, guests};

/// The request of the documentation of 2017, as it stands.
const REQUEST: &str = r#"{
    "Name": "helloworld",
    "Config": {
        "Cmd": [
            "echo",
            "HelloWorld"
        ],
        "Image": "ubuntu"
    }
}"#;

#[test]
fn the_seeds_request_gets_the_seeds_answer_and_prints_hello_world() {
    let server = Server::start();
    server.load_bytes("ubuntu", guests::TOOLBOX);
    let create = server.request("POST", "/funcs/create").header("Content-Type", "application/json");
    let reply = create.body(REQUEST).send().expect(201);
    assert_eq!(reply.header("content-type"), Some("application/json"));

    let function = reply.json();
    let (uuid, created) = (function["UUID"].as_str().unwrap(), function["Created"].as_str().unwrap());
    let expected = format!(
        concat!(
            r#"{{"Name":"helloworld","ContainerSize":"s4","Timeout":300,"UUID":"{}","Created":"{}","#,
            r#""Config":{{"Env":[],"Cmd":["echo","HelloWorld"],"Image":"ubuntu","StopSignal":"SIGTERM"}},"#,
            r#""HostConfig":{{"NetworkMode":"bridge"}},"NetworkingConfig":{{"EndpointsConfig":null}}}}"#,
        ),
        uuid, created
    );
    assert_eq!(reply.text().trim_end(), expected);
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "a version 4 UUID");
    assert!(created.len() == 24 && created.ends_with('Z') && created.as_bytes()[19] == b'.', "{created}");

    let answer = server.call(&address(&function), "").expect(200);
    assert_eq!((answer.text(), answer.header("content-type")), ("HelloWorld\n", Some("text/plain")));
}
