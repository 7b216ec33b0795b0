//! `run`: a module here and now, with this machine's streams, directories and limits.

use crate::harness::guests::{self, TOOLBOX};
use crate::harness::program::{ended, failed, printed};
use crate::harness::{PATIENCE, binary, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Instant;
use tempfile::TempDir;

/// A directory of its own, in which the program is started and keeps its cache.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.file("toolbox.wasm", TOOLBOX);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.current_dir(self.0.path()).arg("run").args(arguments).env("XDG_CACHE_HOME", self.path("cache"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.start(arguments);
        let mut to_guest = child.stdin.take().unwrap();
        thread::scope(|scope| {
            // A guest that reads nothing may be gone by then.
            scope.spawn(move || to_guest.write_all(stdin));
            ended(child)
        })
    }

    /// Runs a module given as text.
    fn wat(&self, wat: &str) -> Output {
        self.file("guest.wat", wat);
        self.run(&["guest.wat"])
    }

    /// What was compiled.
    fn artifacts(&self) -> Vec<PathBuf> {
        let kept = fs::read_dir(self.path("cache/hyperfunc")).unwrap().map(|entry| entry.unwrap().path());
        kept.filter(|path| path.extension().is_some()).collect()
    }
}

#[track_caller]
fn exits(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn refuses(output: Output, status: i32, reason: &str) {
    let (exited, said) = failed(output);
    assert_eq!((exited, said.lines().count()), (status, 1), "{said}");
    assert!(said.starts_with("hyperfunc: ") && said.contains(reason), "{said}");
}

/// Whether a process waits in a `read` of its stdin: Linux tells where a thread waits.
fn reads_stdin(pid: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    let mut calls = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("syscall")).ok());
    calls.any(|call| call.starts_with("0 0x0 "))
}

#[test]
fn the_streams_are_the_guests_and_have_no_bound() {
    let place = Place::new();
    let stdin: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    place.file("guest.wat", guests::copies_to(&[1, 2]));
    let output = place.run_with(&["guest.wat"], &stdin);
    exits(&output, 0);
    assert!(output.stdout == stdin && output.stderr == stdin);
}

#[test]
fn what_a_guest_writes_is_there_at_once() {
    let place = Place::new();
    place.file("cat.wat", guests::cat());
    let mut child = place.start(&["cat.wat"]);
    let (mut to_guest, mut from_guest) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for word in [b"one", b"two"] {
        to_guest.write_all(word).unwrap();
        let mut echo = [0; 3];
        from_guest.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, word);
    }
    drop(to_guest);
    exits(&ended(child), 0);
}

#[test]
fn a_guest_sees_that_nobody_reads() {
    let place = Place::new();
    place.file("flood.wat", guests::floods(1));
    let mut child = place.start(&["flood.wat"]);
    let mut from_guest = child.stdout.take().unwrap();
    from_guest.read_exact(&mut [0; 100_000]).unwrap();
    drop(from_guest);
    // This one traps when it cannot write.
    exits(&ended(child), 134);
}

#[test]
fn a_guests_exit_status_passes_as_it_is() {
    let place = Place::new();
    for status in [0, 1, 2, 124, 126, 130, 255] {
        let output = place.run(&["toolbox.wasm", "exit", &status.to_string()]);
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(status), &b""[..]));
    }
    // Eight bits are told, and a failure stays one.
    exits(&place.wat(&guests::fails(256, "")), 255);
    exits(&place.wat(&guests::fails(-1, "")), 255);
    let output = place.wat(&guests::fails(3, "bad"));
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), &b"bad"[..]));
}

#[test]
fn argv_begins_with_the_files_name_and_takes_all_that_follows() {
    let place = Place::new();
    let written = printed(place.run(&["toolbox.wasm", "echo", "--help", "-e", "A=1", "--", "é", ""]));
    assert_eq!(written, "--help -e A=1 -- é \n");
    // `toolbox` is the applet of its own name.
    fs::copy(place.path("toolbox.wasm"), place.path("echo")).unwrap();
    assert_eq!(printed(place.run(&["./echo", "--stats"])), "--stats\n");
}

#[test]
fn the_environment_is_what_is_given() {
    let place = Place::new();
    assert_eq!(printed(place.run(&["toolbox.wasm", "env"])), "");
    place.file("env", "# a comment\nB=file\nC=c=c\n");
    let arguments = ["-e", "A=a b", "--env", "B=flag", "--env", "OURS", "--env", "NOWHERE", "--env-file", "env"];
    let mut command = place.command(&[&arguments[..], &["toolbox.wasm", "env"]].concat());
    let output = command.env("OURS", "this shell's").output().unwrap();
    assert_eq!(printed(output), "C=c=c\nA=a b\nB=flag\nOURS=this shell's\n");
}

