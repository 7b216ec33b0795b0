//! `bench`: measures calls (`docs/api.md` section 8).

use crate::harness::program::{ended, failed, printed, start};
use crate::harness::terminal::{CTRL_C, Terminal};
use crate::harness::{Request, Server, binary, eventually, guests};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A directory with modules, in which nothing else is; its cache is its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file; returns its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut program = binary();
        program.env("XDG_CACHE_HOME", self.0.path().join("cache")).env("XDG_CONFIG_HOME", self.0.path()).arg("bench");
        program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program
    }

    fn bench(&self, arguments: &[&str]) -> Output {
        ended(self.command(arguments).spawn().unwrap())
    }
}

/// Benches something on a server.
fn bench(server: &Server, arguments: &[&str]) -> Output {
    ended(start(server, &[&["bench"], arguments].concat()))
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The numbers of a run all of whose calls succeeded.
#[track_caller]
fn succeeded(output: Output) -> Value {
    json(&printed(output))
}

/// The numbers of a run with calls that failed.
#[track_caller]
fn with_failures(output: Output) -> Value {
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), ""));
    json(std::str::from_utf8(&output.stdout).unwrap())
}

/// Each way to fail and how many calls have.
fn failures(report: &Value) -> Vec<(String, u64)> {
    let failure = |failure: &Value| (failure["Kind"].as_str().unwrap().to_owned(), failure["Calls"].as_u64().unwrap());
    report["Failures"].as_array().unwrap().iter().map(failure).collect()
}

/// That numbers are there, not negative, and each at least as large as the one before.
#[track_caller]
fn is_rising(values: &Value, keys: &[&str]) {
    let numbers: Vec<f64> = keys.iter().map(|key| values[key].as_f64().expect(key)).collect();
    assert!(numbers[0] >= 0.0 && numbers.is_sorted(), "{keys:?}: {numbers:?}");
}

#[test]
fn a_module_is_called_in_this_process_so_many_times() {
    let place = Place::new();
    let file = place.file("cat.wat", guests::cat());
    let stdin = place.file("in", "12345");
    let arguments = ["-n", "40", "-c", "3", "--warmup", "2", "--json", "--stdin", &stdin, &file, "--", "--flag"];
    let report = succeeded(place.bench(&arguments));
    assert_eq!(report["What"], json!({"Kind": "file", "Name": file, "Args": ["--flag"]}));
    assert_eq!(report["Load"], json!({"Concurrency": 3, "RatePerS": null}));
    let calls = &report["Calls"];
    assert_eq!((&calls["Succeeded"], &calls["Failed"], &calls["NotSent"]), (&json!(40), &json!(0), &json!(0)));
    assert_eq!((&report["SentBytes"], &report["ReceivedBytes"]), (&json!(200), &json!(200)));
    is_rising(&report["LatencyUs"], &["Min", "P50", "P90", "P99", "P99.9", "Max"]);
    assert!(report["LatencyUs"]["Mean"].as_f64().unwrap() > 0.0);
    assert!(report["CallsPerS"].as_f64().unwrap() > 0.0 && report["ElapsedS"].as_f64().unwrap() > 0.0);
    let phases = report["PhasesUs"].as_object().unwrap();
    assert_eq!(phases.keys().collect::<Vec<_>>(), ["instantiate", "run"]);
    phases.values().for_each(|phase| is_rising(phase, &["P50", "P99"]));
    let bars = report["Histogram"].as_array().unwrap().iter().map(|bar| bar["Calls"].as_u64().unwrap());
    assert_eq!(bars.sum::<u64>(), 40);
    assert_eq!(report["Version"], env!("CARGO_PKG_VERSION"));
    assert!(report["When"].as_str().unwrap().ends_with('Z') && report["Machine"]["Cores"].as_u64().unwrap() > 0);
}

#[test]
fn a_function_is_called_as_its_users_do_and_tells_all_phases() {
    let server = Server::with(&["--metrics-listen", "127.0.0.1:0"]);
    server.function("f", &guests::prints("hello"), json!({}));
    let report = succeeded(bench(&server, &["-n", "30", "-c", "4", "--warmup", "5", "--json", "f"]));
    assert_eq!(report["What"], json!({"Kind": "function", "Name": "f", "Args": []}));
    assert_eq!((&report["Calls"]["Succeeded"], &report["ReceivedBytes"]), (&json!(30), &json!(150)));
    let phases = report["PhasesUs"].as_object().unwrap();
    assert_eq!(phases.keys().collect::<Vec<_>>(), ["queue", "load", "instantiate", "run", "output"]);
    // With those of the warm-up, and not one more.
    let metrics = Request::new(server.metrics.unwrap(), "GET", "/metrics").send();
    assert!(metrics.text().contains("\nfaas_invocations_total 35\n"), "{metrics:?}");
}

