//! `test`: cases in, a verdict out (`docs/api.md` section 8, "test").

use crate::harness::program::{Follower, ended};
use crate::harness::{binary, eventually, guests};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use tempfile::TempDir;

/// A directory with modules and test files, and a cache of its own.
struct Project(TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join("p").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join("p").join(name)).unwrap()
    }

    fn start(&self, arguments: &[&str]) -> std::process::Child {
        let mut program = binary();
        program.env("XDG_CACHE_HOME", self.0.path().join("cache")).current_dir(self.0.path().join("p"));
        program.arg("test").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program.spawn().unwrap()
    }

    /// Status, stdout and stderr of a run.
    fn test(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = ended(self.start(arguments));
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// The cases of a run, and the status of each.
    fn verdicts(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let (_, stdout, stderr) = self.test(&[&["--json"], arguments].concat());
        assert_eq!(stderr, "");
        let text = |object: &Value, key: &str| object[key].as_str().unwrap().to_owned();
        let object = |line: &str| {
            let object: Value = serde_json::from_str(line).unwrap();
            (text(&object, "Case"), text(&object, "Status"))
        };
        let mut verdicts: Vec<_> = stdout.lines().map(object).collect();
        verdicts.sort();
        verdicts
    }
}

/// One case of a module `x.wat`.
fn case(keys: &str) -> String {
    format!("[[case]]\nname = \"c\"\n{keys}\n")
}

#[test]
fn the_guest_examples_pass() {
    let project = Project::new(&[("empty", "")]);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples");
    let (status, stdout, stderr) = project.test(&[examples.to_str().unwrap()]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains("hello/hello > greets the world\n"), "{stdout}");
    assert!(stdout.lines().last().unwrap().starts_with("13 passed in "), "{stdout}");
}

