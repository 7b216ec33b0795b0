//! `new`: a function that builds and passes its cases (`docs/api.md` section 8, "new").

use crate::harness::binary;
use crate::harness::program::{ended, failed, printed};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a build script exits with where its compiler is not installed.
const NO_COMPILER: i32 = 127;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut program = binary();
    program.args(arguments).current_dir(dir).env("XDG_CACHE_HOME", dir.join("cache"));
    ended(program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// A new function builds, if its compiler is here, and passes its cases.
#[track_caller]
fn builds_and_passes(language: &str, source: &str) {
    let dir = tempfile::tempdir().unwrap();
    let told = printed(run(dir.path(), &["new", language, "greet-2"]));
    assert!(told.contains("  cd greet-2\n  ./build.sh\n  hyperfunc test\n  hyperfunc dev greet-2.wasm\n"), "{told}");
    let function = dir.path().join("greet-2");
    let read = |file: &str| fs::read_to_string(function.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert!(read("README.md").contains("hyperfunc load greet-2.wasm"));
    assert!(read(".gitignore").contains("/greet-2.wasm"));
    assert!(!read(source).is_empty());

    let built = Command::new(function.join("build.sh")).output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    if built.status.code() == Some(NO_COMPILER) {
        eprintln!("skipped: {language} is not built here: {said}");
        return;
    }
    assert!(built.status.success(), "{said}");
    let tested = run(&function, &["test"]);
    let report = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success() && report.contains("\n4 passed in "), "{report}");
}

#[test]
fn a_new_function_in_c_builds_and_passes() {
    builds_and_passes("c", "main.c");
}

#[test]
fn a_new_function_in_rust_builds_and_passes() {
    builds_and_passes("rust", "src/main.rs");
}

#[test]
fn a_new_function_in_go_builds_and_passes() {
    builds_and_passes("go", "main.go");
}

#[test]
fn what_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("taken"), "mine").unwrap();
    let (status, said) = failed(run(dir.path(), &["new", "c", "taken"]));
    assert_eq!((status, said.as_str()), (1, "hyperfunc: taken: File exists (os error 17)\n"));
    assert_eq!(fs::read_to_string(dir.path().join("taken")).unwrap(), "mine");
}

#[test]
fn a_function_that_cannot_be_made_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Room for the directory's name, and none for that of a file in it.
    let name = "a".repeat(255);
    let (status, said) = failed(run(dir.path(), &["new", "c", &name]));
    assert!(status == 1 && said.contains(".test.toml: File name too long"), "{said}");
    assert!(!dir.path().join(name).exists());
    for (arguments, status, problem) in [
        (["c", "Upper"], 2, "\"Upper\" must match [a-z0-9]"),
        (["c", "../up"], 2, "must match [a-z0-9]"),
        (["cobol", "f"], 2, "[possible values: c, rust, go]"),
        (["rust", "1st"], 1, "cargo takes no package that is called 1st"),
        (["rust", "deps"], 1, "cargo takes no package that is called deps"),
    ] {
        let (told, said) = failed(run(dir.path(), &[&["new"], &arguments[..]].concat()));
        assert!(told == status && said.contains(problem), "{arguments:?}: {told} {said}");
    }
}
