//! `hyperfunc dev`: a module is served while it is being written (`docs/api.md` section 8).

use crate::harness::program::{Follower, ended};
use crate::harness::{Connection, Reply, Request, binary, eventually, guests};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A module that is being served.
struct Dev {
    program: Follower,
    address: SocketAddr,
    /// Of the function, as a server has it: `/NAME/UUID`.
    function: String,
    dir: TempDir,
}

/// The program, with directories of its own for what it keeps as long as it runs, and for longer.
fn command(dir: &Path) -> Command {
    for name in ["tmp", "home"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let mut command = binary();
    command.env("TMPDIR", dir.join("tmp")).env("HOME", dir.join("home")).env_remove("XDG_CACHE_HOME");
    command.arg("dev").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Dev {
    fn serve(module: impl AsRef<[u8]>) -> Self {
        Self::with(&[], module, &[])
    }

    /// The same, with options, and arguments for the guest.
    fn with(options: &[&str], module: impl AsRef<[u8]>, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f.wasm"), module).unwrap();
        Self::of(dir, options, arguments)
    }

    /// Serves what is in the directory already.
    fn of(dir: TempDir, options: &[&str], arguments: &[&str]) -> Self {
        let mut command = command(dir.path());
        command.args(["--listen", "127.0.0.1:0"]).args(options).arg(dir.path().join("f.wasm")).args(arguments);
        let program = Follower::of(command.spawn().unwrap());
        let mut lines = Vec::new();
        eventually("it is served", || {
            lines = program.lines();
            lines.len() >= 3
        });
        let (_, address) = lines[0].split_once(" is called at http://").unwrap();
        let (_, function) = lines[1].split_once("/call").unwrap();
        let address = address.trim_end_matches('/').parse().unwrap();
        Self { program, address, function: function.to_owned(), dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("f.wasm")
    }

    /// Writes another module over this one.
    fn write(&self, module: impl AsRef<[u8]>) {
        fs::write(self.file(), module).unwrap();
    }

    /// Puts another module in the place of this one, as linkers do.
    fn replace(&self, module: impl AsRef<[u8]>) {
        let new = self.dir.path().join("new");
        fs::write(&new, module).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    fn call(&self) -> Reply {
        self.request("GET", "/").send()
    }

    #[track_caller]
    fn answers(&self, text: &str) {
        assert_eq!(self.call().expect(200).text(), text);
    }

    /// What it has printed of calls, requests and the file: without the times, and without what it says at the start.
    fn told(&self) -> Vec<String> {
        let lines = self.program.lines();
        let text = |line: &String| line.split_once("  ").map_or(String::new(), |(_, text)| text.to_owned());
        lines.iter().skip(3).map(text).collect()
    }

    #[track_caller]
    fn tells(&self, words: &str) {
        eventually(words, || self.told().iter().any(|line| line.contains(words)));
    }

    fn count(&self, words: &str) -> usize {
        self.told().iter().filter(|line| line.contains(words)).count()
    }

    fn running(&self) -> u64 {
        self.request("GET", &format!("/status{}", self.function)).send().expect(200).json()["Running"].as_u64().unwrap()
    }

    /// What is left of what it has kept as long as it ran.
    fn left(&self) -> usize {
        fs::read_dir(self.dir.path().join("tmp")).unwrap().count()
    }
}

/// Runs it on a file that it cannot serve.
fn refused(dir: &TempDir, arguments: &[&str]) -> (i32, String) {
    let output: Output = ended(command(dir.path()).current_dir(dir.path()).args(arguments).spawn().unwrap());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "{arguments:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_call_is_what_it_is_on_a_server() {
    let dev = Dev::with(&["-e", "OWN=mine"], guests::TOOLBOX, &["env"]);
    let reply = dev.request("PUT", "/?a=b&c").header("X-Word", "w").body("stdin").send().expect(200);
    assert_eq!(reply.header("x-call-id").map(str::len), Some(36));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let told: Vec<&str> = reply.text().lines().collect();
    for variable in [
        "REQUEST_METHOD=PUT",
        "SCRIPT_NAME=/call/f",
        "PATH_INFO=",
        "QUERY_STRING=a=b&c",
        "CONTENT_LENGTH=5",
        "HTTP_X_WORD=w",
        "HYPER_FUNC_NAME=f",
        "HYPER_ATTEMPT=1",
        "OWN=mine",
    ] {
        assert!(told.contains(&variable), "{variable}: {told:?}");
    }
    let (_, uuid) = dev.function.rsplit_once('/').unwrap();
    assert!(!reply.text().contains(uuid));

    let cat = Dev::with(&[], guests::TOOLBOX, &["cat"]);
    let bytes = [0x1f, 0x8b, 0xff, 0];
    let reply = cat.request("POST", "/").header("Content-Encoding", "gzip").body(bytes).send().expect(200);
    assert_eq!((&reply.body[..], reply.header("content-type")), (&bytes[..], Some("application/octet-stream")));
    let full = vec![b'x'; 1 << 20];
    assert_eq!(cat.request("POST", "/").body(&full[..]).send().expect(200).body.len(), full.len());
}

#[test]
fn what_a_server_refuses_is_refused_and_told() {
    let dev = Dev::serve(guests::cat());
    let large = vec![b'x'; (1 << 20) + 1];
    dev.request("POST", "/").body(large).send().expect(413);
    dev.tells("POST /  413  the body is larger than 1048576 bytes");
    dev.request("GET", "/").header("X-A", &"v".repeat(33_000)).send().expect(431);
    dev.tells("GET /  431  the headers");
    assert_eq!(dev.request("PATCH", "/").send().expect(405).header("allow"), Some("GET, POST, PUT, DELETE"));
    dev.tells("PATCH /  405  method not allowed");
    let reply = dev.request("GET", "/other/path").send().expect(404);
    assert_eq!(reply.text(), "no such route: the function is called at /\n");
    dev.tells("GET /other/…  404  ");
    dev.request("GET", "/funcs").send().expect(404);
    dev.request("GET", "/favicon.ico").send().expect(404);
    dev.answers("");
    dev.tells("GET /  200  ");
    assert_eq!(dev.count("favicon"), 0);
}

#[test]
fn the_ends_of_calls_are_those_of_a_server_and_told() {
    let fails = r#"(data (i32.const 1024) "bad \1b[31mname") (func (export "_start")
        (call $put (i32.const 2) (i32.const 1024) (i32.const 13)) (call $exit (i32.const 3)))"#;
    let dev = Dev::with(&["--timeout", "1", "--size", "s1"], guests::module(2, fails), &[]);
    assert_eq!(dev.request("POST", "/?who=me").send().expect(500).text(), "exit status 3: bad  [31mname\n");
    dev.tells("POST /?who=me  500  ");
    dev.tells("exit status 3: bad  [31mname");
    eventually("its stderr", || dev.program.lines().iter().any(|line| line == "  | bad  [31mname"));
    for (module, status, why) in [
        (guests::start("unreachable"), 500, "trap: unreachable"),
        (guests::spins(), 504, "timeout of 1 s reached"),
        (guests::writes(1, (1 << 20) + 1), 509, "output limit of 1 MB reached"),
        (guests::grows(16, "unreachable"), 500, "memory limit of s1 (64 MB) reached"),
    ] {
        dev.replace(module);
        assert_eq!(dev.call().expect(status).text(), format!("{why}\n"));
        dev.tells(why);
    }
    let line = dev.told().into_iter().find(|line| line.contains("output limit")).unwrap();
    let words: Vec<&str> = line.split("  ").collect();
    assert_eq!((words[0], words[1], words[4]), ("GET /", "509", "output limit of 1 MB reached"));
    assert!(words[2].ends_with('s') && words[3].ends_with(" MB") || words[3].ends_with(" KB"), "{line}");

    let dev = Dev::with(&["--fuel", "1000"], guests::spins(), &[]);
    assert_eq!(dev.call().expect(504).text(), "fuel limit reached\n");
    dev.tells("  fuel 1000  fuel limit reached");
    dev.replace(guests::prints("frugal"));
    dev.answers("frugal");
}

#[test]
fn it_has_the_rest_of_the_function_endpoint() {
    let dev = Dev::serve(guests::prints("later"));
    let accepted = dev.request("POST", &format!("/call{}", dev.function)).send().expect(200).json();
    let id = accepted["CallId"].as_str().unwrap();
    let output = dev.request("GET", &format!("/output{}/{id}/wait", dev.function)).send().expect(200);
    assert_eq!(output.text(), "later");
    dev.tells("POST /  200  ");
    let log = dev.request("GET", &format!("/logs{}?callid={id}", dev.function)).send().expect(200);
    assert!(log.text().contains("FINISHED"), "{}", log.text());
}

#[test]
fn the_next_call_runs_what_the_file_holds() {
    let dev = Dev::serve(guests::prints("one"));
    dev.answers("one");
    dev.write(guests::prints("two"));
    dev.answers("two");
    dev.replace(guests::prints("three"));
    dev.answers("three");
    // As text or as bytes.
    dev.replace(wat::parse_str(guests::prints("four")).unwrap());
    dev.answers("four");
    eventually("each is told", || dev.count("f.wasm has changed: calls run it from now on") == 3);
    // Nothing new is nothing to tell.
    dev.replace(wat::parse_str(guests::prints("four")).unwrap());
    dev.answers("four");
    dev.write(guests::prints("five"));
    dev.answers("five");
    // A reply may overtake what is printed: a call is told of after all that came before it.
    eventually("all calls are told", || dev.count("GET /  200  ") == 6);
    assert_eq!(dev.count("has changed"), 4);
}

#[test]
fn a_change_is_loaded_before_anybody_calls() {
    let dev = Dev::serve(guests::prints("one"));
    dev.replace(guests::prints("two"));
    dev.tells("has changed");
    dev.answers("two");
    assert_eq!(dev.count("has changed"), 1);
}

#[test]
fn a_link_may_be_swapped() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("a", "one"), ("b", "two")] {
        fs::write(dir.path().join(name), guests::prints(text)).unwrap();
    }
    symlink("a", dir.path().join("f.wasm")).unwrap();
    let dev = Dev::of(dir, &[], &[]);
    dev.answers("one");
    symlink("b", dev.dir.path().join("link")).unwrap();
    fs::rename(dev.dir.path().join("link"), dev.file()).unwrap();
    dev.answers("two");
}

#[test]
fn a_call_in_flight_finishes_on_the_old_module() {
    let dev = Dev::serve(guests::sleeps(3_000_000_000));
    thread::scope(|scope| {
        let old = scope.spawn(|| dev.call());
        eventually("it runs", || dev.running() == 1);
        dev.replace(guests::prints("new"));
        dev.answers("new");
        assert_eq!(dev.running(), 1, "the old one has ended too early for this test");
        assert_eq!(old.join().unwrap().expect(200).text(), "woke");
    });
}

#[test]
fn what_cannot_run_is_told_once_and_the_old_module_stays() {
    let dev = Dev::with(&["--size", "s1"], guests::prints("good"), &[]);
    for (number, (broken, why)) in [
        ("(module (oops))".to_owned(), "not a valid module"),
        ("(module (import \"env\" \"f\" (func)))".to_owned(), "env"),
        (
            guests::module(1025, "(func (export \"_start\"))"),
            "ContainerSize: s1 (64 MB) is less than the 67174400 bytes",
        ),
    ]
    .iter()
    .enumerate()
    {
        dev.write(broken);
        (0..3).for_each(|_| dev.answers("good"));
        eventually("all calls are told", || dev.count("GET /  200  ") == 3 * (number + 1));
        let told = dev.told();
        let told: Vec<_> = told.iter().filter(|line| line.contains("f.wasm is not runnable: ")).collect();
        assert_eq!(told.len(), number + 1, "{told:?}");
        assert!(told[number].contains(why), "{told:?}");
    }
    dev.write(guests::prints("good"));
    dev.tells("f.wasm is runnable again: it is what it was before");
    dev.answers("good");

    fs::remove_file(dev.file()).unwrap();
    dev.answers("good");
    dev.tells("f.wasm is not runnable: No such file");
    dev.write(guests::prints("better"));
    dev.answers("better");
    dev.tells("f.wasm is runnable again: calls run it from now on");
    assert_eq!(dev.count("not runnable"), 4);
}

#[test]
fn half_a_file_is_neither_served_nor_complained_of() {
    /// Longer than this between two pieces, and it is as good as broken.
    const PAUSE_MAX: Duration = Duration::from_millis(150);
    let whole = |text: &str| wat::parse_str(guests::prints(text)).unwrap();
    let dev = Dev::serve(whole("old"));
    // A busy machine may hold this writer up: then it is another time's turn.
    let written = (0..20).any(|number| {
        let broken = dev.count("not runnable");
        let module = whole(&format!("new {number:02}"));
        let mut file = fs::File::create(dev.file()).unwrap();
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        for piece in module.chunks(module.len().div_ceil(30)) {
            file.write_all(piece).unwrap();
            longest = longest.max(last.elapsed());
            last = Instant::now();
            thread::sleep(Duration::from_millis(15));
        }
        let reply = dev.call().expect(200);
        if longest < PAUSE_MAX {
            assert_eq!((reply.text(), dev.count("not runnable")), (format!("new {number:02}").as_str(), broken));
        }
        longest < PAUSE_MAX
    });
    assert!(written, "this machine is too busy");
}

#[test]
fn a_file_that_cannot_be_served_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("text"), "no module").unwrap();
    fs::write(dir.path().join("large.wat"), guests::module(1025, "(func (export \"_start\"))")).unwrap();
    fs::write(dir.path().join("good.wat"), guests::prints("")).unwrap();
    for (arguments, status, words) in [
        (&["none.wasm"][..], 127, "none.wasm: No such file"),
        (&["text"], 126, "text: not a WebAssembly module"),
        (&["tmp"], 126, "tmp: is not a file"),
        (&["--size", "s1", "large.wat"], 126, "large.wat: ContainerSize: s1 (64 MB) is less than"),
        (&["--size", "s9", "good.wat"], 2, "--size"),
        (&["-e", "=x", "good.wat"], 1, "Config.Env"),
        (&[], 2, "FILE"),
    ] {
        let listen = ["--listen", "127.0.0.1:0"];
        let (ended, said) = refused(&dir, &[&listen[..], arguments].concat());
        assert_eq!((ended, said.contains(words)), (status, true), "{arguments:?}: {said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (status, said) = refused(&dir, &["--listen", &listen, "good.wat"]);
    assert_eq!(status, 1);
    assert!(said.contains(&format!("--listen {listen}: Address already in use")), "{said}");
    assert!(said.contains("--listen 127.0.0.1:0 takes a free port"), "{said}");
}

#[test]
fn a_signal_ends_it_and_leaves_nothing_behind() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut dev = Dev::serve(guests::spins());
        assert_eq!(dev.left(), 1);
        // In the middle of calls of both kinds.
        let mut waiting = Connection::open(dev.address);
        waiting.send(&dev.request("GET", "/"));
        dev.request("POST", &format!("/call{}", dev.function)).send().expect(200);
        eventually("they run", || dev.running() == 2);
        dev.program.signal(signal);
        assert_eq!(dev.program.ended().code(), Some(status));
        assert_eq!(dev.left(), 0);
        // Ended with its function, or cut off.
        assert!(waiting.try_reply().is_none_or(|reply| reply.status == 500));
    }
}

