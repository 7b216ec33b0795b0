//! What people see on a terminal, through the real program (`docs/api.md` section 8).

use crate::harness::terminal::{CTRL_C, Terminal};
use crate::harness::{Server, binary, guests};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use tempfile::TempDir;

/// The program, to be started against a server.
fn program(server: impl std::fmt::Display, arguments: &[&str]) -> Command {
    let mut program = binary();
    program.env("HYPERFUNC_SERVER", format!("http://{server}")).args(arguments);
    program
}

/// A client that has sent its request's head: the connection, and how long the body will be.
fn accept(listener: &TcpListener) -> (BufReader<TcpStream>, usize) {
    let mut connection = BufReader::new(listener.accept().unwrap().0);
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            return (connection, length);
        }
    }
}

/// A module that a client loads from a terminal of so many columns, and a server that goes on when a test tells it to:
/// what is between is on the screen for certain.
fn loading(bytes: usize, columns: u16) -> (Terminal, BufReader<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.wasm");
    std::fs::write(&file, vec![0; bytes]).unwrap();
    let load = program(listener.local_addr().unwrap(), &["load", file.to_str().unwrap()]);
    let terminal = Terminal::of_size(24, columns, load);
    let (connection, length) = accept(&listener);
    assert_eq!(length, bytes);
    (terminal, connection)
}

/// Answers with the beginning of a stream of lines.
fn answer(mut connection: BufReader<TcpStream>, body_left: usize) -> TcpStream {
    connection.read_exact(&mut vec![0; body_left]).unwrap();
    let mut answer = connection.into_inner();
    answer.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n").unwrap();
    answer
}

fn compiling(current: u32, total: u32) -> Value {
    json!({"status": "compiling", "progressDetail": {"current": current << 20, "total": total << 20}})
}

#[test]
fn a_load_shows_how_far_it_is() {
    // More than sockets hold.
    let length = 32 << 20;
    let (mut terminal, mut connection) = loading(length, 100);
    connection.read_exact(&mut vec![0; length / 2]).unwrap();
    terminal.becomes("half is sent", |screen| screen.contains("sending [████") && screen.contains("░░░] "));
    assert!(terminal.text().contains(" MiB/32.00 MiB"), "{}", terminal.text());
    assert!(!terminal.text().contains('\n'), "a bar is one line: {}", terminal.text());

    let mut answer = answer(connection, length - length / 2);
    writeln!(answer, "{}", compiling(3, 4)).unwrap();
    terminal.becomes("three quarters are compiled", |screen| {
        let count = |part: char| screen.matches(part).count();
        let is_bar = screen.starts_with("compiling [█") && screen.ends_with("░] 3.00 MiB/4.00 MiB");
        is_bar && count('█') == (count('█') + count('░')) * 3 / 4
    });

    writeln!(answer, "{}", json!({"status": "large:latest has been loaded."})).unwrap();
    drop(answer);
    assert_eq!(terminal.ended().code(), Some(0));
    // The bar is gone, and the next prompt stands below what was said.
    assert_eq!(terminal.lines(), ["large:latest has been loaded."]);
    assert_eq!(terminal.see(vt100::Screen::cursor_position), (1, 0));
    assert!(terminal.is_sane());
}

#[test]
fn a_load_that_fails_leaves_no_half_bar() {
    let (mut terminal, connection) = loading(1 << 20, 100);
    let mut answer = answer(connection, 1 << 20);
    writeln!(answer, "{}", compiling(1, 2)).unwrap();
    terminal.shows("1.00 MiB/2.00 MiB");
    writeln!(answer, "{}", json!({"errorDetail": {"message": "no"}, "error": "does not compile: no"})).unwrap();
    drop(answer);
    assert_eq!(terminal.ended().code(), Some(126));
    let lines = terminal.lines();
    assert!(lines.len() == 1 && lines[0].ends_with("large.wasm: does not compile: no"), "{lines:?}");
}

#[test]
fn a_narrow_terminal_has_a_narrow_bar() {
    let (mut terminal, connection) = loading(1 << 20, 40);
    let mut answer = answer(connection, 1 << 20);
    for megabytes in 1..=3 {
        writeln!(answer, "{}", compiling(megabytes, 4)).unwrap();
        terminal.shows(&format!("{megabytes}.00 MiB/4.00 MiB"));
    }
    assert_eq!(terminal.lines().len(), 1, "{:?}", terminal.lines());
    writeln!(answer, "{}", json!({"status": "large:latest has been loaded."})).unwrap();
    drop(answer);
    assert_eq!(terminal.ended().code(), Some(0));
    assert_eq!(terminal.lines(), ["large:latest has been loaded."]);
}

#[test]
fn ctrl_c_ends_what_follows_a_log() {
    let server = Server::start();
    let address = server.function("f", &guests::prints("hi"), json!({}));
    server.call(&address, "").expect(200);
    let mut terminal = Terminal::start(program(server.address, &["logs", "-f", "f"]));
    terminal.shows("FINISHED");
    terminal.keys(CTRL_C);
    assert_eq!(terminal.ended().code(), Some(130));
    assert!(terminal.is_sane());
    assert!(terminal.text().ends_with("stdout: hi\n^C"), "{}", terminal.text());
}

/// Runs a module on a terminal.
fn running(module: &str) -> (Terminal, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("module.wasm");
    std::fs::write(&file, wat::parse_str(module).unwrap()).unwrap();
    let mut run = binary();
    run.env("XDG_CACHE_HOME", dir.path()).arg("run").arg(&file);
    (Terminal::start(run), dir)
}