#[test]
fn a_url_is_asked_and_answers_that_are_no_success_are_counted() {
    let server = Server::start();
    let url = format!("http://{}/version", server.address);
    let report = succeeded(bench(&server, &["-n", "10", "--warmup", "0", "--json", &url]));
    assert_eq!((&report["What"]["Kind"], &report["Calls"]["Succeeded"]), (&json!("url"), &json!(10)));
    assert_eq!(report["PhasesUs"], json!({}));
    let url = format!("http://{}/nothing/here?x=1", server.address);
    let report = with_failures(bench(&server, &["-n", "10", "--warmup", "0", "--json", &url]));
    assert_eq!(failures(&report), [("404 Not Found".to_owned(), 10)]);
    assert_eq!((&report["LatencyUs"], &report["CallsPerS"]), (&Value::Null, &json!(0.0)));
}

#[test]
fn calls_come_at_their_rate() {
    let place = Place::new();
    let file = place.file("hello.wat", guests::prints("hello"));
    let report = succeeded(place.bench(&["--rate", "100", "--duration", "500ms", "--warmup", "0", "--json", &file]));
    let calls = &report["Calls"];
    assert_eq!(report["Load"], json!({"Concurrency": 100, "RatePerS": 100.0}));
    assert_eq!(calls["Succeeded"].as_u64().unwrap() + calls["NotSent"].as_u64().unwrap(), 50);
    // The last is due after 490 ms.
    assert!(report["ElapsedS"].as_f64().unwrap() >= 0.5);
    // A number of calls is made whole, however late.
    let report = succeeded(place.bench(&["--rate", "1000", "-n", "50", "--warmup", "0", "--json", &file]));
    assert_eq!((&report["Calls"]["Succeeded"], &report["Calls"]["NotSent"]), (&json!(50), &json!(0)));
}

#[test]
fn a_call_that_waits_for_others_has_its_wait_in_its_latency() {
    let place = Place::new();
    // 20 a second are due, one at a time, 100 ms each: the tenth is due after 450 ms and begins after 900.
    let file = place.file("sleep.wat", guests::sleeps(100_000_000));
    let arguments = ["--rate", "20", "-c", "1", "-n", "10", "--warmup", "0", "--json", &file];
    let report = succeeded(place.bench(&arguments));
    assert!(report["LatencyUs"]["Max"].as_f64().unwrap() >= 540e3, "{report}");
    assert!(report["Calls"]["Late"].as_u64().unwrap() >= 8, "{report}");
    assert!(report["Calls"]["LatestUs"].as_f64().unwrap() >= 440e3, "{report}");
    // Of a time, what could not begin in it is told and not made.
    let arguments = ["--rate", "20", "-c", "1", "--duration", "500ms", "--warmup", "0", "--json", &file];
    let report = succeeded(place.bench(&arguments));
    let calls = &report["Calls"];
    assert!(calls["NotSent"].as_u64().unwrap() >= 3, "{report}");
    assert_eq!(calls["Succeeded"].as_u64().unwrap() + calls["NotSent"].as_u64().unwrap(), 10);
}

#[test]
fn failures_are_told_by_kind_and_are_not_in_the_latencies() {
    let place = Place::new();
    let run = |wat: String, options: &[&str]| {
        let file = place.file("guest.wat", wat);
        failures(&with_failures(place.bench(&[options, &["-n", "3", "--warmup", "0", "--json", &file]].concat())))
    };
    let three = |kind: &str| vec![(kind.to_owned(), 3)];
    assert_eq!(run(guests::fails(3, "at 12:31"), &[]), three("exit status 3"));
    assert_eq!(run(guests::start("unreachable"), &[]), three("trap: unreachable"));
    assert_eq!(run(guests::floods(1), &[]), three("output limit of 1 MB reached"));
    assert_eq!(run(guests::spins(), &["--fuel", "100000"]), three("fuel limit reached"));
    assert_eq!(run(guests::grows(1, "unreachable"), &["--size", "s1"]), three("memory limit of s1 (64 MB) reached"));
    assert_eq!(run(guests::sleeps(3_600_000_000_000), &["--timeout", "1", "-c", "3"]), three("timeout of 1 s reached"));

    let server = Server::start();
    server.function("f", &guests::fails(3, "at 12:31"), json!({}));
    let report = with_failures(bench(&server, &["-n", "3", "--warmup", "0", "--json", "f"]));
    assert_eq!((failures(&report), &report["LatencyUs"]), (three("500 exit status 3"), &Value::Null));
    server.function("g", &guests::sleeps(3_600_000_000_000), json!({}));
    let report =
        with_failures(bench(&server, &["-n", "3", "-c", "3", "--timeout", "1", "--warmup", "0", "--json", "g"]));
    assert_eq!(failures(&report), three("no answer within 1 s"));
}

