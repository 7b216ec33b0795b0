//! What all management routes have in common: versions, paths, methods, errors (`docs/api.md` sections 1 and 3).

use crate::harness::fields::{assert_refused, with};
use crate::harness::{Server, guests};
use serde_json::{Value, json};

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_management_route_answers_under_a_version_and_ignores_unknown_query_keys() {
    let server = Server::start();
    let wasm = wat::parse_str(guests::start("")).unwrap();
    for (prefix, query) in
        [("", ""), ("/v1.23", ""), ("/v1.18", ""), ("/v1.99", ""), ("", "?a=b&c"), ("/v1.23", "?force&x=%zz&=&")]
    {
        let at = |path: &str| format!("{prefix}{path}{query}");
        let load = format!("{prefix}/images/load?name=guest&size=huge&x");
        let load = server.request("POST", &load).header("Content-Type", "application/wasm");
        load.body(wasm.as_slice()).send().expect(200);
        assert_eq!(server.get(&at("/images/json")).expect(200).json()[0]["RepoTags"], json!(["guest:latest"]));
        assert_eq!(server.get(&at("/images/guest/json")).expect(200).json()["Os"], "wasip1");
        server.post(&at("/funcs/create"), &with("f", "Timeout", "5")).expect(201);
        assert_eq!(server.get(&at("/funcs")).expect(200).json()[0]["Timeout"], 5);
        assert_eq!(server.get(&at("/funcs/f")).expect(200).json()["Timeout"], 5);
        assert_eq!(server.put(&at("/funcs/f"), r#"{"Timeout":6}"#).expect(200).json()["Timeout"], 6);
        server.request("DELETE", &at("/funcs/f")).send().expect(204);
        let removed = server.request("DELETE", &at("/images/guest")).send().expect(200).json();
        assert_eq!(removed[0], json!({"Untagged": "guest:latest"}));
        assert_eq!(server.get(&at("/version")).expect(200).json()["ApiVersion"], "1.23");
        assert_eq!(server.get(&at("/info")).expect(200).json()["Functions"], 0);
        assert_eq!(server.get(&at("/_ping")).expect(200).text(), "OK");
    }
}

#[test]
fn the_version_has_the_shape_of_docker() {
    let reply = Server::start().get("/version").expect(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let version = reply.json();
    let expected = ["Version", "ApiVersion", "Os", "Arch", "KernelVersion", "GitCommit", "BuildTime"];
    assert_eq!(keys(&version), expected);
    assert!(version.as_object().unwrap().values().all(Value::is_string), "{version}");
    assert_eq!((&version["Version"], &version["ApiVersion"]), (&json!(env!("CARGO_PKG_VERSION")), &json!("1.23")));
    assert_eq!(version["Os"], std::env::consts::OS);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(version["KernelVersion"], kernel.trim());
    assert!(matches!(version["Arch"].as_str(), Some("amd64" | "arm64")), "{version}");
}

#[test]
fn the_info_counts_and_tells_the_limits() {
    let settings = ["--quota-functions", "12", "--quota-images", "13", "--quota-image-bytes", "14MB"];
    let more = ["--max-running", "5", "--account-running", "4", "--max-pending", "6", "--max-image-bytes", "7MB"];
    let server = Server::with(&[settings.as_slice(), &more].concat());
    let info = server.get("/info").expect(200);
    assert_eq!(info.header("content-type"), Some("application/json"));
    let counts = |info: &Value| {
        ["Functions", "Images", "Running", "Pending", "Containers", "ContainersRunning"]
            .map(|key| info[key].as_u64().unwrap())
    };
    let info = info.json();
    assert_eq!(counts(&info), [0; 6]);
    assert_eq!(info["ServerVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["NCPU"], std::thread::available_parallelism().unwrap().get());
    assert!(info["MemTotal"].as_u64().unwrap() > 64 << 20, "{info}");
    let quotas = &info["Quotas"];
    let quotas = ["Functions", "Images", "ImageBytes", "Running", "Pending"].map(|key| quotas[key].as_u64().unwrap());
    assert_eq!(quotas, [12, 13, 14 << 20, 4, 6]);
    let limits = &info["Limits"];
    let limits = ["Running", "ImageBytes", "StdinBytes", "StdoutBytes"].map(|key| limits[key].as_u64().unwrap());
    assert_eq!(limits, [5, 7 << 20, 1 << 20, 1 << 20]);
    assert_eq!(info.get("FuncEndpoint"), None, "functions are called where this was asked");

    server.load("guest", &guests::start(""));
    server.load("guest:2", &guests::start(""));
    server.post("/funcs/create", &with("f", "Timeout", "5")).expect(201);
    assert_eq!(counts(&server.get("/info").json()), [1, 2, 0, 0, 0, 0]);
}

#[test]
fn whoever_asks_after_the_server_is_told_that_it_is_there() {
    let reply = Server::start().get("/_ping").expect(200);
    assert_eq!((reply.header("content-type"), reply.text()), (Some("text/plain"), "OK"));
}

#[test]
fn errors_are_a_line_of_text_or_json_for_who_asks_for_it() {
    let server = Server::with_guest();
    let errors = [
        ("GET", "/funcs/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/images/nothing/json", 404),
        ("GET", "/funcs/..", 400),
        ("GET", "/funcs?filters=x", 400),
        ("PATCH", "/funcs", 405),
        ("DELETE", "/images/guest", 409),
        ("POST", "/call/base/e62c014e-386c-42ea-8d07-41d44e98cc3d/sync", 404),
    ];
    for (method, path, status) in errors {
        let text = server.request(method, path).send().expect(status);
        assert_eq!(text.header("content-type"), Some("text/plain"), "{path}");
        let line = text.text().strip_suffix('\n').unwrap();
        assert!(!line.is_empty() && !line.contains('\n'), "{path}: {line:?}");
        for accept in ["application/json", "text/html, application/json;q=0.9"] {
            let asked = server.request(method, path).header("Accept", accept).send().expect(status);
            assert_eq!(asked.header("content-type"), Some("application/json"), "{path}");
            assert_eq!(asked.json(), json!({"message": line}), "{path}");
        }
        let other = server.request(method, path).header("Accept", "*/*, text/html").send().expect(status);
        assert_eq!(other.text(), text.text(), "{path}");
    }
}

#[test]
fn another_method_is_405_and_told_which_are_allowed() {
    let server = Server::with_guest();
    for (method, path, allowed) in [
        ("POST", "/_ping", &["GET"] as &[_]),
        ("DELETE", "/version", &["GET"]),
        ("POST", "/info", &["GET"]),
        ("POST", "/funcs", &["GET"]),
        ("PATCH", "/funcs/base", &["DELETE", "GET", "PUT"]),
        ("POST", "/v1.23/funcs/base", &["DELETE", "GET", "PUT"]),
        ("PATCH", "/funcs/create", &["DELETE", "GET", "POST", "PUT"]),
        ("GET", "/images/load", &["DELETE", "POST"]),
        ("PUT", "/images/json", &["DELETE", "GET"]),
        ("POST", "/images/guest/json", &["GET"]),
        ("GET", "/images/acme/guest", &["DELETE"]),
        ("PATCH", "/call/base/x/sync", &["DELETE", "GET", "POST", "PUT"]),
    ] {
        let reply = server.request(method, path).send().expect(405);
        let mut told: Vec<_> = reply.header("allow").unwrap().split(", ").collect();
        told.sort_unstable();
        assert_eq!(told, allowed, "{method} {path}");
    }
}

#[test]
fn a_path_that_could_be_read_as_another_is_400_before_anything_looks_at_it() {
    let server = Server::with_guest();
    for path in [
        "/",
        "//",
        "//funcs",
        "/funcs/",
        "/funcs//base",
        "/funcs/base/",
        "/./funcs",
        "/funcs/.",
        "/funcs/..",
        "/funcs/../funcs/base",
        "/funcs/%2e",
        "/funcs/%2E%2e",
        "/funcs/.%2e",
        "/funcs/a%2Fbase",
        "/funcs/a%2fbase",
        "/%2Ffuncs",
        "/images/acme%2Fguest/json",
        "/images/acme//guest/json",
        "/images/acme/../guest/json",
        "/call/base//sync",
        "/call/base/../sync",
        "/call/base/x%2Fsync",
        "/nothing/..",
        "/v1.23//funcs",
    ] {
        for method in ["GET", "DELETE", "PATCH"] {
            assert_refused(&server.request(method, path).send(), "path", path);
        }
        // Nothing looks at who asks either.
        assert_eq!(server.request("GET", path).header("Host", "example.org").send().status, 400, "{path}");
    }
    assert_eq!(server.get("/funcs").json().as_array().unwrap().len(), 1);
    assert_eq!(server.get("/images/json").json().as_array().unwrap().len(), 1);
}

#[test]
fn segments_are_read_decoded() {
    let server = Server::with_guest();
    server.load("acme/guest:1", &guests::start(""));
    let base = server.inspect("base");
    for path in ["/funcs/%62ase", "/%66uncs/base", "/v1%2E23/funcs/base"] {
        assert_eq!(server.get(path).expect(200).json(), base, "{path}");
    }
    for path in ["/images/acme/guest%3A1/json", "/images/acme/gues%74:1/json", "/images/%61cme/guest:1/%6Ason"] {
        assert!(server.get(path).expect(200).json()["RepoTags"].to_string().contains("acme/guest:1"), "{path}");
    }
    server.post("/funcs/cre%61te", &with("f", "Timeout", "5")).expect(201);
    server.request("DELETE", "/funcs/%66").send().expect(204);
    server.get("/funcs/f").expect(404);
}
