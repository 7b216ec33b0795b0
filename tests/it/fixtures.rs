//! Clients of 2018: requests as the Hyper command line sends them, and answers that it can decode.
//!
//! Its own requests are replayed where `HYPER_CLI_FIXTURES` names a directory of them, one raw request a file.

use crate::harness::{Reply, Server, eventually, guests};
use serde_json::{Value, json};
use std::io::BufRead as _;
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

    calls_that_nobody_waits_for(&server, uuid);

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

/// The middle of the session: each verb first asks for the function, by its name or by its call.
fn calls_that_nobody_waits_for(server: &Server, uuid: &str) {
    const GO: &str = "Host: localhost\r\nUser-Agent: Go-http-client/1.1\r\n";
    const GZIP: &str = "Accept-Encoding: gzip\r\n";
    let to = |method: &str, route: &str, target: &str, rest: &str| {
        let request = format!("{method} /{route}/hello/{uuid}{target} HTTP/1.1\r\n{GO}{rest}");
        raw(server, request.as_bytes())
    };
    let body = format!("Transfer-Encoding: chunked\r\n{GZIP}\r\n8\r\npayload\n\r\n0\r\n\r\n");
    let call_id = call_id_of(to("POST", "call", "", &body));
    is_func(&json_of(ask(server, "GET", &format!("/v1.23/funcs/call/{call_id}"), ""), 200));
    let output = to("GET", "output", &format!("/{call_id}/wait"), &format!("{GZIP}\r\n"));
    assert_eq!(output.expect(200).text(), "HelloWorld\n");
    // Three lines are of the synchronous call before.
    is_log(&to("GET", "logs", "?tail=5", &format!("{GZIP}\r\n")).expect(200), 5);
    let follows = format!(
        "GET /logs/hello/{uuid}?follow=true&tail=all HTTP/1.1\r\n{GO}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    is_followed(server, &follows, 7);
    eventually("what was read is forgotten", || {
        is_status(&to("GET", "status", "?list=false", &format!("{GZIP}\r\n"))) == 0
    });
}

/// What the client decodes an accepted call into.
#[track_caller]
fn call_id_of(reply: Reply) -> String {
    let accepted = json_of(reply, 200);
    accepted["CallId"].as_str().unwrap_or_else(|| panic!("no CallId: {accepted}")).to_owned()
}

/// Whether each line is an event, as the client decodes it.
#[track_caller]
fn is_events<'a>(lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["Time", "Event", "CallId"] {
            assert!(event[key].is_string(), "no {key}: {line}");
        }
        for key in ["ShortStdin", "ShortStdout", "ShortStderr", "Message"] {
            assert!(event[key].is_string() || event[key].is_null(), "{key}: {line}");
        }
    }
}

/// Checks a log that is read at once; the client reads the body to its end.
#[track_caller]
fn is_log(reply: &Reply, lines: usize) {
    assert_eq!(reply.header("content-encoding"), None, "although it takes gzip");
    is_events(reply.text().lines());
    assert_eq!(reply.text().lines().count(), lines);
}

/// Checks a log that is followed: after the head of the answer the client reads lines as they are.
#[track_caller]
fn is_followed(server: &Server, request: &str, lines: usize) {
    let mut connection = server.connect();
    connection.write(request.as_bytes());
    let mut line = || {
        let mut line = String::new();
        connection.stream.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "HTTP/1.1 101 UPGRADED\r\n");
    while line() != "\r\n" {}
    let log: Vec<String> = (0..lines).map(|_| line()).collect();
    is_events(log.iter().map(String::as_str));
}

/// What the client decodes a status into: integers; returns the total.
#[track_caller]
fn is_status(reply: &Reply) -> u64 {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let status = reply.json();
    let numbers = ["Total", "Pending", "Running", "Finished", "Failed"]
        .map(|key| status[key].as_u64().unwrap_or_else(|| panic!("{status}")));
    assert_eq!(status.as_object().unwrap().len(), numbers.len(), "no list was asked for: {status}");
    assert_eq!(numbers[0], numbers[1..].iter().sum::<u64>());
    numbers[0]
}

/// The recorded requests that concern what this version does, with what each must answer.
const RECORDED: [(&str, u16); 25] = [
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
    ("11-call-async-GET", 200),
    ("12-call-async-POST", 200),
    ("13-get-wait-GET", 200),
    ("14-get-wait-GET", 200),
    ("15-logs-GET", 200),
    ("16-logs-GET", 200),
    ("17-logs-follow-GET", 200),
    ("18-logs-follow-GET", 101),
    ("19-status-GET", 200),
    ("20-status-GET", 200),
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
    let (mut uuid, mut call_id) = (String::new(), String::new());
    for (name, status) in RECORDED {
        let request = recorded(&dir, name, &uuid, &call_id);
        if status == 101 {
            is_followed(&server, &request, 7);
            continue;
        }
        let reply = raw(&server, request.as_bytes()).expect(status);
        match name {
            "10-call-sync-POST" | "14-get-wait-GET" => assert_eq!(reply.text(), "HelloWorld\n"),
            "12-call-async-POST" => call_id = call_id_of(reply),
            "16-logs-GET" => is_log(&reply, 5),
            // What was read may be known a little longer.
            "20-status-GET" => assert!(is_status(&reply) <= 1),
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
    let removed = raw(&server, recorded(&dir, "24-rmi-DELETE", &uuid, &call_id).as_bytes()).expect(200).json();
    assert_eq!(removed[0], json!({"Untagged": "ubuntu:latest"}));
}

/// A recorded request, about the function and the call that are there now.
fn recorded(dir: &Path, name: &str, uuid: &str, call_id: &str) -> String {
    const RECORDED_UUID: &str = "e62c014e-386c-42ea-8d07-41d44e98cc3d";
    const RECORDED_CALL_ID: &str = "218b7b10-e7f1-4c48-ac3c-66792f8ffc06";
    let request = std::fs::read_to_string(dir.join(format!("{name}.http"))).unwrap();
    request.replace(RECORDED_UUID, uuid).replace(RECORDED_CALL_ID, call_id)
}
