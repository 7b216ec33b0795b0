//! The invariants of the house (see the crate's documentation) that its text can show.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below `src`, and its lines without comments and tests.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// The room: the first directory, or the file at the top.
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    fn is_at(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || self.path.starts_with(&format!("{place}/")))
    }

    /// The rooms that are named as `crate::room`, or in `crate::{room, room}`.
    fn rooms_used(&self) -> HashSet<String> {
        let code = self.lines.join("\n");
        let mut used = HashSet::new();
        for rest in code.split("crate::").skip(1) {
            let (names, mut depth) = match rest.strip_prefix('{') {
                Some(group) => (group, 1),
                None => (rest, 0),
            };
            let in_group = depth == 1;
            let mut word = String::new();
            for c in names.chars() {
                match c {
                    'a'..='z' | '_' => word.push(c),
                    '{' => depth += 1,
                    _ if depth <= 1 => {
                        used.insert(std::mem::take(&mut word));
                        depth -= usize::from(c == '}');
                        // Of one path only the first word is a room; of a group, that of each of its paths.
                        if !in_group || depth == 0 {
                            break;
                        }
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
        }
        used
    }

    /// The lines that name a crate or a module as a path.
    fn naming<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let is_named = move |line: &&String| {
            line.match_indices(name).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                line[at + name.len()..].starts_with("::")
                    && !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            })
        };
        self.lines.iter().filter(is_named).map(String::as_str)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect();
        Source { path: path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), lines }
    };
    let sources: Vec<Source> = paths.iter().map(read).collect();
    assert!(sources.len() > 50, "the sources are elsewhere");
    // These hold tests alone.
    let tests = [
        "cli/template/tests.rs",
        "service/permits/tests",
        "service/permits/tests.rs",
        "service/scheduler/tests.rs",
        "service/scheduler/tests",
        "store/conformance.rs",
        "store/conformance",
        "store/log/tests.rs",
        "store/log/tests",
        "store/memory.rs",
        "store/sqlite/tests.rs",
        "store/sqlite/tests",
    ];
    sources.into_iter().filter(|source| !source.is_at(&tests)).collect()
}

#[test]
fn rooms_are_found_however_they_are_imported() {
    let source = |line: &str| Source { path: "api/x.rs".to_owned(), lines: vec![line.to_owned()] };
    for line in ["use crate::engine;", "use crate::{domain::Image, engine, store};", "let x = crate::engine::run();"] {
        assert!(source(line).rooms_used().contains("engine"), "{line}");
    }
    assert!(!source("use crate::domain::engine;").rooms_used().contains("engine"));
}

/// Fails with all offences at once.
fn none(what: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{what}:\n{}", offences.join("\n"));
}

#[test]
fn arrows_point_one_way() {
    let rooms = ["domain", "engine", "image", "store", "service", "api", "cli", "config"];
    let mut offences = Vec::new();
    for source in sources() {
        let may_use: &[&str] = match source.room() {
            "domain" | "failpoint" => &[],
            "engine" | "image" | "store" => &["domain"],
            "service" => &["domain", "engine", "image", "store"],
            "api" => &["domain", "service"],
            "config" => &["domain", "service"],
            // `serve` puts the rooms together.
            "cli" if source.path == "cli/serve.rs" => {
                &["domain", "engine", "image", "store", "service", "api", "config"]
            }
            // These work without a server.
            "cli" if source.is_at(&["cli/audit.rs"]) => &["domain", "config", "service"],
            "cli" if source.is_at(&["cli/backup.rs", "cli/restore.rs"]) => &["domain", "service"],
            "cli" if source.path == "cli/run.rs" => &["domain", "service"],
            "cli" if source.is_at(&["cli/bench"]) => &["domain", "config", "service"],
            "cli" if source.is_at(&["cli/config.rs", "cli/data.rs", "cli/settings.rs"]) => &["domain", "config"],
            "cli" if source.is_at(&["cli/test"]) => &["api", "domain", "service"],
            "cli" if source.path == "cli/dev.rs" => &["domain", "service", "api", "config"],
            "cli" => &["domain"],
            "main" | "lib" | "build" => continue,
            room => panic!("a room that no arrow is drawn for: {room}"),
        };
        let used = source.rooms_used();
        let wrong = |room: &&&str| **room != source.room() && !may_use.contains(room) && used.contains(**room);
        offences.extend(rooms.iter().filter(wrong).map(|room| format!("{}: uses {room}", source.path)));
    }
    none("an arrow points the wrong way", offences);
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut offences = Vec::new();
    for source in sources() {
        for (names, places) in [
            (&["hyper", "hyper_util", "http_body_util"][..], &["api", "cli/client.rs", "cli/client"][..]),
            (&["wasmtime", "wasmtime_wasi", "wasmparser", "wast"], &["engine"]),
            (&["rusqlite"], &["store"]),
            (&["anyhow", "clap", "indicatif", "comfy_table"], &["cli", "config"]),
        ] {
            if !source.is_at(places) {
                let lines = names.iter().flat_map(|name| source.naming(name));
                offences.extend(lines.map(|line| format!("{}: {line}", source.path)));
            }
        }
        if source.is_at(&["domain", "engine", "store/mod.rs"]) {
            let lines = ["serde", "serde_json"].into_iter().flat_map(|name| source.naming(name));
            offences.extend(lines.map(|line| format!("{}: {line}", source.path)));
        }
    }
    none("a library is named outside its room", offences);
}

