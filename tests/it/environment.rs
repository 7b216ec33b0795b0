//! What a guest sees of its environment: the request as CGI tells it, then what is ours, then the function's own.

use crate::harness::{Reply, Server, address, guests};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Prints its environment when it is stored as `env`.
/// What a request may add to the environment, names and values together.
const REQUEST_BYTES_MAX: usize = 32 << 10;

/// Defines a function that prints its environment; returns where it is called.
fn printing(server: &Server, name: &str, config: Value) -> String {
    server.load_bytes("env", guests::TOOLBOX);
    let mut function = json!({"Name": name, "Config": config});
    function["Config"]["Image"] = "env".into();
    address(&server.create(&function))
}

/// The environment that a guest has printed, in which no name comes twice.
#[track_caller]
fn printed(reply: &Reply) -> BTreeMap<&str, &str> {
    let lines: Vec<_> = reply.text().lines().map(|line| line.split_once('=').expect(line)).collect();
    let environment: BTreeMap<_, _> = lines.iter().copied().collect();
    assert_eq!(environment.len(), lines.len(), "a name twice in {lines:?}");
    environment
}

/// Calls with headers of the test's own.
#[track_caller]
fn called(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Reply {
    let request = server.request(method, target);
    headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send().expect(200)
}

#[test]
fn a_guest_sees_its_request_as_cgi_tells_it_and_nothing_else() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let headers =
        [("Host", "example.org:8080"), ("User-Agent", "test/1"), ("X-Id", "7"), ("Content-Type", "text/x; a=b")];
    let mut request = server.request("PUT", &format!("{target}?a=1&b=%20x+y&&c=%2f"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let reply = request.body("four").send().expect(200);
    let port = server.functions.port().to_string();
    let expected = BTreeMap::from([
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "PUT"),
        ("SCRIPT_NAME", "/call/f"),
        ("PATH_INFO", ""),
        ("QUERY_STRING", "a=1&b=%20x+y&&c=%2f"),
        ("CONTENT_TYPE", "text/x; a=b"),
        ("CONTENT_LENGTH", "4"),
        ("SERVER_NAME", "example.org"),
        ("SERVER_PORT", &port),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", concat!("hyperfunc/", env!("CARGO_PKG_VERSION"))),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_HOST", "example.org:8080"),
        ("HTTP_USER_AGENT", "test/1"),
        ("HTTP_X_ID", "7"),
        ("HYPER_FUNC_NAME", "f"),
        ("HYPER_CALL_ID", reply.header("x-call-id").unwrap()),
        ("HYPER_ATTEMPT", "1"),
    ]);
    assert_eq!(printed(&reply), expected);
}

#[test]
fn what_a_request_does_not_have_is_not_there() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let reply = called(&server, "GET", &target, &[]);
    let environment = printed(&reply);
    assert_eq!((environment["REQUEST_METHOD"], environment["QUERY_STRING"]), ("GET", ""));
    for absent in ["CONTENT_LENGTH", "CONTENT_TYPE", "PWD", "PATH", "HOME"] {
        assert!(!environment.contains_key(absent), "{absent}");
    }
    // A body without a length has one once it is there.
    let mut connection = server.connect();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.write(format!("{head}2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n").as_bytes());
    let reply = connection.reply().expect(200);
    let environment = printed(&reply);
    assert_eq!((environment["CONTENT_LENGTH"], environment["SERVER_NAME"]), ("5", "x"));
    assert!(!environment.contains_key("HTTP_TRANSFER_ENCODING"));
}

#[test]
fn a_header_that_comes_twice_is_joined_in_order() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let reply = called(&server, "GET", &target, &[("X-A", "1"), ("X-B", "b"), ("x-a", "2, 3"), ("X-A", "")]);
    let environment = printed(&reply);
    assert_eq!((environment["HTTP_X_A"], environment["HTTP_X_B"]), ("1, 2, 3, ", "b"));
}

#[test]
fn credentials_for_the_guest_reach_it() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let headers = [("Authorization", "Bearer for-the-guest"), ("Cookie", "a=1"), ("Cookie", "b=2")];
    let reply = called(&server, "GET", &target, &headers);
    let environment = printed(&reply);
    assert_eq!(environment["HTTP_AUTHORIZATION"], "Bearer for-the-guest");
    assert_eq!(environment["HTTP_COOKIE"], "a=1, b=2");
}

