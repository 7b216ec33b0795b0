//! Colours are for terminals, and for nobody who asks for none (`docs/api.md` section 8).

use crate::harness::program::{failed, printed, run};
use crate::harness::{Server, binary, eventually, guests};
use serde_json::json;
use std::process::{Command, Output};

/// The program as a terminal would have it: the variable is the convention for that.
fn coloured(server: &Server) -> Command {
    let mut program = binary();
    program.env("HYPERFUNC_SERVER", format!("http://{}", server.address)).env("CLICOLOR_FORCE", "1");
    program
}

fn text(output: Output) -> String {
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn headers_statuses_and_errors_have_colours() {
    let server = Server::start();
    server.function("fails", &guests::fails(3, "no luck"), json!({}));
    server.function("f", &guests::prints("hi"), json!({}));
    for name in ["fails", "f"] {
        printed(run(&server, &["call", "-q", name]));
    }
    let shown = |arguments: &[&str]| text(coloured(&server).args(arguments).output().unwrap());
    assert!(shown(&["ls"]).starts_with("\x1b[1mNAME"));
    eventually("a call that failed is red", || shown(&["status", "--list", "fails"]).contains("\x1b[38;5;1mFAILED"));
    eventually("one that finished is green", || shown(&["status", "--list", "f"]).contains("\x1b[38;5;2mFINISHED"));
    eventually("so is the log", || shown(&["logs", "f"]).contains("  \x1b[38;5;2mFINISHED\x1b[0m  "));
    let error = "\x1b[1m\x1b[31mhyperfunc:\x1b[0m no such function: nothing\n";
    assert_eq!(shown(&["call", "nothing"]), error);
    let warned = shown(&["update", "-p", "80", "f"]);
    assert!(warned.contains("\n\x1b[33mhyperfunc: warning:\x1b[0m Config."), "{warned:?}");
    assert!(shown(&["--help"]).contains("\x1b["));
}

#[test]
fn neither_a_pipe_nor_who_wants_none_gets_any() {
    let server = Server::start();
    server.function("fails", &guests::fails(3, "no luck"), json!({}));
    printed(run(&server, &["call", "-q", "fails"]));
    for arguments in [
        &["ls"] as &[_],
        &["images"],
        &["status", "--list", "fails"],
        &["logs", "fails"],
        &["call", "nothing"],
        &["launch"],
        &["--help"],
    ] {
        let piped = text(run(&server, arguments));
        let unwanted = text(coloured(&server).env("NO_COLOR", "1").args(arguments).output().unwrap());
        assert!(!piped.contains('\x1b') && !unwanted.contains('\x1b'), "{arguments:?}");
    }
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let server = Server::start();
    server.function("f", &guests::prints("hi"), json!({}));
    for arguments in [&["ls"] as &[_], &["images"], &["status", "f"]] {
        let shown = text(coloured(&server).args(arguments).output().unwrap());
        let mut plain = String::new();
        for part in shown.split('\x1b') {
            let is_first = plain.is_empty() && !shown.starts_with('\x1b');
            plain += if is_first { part } else { part.split_once('m').map_or("", |(_, rest)| rest) };
        }
        assert_eq!(plain, printed(run(&server, arguments)), "{arguments:?}");
    }
    assert_eq!(failed(run(&server, &["call", "nothing"])).1, "hyperfunc: no such function: nothing\n");
}