/// A server that answers so many requests on each connection, and then closes it.
fn closes_after(answers: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            for answer in 1..=answers {
                let mut request = [0; 1024];
                if stream.read(&mut request).unwrap_or(0) == 0 {
                    break;
                }
                let last = if answer == answers { "Connection: close\r\n" } else { "" };
                let _ = write!(stream, "HTTP/1.1 200 OK\r\n{last}Content-Length: 2\r\n\r\nok");
            }
        }
    });
    address
}

#[test]
fn a_server_that_closes_connections_is_connected_to_again() {
    let place = Place::new();
    let url = format!("http://{}/", closes_after(3));
    let report = succeeded(place.bench(&["-n", "20", "--warmup", "2", "--json", &url]));
    assert_eq!((&report["Calls"]["Succeeded"], &report["ReceivedBytes"]), (&json!(20), &json!(40)));
    // One that says nothing at all fails the calls, and not the run.
    let url = format!("http://{}/", closes_after(0));
    let report = with_failures(place.bench(&["-n", "20", "--warmup", "2", "--json", &url]));
    assert_eq!(failures(&report).iter().map(|(_, calls)| calls).sum::<u64>(), 20);
}

#[test]
fn nobody_there_and_nothing_to_call_fail_at_once() {
    let place = Place::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, said) = failed(place.bench(&[&format!("http://{gone}/")]));
    assert_eq!((status, said.contains("connection refused")), (125, true), "{said}");
    let (status, said) = failed(place.bench(&["--server", &format!("http://{gone}"), "f"]));
    assert_eq!((status, said.contains("no server answers")), (125, true), "{said}");
    let (status, said) = failed(place.bench(&["nothing.wasm"]));
    assert_eq!((status, said.contains("nothing.wasm")), (127, true), "{said}");
    let text = place.file("text.wasm", "no module");
    assert_eq!(failed(place.bench(&[&text])).0, 126);
    let server = Server::start();
    let (status, said) = failed(bench(&server, &["f"]));
    assert_eq!((status, said.contains("no such function: f")), (127, true), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let place = Place::new();
    let large = place.file("large", vec![0; (1 << 20) + 1]);
    let server = Server::start();
    server.function("f", &guests::prints("hello"), json!({}));
    for (arguments, status, words) in [
        (&["-n", "1", "--duration", "1s", "f"] as &[&str], 2, "--duration"),
        (&["-n", "0", "f"], 2, "--calls"),
        (&["-c", "0", "f"], 2, "--concurrency"),
        (&["--rate", "0", "f"], 2, "--rate"),
        (&["--duration", "0", "f"], 2, "--duration"),
        (&["--warmup", "soon", "f"], 2, "--warmup"),
        (&["f", "ARG"], 2, "ARGS"),
        (&["--size", "s1", "f"], 2, "--size"),
        (&["-e", "A=1", "f"], 2, "--env"),
        (&["https://localhost/"], 2, "http only"),
        (&["http://user:pw@localhost/"], 2, "must not hold a user name or a password"),
        (&["--stdin", "nothing", "f"], 1, "--stdin: nothing"),
        (&["--stdin", &large, "f"], 1, "larger than 1 MB"),
        (&["--compare", "nothing.json", "f"], 1, "--compare: nothing.json"),
        (&["--compare", &large, "f"], 1, "is not what bench --json writes"),
        (&[], 2, "NAME|FILE|URL"),
    ] {
        let (told, said) = failed(bench(&server, arguments));
        assert_eq!((told, said.contains(words)), (status, true), "{arguments:?}: {said}");
    }
}

/// A run as `--json` writes it, whose slices all have about this value.
fn run_of(report: &Value, p50_us: f64) -> String {
    let mut report = report.clone();
    let around =
        |value: f64| -> Vec<f64> { (0..20).map(|slice| value * (1.0 + f64::from(slice % 5) / 100.0)).collect() };
    report["Slices"] = json!({
        "LengthS": 0.5, "P50Us": around(p50_us), "P99Us": around(p50_us * 3.0), "CallsPerS": around(1e6 / p50_us),
    });
    report.to_string()
}

