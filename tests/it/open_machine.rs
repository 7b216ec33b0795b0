//! Without credentials, management is open to this machine and to nobody else (`docs/api.md` section 7).

use crate::harness::fields::with;
use crate::harness::{PATIENCE, Reply, Request, Server, address, binary, guests};
use serde_json::json;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Instant;

/// Headers by which a page of another site shows itself.
const FOREIGN: &[(&str, &str)] = &[
    ("Host", "example.org"),
    ("Host", "example.org:80"),
    ("Host", "localhost.example.org"),
    ("Host", "127.0.0.1.example.org"),
    ("Host", "10.0.0.1"),
    ("Host", "0.0.0.0"),
    ("Host", "[::2]"),
    ("Host", ""),
    ("Origin", "null"),
    ("Origin", "http://example.org"),
    ("Origin", "http://127.0.0.1"),
    ("Origin", "http://localhost:1"),
    ("Origin", ""),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Site", "same-site"),
    ("Sec-Fetch-Site", ""),
];

/// A request of every kind that changes something.
fn changes(server: &Server) -> Vec<Request> {
    let wasm = wat::parse_str(guests::prints("evil")).unwrap();
    let load = server.request("POST", "/images/load?name=guest").header("Content-Type", "application/wasm");
    vec![
        server
            .request("POST", "/funcs/create")
            .header("Content-Type", "application/json")
            .body(with("evil", "Timeout", "1")),
        server.request("PUT", "/funcs/base").header("Content-Type", "application/json").body(r#"{"Timeout":1}"#),
        server.request("PUT", "/funcs/base").header("Content-Type", "application/json").body(r#"{"Refresh":true}"#),
        server.request("DELETE", "/funcs/base"),
        load.body(wasm),
        server.request("DELETE", "/images/guest?force=1"),
    ]
}

fn reads(server: &Server) -> Vec<Request> {
    let paths = ["/funcs", "/funcs/base", "/images/json", "/images/guest/json", "/version", "/info", "/v1.23/funcs"];
    paths.map(|path| server.request("GET", path)).into()
}

/// Checks that a refusal tells its reason and nothing else.
#[track_caller]
fn assert_denied(reply: &Reply, status: u16, header: &str) {
    assert_eq!(reply.status, status, "{header}: {}", reply.text());
    let message = reply.text().strip_suffix('\n').unwrap();
    assert!(message.starts_with(header) && !message.contains('\n'), "{header}: {message}");
}

#[test]
fn what_a_foreign_page_sends_is_refused_and_has_no_effect() {
    let server = Server::with_guest();
    let (functions, images) = (server.get("/funcs").json(), server.get("/images/json").json());
    for (header, value) in FOREIGN {
        for request in changes(&server).into_iter().chain(reads(&server)) {
            assert_denied(&request.header(header, value).send(), 403, header);
        }
    }
    assert_eq!((server.get("/funcs").json(), server.get("/images/json").json()), (functions, images));
    assert_eq!(server.call(&address(&server.inspect("base")), "").expect(200).text(), "");
}

#[test]
fn one_foreign_header_among_good_ones_is_enough() {
    let server = Server::with_guest();
    let own = format!("http://{}", server.address);
    let good = || server.get_as(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]);
    good().expect(200);
    for headers in [
        [("Origin", own.as_str()), ("Origin", "null")],
        [("Origin", "null"), ("Origin", own.as_str())],
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", own.as_str()), ("Sec-Fetch-Site", "cross-site")],
    ] {
        assert_eq!(server.get_as(&headers).status, 403, "{headers:?}");
    }
    let twice = server.get_as(&[("Host", "localhost"), ("Host", "example.org")]);
    assert_eq!(twice.status, 400, "which of them is meant?");
}

#[test]
fn this_machine_is_let_in_by_each_of_its_names() {
    let server = Server::with_guest();
    let port = server.address.port();
    let with_port = |name: &str| format!("{name}:{port}");
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]"] {
        for host in [host.to_owned(), with_port(host)] {
            let origin = format!("http://{host}");
            server.get_as(&[("Host", &host)]).expect(200);
            server.get_as(&[("Host", &host), ("Origin", &origin)]).expect(200);
            for site in ["none", "same-origin"] {
                server.get_as(&[("Host", &host), ("Origin", &origin), ("Sec-Fetch-Site", site)]).expect(200);
            }
            let https = format!("https://{host}");
            assert_eq!(server.get_as(&[("Host", &host), ("Origin", &https)]).status, 403, "{https} is another origin");
        }
    }
}

