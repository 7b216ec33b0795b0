//! What `--help` says, as the files in `help/` have it: `UPDATE_HELP=1 cargo test --test it help` writes them anew.

use crate::harness::binary;
use crate::harness::program::printed;
use std::fs;
use std::path::PathBuf;

/// How wide a terminal is that nobody has made wider.
const COLUMNS: usize = 80;

fn help(verb: &[String], flag: &str) -> String {
    let mut program = binary();
    // Help shows what is set there.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HYPERFUNC_")) {
        program.env_remove(name);
    }
    printed(program.env("COLUMNS", COLUMNS.to_string()).args(verb).arg(flag).output().unwrap())
}

/// The verbs behind a verb, with all below them.
fn verbs(of: &[String]) -> Vec<Vec<String>> {
    let help = help(of, "-h");
    let list = help.split_once("\nCommands:\n").map_or("", |(_, list)| list).split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap()).filter(|name| *name != "help");
    let here = names.map(|name| [of, &[name.to_owned()]].concat());
    here.flat_map(|verb| [vec![verb.clone()], verbs(&verb)].concat()).collect()
}

fn all() -> Vec<Vec<String>> {
    let all = verbs(&[]);
    assert!(all.len() > 25, "{all:?}");
    all
}

#[test]
fn help_is_as_it_was_read_last() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/help");
    let updates = std::env::var_os("UPDATE_HELP").is_some();
    if updates {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
    }
    let mut named = vec!["hyperfunc.txt".to_owned()];
    let mut differing = Vec::new();
    for verb in [vec![vec![]], all()].concat() {
        // Those below `func` are the same as above.
        if verb.len() > 1 && verb[0] == "func" {
            continue;
        }
        let file = if verb.is_empty() { named[0].clone() } else { format!("{}.txt", verb.join("-")) };
        let help = help(&verb, "--help");
        if updates {
            fs::write(dir.join(&file), help).unwrap();
        } else if fs::read_to_string(dir.join(&file)).unwrap_or_default() != help {
            differing.push(file.clone());
        }
        named.push(file);
    }
    assert!(differing.is_empty(), "UPDATE_HELP=1, if that is meant: {differing:?}");
    for entry in fs::read_dir(&dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(named.contains(&file), "there is no verb for {file}");
    }
}

#[test]
fn every_verb_has_an_example_and_fits_a_terminal() {
    for verb in [vec![vec![]], all()].concat() {
        for flag in ["-h", "--help"] {
            let help = help(&verb, flag);
            let example = help.rsplit_once("\nExample").map(|(_, example)| example).unwrap_or_default();
            assert!(example.contains("hyperfunc "), "{verb:?} {flag} has no example");
            let wide = help.lines().find(|line| line.chars().count() > COLUMNS);
            assert_eq!(wide, None, "{verb:?} {flag}");
        }
    }
}

#[test]
fn every_verb_is_the_same_under_func() {
    let nested: Vec<_> = all().into_iter().filter(|verb| verb.len() == 2 && verb[0] == "func").collect();
    assert!(nested.len() >= 25, "{nested:?}");
    for verb in nested {
        let above = help(&verb[1..], "--help");
        let usage = |verb: &[String]| format!("Usage: hyperfunc {} ", verb.join(" "));
        let expected = above.replacen(&usage(&verb[1..]), &usage(&verb), 1);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&help(&verb, "--help")), words(&expected));
    }
}