#[test]
fn a_run_is_compared_with_an_older_one() {
    let place = Place::new();
    let file = place.file("hello.wat", guests::prints("hello"));
    let arguments = ["--duration", "400ms", "--warmup", "0", "--json", &file];
    let report = succeeded(place.bench(&arguments));
    let comparison = |old: &str| {
        let old = place.file("old.json", old);
        succeeded(place.bench(&[&["--compare", &old], &arguments[..]].concat()))["Comparison"].clone()
    };
    // No machine is so slow or so fast.
    for (p50_us, outcome) in [(1e6, "Faster"), (1e-3, "Slower")] {
        let compared = comparison(&run_of(&report, p50_us));
        assert_eq!((&compared["P50"]["Outcome"], &compared["With"]), (&json!(outcome), &report["When"]), "{compared}");
        assert_eq!(compared["Throughput"]["Outcome"], outcome);
        is_rising(&compared["P50"]["TimesBetter"], &["Low", "Ratio", "High"]);
    }
    let mut short = report.clone();
    short["Slices"]["P50Us"] = json!([1.0]);
    let compared = comparison(&short.to_string());
    assert_eq!((&compared["P50"]["Outcome"], &compared["P50"]["TimesBetter"]), (&json!("TooFewCalls"), &Value::Null));

    let old = place.file("old.json", run_of(&report, 1e6));
    let text = printed(place.bench(&["--duration", "400ms", "--warmup", "0", "--compare", &old, &file]));
    assert!(text.contains("\np50      faster by "), "{text}");
    let with = format!("\ncompared with {file}, -c 1, of {}:", report["When"].as_str().unwrap());
    assert!(text.contains(&with), "{text}");
}

#[test]
fn runs_of_different_kinds_are_not_compared() {
    let place = Place::new();
    let file = place.file("hello.wat", guests::prints("hello"));
    let report = succeeded(place.bench(&["-n", "3", "--warmup", "0", "--json", &file]));
    let old = place.file("old.json", report.to_string());
    let (status, said) = failed(place.bench(&["--compare", &old, "http://127.0.0.1:1/"]));
    let words = "the old run was of a module in the process, and this is a URL";
    assert_eq!((status, said.contains(words)), (1, true), "{said}");
    for (options, words) in [
        (&["-c", "2"][..], "made with -c 1, and this is -c 2"),
        (&["-c", "1", "--rate", "50"], "made with -c 1, and this is --rate 50 -c 1"),
    ] {
        let arguments = [options, &["-n", "3", "--warmup", "0", "--compare", &old, &file]].concat();
        let (status, said) = failed(place.bench(&arguments));
        assert_eq!((status, said.contains(words)), (2, true), "{said}");
    }
}

#[test]
fn people_see_the_numbers_a_histogram_and_the_phases() {
    let place = Place::new();
    let file = place.file("hello.wat", guests::prints("hello"));
    let text = printed(place.bench(&["-n", "200", "--warmup", "0", &file]));
    for words in ["in this process: 1 at once", "calls    200 succeeded", "p99.9", "■", "instantiate", "1000 B out"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("FAILED") && text.lines().all(|line| line == line.trim_end()), "{text}");
    let trap = place.file("trap.wat", guests::start("unreachable"));
    let output = place.bench(&["-n", "5", "--warmup", "0", &trap]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("5 FAILED") && text.contains("trap: unreachable"), "{text}");
}

#[test]
fn ctrl_c_ends_it_with_nothing_said_and_nothing_left() {
    let server = Server::start();
    let sockets = server.open_sockets();
    server.function("f", &guests::sleeps(3_600_000_000_000), json!({}));
    let child = start(&server, &["bench", "-c", "8", "--duration", "1h", "f"]);
    server.wait_for_running(8);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = ended(child);
    assert_eq!(
        (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice()),
        (Some(130), &[][..], &[][..])
    );
    eventually("its connections are closed", || server.open_sockets() <= sockets);

    let place = Place::new();
    let file = place.file("spins.wat", guests::spins());
    let child = place.command(&["--duration", "1h", &file]).spawn().unwrap();
    eventually("it is compiled", || place.0.path().join("cache").exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(failed(ended(child)), (130, String::new()));
}

#[test]
fn a_terminal_shows_how_far_it_is_and_then_the_numbers() {
    let place = Place::new();
    let file = place.file("hello.wat", guests::prints("hello"));
    let interrupted = |options: &[&str], shows: &dyn Fn(&str) -> bool| {
        let mut terminal = Terminal::start(place.command(&[options, &["--rate", "50", &file]].concat()));
        terminal.becomes("how far it is", shows);
        terminal.keys(CTRL_C);
        assert_eq!(terminal.ended().code(), Some(130));
        // No number is said of what was not measured to its end.
        let text = terminal.text();
        assert!(!text.contains("succeeded") && terminal.is_sane(), "{text}");
    };
    interrupted(&["--warmup", "1h"], &|screen| screen.contains("warm-up [░"));
    let measuring = |screen: &str| screen.contains("measuring [█") && screen.contains(" calls, ");
    interrupted(&["--warmup", "0", "-n", "300"], &measuring);

    let mut terminal = Terminal::of_size(40, 100, place.command(&["--warmup", "0", "-n", "300", &file]));
    assert_eq!(terminal.ended().code(), Some(0));
    let text = terminal.text();
    assert!(text.contains("300 succeeded") && text.contains("■■■") && text.contains("instantiate"), "{text}");
    assert!(!text.contains("measuring") && terminal.is_sane(), "{text}");
}