#[test]
fn a_body_needs_a_type_that_a_form_cannot_have() {
    let server = Server::with_guest();
    let before = (server.get("/funcs").json(), server.get("/images/json").json());
    let wasm = wat::parse_str(guests::prints("evil")).unwrap();
    let body = with("evil", "Timeout", "1");
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "text/plain; application/json",
    ] {
        let typed = |method: &str, target: &str| server.request(method, target).header("Content-Type", content_type);
        for request in [
            typed("POST", "/funcs/create").body(body.as_str()),
            typed("PUT", "/funcs/base").body(r#"{"Timeout":1}"#),
            typed("DELETE", "/funcs/base").body("x"),
            typed("POST", "/images/load?name=evil").body(wasm.as_slice()),
            typed("DELETE", "/images/guest?force=1").body("x"),
        ] {
            assert_denied(&request.send(), 415, "Content-Type");
        }
    }
    assert_denied(&server.request("POST", "/funcs/create").body(body.as_str()).send(), 415, "Content-Type");
    let chunked =
        server.request("DELETE", "/funcs/base").header("Transfer-Encoding", "chunked").body("1\r\nx\r\n0\r\n\r\n");
    assert_denied(&chunked.send(), 415, "Content-Type");
    assert_eq!((server.get("/funcs").json(), server.get("/images/json").json()), before);

    let typed = server.request("POST", "/funcs/create").header("Content-Type", "application/json; charset=utf-8");
    typed.body(body).send().expect(201);
    // Without a body no type is asked for.
    server.request("DELETE", "/funcs/evil").send().expect(204);
}

#[test]
fn whoever_knows_an_address_may_call_it_from_anywhere() {
    let server = Server::start();
    let cat = server.function("cat", &guests::cat(), json!({}));
    for (header, value) in FOREIGN {
        let call = server.request("POST", &cat).header("Content-Type", "text/plain").header(header, value);
        let reply = call.body("hello").send();
        assert_eq!((reply.status, reply.text()), (200, "hello"), "{header}: {value}");
        let ping = server.request("GET", "/_ping").header(header, value).send();
        assert_eq!((ping.status, ping.text()), (200, "OK"), "{header}: {value}");
    }
}

/// Runs `serve` on an address on which it must not start, and returns what it says.
fn refused_to_start(listen: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut serve = binary();
    serve.args(["serve", "--listen", listen, "--data"]).arg(&data);
    let mut child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if began.elapsed() < PATIENCE => std::thread::yield_now(),
            None => {
                child.kill().unwrap();
                panic!("it listens on {listen}");
            }
        }
    };
    assert!(!status.success(), "{listen}");
    assert!(!data.exists(), "{listen}: nothing was made");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn without_credentials_no_other_machine_is_listened_to() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let said = refused_to_start(listen);
        assert!(said.contains("--listen") && said.contains("credential"), "{listen}: {said}");
    }
}

#[test]
fn functions_may_be_called_from_other_machines() {
    let server = Server::with(&["--func-listen", "0.0.0.0:0"]);
    assert!(server.functions.ip().is_unspecified() && server.address.ip().is_loopback());
    let cat = server.function("cat", &guests::cat(), json!({}));
    assert_eq!(server.call(&cat, "hello").expect(200).text(), "hello");
    Request::new(server.functions, "GET", "/funcs").send().expect(404);
}

impl Server {
    /// Lists the functions with further headers.
    fn get_as(&self, headers: &[(&str, &str)]) -> Reply {
        let request = self.request("GET", "/funcs");
        headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    }
}
