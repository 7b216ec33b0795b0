//! Clients of 2018: requests as the Hyper command line sends them, and answers that it can decode.
//!
//! Its own requests are replayed where `HYPER_CLI_FIXTURES` names a directory of them, one raw request a file.

use crate::harness::{Reply, Server, guests};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A signature; what it is worth, this version does not ask.
const HEADERS: &str = "Host: localhost:443\r\nUser-Agent: Docker-Client/library-import (linux)\r\n\
    Authorization: HYPER-HMAC-SHA256 Credential=A/20261124/us-west-1/hyper/hyper_request, \
    SignedHeaders=content-type;host;x-hyper-content-sha256;x-hyper-date, Signature=00\r\n\
    Content-Type: application/json\r\nX-Hyper-Content-Sha256: 00\r\nX-Hyper-Date: 20261124T000229Z\r\n\
    Accept-Encoding: gzip\r\n";

fn raw(server: &Server, request: &[u8]) -> Reply {
    let mut connection = server.connect();
    connection.write(request);
    connection.reply()
}

fn ask(server: &Server, method: &str, target: &str, body: &str) -> Reply {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw(server, format!("{method} {target} HTTP/1.1\r\n{HEADERS}{length}\r\n{body}").as_bytes())
}

/// What the client decodes a Func into.
#[track_caller]
fn is_func(value: &Value) {
    for (key, kind) in [("Name", "string"), ("ContainerSize", "string"), ("UUID", "string"), ("Created", "string")] {
        assert!(value[key].is_string(), "{key} is no {kind}: {value}");
    }
    assert!(value["Timeout"].is_u64() && value["Config"]["Env"].is_array() && value["Config"]["Image"].is_string());
    assert!(value["HostConfig"]["NetworkMode"].is_string() && value["NetworkingConfig"].is_object());
}

#[track_caller]
fn json_of(reply: Reply, status: u16) -> Value {
    let reply = reply.expect(status);
    assert_eq!(reply.header("content-type"), Some("application/json"), "the client compares the string");
    reply.json()
}

const CREATE: &str = r#"{"Name":"hello","ContainerSize":"s1","Timeout":60,"Created":"0001-01-01T00:00:00Z","Config":{"Env":["B=2"],"ExposedPorts":{"80/tcp":{}},"Cmd":["echo","HelloWorld"],"Image":"ubuntu","WorkingDir":"/srv","Labels":{"team":"y"},"StopSignal":"SIGTERM"},"HostConfig":{"VolumesFrom":["data:ro"],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"Links":["other:o"],"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{}}}"#;