#[test]
fn all_that_a_case_can_expect_passes_and_fails() {
    let prints = guests::prints(r#"{"a":[1,2],"b":"x"}"#);
    let fails = guests::fails(3, "bad thing");
    for (module, keys, problem) in [
        (&prints, r#"stdout = '{"a":[1,2],"b":"x"}'"#, None),
        (&prints, "stdout = 'other'", Some("-other")),
        (&prints, "stdout = { contains = ['\"a\"', 'x'] }", None),
        (&prints, "stdout = { contains = ['\"a\"', 'y'] }", Some("stdout does not contain \"y\"")),
        (&prints, "stdout = { regex = '^.\"a' }", None),
        (&prints, "stdout = { regex = '^a' }", Some("stdout does not match the regex \"^a\"")),
        (&prints, "stdout = { json = { a = [1, 2] } }", None),
        (&prints, "stdout = { json = { a = [1, 3] } }", Some("stdout has 2 at .a[1]; expected: 3")),
        (&prints, "stdout = { file = 'out.txt' }", None),
        (&prints, "stdout = { file = 'none.txt' }", Some("none.txt: No such file")),
        (&prints, "exit = 1", Some("exit status 0; expected: exit status 1")),
        (&prints, "max_ms = 0", Some(" ms; max_ms is 0")),
        (&prints, "max_fuel = 1", Some(" fuel; max_fuel is 1")),
        (&prints, "max_fuel = 1_000", None),
        (&fails, "exit = 3\nstderr = 'bad thing'", None),
        (&fails, "", Some("exit status 3: bad thing; expected: exit status 0")),
        (&fails, "exit = 3\nstderr = ''", Some("+bad thing")),
        (&guests::start("unreachable"), "ending = 'trap'", None),
        (&guests::start("unreachable"), "", Some("trap: unreachable; expected: exit status 0")),
        (&guests::spins(), "timeout = 0.05\nending = 'timeout'", None),
        (&guests::spins(), "timeout = 0.05", Some("timeout of 0.05 s reached; expected: exit status 0")),
        (&guests::spins(), "fuel = 10_000\nending = 'fuel'", None),
        (&guests::floods(1), "ending = 'output'", None),
        (&guests::grows(16, "unreachable"), "size = 's1'\nending = 'memory'", None),
        (&guests::grows(16, "unreachable"), "size = 's1'", Some("memory limit of s1 (64 MB) reached; expected: ")),
    ] {
        let project = Project::new(&[("x.wat", module), ("x.test.toml", &case(keys))]);
        project.write("out.txt", r#"{"a":[1,2],"b":"x"}"#);
        let (status, stdout, stderr) = project.test(&[]);
        assert_eq!((status, stderr.as_str()), (i32::from(problem.is_some()), ""), "{keys}\n{stdout}");
        let word = if problem.is_some() { "FAIL [" } else { "PASS [" };
        assert!(stdout.starts_with(word) && stdout.contains("] x > c\n"), "{keys}\n{stdout}");
        assert!(problem.is_none_or(|problem| stdout.contains(problem)), "{keys}\n{stdout}");
    }
}

#[test]
fn a_guest_is_given_what_a_server_would_give_it() {
    let project = Project::new(&[]);
    let toolbox = project.0.path().join("p/tool.wasm");
    fs::create_dir(toolbox.parent().unwrap()).unwrap();
    fs::write(toolbox, guests::TOOLBOX).unwrap();
    project.write("in.txt", "from a file");
    project.write(
        "tool.test.toml",
        r#"
        env = { A = "1", HTTP_X_B = "own" }
        [[case]]
        name = "the environment"
        argv = ["env"]
        stdin = "four"
        request = { method = "PUT", query = "q=1", headers = { "X-A" = "2", "X-B" = "3", "Proxy" = "evil" } }
        stdout = """
GATEWAY_INTERFACE=CGI/1.1
REQUEST_METHOD=PUT
SCRIPT_NAME=/call/tool
PATH_INFO=
QUERY_STRING=q=1
SERVER_NAME=127.0.0.1
SERVER_PORT=8080
SERVER_PROTOCOL=HTTP/1.1
SERVER_SOFTWARE=hyperfunc/VERSION
REMOTE_ADDR=127.0.0.1
CONTENT_LENGTH=4
HTTP_X_A=2
HTTP_HOST=127.0.0.1:8080
HYPER_FUNC_NAME=tool
HYPER_CALL_ID=00000000-0000-7000-8000-000000000000
HYPER_ATTEMPT=1
A=1
HTTP_X_B=own
"""
        [[case]]
        name = "argv is the function's name, and then its own"
        argv = ["nothing"]
        exit = 127
        stderr = { contains = "toolbox: no applet 'nothing'" }
        [[case]]
        name = "stdin of a file"
        argv = ["cat"]
        stdin = { file = "in.txt" }
        stdout = "from a file"
        "#
        .replace("VERSION", env!("CARGO_PKG_VERSION"))
        .as_str(),
    );
    let (status, stdout, _) = project.test(&[]);
    assert_eq!(status, 0, "{stdout}");
}

#[test]
fn every_case_has_an_instance_of_its_own() {
    let cases: String = (0..20).map(|number| format!("[[case]]\nname = \"{number}\"\nstdout = \"D\"\n")).collect();
    let project = Project::new(&[("x.wat", &guests::counts()), ("x.test.toml", &cases)]);
    let (status, stdout, _) = project.test(&["-j", "8"]);
    assert_eq!((status, stdout.contains("\n20 passed in ")), (0, true), "{stdout}");
}

#[test]
fn cases_are_found_listed_and_chosen() {
    let prints = guests::prints("hi");
    let project = Project::new(&[
        ("x.wat", &prints),
        ("x.test.toml", &case("stdout = 'hi'")),
        ("sub/y.wat", &prints),
        ("sub/y.test.toml", &format!("[[case]]\nname = 'd'\nstdout = 'ho'\n{}", case(""))),
    ]);
    assert_eq!(project.test(&["--list"]), (0, "sub/y > d\nsub/y > c\nx > c\n".to_owned(), String::new()));
    assert_eq!(project.test(&["--list", "--filter", "y > c"]).1, "sub/y > c\n");
    assert_eq!(project.test(&["--list", "x.wat"]).1, "x > c\n");
    assert_eq!(project.test(&["--list", "sub"]).1, "sub/y > d\nsub/y > c\n");
    assert_eq!(project.test(&["--filter", "> c"]).0, 0);
    assert_eq!(project.test(&[]).0, 1);
    for (arguments, status, problem) in [
        (&["--filter", "nothing"][..], 127, "--filter: no case has \"nothing\" in its name"),
        (&["nothing"], 127, "nothing: no such file"),
        (&["sub/z.wasm"], 127, "no sub/z.test.toml beside it"),
        (&["-j", "0"], 2, "--jobs"),
        (&["--watch", "--update"], 2, "cannot be used with"),
    ] {
        let (told, stdout, stderr) = project.test(arguments);
        assert_eq!((told, stdout.as_str()), (status, ""), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
    }
}

#[test]
fn a_malformed_file_is_told_and_nothing_runs() {
    let project = Project::new(&[
        ("x.wat", &guests::prints("hi")),
        ("x.test.toml", &case("")),
        ("y.test.toml", &case("stdot = 'hi'")),
        ("z.test.toml", "module = 3"),
    ]);
    let (status, stdout, stderr) = project.test(&[]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("hyperfunc: y.test.toml:3: case \"c\": unknown field `stdot`"), "{stderr}");
    assert!(lines[1].starts_with("hyperfunc: z.test.toml:1: module: "), "{stderr}");
    fs::write(project.0.path().join("p/z.test.toml"), b"\xff").unwrap();
    assert_eq!(project.test(&["z.test.toml"]), (2, String::new(), "hyperfunc: z.test.toml: is no UTF-8\n".to_owned()));
}

#[test]
fn a_module_that_cannot_run_fails_its_own_cases() {
    let project = Project::new(&[("missing.test.toml", &case(""))]);
    let (status, stdout, _) = project.test(&[]);
    assert_eq!(status, 127, "{stdout}");
    assert!(stdout.starts_with("FAIL missing > c\n    missing.wasm: No such file"), "{stdout}");
    project.write("missing.wasm", "\0asm");
    assert_eq!(project.test(&[]).0, 126);
    project.write("x.wat", &guests::prints("hi"));
    project.write("x.test.toml", &case("stdout = 'hi'"));
    let (status, stdout, _) = project.test(&[]);
    assert_eq!((status, stdout.contains("1 passed, 1 failed in")), (1, true), "{stdout}");
}

#[test]
fn programs_read_json_and_junit() {
    let project = Project::new(&[
        ("x.wat", &guests::fails(3, "\x1b[31m<bad>")),
        ("x.test.toml", &format!("{}[[case]]\nname = \"d & e\"\nexit = 3\n", case(""))),
        ("y.test.toml", &case("")),
    ]);
    assert_eq!(
        project.verdicts(&["x.test.toml"]),
        [("c".to_owned(), "fail".to_owned()), ("d & e".to_owned(), "pass".to_owned())]
    );
    let (_, stdout, _) = project.test(&["--json", "--fuel", "--filter", "d &"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (told["File"].as_str(), told["Ending"].as_str()),
        (Some("x.test.toml"), Some("exit status 3:  [31m<bad>"))
    );
    assert!(told["FuelUsed"].as_u64() > Some(0) && told["DurationMs"].as_f64() > Some(0.0), "{told}");
    assert!(told.get("Details").is_none());

    assert_eq!(project.test(&["--junit", "report.xml"]).0, 1);
    let report = project.read("report.xml");
    for part in [
        r#"<testsuites name="hyperfunc" tests="3" failures="1" errors="1""#,
        r#"<testcase name="d &amp; e" classname="x""#,
        r#"<failure message="exit status 3:  [31m&lt;bad>; expected: exit status 0">"#,
        "y.wasm: No such file",
    ] {
        assert!(report.contains(part) || report.contains(&part.replace("bad>", "bad&gt;")), "{part}\n{report}");
    }
    assert!(!report.contains('\x1b'));
    assert_eq!(project.test(&["--junit", "no/such/dir.xml"]).0, 1);
}

#[test]
fn what_a_guest_says_does_not_act_on_the_terminal() {
    let project = Project::new(&[
        ("x.wat", &guests::prints("\x1b[2J\r\u{202e}")),
        ("x.test.toml", &format!("{}[[case]]\nname = 'd'\nstdout = {{ contains = 'x' }}\n", case("stdout = ''"))),
        ("y.wat", &guests::fails(1, "\x1b[2J")),
        ("y.test.toml", &case("")),
    ]);
    let (status, stdout, _) = project.test(&[]);
    assert_eq!(status, 1);
    assert!(stdout.contains("+\\u{1b}[2J\\r\n    +\\u{202e}\n"), "{stdout}");
    assert!(!stdout.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{stdout:?}");
}

#[test]
fn update_accepts_what_is_exact_and_leaves_all_else() {
    let tests = |text: &str| {
        format!(
            "# kept\n[[case]] # kept too\nname = 'inline'\nstdout  =  {text} # and this\n\n\
             [[case]]\nstdout = {{ file = 'new.txt' }}\nname = 'file'\n"
        )
    };
    let other = "[[case]]\nname = 'regex'\nstdout = { regex = 'x' }\n[[case]]\nname = 'exit'\nexit = 1\nstdout = 'x'\n";
    let project = Project::new(&[
        ("x.wat", &guests::prints("say \"hi\"\n")),
        ("x.test.toml", &tests("'old'")),
        ("y.wat", &guests::prints("y")),
        ("y.test.toml", other),
    ]);
    assert_eq!(project.test(&["x.wat"]).0, 1);
    let (status, stdout, stderr) = project.test(&["--update", "x.wat"]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains("0 passed, 2 updated in "), "{stdout}");
    assert_eq!(project.read("x.test.toml"), tests("'''\nsay \"hi\"\n'''"));
    assert_eq!(project.read("new.txt"), "say \"hi\"\n");
    assert_eq!(project.test(&["x.wat"]).0, 0);

    // One file cannot be two things.
    let twice = |name: &str| format!("[[case]]\nname = '{name}'\nstdin = '{name}'\nstdout = {{ file = 'both.txt' }}\n");
    project.write("cat.wat", &guests::cat());
    project.write("cat.test.toml", &(twice("a") + &twice("b")));
    let (status, stdout, _) = project.test(&["--update", "-j", "1", "cat.wat"]);
    assert!(stdout.contains("not updated: another case expects other bytes in the same file"), "{stdout}");
    assert_eq!((status, project.read("both.txt").as_str()), (1, "a"));

    let (status, stdout, _) = project.test(&["--update", "y.wat"]);
    assert_eq!(status, 1);
    assert!(stdout.contains("not updated: what `contains`, `regex` and `json` ask for"), "{stdout}");
    assert!(stdout.contains("not updated: it ended in another way"), "{stdout}");
    assert_eq!(project.read("y.test.toml"), other);
}

#[test]
fn update_breaks_no_other_case_and_writes_nothing_elsewhere() {
    let expects = |name: &str, file: &str| {
        format!("[[case]]\nname = '{name}'\nstdin = '{name}'\nstdout = {{ file = '{file}' }}\n")
    };
    let project = Project::new(&[
        ("cat.wat", &guests::cat()),
        ("cat.test.toml", &(expects("b", "both.txt") + &expects("a", "both.txt"))),
        ("both.txt", "a"),
        ("sub/cat.wat", &guests::cat()),
        ("sub/cat.test.toml", &(expects("out", "../out.txt") + &expects("in", "exp/new/in.txt"))),
        ("bad/cat.wat", &guests::cat()),
        ("bad/cat.test.toml", &(expects("a", "f/a.txt") + &expects("b", "b.txt"))),
    ]);
    let (status, stdout, _) = project.test(&["--update", "cat.wat"]);
    assert!(stdout.contains("not updated: another case expects other bytes in the same file"), "{stdout}");
    assert!(stdout.contains("1 passed, 1 failed in "), "{stdout}");
    assert_eq!((status, project.read("both.txt").as_str()), (1, "a"));

    let (status, stdout, _) = project.test(&["--update", "sub"]);
    assert!(stdout.contains("not updated: the file that it expects is not below"), "{stdout}");
    assert_eq!((status, project.read("sub/exp/new/in.txt").as_str()), (1, "in"));
    assert!(!project.0.path().join("p/out.txt").exists());

    // What cannot be written is told, and all else is done.
    std::os::unix::fs::symlink("nowhere", project.0.path().join("p/bad/f")).unwrap();
    let (status, stdout, stderr) = project.test(&["--update", "--junit", "report.xml", "bad"]);
    assert!(stderr.contains("bad/f: ") && stdout.contains("2 updated in "), "{stdout}{stderr}");
    assert_eq!((status, project.read("bad/b.txt").as_str()), (1, "b"));
    assert!(project.read("report.xml").contains("testsuites"));
}

#[test]
fn watch_runs_what_could_not_run_before() {
    let project = Project::new(&[
        ("x.wat", &guests::prints("x")),
        ("x.test.toml", &case("stdout = 'x'")),
        ("z.wat", &guests::prints("z")),
        ("z.test.toml", "nonsense"),
    ]);
    let mut watching = Follower::of(project.start(&["--watch"]));
    project.write("z.test.toml", &case("stdout = 'z'"));
    eventually("both have run", || watching.lines().iter().any(|line| line.starts_with("2 passed in ")));
    watching.signal(Signal::INT);
    assert_eq!(watching.ended().code(), Some(130));
}

#[test]
fn watch_runs_what_changes_matter_for_until_ctrl_c() {
    let project = Project::new(&[
        ("x.wat", &guests::prints("one")),
        ("x.test.toml", &case("stdout = { file = 'out.txt' }")),
        ("out.txt", "one"),
        ("y.wat", &guests::prints("y")),
        ("y.test.toml", &case("stdout = 'y'")),
    ]);
    let mut watching = Follower::of(project.start(&["--watch"]));
    let mut read = 0;
    // The verdicts of the next round.
    let mut round = || {
        let ended = |line: &String| line.contains(" passed") && line.contains(" in ");
        let mut lines = Vec::new();
        eventually("a round", || {
            lines = watching.lines().split_off(read);
            lines.last().is_some_and(ended)
        });
        read += lines.len();
        let verdicts = lines.iter().filter(|line| line.contains("] "));
        let verdict = |line: &String| format!("{} {}", &line[..4], line.split("] ").nth(1).unwrap());
        let mut verdicts: Vec<String> = verdicts.map(verdict).collect();
        verdicts.sort();
        verdicts
    };
    assert_eq!(round(), ["PASS x > c", "PASS y > c"]);
    project.write("out.txt", "two!");
    assert_eq!(round(), ["FAIL x > c"]);
    project.write("x.wat", &guests::prints("two!"));
    assert_eq!(round(), ["PASS x > c"]);
    project.write("z.wat", &guests::prints("z"));
    project.write("z.test.toml", &case(""));
    assert_eq!(round(), ["PASS z > c"]);
    // What is wrong for a while does not end it.
    project.write("z.test.toml", "nonsense");
    project.write("y.test.toml", &case("stdout = 'z'"));
    project.write("z.test.toml", &case("stdout = ''"));
    let told = round();
    assert!(told.contains(&"FAIL y > c".to_owned()), "{told:?}");
    watching.signal(Signal::INT);
    assert_eq!(watching.ended().code(), Some(130));
}