#[test]
fn failing_statuses_are_chosen_in_one_place() {
    const SUCCESSES: [&str; 4] = ["OK", "CREATED", "NO_CONTENT", "SWITCHING_PROTOCOLS"];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.path != "api/error.rs") {
        for line in &source.lines {
            let chosen = line.split("StatusCode::").skip(1);
            let fails = |rest: &str| !SUCCESSES.iter().any(|success| rest.starts_with(success));
            if chosen.into_iter().any(fails) {
                offences.push(format!("{}: {line}", source.path));
            }
        }
    }
    none("a failing status is chosen outside api/error.rs", offences);
}

#[test]
fn every_table_has_its_account() {
    let steps = fs::read_dir(root().join("src/store/sqlite/schema")).unwrap();
    let schema: String = steps.map(|step| fs::read_to_string(step.unwrap().path()).unwrap()).collect();
    let tables: Vec<&str> = schema.split("CREATE TABLE ").skip(1).collect();
    assert!(!tables.is_empty());
    for table in tables {
        let columns: Vec<&str> = table.split(';').next().unwrap().split_whitespace().collect();
        let hangs_on_a_call = table.contains("PRIMARY KEY REFERENCES calls (place) ON DELETE CASCADE");
        let has_account = columns.windows(2).any(|words| words == ["account_id", "TEXT"]);
        assert!(has_account || hangs_on_a_call, "{columns:?}");
    }
}

#[test]
fn nothing_is_unbounded_and_no_work_is_left_alone() {
    let mut offences = Vec::new();
    for source in sources() {
        for line in &source.lines {
            let unbounded =
                line.contains("unbounded") || line.contains(" channel()") || line.contains("mpsc::channel()");
            let stray = line.contains("tokio::spawn(") && !line.contains("AbortOnDropHandle::new(tokio::spawn(");
            if unbounded || stray {
                offences.push(format!("{}: {line}", source.path));
            }
        }
    }
    none("a channel without a bound, or a task without an owner", offences);
}

#[test]
fn the_clock_is_read_where_it_may_be() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_at(&["service", "engine/ticker.rs", "cli"])) {
        let reads = |line: &&String| {
            ["Instant::now", "SystemTime::now", "Timestamp::now", "now_v7", "getrandom", "rand::"]
                .iter()
                .any(|clock| line.contains(clock))
        };
        offences.extend(source.lines.iter().filter(reads).map(|line| format!("{}: {line}", source.path)));
    }
    none("the clock or a random source is read outside its rooms", offences);
}

#[test]
fn a_functions_uuid_is_revealed_in_its_address_alone() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_at(&["api/wire/func.rs", "cli/dev.rs", "domain/ids.rs"]))
    {
        let reveals = source.lines.iter().filter(|line| line.contains(".reveal()"));
        offences.extend(reveals.map(|line| format!("{}: {line}", source.path)));
    }
    none("a UUID is revealed", offences);
}

#[test]
fn files_are_short_and_finished() {
    const LINES_MAX: usize = 400;
    let mut offences = Vec::new();
    for source in sources() {
        if source.lines.len() > LINES_MAX {
            offences.push(format!("{}: {} lines", source.path, source.lines.len()));
        }
        let unfinished = ["TODO", "FIXME", "XXX", "todo!", "unimplemented!", "dbg!"];
        let left = source.lines.iter().filter(|line| unfinished.iter().any(|word| line.contains(word)));
        offences.extend(left.map(|line| format!("{}: {line}", source.path)));
    }
    none("a file is too long or not finished", offences);
}