#[test]
fn a_session_of_the_hyper_command_line_goes_through() {
    let server = Server::start();
    server.load_bytes("ubuntu", guests::TOOLBOX);
    // It inspects the image before it creates.
    let image = json_of(ask(&server, "GET", "/v1.23/images/ubuntu/json", ""), 200);
    assert!(image["Id"].is_string() && image["Config"]["Entrypoint"].is_array());
    let created = json_of(ask(&server, "POST", "/v1.23/funcs/create", CREATE), 201);
    is_func(&created);
    assert_ne!(created["Created"], "0001-01-01T00:00:00Z");
    assert_eq!(created["NetworkingConfig"], json!({"EndpointsConfig": {}}));

    let listed = json_of(ask(&server, "GET", "/v1.23/funcs", ""), 200);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    is_func(&listed[0]);
    let filter = "/v1.23/funcs?filters=%7B%22name%22%3A%7B%22hello%22%3Atrue%7D%7D";
    assert_eq!(json_of(ask(&server, "GET", filter, ""), 200), listed);

    let update = |fields: &str| {
        let body = format!(
            r#"{{"Name":"hello",{fields}"Created":"0001-01-01T00:00:00Z","HostConfig":{{}},"NetworkingConfig":{{"EndpointsConfig":null}}}}"#
        );
        json_of(ask(&server, "PUT", "/v1.23/funcs/hello", &body), 200)
    };
    let sized = update(r#""ContainerSize":"s3","Config":{},"#);
    assert_eq!((&sized["ContainerSize"], &sized["Timeout"]), (&json!("s3"), &json!(60)));
    assert_eq!(sized["Config"], created["Config"], "what was not named is as it was");
    assert_eq!(update(r#""Config":{"Env":[]},"#)["Config"]["Env"], json!([]));
    let refreshed = update(r#""Refresh":true,"Config":{},"#);
    assert_ne!(refreshed["UUID"], created["UUID"]);

    let uuid = refreshed["UUID"].as_str().unwrap();
    let call = format!(
        "POST /call/hello/{uuid}/sync HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: 0\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    assert_eq!(raw(&server, call.as_bytes()).expect(200).text(), "HelloWorld\n");

    ask(&server, "DELETE", "/v1.23/funcs/hello", "").expect(204);
    let images = json_of(ask(&server, "GET", "/v1.23/images/json?filter=ubuntu", ""), 200);
    assert_eq!(images[0]["RepoTags"], json!(["ubuntu:latest"]));
    assert!(images[0]["Created"].is_i64() && images[0]["Size"].is_u64());
    let removed = json_of(ask(&server, "DELETE", "/v1.23/images/ubuntu", ""), 200);
    assert_eq!(removed[0], json!({"Untagged": "ubuntu:latest"}));
    let version = json_of(ask(&server, "GET", "/v1.23/version", ""), 200);
    assert_eq!(version["ApiVersion"], "1.23");
    assert!(json_of(ask(&server, "GET", "/v1.23/info", ""), 200)["Images"].is_u64());
}

/// The recorded requests that concern what this version does, with what each must answer.
const RECORDED: [(&str, u16); 15] = [
    ("01-create-GET", 200),
    ("02-create-POST", 201),
    ("03-ls-GET", 200),
    ("04-ls-filter-GET", 200),
    ("05-inspect-GET", 200),
    ("06-update-size-PUT", 200),
    ("07-update-env-clear-PUT", 200),
    ("08-update-refresh-PUT", 200),
    ("09-call-sync-GET", 200),
    ("10-call-sync-POST", 200),
    ("21-rm-DELETE", 204),
    ("22-images-GET", 200),
    ("23-images-name-GET", 200),
    ("25-version-GET", 200),
    ("26-info-GET", 200),
];

#[test]
fn the_recorded_requests_of_the_hyper_command_line_are_answered() {
    let Some(dir) = std::env::var_os("HYPER_CLI_FIXTURES").map(PathBuf::from).filter(|dir| dir.is_dir()) else {
        eprintln!("skipped: HYPER_CLI_FIXTURES names no directory of recorded requests");
        return;
    };
    let server = Server::start();
    server.load_bytes("ubuntu", guests::TOOLBOX);
    let mut uuid = String::new();
    for (name, status) in RECORDED {
        let reply = raw(&server, &recorded(&dir, name, &uuid)).expect(status);
        match name {
            "10-call-sync-POST" => assert_eq!(reply.text(), "HelloWorld\n"),
            "21-rm-DELETE" => assert!(reply.body.is_empty()),
            _ => {
                let value = json_of(reply, status);
                if let Some(address) = value["UUID"].as_str() {
                    is_func(&value);
                    address.clone_into(&mut uuid);
                }
            }
        }
    }
    let removed = raw(&server, &recorded(&dir, "24-rmi-DELETE", &uuid)).expect(200).json();
    assert_eq!(removed[0], json!({"Untagged": "ubuntu:latest"}));
}

/// A recorded request; in the path of a call, the address of the function that is there now.
fn recorded(dir: &Path, name: &str, uuid: &str) -> Vec<u8> {
    const RECORDED_UUID: &str = "e62c014e-386c-42ea-8d07-41d44e98cc3d";
    let bytes = std::fs::read(dir.join(format!("{name}.http"))).unwrap();
    String::from_utf8(bytes).unwrap().replace(RECORDED_UUID, uuid).into_bytes()
}
