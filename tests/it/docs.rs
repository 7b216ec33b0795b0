//! The sessions that the documentation shows, played: a block of ```` ```console ```` is typed into a shell, line by line, and
//! must answer what is written there. `docs/regenerate` writes down what it answers instead.
//!
//! Times, sizes, ids and the like differ from run to run and are not compared. Of a block that says ```` ```console varies ````
//! only the commands are: they must succeed.

mod blocks;
mod shell;

use crate::harness::Server;
use blocks::{Block, Document};
use shell::Shell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Set by `docs/regenerate`: what is written there is not checked, but replaced.
const UPDATE: &str = "UPDATE_DOCS";

/// Plays the sessions of a file, all in one shell, with a server beside it that nothing has used.
fn plays(file: &str) {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: the documentation asks servers by curl, which is not here");
        return;
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    let mut document = Document::read(&fs::read_to_string(&path).unwrap());
    let data = tempfile::tempdir().unwrap();
    let server = Server::try_as(Command::new(shell::program()), data.path(), &[]).unwrap();
    let mut shell = Shell::start(&server);
    let updates = std::env::var_os(UPDATE).is_some();
    let mut played = 0;
    for block in document.blocks() {
        played += 1;
        if updates { update(&mut shell, block) } else { check(&mut shell, block, file) }
    }
    assert!(played > 0, "{file} shows no session");
    if updates {
        fs::write(&path, document.to_string()).unwrap();
    }
}

fn update(shell: &mut Shell, block: &mut Block) {
    for step in &mut block.steps {
        step.output = shell.play(&step.command);
    }
}

fn check(shell: &mut Shell, block: &Block, file: &str) {
    let mut expected = String::new();
    shell.begin();
    for step in &block.steps {
        let status = shell.type_in(&step.command);
        expected += &step.output;
        let (shown, line) = (step.command.lines().next().unwrap_or_default(), block.line);
        if block.varies {
            assert_eq!(status, 0, "{file}:{line}: $ {shown}\n{}", shell.transcript());
            continue;
        }
        // What goes on in the background says its own when it likes.
        let goes_on = shell.has_background();
        let told = shell.until(|transcript| compared(transcript, goes_on) == compared(&expected, goes_on));
        assert!(
            told,
            "{file}:{line}: $ {shown}\nis written down as answering\n{expected}\nand answers\n{}\n\
             docs/regenerate writes it down anew",
            shell.transcript()
        );
    }
}

/// What must be the same in every run: lines, in their order if one program after the other has written them.
fn compared(transcript: &str, in_any_order: bool) -> Vec<String> {
    let mut lines: Vec<String> = normal(transcript).lines().map(str::to_owned).collect();
    if in_any_order {
        lines.sort_unstable();
    }
    lines
}

fn normal(transcript: &str) -> String {
    let varying = [
        // Ids of calls and functions, digests, moments.
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"\d{4}-\d{2}-\d{2}T[\d:.]+Z", "MOMENT"),
        (r"\b\d{2}:\d{2}:\d{2}\b", "MOMENT"),
        (r"\b[0-9a-f]{12,64}\b", "ID"),
        // Amounts, with their units. Fuel is the same everywhere.
        (r"(fuel )?\b\d[\d.,]*( ?(ns|µs|ms|s|B|KB|MB|GB|%)\b)?", "${1}N"),
        // Bars and rules, and what lines them up.
        (r"[█▉▊▋▌▍▎▏■─-]{2,}", "-"),
        (r"[ \t]+", " "),
        (r"\[ ", "["),
        (r"(?m) $", ""),
    ];
    varying.into_iter().fold(transcript.to_owned(), |text, (pattern, replacement)| {
        regex::Regex::new(pattern).unwrap().replace_all(&text, replacement).into_owned()
    })
}

#[test]
fn the_readme() {
    plays("README.md");
}

#[test]
fn the_command_line() {
    plays("docs/command-line.md");
}