#[test]
fn headers_that_are_not_for_a_guest_do_not_reach_it() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let headers = [
        ("Proxy", "http://attacker"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic eA=="),
        ("Proxy-Authenticate", "Basic"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("Upgrade", "h2c"),
        ("X_Under", "1"),
        ("Content_Length", "9"),
        ("X-Kept", "1"),
    ];
    let reply = called(&server, "GET", &target, &headers);
    let environment = printed(&reply);
    let told: Vec<_> = environment.keys().filter(|name| name.starts_with("HTTP_")).copied().collect();
    assert_eq!(told, ["HTTP_HOST", "HTTP_X_KEPT"]);
    assert!(!environment.contains_key("CONTENT_LENGTH"));
}

#[test]
fn the_functions_own_variables_win_over_all_others_and_come_once() {
    let server = Server::start();
    let own = [
        "PLAIN=a=b",
        "EMPTY=",
        "REQUEST_METHOD=mine",
        "QUERY_STRING=mine",
        "HTTP_X_A=mine",
        "HYPER_FUNC_NAME=mine",
        "HYPER_CALL_ID=mine",
        "HYPER_ATTEMPT=mine",
        "PWD=/mine",
        "dropped",
    ];
    let target = printing(&server, "f", json!({"Env": own, "WorkingDir": "/not/mine"}));
    let reply = called(&server, "POST", &format!("{target}?theirs"), &[("X-A", "theirs"), ("X-B", "theirs")]);
    let environment = printed(&reply);
    for variable in &own[..9] {
        let (name, value) = variable.split_once('=').unwrap();
        assert_eq!(environment.get(name), Some(&value), "{name}");
    }
    assert!(!environment.contains_key("dropped"));
    assert_eq!(environment["HTTP_X_B"], "theirs");
}

#[test]
fn the_working_directory_is_pwd() {
    let server = Server::start();
    let target = printing(&server, "f", json!({"WorkingDir": "/srv/data"}));
    assert_eq!(printed(&server.call(&target, "").expect(200))["PWD"], "/srv/data");
}

#[test]
fn nothing_of_the_hosts_environment_is_visible() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let host = server.proc("environ");
    let names: Vec<_> =
        host.split('\0').filter_map(|variable| variable.split_once('=')).map(|(name, _)| name).collect();
    assert!(names.contains(&"PATH") && names.contains(&"CARGO_MANIFEST_DIR"), "{names:?}");
    let reply = server.call(&target, "").expect(200);
    let environment = printed(&reply);
    let seen: Vec<_> = names.iter().filter(|name| environment.contains_key(*name)).collect();
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn the_functions_address_is_in_no_variable() {
    let server = Server::start();
    let target = printing(&server, "f", json!({}));
    let uuid = target.split('/').nth(3).unwrap();
    let reply = server.call(&format!("{target}?q=1"), "").expect(200);
    assert_eq!(printed(&reply)["SCRIPT_NAME"], "/call/f");
    assert!(!reply.text().to_ascii_lowercase().contains(uuid), "{}", reply.text());
}

#[test]
fn what_comes_from_a_request_is_32_kb_at_most_and_exactly() {
    let server = Server::start();
    // What does not come from the request is not counted.
    let own = format!("OWN={}", "x".repeat(20_000));
    let target = printing(&server, "f", json!({"Env": [own]}));
    let padded = |bytes: usize| server.request("GET", &target).header("X-Pad", &"p".repeat(bytes)).send();
    let reply = padded(0).expect(200);
    let environment = printed(&reply);
    let from_request = environment.iter().filter(|(name, _)| **name != "OWN" && !name.starts_with("HYPER_"));
    let room = REQUEST_BYTES_MAX - from_request.map(|(name, value)| name.len() + value.len()).sum::<usize>();

    let reply = padded(room).expect(200);
    assert_eq!(printed(&reply)["HTTP_X_PAD"].len(), room);
    let refused = padded(room + 1).expect(431);
    assert_eq!(refused.header("x-call-id"), None);
    assert_eq!(refused.text().lines().count(), 1, "{}", refused.text());
    // The query counts as well.
    let room = room - 1000;
    let with_query = |bytes: usize| {
        let request = server.request("GET", &format!("{target}?{}", "q".repeat(bytes)));
        request.header("X-Pad", &"p".repeat(room)).send()
    };
    with_query(1000).expect(200);
    with_query(1001).expect(431);
}