#[test]
fn what_is_typed_is_what_a_module_reads() {
    let (mut terminal, _dir) = running(&guests::cat());
    terminal.keys("one\n");
    terminal.shows("one\none");
    terminal.keys("two\n");
    terminal.shows("two\ntwo");
    // Ctrl-D: the end of what is typed.
    terminal.keys("\x04");
    assert_eq!(terminal.ended().code(), Some(0));
    assert_eq!(terminal.lines(), ["one", "one", "two", "two"]);
}

#[test]
fn ctrl_c_ends_what_runs() {
    let spins = r#"(data (i32.const 1024) "begun") (func (export "_start")
        (call $put (i32.const 1) (i32.const 1024) (i32.const 5)) (loop (br 0)))"#;
    let (computes, _dir) = running(&guests::module(2, spins));
    computes.shows("begun");
    let (mut reads, _dir) = running(&guests::cat());
    reads.keys("begun\n");
    reads.shows("begun\nbegun");
    for mut terminal in [computes, reads] {
        terminal.keys(CTRL_C);
        assert_eq!(terminal.ended().code(), Some(130));
        assert!(terminal.is_sane());
    }
}

#[test]
fn a_call_does_not_wait_for_keys() {
    let server = Server::start();
    server.function("f", &guests::prints("hi"), json!({}));
    let mut terminal = Terminal::start(program(server.address, &["call", "--sync", "f"]));
    assert_eq!(terminal.ended().code(), Some(0));
    assert_eq!(terminal.text(), "hi");
}

/// A server with a function whose calls finish, one whose calls fail, and one call of each.
fn server_with_calls() -> Server {
    let server = Server::start();
    for (name, module) in [("finishes", guests::prints("hi")), ("fails", guests::fails(3, "no luck"))] {
        let address = server.function(name, &module, json!({}));
        let call = server.call(address.trim_end_matches("/sync"), "").expect(200).json();
        let id = call["CallId"].as_str().unwrap();
        let waiting = address.replace("/call/", "/output/").replace("/sync", &format!("/{id}/wait?keep=1"));
        server.request("GET", &waiting).send();
    }
    server
}

/// What a verb shows on a terminal of so many columns, once it has ended well.
#[track_caller]
fn screen(columns: u16, program: Command) -> Terminal {
    let mut terminal = Terminal::of_size(24, columns, program);
    assert_eq!(terminal.ended().code(), Some(0), "{}", terminal.text());
    assert!(terminal.is_sane());
    terminal
}

const TABLES: [(&[&str], &[&str]); 4] = [
    (&["ls"], &["NAME", "SIZE", "TIMEOUT", "IMAGE", "COMMAND", "CREATED"]),
    (&["images"], &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]),
    (&["status", "fails"], &["TOTAL", "PENDING", "RUNNING", "FINISHED", "FAILED"]),
    (&["status", "--list", "fails"], &["CALL ID", "CREATED", "STATUS", "MESSAGE"]),
];

#[test]
fn tables_stand_on_the_screen_as_they_are_in_a_pipe() {
    let server = server_with_calls();
    for (arguments, header) in TABLES {
        let piped = program(server.address, arguments).output().unwrap();
        let piped = String::from_utf8(piped.stdout).unwrap();
        for columns in [40, 160] {
            let terminal = screen(columns, program(server.address, arguments));
            // However narrow it is: a line goes on below, and nothing is left out.
            assert_eq!(terminal.text(), piped.trim_end(), "{arguments:?}, {columns} columns");
            let lines = piped.lines().map(|line| line.chars().count().div_ceil(columns.into())).sum::<usize>();
            assert_eq!(terminal.lines().len(), lines, "{arguments:?}, {columns} columns: {:?}", terminal.lines());
        }
        // Each column begins where its title does.
        let lines: Vec<&str> = piped.lines().collect();
        let begins = header.iter().map(|title| lines[0].find(title).unwrap_or_else(|| panic!("no {title}: {piped}")));
        for begin in begins.filter(|begin| *begin > 0) {
            assert!(lines.iter().all(|line| line.get(begin - 1..begin).is_none_or(|before| before == " ")), "{piped}");
        }
    }
}

#[test]
fn colours_are_for_those_who_want_them() {
    let server = server_with_calls();
    let verbs = [(&["ls"][..], 0), (&["status", "--list", "fails"], 0), (&["inspect", "nobody"], 127)];
    for (arguments, status) in verbs {
        let seen = |variables: &[(&str, &str)]| {
            let mut program = program(server.address, arguments);
            program.envs(variables.iter().copied());
            let mut terminal = Terminal::of_size(24, 160, program);
            assert_eq!(terminal.ended().code(), Some(status));
            (terminal.is_coloured(), terminal.text())
        };
        let (is_coloured, text) = seen(&[]);
        assert!(is_coloured, "{arguments:?}: {text}");
        for no_colour in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            assert_eq!(seen(&[no_colour]), (false, text.clone()), "{arguments:?} {no_colour:?}");
        }
    }
    // A failure stands out in a list.
    let failed = screen(160, program(server.address, &["status", "--list", "fails"]));
    let row = failed.lines().iter().position(|line| line.contains("FAILED")).unwrap();
    let column = failed.lines()[row].find("FAILED").unwrap();
    let place = (u16::try_from(row).unwrap(), u16::try_from(column).unwrap());
    assert_eq!(failed.see(|screen| screen.cell(place.0, place.1).unwrap().fgcolor()), vt100::Color::Idx(1));
}