/// Ended, whatever becomes of the test.
struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reader_that_has_stopped_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.wasm");
    fs::write(&file, guests::writes(2, 60_000)).unwrap();
    let mut command = command(dir.path());
    let mut dev = Unread(command.args(["--listen", "127.0.0.1:0"]).arg(&file).spawn().unwrap());
    let mut told = BufReader::new(dev.0.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let address = line.trim_end().trim_end_matches('/').split_once("http://").unwrap().1.parse().unwrap();
    let call = || Request::new(address, "POST", "/").send().expect(200);
    // Far more than a pipe holds, and nobody reads on.
    for _ in 0..10 {
        call();
    }
    for text in ["new", "newer"] {
        fs::write(&file, guests::prints(text)).unwrap();
        assert_eq!(call().text(), text);
    }
    kill_process(Pid::from_child(&dev.0), Signal::INT).unwrap();
    eventually("it ends", || dev.0.try_wait().unwrap().is_some());
    assert_eq!(dev.0.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_page_whose_dns_was_rebound_reads_nothing() {
    let dev = Dev::serve(guests::prints("for this machine"));
    for (host, status) in
        [("localhost:1", 200), ("[::1]", 200), ("evil.example", 403), ("127.0.0.1.evil.example:80", 403)]
    {
        let reply = dev.request("GET", "/").header("Host", host).send().expect(status);
        assert_eq!(reply.text().contains("for this machine"), status == 200, "{host}");
    }
}

#[test]
fn many_changes_do_not_grow_what_it_keeps() {
    const MODULE_BYTES: usize = 4 << 20;
    let module = |number: usize| {
        let zeros = "\\01".repeat(16);
        let body = format!(
            r#"(data (i32.const 65536) "{}") (data (i32.const 1024) "{number:04}") (func (export "_start")
                 (call $put (i32.const 1) (i32.const 1024) (i32.const 4)))"#,
            zeros.repeat(MODULE_BYTES / 16)
        );
        wat::parse_str(guests::module(70, &body)).unwrap()
    };
    let dev = Dev::serve(module(0));
    let pid = dev.program.pid();
    let resident_kb = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let files = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let change = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            dev.replace(module(number));
            dev.answers(&format!("{number:04}"));
        }
    };
    change(1..5);
    let (resident_before, files_before) = (resident_kb(), files());
    change(5..30);
    assert!(files() <= files_before + 3, "{} files, {files_before} before", files());
    let grown = resident_kb().saturating_sub(resident_before);
    assert!(grown < 25 * (MODULE_BYTES as u64 >> 10) / 2, "{grown} KB more");
    let kept = fs::read_dir(dev.dir.path().join("tmp")).unwrap().next().unwrap().unwrap().path();
    for (dir, files) in [("modules", 1), ("artifacts", 1), ("uploads", 0)] {
        eventually(dir, || fs::read_dir(kept.join(dir)).unwrap().count() == files);
    }
}
