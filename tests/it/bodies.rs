//! The JSON bodies of create and update: what is read, and what is refused without harm (`docs/api.md` section 2).

use crate::harness::fields::{BASE, assert_refused, only, with};
use crate::harness::{Reply, Server};
use serde_json::json;

/// Sends a body in chunks of at most 64 KB.
fn chunked(server: &Server, method: &str, target: &str, body: &[u8]) -> Reply {
    let mut chunks = Vec::new();
    for chunk in body.chunks(64 << 10) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    let request = server.request(method, target).header("Content-Type", "application/json");
    request.header("Transfer-Encoding", "chunked").body(chunks).send()
}

#[test]
fn what_is_no_json_object_is_refused() {
    let server = Server::with_guest();
    let before = server.get("/funcs").json();
    for body in [
        "",
        " ",
        "{",
        "}",
        "null",
        "true",
        "5",
        r#""x""#,
        "[]",
        "[{}]",
        r#"[{"Name":"a","Config":{"Image":"guest"}}]"#,
        r#"["a","s4",5]"#,
        r#"{"Name":"a","Config":{"Image":"guest"}}x"#,
        r#"{"Name":"a","Config":{"Image":"guest"}}{}"#,
        r#"{"Name":"a","Config":{"Image":"guest"}} ,"#,
        r#"{"Name":"a","Config":{"Image":"guest"},}"#,
        r#"{"Name":"a","Config":{"Image":"guest"}"#,
        r#"{"Name":"a" "Config":{"Image":"guest"}}"#,
        r#"{"Name":"a",,"Config":{"Image":"guest"}}"#,
        r#"{'Name':'a'}"#,
        r#"{Name:"a"}"#,
        "{\u{0}}",
        "\u{feff}{}",
    ] {
        assert_refused(&server.post("/funcs/create", body), "body", body);
        assert_refused(&server.put("/funcs/base", body), "body", body);
    }
    for body in [&b"\xff"[..], b"{\"Name\":\"\xff\"}", b"{\"\xff\":1}"] {
        for (method, target) in [("POST", "/funcs/create"), ("PUT", "/funcs/base")] {
            let request = server.request(method, target).header("Content-Type", "application/json");
            request.body(body).send().expect(400);
        }
    }
    assert_eq!(server.get("/funcs").json(), before);
}

#[test]
fn fields_that_nobody_knows_are_ignored() {
    let server = Server::with_guest();
    for (name, value) in [
        ("Unknown", r#"{"a":[1,{"b":null}]}"#),
        ("timeout", "5"),
        ("name", r#""x""#),
        ("Warnings", r#"["x"]"#),
        ("Config.Hostname", r#""x""#),
        ("Config.Volumes", r#"{"/a":{}}"#),
        ("Config.OnBuild", "null"),
        ("HostConfig.Memory", "5"),
        ("HostConfig.Binds", r#"["/a:/b"]"#),
        ("Unknown", "1e400"),
    ] {
        let function = server.post("/funcs/create", &with("a", name, value)).expect(201).json();
        let mut plain = server.inspect(BASE);
        for own in ["Name", "UUID", "Created"] {
            plain[own] = function[own].clone();
        }
        plain["Timeout"] = json!(300);
        assert_eq!(function, plain, "{name}");
        assert_eq!(server.put("/funcs/a", &only(name, value)).expect(200).json(), function, "{name}");
        server.request("DELETE", "/funcs/a").send().expect(204);
    }
}

#[test]
fn a_body_may_be_1_mb() {
    let server = Server::with_guest();
    let padded = |json: &str, bytes: usize| format!("{json}{}", " ".repeat(bytes - json.len()));
    let create = |bytes| padded(&with("a", "Timeout", "5"), bytes);
    let update = |bytes| padded(r#"{"Timeout":9}"#, bytes);
    let (exact, over) = (1 << 20, (1 << 20) + 1);

    for body in [create(over), update(over)] {
        let target = if body.contains("Name") { ("POST", "/funcs/create") } else { ("PUT", "/funcs/base") };
        let reply = server.send(target.0, target.1, &body).expect(413);
        assert_eq!(reply.text().lines().count(), 1);
        chunked(&server, target.0, target.1, body.as_bytes()).expect(413);
    }
    assert_eq!(
        (server.get("/funcs/a").status, &server.inspect(BASE)["Timeout"]),
        (404, &json!(77)),
        "nothing happened"
    );

    server.post("/funcs/create", &create(exact)).expect(201);
    server.request("DELETE", "/funcs/a").send().expect(204);
    chunked(&server, "POST", "/funcs/create", create(exact).as_bytes()).expect(201);
    assert_eq!(server.put("/funcs/base", &update(exact)).expect(200).json()["Timeout"], 9);
}

#[test]
fn nesting_harms_nobody() {
    let server = Server::with_guest();
    let before = server.inspect(BASE);
    const DEPTH: usize = 100_000;
    let arrays = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    for (body, field) in [(arrays.clone(), "body"), ("[".repeat(DEPTH), "body"), (r#"{"a":"#.repeat(DEPTH), "")] {
        assert_refused(&server.post("/funcs/create", &body), field, "nested");
        assert_refused(&server.put("/funcs/base", &body), field, "nested");
    }
    assert_refused(&server.post("/funcs/create", &objects), "Name", "objects");
    for field in ["ContainerSize", "Timeout", "Config", "Config.Cmd", "Config.Env", "Config.Labels", "HostConfig.Links"]
    {
        server.refuses(field, &arrays);
    }
    for field in ["Timeout", "Config.Cmd", "Config.Labels", "HostConfig.PortBindings", "NetworkingConfig"] {
        server.refuses(field, &objects);
    }
    // What is ignored is ignored whatever it is.
    server.post("/funcs/create", &with("a", "Unknown", &arrays)).expect(201);
    server.post("/funcs/create", &with("b", "Config.Unknown", &objects)).expect(201);
    assert_eq!(server.inspect(BASE), before);
}

#[test]
fn a_json_body_says_that_it_is_one() {
    let server = Server::with_guest();
    let body = with("a", "Timeout", "5");
    for (content_type, status) in [
        ("application/wasm", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=utf-8", 201),
    ] {
        let create = server.request("POST", "/funcs/create").header("Content-Type", content_type);
        let reply = create.body(body.as_str()).send();
        assert_eq!(reply.status, status, "{content_type}: {}", reply.text());
    }
}