#[test]
fn what_is_not_utf_8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    let bytes = OsStr::from_bytes(b"\xff");
    let output = place.command(&["--env", "OURS", "toolbox.wasm"]).env("OURS", bytes).output().unwrap();
    refuses(output, 2, "--env OURS: its value in this shell is not UTF-8");
    let (status, said) = failed(place.command(&["toolbox.wasm", "echo"]).arg(bytes).output().unwrap());
    assert!(status == 2 && said.contains("invalid UTF-8"), "{said}");
}

#[test]
fn a_guest_finds_its_directories_by_their_names() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    place.file("names.wat", names_of_directories());
    let names = |dirs: &[&str]| {
        let options: Vec<&str> = dirs.iter().flat_map(|dir| ["--dir", dir]).collect();
        printed(place.run(&[&options[..], &["names.wat"]].concat()))
    };
    assert_eq!(names(&[]), "");
    assert_eq!(names(&["data", ".", "data::/", ".::data/x", "data::."]), "data\n.\n/\ndata/x\n.\n");
}

#[test]
fn a_directory_is_read_and_written_and_not_left() {
    let place = Place::new();
    for dir in ["in", "out"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    place.file("in/from", "what is in it");
    place.file("secret", "x");
    place.file("copy.wat", copies_a_file("from"));
    printed(place.run(&["--dir", "in::/a", "--dir", "out", "copy.wat"]));
    assert_eq!(fs::read_to_string(place.path("out/to")).unwrap(), "what is in it");

    // The guest exits with the number of the error.
    const BADF: i32 = 8;
    const NOENT: i32 = 44;
    const PERM: i32 = 63;
    exits(&place.run(&["copy.wat"]), BADF);
    exits(&place.run(&["--dir", "out", "--dir", "in", "copy.wat"]), NOENT);
    place.file("leave.wat", copies_a_file("../secret"));
    exits(&place.run(&["--dir", "in", "--dir", "out", "leave.wat"]), PERM);
    std::os::unix::fs::symlink("../secret", place.path("in/link")).unwrap();
    place.file("follow.wat", copies_a_file("link"));
    exits(&place.run(&["--dir", "in", "--dir", "out", "follow.wat"]), PERM);
}

#[test]
fn a_directory_that_is_none_is_named_with_its_flag() {
    let place = Place::new();
    for (dir, reason) in [
        ("nowhere", "nowhere: No such file"),
        ("nowhere::/", "nowhere: No such file"),
        ("toolbox.wasm", "toolbox.wasm is no directory"),
        ("::/", "must be HOST or HOST::GUEST"),
        (".::", "must be HOST or HOST::GUEST"),
    ] {
        let (status, said) = failed(place.run(&["--dir", dir, "toolbox.wasm"]));
        assert!(status == 2 && said.contains(&format!("'{dir}' for '--dir")) && said.contains(reason), "{said}");
    }
}

#[test]
fn limits_that_are_none_are_named_with_their_flag() {
    let place = Place::new();
    for (flag, value, reason) in [
        ("--timeout", "0", "not between 1 and 86400"),
        ("--timeout", "86401", "not between 1 and 86400"),
        ("--timeout", "abc", "must be a number of seconds"),
        ("--size", "s9", "none of s1, s2"),
        ("--fuel", "-1", "invalid digit"),
    ] {
        let (status, said) = failed(place.run(&[&format!("{flag}={value}"), "toolbox.wasm"]));
        assert!(status == 2 && said.contains(&format!("'{value}' for '{flag}")) && said.contains(reason), "{said}");
    }
    let (status, said) = failed(place.run(&["--stat", "toolbox.wasm"]));
    assert!(status == 2 && said.contains("'--stat'") && said.contains("'--stats'"), "{said}");
}

#[test]
fn each_limit_ends_a_guest_and_is_told() {
    let place = Place::new();
    let end = |limits: &[&str], wat: &str| {
        place.file("guest.wat", wat);
        place.run(&[limits, &["guest.wat"]].concat())
    };
    refuses(end(&["--timeout", "1"], &guests::spins()), 124, "guest.wat: timeout of 1 s reached");
    refuses(end(&["--timeout", "1"], &guests::spins_at_instantiation()), 124, "timeout of 1 s reached");
    refuses(end(&["--timeout", "1"], &guests::sleeps(3_600_000_000_000)), 124, "timeout of 1 s reached");
    refuses(end(&["--fuel", "1000000"], &guests::spins()), 124, "fuel limit reached");
    refuses(end(&["--size", "s1"], &guests::grows(16, "unreachable")), 134, "memory limit of s1 (64 MB) reached");
    let too_large = guests::module(1025, r#"(func (export "_start"))"#);
    refuses(end(&["--size", "s1"], &too_large), 134, "memory limit of s1 (64 MB) reached");
    refuses(end(&[], &guests::start("unreachable")), 134, "trap: unreachable");
    refuses(end(&[], &guests::recurses()), 134, "trap: call stack exhausted");
    // Unmetered, as a function with `Fuel` 0 is.
    exits(&end(&["--fuel", "0"], &guests::prints("x")), 0);
}

#[test]
fn a_guest_that_waits_for_stdin_or_for_its_reader_is_ended_too() {
    let place = Place::new();
    place.file("cat.wat", guests::cat());
    place.file("flood.wat", guests::floods(1));
    for guest in ["cat.wat", "flood.wat"] {
        let mut child = place.start(&["--timeout", "1", guest]);
        // Held, and neither written nor read.
        let _streams = (child.stdin.take(), child.stdout.take());
        let output = ended(child);
        exits(&output, 124);
        assert!(String::from_utf8_lossy(&output.stderr).ends_with(": timeout of 1 s reached\n"));
    }
}

#[test]
fn what_a_guest_used_is_told_however_it_ends() {
    let place = Place::new();
    let stats = |arguments: &[&str], wat: &str| {
        place.file("guest.wat", wat);
        let output = place.run(&[arguments, &["--stats", "guest.wat"]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().last().unwrap().to_owned()
    };
    let told = stats(&[], &guests::prints("x"));
    assert!(told.starts_with("hyperfunc: time ") && told.contains(", peak memory 128.0 KB, fuel "), "{told}");
    assert_eq!(told.split("fuel").last(), stats(&[], &guests::prints("x")).split("fuel").last());
    assert!(stats(&[], &guests::fails(3, "")).contains("fuel "));
    assert!(stats(&[], &guests::start("unreachable")).contains("fuel "));
    assert!(stats(&["--fuel", "5000"], &guests::spins()).ends_with(", fuel 5000"));
    assert!(stats(&["--timeout", "1"], &guests::spins()).starts_with("hyperfunc: time 1.0"));
    assert!(stats(&["--timeout", "1"], &guests::sleeps(3_600_000_000_000)).starts_with("hyperfunc: time 1.0"));
}

#[test]
fn ctrl_c_ends_it_whatever_the_guest_does() {
    let place = Place::new();
    for (name, wat) in [
        ("spin.wat", guests::module(2, &spins_after(BYTE))),
        ("sleep.wat", guests::module(2, &format!(r#"(func (export "_start") {BYTE} (call $sleep (i64.const -1)))"#))),
        ("flood.wat", guests::floods(1)),
    ] {
        place.file(name, wat);
        let mut child = place.start(&[name]);
        let (_stdin, mut from_guest) = (child.stdin.take(), child.stdout.take().unwrap());
        from_guest.read_exact(&mut [0]).unwrap();
        let interrupted = Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        exits(&ended(child), 130);
        assert!(interrupted.elapsed() < PATIENCE / 3, "{name}");
    }
}

#[test]
fn ctrl_c_and_sigterm_end_one_that_waits_for_stdin() {
    let place = Place::new();
    place.file("cat.wat", guests::cat());
    for (signal, status, by_signal) in [(Signal::INT, Some(130), None), (Signal::TERM, None, Some(15))] {
        let mut child = place.start(&["cat.wat"]);
        let _stdin = child.stdin.take();
        let pid = Pid::from_child(&child);
        eventually("it waits for stdin", || reads_stdin(pid));
        kill_process(pid, signal).unwrap();
        let output = ended(child);
        assert_eq!((output.status.code(), output.status.signal()), (status, by_signal));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn what_is_not_run_is_told_in_a_line() {
    let place = Place::new();
    fs::create_dir(place.path("dir")).unwrap();
    refuses(place.run(&["nowhere.wasm"]), 127, "nowhere.wasm: No such file");
    refuses(place.run(&["dir"]), 126, "dir: Is a directory");
    place.file("large", b"\0asm");
    fs::File::options().append(true).open(place.path("large")).unwrap().set_len((1 << 30) + 1).unwrap();
    refuses(place.run(&["large"]), 126, "large: larger than 1.0 GB");
    let wasm = |wat: &str| wat::parse_str(wat).unwrap();
    for (content, reason) in [
        (b"[package]\nname = \"x\"\n".to_vec(), "not a WebAssembly module: neither its bytes"),
        (Vec::new(), "not a WebAssembly module: neither its bytes"),
        (TOOLBOX[..1000].to_vec(), "not a valid module: unexpected end"),
        (b"(module\n  (func (call $f)))".to_vec(), "not a valid module: 2:15: unknown func: failed to find name `$f`"),
        (wasm("(component)"), "a component: only core modules run here"),
        (wasm("(module)"), "no function is exported as _start"),
        (wasm(r#"(module (import "env" "f" (func)))"#), "imports env.f, which is unknown"),
    ] {
        place.file("guest", &content);
        refuses(place.run(&["guest"]), 126, &format!("guest: {reason}"));
    }
    assert!(!place.path("cache/hyperfunc").exists() || place.artifacts().is_empty());
}

#[test]
fn a_second_run_does_not_compile() {
    let place = Place::new();
    assert_eq!(printed(place.run(&["toolbox.wasm", "echo", "1"])), "1\n");
    let [artifact] = place.artifacts().try_into().unwrap();
    // Whoever compiles replaces the file.
    let compiled = fs::metadata(&artifact).unwrap().ino();
    // The content counts and not the name.
    fs::rename(place.path("toolbox.wasm"), place.path("other")).unwrap();
    assert_eq!(printed(place.run(&["other", "echo", "2"])), "2\n");
    assert_eq!(place.artifacts().len(), 1);
    assert_eq!(fs::metadata(&artifact).unwrap().ino(), compiled);

    // Fuel is counted by other code.
    exits(&place.run(&["--fuel", "1000000", "other", "echo"]), 0);
    assert_eq!(place.artifacts().len(), 2);
}

#[test]
fn a_damaged_artifact_is_compiled_again() {
    let place = Place::new();
    printed(place.run(&["toolbox.wasm", "echo"]));
    let [artifact] = place.artifacts().try_into().unwrap();
    let whole = fs::read(&artifact).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b""] {
        fs::write(&artifact, damaged).unwrap();
        assert_eq!(printed(place.run(&["toolbox.wasm", "echo", "x"])), "x\n");
        assert_eq!(fs::read(&artifact).unwrap().len(), whole.len());
    }
}

#[test]
fn without_a_place_for_its_cache_it_runs_all_the_same() {
    let place = Place::new();
    for cache in [Path::new("/dev/null/cache"), Path::new("not absolute")] {
        let mut command = place.command(&["toolbox.wasm", "echo", "x"]);
        command.env("XDG_CACHE_HOME", cache).env_remove("HOME");
        assert_eq!(printed(command.output().unwrap()), "x\n");
    }
}

#[test]
fn many_at_once_of_one_that_nobody_has_compiled_yet_all_run() {
    let place = Place::new();
    let started: Vec<Child> = (0..20).map(|n| place.start(&["toolbox.wasm", "echo", &n.to_string()])).collect();
    for (n, child) in started.into_iter().enumerate() {
        assert_eq!(printed(ended(child)), format!("{n}\n"));
    }
    assert_eq!(place.artifacts().len(), 1);
}

/// Writes a byte to stdout.
const BYTE: &str = "(call $put (i32.const 1) (i32.const 1024) (i32.const 1))";

fn spins_after(instructions: &str) -> String {
    format!(r#"(func (export "_start") {instructions} (loop (br 0)))"#)
}

/// Writes the names of its directories, a line each.
fn names_of_directories() -> String {
    r#"(module
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $fd i32) (local $len i32)
    (local.set $fd (i32.const 3))
    (loop $more
      (if (call $prestat (local.get $fd) (i32.const 0)) (then (return)))
      (local.set $len (i32.load (i32.const 4)))
      (if (call $name (local.get $fd) (i32.const 1024) (local.get $len)) (then unreachable))
      (i32.store8 (i32.add (i32.const 1024) (local.get $len)) (i32.const 10))
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.add (local.get $len) (i32.const 1)))
      (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
      (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
      (br $more))))"#
        .to_owned()
}

/// Copies this file of its first directory to `to` in its second; exits with the number of the first error.
fn copies_a_file(from: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "{from}") (data (i32.const 2048) "to")
  (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
  (func (export "_start")
    ;; Follows links; the right to read, and then to create, to cut off, and to write.
    (call $check (call $open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const {len})
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
    (call $check (call $open (i32.const 4) (i32.const 1) (i32.const 2048) (i32.const 2)
      (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 4)))
    (i32.store (i32.const 8) (i32.const 4096))
    (i32.store (i32.const 12) (i32.const 4096))
    (call $check (call $read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 12) (i32.load (i32.const 16)))
    (call $check (call $write (i32.load (i32.const 4)) (i32.const 8) (i32.const 1) (i32.const 16)))))"#,
        len = from.len()
    )
}
