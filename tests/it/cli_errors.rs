//! What a client says when names are wrong, or whoever answers is no server of ours (`docs/api.md` section 8).

use crate::harness::program::{failed, run};
use crate::harness::{Server, binary, guests};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

/// Whoever answers all that it is asked with these bytes, and ends the connection.
fn somebody(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The whole request fits into one read, or its rest does not matter.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    url
}

#[test]
fn a_name_that_is_nearly_right_is_suggested() {
    let server = Server::start();
    server.load("ubuntu", &guests::prints("hi"));
    server.load("acme/tool:2", &guests::prints("ho"));
    server.create(&json!({"Name": "hello", "Config": {"Image": "ubuntu"}}));
    for (arguments, said) in [
        (&["call", "helo"] as &[_], "no such function: helo; did you mean hello?"),
        (&["logs", "hullo"], "no such function: hullo; did you mean hello?"),
        (&["status", "hell"], "no such function: hell; did you mean hello?"),
        (&["rm", "hlelo"], "no such function: hlelo; did you mean hello?"),
        (&["update", "helloo"], "no such function: helloo; did you mean hello?"),
        (&["inspect", "-f", "{{.}}", "hallo"], "no such function: hallo; did you mean hello?"),
        (&["rmi", "ubunt"], "no such image: ubunt; did you mean ubuntu?"),
        (&["rmi", "acme/tool"], "no such image: acme/tool; did you mean acme/tool:2?"),
        (&["create", "ubnutu"], "Config.Image: no such image: ubnutu; did you mean ubuntu?"),
        (&["update", "--image", "ubun", "hello"], "Config.Image: no such image: ubun; did you mean ubuntu?"),
        // Nothing is near.
        (&["call", "goodbye"], "no such function: goodbye"),
        (&["rmi", "debian"], "no such image: debian"),
    ] {
        assert_eq!(failed(run(&server, arguments)), (127, format!("hyperfunc: {said}\n")), "{arguments:?}");
    }
}

#[test]
fn an_error_comes_without_a_suggestion_where_there_can_be_none() {
    let url = somebody(b"HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\n\r\nno such function: f\n");
    let output = binary().args(["rm", "--server", &url, "f"]).output().unwrap();
    assert_eq!(failed(output), (127, "hyperfunc: no such function: f\n".to_owned()));
}

#[test]
fn whoever_is_no_server_of_ours_is_told_from_one() {
    let page = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<h1>no</h1>\r\n";
    for (answer, words) in [
        (page as &[u8], "is not that of a hyperfunc server"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "502 Bad Gateway"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "makes no sense"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n[", "broke off"),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n", "no"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"", "without an answer"),
    ] {
        let (status, said) = failed(binary().args(["ls", "--server", &somebody(answer)]).output().unwrap());
        assert_eq!((status, said.contains(words)), (125, true), "{said}");
        assert!(said.starts_with("hyperfunc: ") && said.lines().count() == 1, "{said}");
    }
    let nobody = binary().args(["ls", "--server", "http://nobody.invalid"]).output().unwrap();
    assert_eq!(failed(nobody).0, 125);
}

#[test]
fn a_path_that_is_not_the_servers_is_no_missing_function() {
    let server = Server::start();
    let url = format!("http://{}/elsewhere", server.address);
    let (status, said) = failed(binary().args(["inspect", "-f", "{{.}}", "--server", &url, "f"]).output().unwrap());
    assert_eq!((status, said.contains(&url)), (125, true), "{said}");
}

#[test]
fn what_a_server_says_does_not_act_on_the_terminal() {
    let url = somebody(b"HTTP/1.1 409 Conflict\r\ncontent-length: 13\r\n\r\n\x1b[2Jgone\r\nall");
    let output = binary().args(["rm", "--server", &url, "f"]).output().unwrap();
    assert_eq!(failed(output), (1, "hyperfunc:  [2Jgone  all\n".to_owned()));
}
