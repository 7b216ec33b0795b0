//! One listener for both faces, or one for each (`docs/api.md` section 1).

use crate::harness::{Reply, Request, Server, guests};
use serde_json::json;

const NOBODYS: &str = "/call/f/e62c014e-386c-42ea-8d07-41d44e98cc3d/sync";
const ONE_MB: usize = 1 << 20;

/// Each kind of answer that a call can get.
fn answers(server: &Server) -> Vec<(u16, Reply)> {
    let f = |name: &str, wat: String| server.function(name, &wat, json!({"Timeout": 1, "Fuel": 1_000_000}));
    let cat = f("cat", guests::cat());
    let html = json!({"Config": {"Labels": {"sh.hyperfunc.content-type": "text/html"}}});
    let page = server.function("page", &guests::prints("<script>alert(1)</script>"), html);
    let fails = f("fails", guests::fails(3, "oh no"));
    let traps = f("traps", guests::start("unreachable"));
    let spins = f("spins", guests::spins());
    let floods = server.function("floods", &guests::floods(1), json!({}));
    let large = Request::new(server.functions, "GET", &cat).header("X-Large", &"x".repeat(33 << 10)).send();
    let gone = server.function("gone", &guests::prints("gone"), json!({}));
    server.request("DELETE", "/images/gone?force=1").send().expect(200);
    vec![
        (200, server.call(&cat, "hello")),
        (200, server.call(&page, "")),
        (500, server.call(&fails, "")),
        (500, server.call(&traps, "")),
        (504, server.call(&spins, "")),
        (509, server.call(&floods, "")),
        (413, server.call(&cat, vec![b'x'; ONE_MB + 1])),
        (431, large),
        (500, server.call(&gone, "")),
        (404, server.call(NOBODYS, "")),
    ]
}

#[test]
fn while_both_faces_share_a_listener_every_answer_is_sandboxed() {
    let server = Server::start();
    assert_eq!(server.functions, server.address);
    for (status, reply) in answers(&server) {
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(reply.header("content-security-policy"), Some("sandbox"), "{status}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{status}");
    }
    // A module's own names come into these.
    for path in ["/images/json", "/funcs/nothing"] {
        assert_eq!(server.get(path).header("content-security-policy"), Some("sandbox"), "{path}");
    }
}

#[test]
fn on_a_listener_of_its_own_an_answer_is_the_guests() {
    let server = Server::with(&["--func-listen", "127.0.0.1:0"]);
    assert_ne!(server.functions, server.address);
    for (status, reply) in answers(&server) {
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(reply.header("content-security-policy"), None, "{status}");
        assert_eq!(reply.header("x-content-type-options"), None, "{status}");
    }
}

#[test]
fn neither_listener_answers_the_routes_of_the_other() {
    let server = Server::with(&["--func-listen", "127.0.0.1:0"]);
    let address = server.function("cat", &guests::cat(), json!({}));
    let before = (server.get("/funcs").expect(200).json(), server.get("/images/json").expect(200).json());
    let wasm = wat::parse_str(guests::prints("evil")).unwrap();
    let to_functions = |method: &str, target: &str| Request::new(server.functions, method, target);
    for (method, target) in [
        ("GET", "/funcs"),
        ("GET", "/v1.23/funcs"),
        ("GET", "/funcs/cat"),
        ("DELETE", "/funcs/cat"),
        ("DELETE", "/funcs/cat?force=1"),
        ("GET", "/images/json"),
        ("GET", "/images/cat/json"),
        ("DELETE", "/images/cat?force=1"),
        ("GET", "/version"),
        ("GET", "/info"),
    ] {
        to_functions(method, target).send().expect(404);
    }
    let create = json!({"Name": "evil", "Config": {"Image": "cat"}});
    to_functions("POST", "/funcs/create").json(&create).send().expect(404);
    to_functions("PUT", "/funcs/cat").json(&json!({"Timeout": 1})).send().expect(404);
    let load = to_functions("POST", "/images/load?name=evil").header("Content-Type", "application/wasm");
    load.body(wasm).send().expect(404);
    assert_eq!((server.get("/funcs").json(), server.get("/images/json").json()), before, "nothing happened");

    for method in ["GET", "POST", "PUT", "DELETE"] {
        server.request(method, &address).send().expect(404);
        to_functions(method, &address).send().expect(200);
    }
    assert_eq!(server.call(&address, "hello").expect(200).text(), "hello");
    for at in [server.address, server.functions] {
        assert_eq!(Request::new(at, "GET", "/_ping").send().expect(200).text(), "OK");
    }
}

#[test]
fn the_info_tells_where_functions_are_called() {
    let server = Server::with(&["--func-listen", "127.0.0.1:0"]);
    let endpoint = |server: &Server| server.get("/info").expect(200).json()["FuncEndpoint"].clone();
    assert_eq!(endpoint(&server), format!("http://{}", server.functions));
    assert_eq!(endpoint(&Server::start()), json!(null), "where this was asked");
    let public = Server::with(&["--public-url", "https://functions.example.org/"]);
    assert_eq!(endpoint(&public), "https://functions.example.org");
}
