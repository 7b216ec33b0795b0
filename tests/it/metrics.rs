//! What the server counts of itself, for whoever measures (`docs/api.md` section 1).

use crate::harness::calls::output;
use crate::harness::logs::{ended, route};
use crate::harness::{Connection, Reply, Request, Server, eventually, guests};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;

const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;
const METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];
/// Every metric, and what kind it is.
const KINDS: [(&str, &str); 14] = [
    ("faas_errors", "counter"),
    ("faas_invocations", "counter"),
    ("faas_invoke_duration_seconds", "histogram"),
    ("faas_timeouts", "counter"),
    ("hyperfunc_corruptions", "counter"),
    ("hyperfunc_log_bytes", "counter"),
    ("hyperfunc_log_records_lost", "counter"),
    ("hyperfunc_memory_budget_bytes", "gauge"),
    ("hyperfunc_memory_charged_bytes", "gauge"),
    ("hyperfunc_output_bytes", "counter"),
    ("hyperfunc_queue_depth", "gauge"),
    ("hyperfunc_queue_oldest_age_seconds", "gauge"),
    ("hyperfunc_running", "gauge"),
    ("hyperfunc_store_fsyncs", "counter"),
];

fn ask(server: &Server) -> Reply {
    Request::new(server.metrics.unwrap(), "GET", "/metrics").send()
}

/// The samples, by name and labels.
#[derive(Debug, PartialEq)]
struct Samples(BTreeMap<String, f64>);

impl Samples {
    #[track_caller]
    fn of(server: &Server) -> Self {
        let reply = ask(server).expect(200);
        let text = reply.text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let split = |line: &str| {
            let (name, value) = line.split_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|e| panic!("{e}: {line}")))
        };
        Self(samples.map(split).collect())
    }

    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.0.keys()))
    }

    /// How many calls were counted: all, those that failed, those that ran out, and those whose time is known.
    fn calls(&self) -> [f64; 4] {
        let names = [
            "faas_invocations_total",
            "faas_errors_total",
            "faas_timeouts_total",
            "faas_invoke_duration_seconds_count",
        ];
        names.map(|name| self.get(name))
    }

    /// The histogram: its bounds and what is below each, in the order of the bounds.
    fn buckets(&self) -> Vec<(f64, f64)> {
        let of = |(name, count): (&String, &f64)| {
            let bound = name.strip_prefix("faas_invoke_duration_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
            Some((bound.parse::<f64>().unwrap(), *count))
        };
        let mut buckets: Vec<_> = self.0.iter().filter_map(of).collect();
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        buckets
    }
}

/// Begins a call whose answer is read later.
fn begin(server: &Server, address: &str) -> Connection {
    let mut connection = Connection::open(server.functions);
    connection.send(&Request::new(server.functions, "POST", address));
    connection
}

#[test]
fn every_line_is_one_that_a_scraper_reads() {
    let server = Server::with(&METRICS);
    let f = server.function("f", &guests::prints("hi"), json!({}));
    server.call(&f, "").expect(200);
    let reply = ask(&server).expect(200);
    assert_eq!(reply.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let mut lines = reply.text().lines().peekable();
    let mut kinds = BTreeMap::new();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            break;
        }
        // Of each metric: what it is, what it counts, perhaps its unit, and its samples.
        let (name, help) = line.strip_prefix("# HELP ").and_then(|help| help.split_once(' ')).expect(line);
        assert!(help.ends_with('.'), "{line}");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect(line);
        if let Some(unit) = lines.next_if(|line| line.starts_with("# UNIT ")) {
            let unit = unit.strip_prefix(&format!("# UNIT {name} ")).unwrap();
            assert!(name.ends_with(&format!("_{unit}")), "{name}: {unit}");
        }
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, value) = sample.split_once(' ').unwrap();
            let suffix = sample.strip_prefix(name).unwrap().split('{').next().unwrap();
            let expected: &[&str] = match kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                _ => &["_bucket", "_sum", "_count"],
            };
            assert!(expected.contains(&suffix), "{sample}");
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{sample} {value}");
        }
        assert_eq!(kinds.insert(name, kind), None, "{name} twice");
    }
    assert_eq!(lines.next(), None, "something behind the end");
    let expected: BTreeMap<_, _> = KINDS.into_iter().collect();
    assert_eq!(kinds, expected);
}

#[test]
fn calls_are_counted_as_they_end_and_refused_ones_are_not() {
    let server =
        Server::with(&[&METRICS[..], &["--max-running", "1", "--max-pending", "1", "--sync-wait", "100ms"]].concat());
    let calls = || Samples::of(&server).calls();
    assert_eq!(calls(), [0.0; 4]);
    let hi = server.function("hi", &guests::prints("hi"), json!({}));
    server.call(&hi, "").expect(200);
    assert_eq!(calls(), [1.0, 0.0, 0.0, 1.0]);
    let id = server.enqueue(&hi, "");
    ended(&server, &hi, &id).expect(200);
    assert_eq!(calls(), [2.0, 0.0, 0.0, 2.0]);

    server.call(&server.function("fails", &guests::fails(3, ""), json!({})), "").expect(500);
    server.call(&server.function("traps", &guests::start("unreachable"), json!({})), "").expect(500);
    server.call(&server.function("floods", &guests::floods(1), json!({})), "").expect(509);
    assert_eq!(calls(), [5.0, 3.0, 0.0, 5.0]);
    server.call(&server.function("late", &guests::spins(), json!({"Timeout": 1})), "").expect(504);
    server.call(&server.function("burns", &guests::spins(), json!({"Fuel": 1000})), "").expect(504);
    assert_eq!(calls(), [7.0, 3.0, 2.0, 7.0]);
    // It could not run: no time is known.
    let gone = server.function("gone", &guests::prints(""), json!({}));
    server.request("DELETE", "/images/gone?force=1").send().expect(200);
    server.call(&gone, "").expect(500);
    assert_eq!(calls(), [8.0, 4.0, 2.0, 7.0]);

    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({}));
    let mut blocker = begin(&server, &sleeps);
    server.wait_for_running(1);
    server.call(&hi, "").expect(503);
    let dropped = server.enqueue(&hi, "");
    server.call(&hi, "").expect(429);
    server.call(&hi.replace("/call/hi/", "/call/ho/"), "").expect(404);
    server.call(&hi, vec![0; (1 << 20) + 1]).expect(413);
    server.request("DELETE", &output(&hi, &dropped)).send().expect(204);
    assert_eq!(calls(), [8.0, 4.0, 2.0, 7.0], "none of these ever was an execution");
    server.request("DELETE", "/funcs/sleeps?force=1").send().expect(204);
    blocker.reply().expect(500);
    assert_eq!(calls(), [9.0, 5.0, 2.0, 8.0]);
}

#[test]
fn durations_are_counted_from_50_microseconds_to_all() {
    let server = Server::with(&METRICS);
    let quick = server.function("quick", &guests::prints("hi"), json!({}));
    let slow = server.function("slow", &guests::sleeps(150_000_000), json!({}));
    for _ in 0..5 {
        server.call(&quick, "").expect(200);
    }
    server.call(&slow, "").expect(200);
    let samples = Samples::of(&server);
    let buckets = samples.buckets();
    assert_eq!(buckets.first().map(|(bound, _)| *bound), Some(50e-6));
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 6.0)));
    assert!(buckets.is_sorted_by(|(a, below_a), (b, below_b)| a < b && below_a <= below_b), "{buckets:?}");
    let below = |bound: f64| buckets.iter().find(|(found, _)| *found == bound).unwrap().1;
    assert!(below(0.1) <= 5.0 && below(300.0) == 6.0, "{buckets:?}");
    assert_eq!(samples.get("faas_invoke_duration_seconds_count"), 6.0);
    let sum = samples.get("faas_invoke_duration_seconds_sum");
    assert!((0.15..30.0).contains(&sum), "{sum}");
}

#[test]
fn what_runs_waits_and_is_held_is_told_while_it_does() {
    let server = Server::with(&[&METRICS[..], &["--memory", "256MB"]].concat());
    let sleeps = server.function("sleeps", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 1}));
    let now = |name: &str| Samples::of(&server).get(name);
    assert_eq!(now("hyperfunc_memory_budget_bytes"), f64::from(256 << 20));
    let [running, depth, age, charged] = [
        "hyperfunc_running",
        "hyperfunc_queue_depth",
        "hyperfunc_queue_oldest_age_seconds",
        "hyperfunc_memory_charged_bytes",
    ];
    let idle = |samples: &Samples| [running, depth, age, charged].map(|name| samples.get(name)) == [0.0; 4];
    assert!(idle(&Samples::of(&server)));
    let first = server.enqueue(&sleeps, "");
    eventually("the guest's two pages", || now(charged) >= f64::from(2 << 16));
    assert_eq!((now(running), now(depth), now(age)), (1.0, 0.0, 0.0));
    let mut waits = begin(&server, &sleeps);
    eventually("a synchronous call waits", || now(depth) == 1.0);
    assert_eq!(now(age), 0.0, "it is no asynchronous one");
    let second = server.enqueue(&sleeps, "");
    assert_eq!(now(depth), 2.0);
    eventually("it gets older", || now(age) > 0.05);
    let before = now(age);
    server.enqueue(&sleeps, "");
    assert!(now(age) >= before, "the oldest counts");
    assert_eq!((now(running), now(depth)), (1.0, 3.0));
    server.request("DELETE", "/funcs/sleeps?force=1").send().expect(204);
    waits.reply().expect(404);
    eventually("nothing runs, waits or is held", || idle(&Samples::of(&server)));
    for id in [first, second] {
        server.output(&sleeps, &id).expect(404);
    }
}

#[test]
fn commits_outputs_and_logs_are_counted() {
    const CALLS: usize = 10;
    let server = Server::with(&METRICS);
    let f = server.function("f", &guests::writes(1, 1000), json!({}));
    let [syncs, output_bytes, log_bytes, lost] = [
        "hyperfunc_store_fsyncs_total",
        "hyperfunc_output_bytes_total",
        "hyperfunc_log_bytes_total",
        "hyperfunc_log_records_lost_total",
    ];
    let before = Samples::of(&server);
    assert_eq!((before.get(output_bytes), before.get(log_bytes)), (0.0, 0.0));
    // A synchronous call is no matter of the store.
    server.call(&f, "").expect(200);
    let sync = Samples::of(&server);
    assert_eq!((sync.get(syncs), sync.get(output_bytes)), (before.get(syncs), 1000.0));
    for _ in 0..CALLS {
        // One after the other: none shares its commit.
        server.enqueue(&f, "");
    }
    let accepted = Samples::of(&server);
    assert!(accepted.get(syncs) >= sync.get(syncs) + CALLS as f64, "{accepted:?}");
    eventually("all that was written", || Samples::of(&server).get(output_bytes) == 1000.0 * (CALLS + 1) as f64);
    // Who reads the log sees to it that it is written.
    let lines = server.get(&route("logs", &f)).expect(200).text().lines().count();
    assert!(lines >= 4 * CALLS, "{lines}");
    let logged = Samples::of(&server);
    assert!(logged.get(log_bytes) > 100.0 * (CALLS + 1) as f64, "{logged:?}");
    assert_eq!(logged.get(lost), 0.0);
}

#[test]
fn the_listener_has_nothing_else_and_the_others_have_none_of_it() {
    let server = Server::with(&[&METRICS[..], &["--func-listen", "127.0.0.1:0"]].concat());
    let f = server.function("f", &guests::prints("hi"), json!({}));
    let metrics = server.metrics.unwrap();
    assert!(metrics != server.address && metrics != server.functions);
    for target in [
        "/funcs",
        "/funcs/f",
        "/images/json",
        "/version",
        "/info",
        "/v1.23/funcs",
        "/v1.23/metrics",
        "/nothing",
        &f,
        &route("logs", &f),
        &route("status", &f),
    ] {
        Request::new(metrics, "GET", target).send().expect(404);
    }
    assert_eq!(Request::new(metrics, "POST", "/metrics").send().expect(405).header("allow"), Some("GET"));
    Request::new(metrics, "DELETE", "/funcs/f").send().expect(404);
    for address in [server.address, server.functions] {
        Request::new(address, "GET", "/metrics").send().expect(404);
    }
    server.call(&f, "").expect(200);
    Server::start().get("/metrics").expect(404);
}

#[test]
fn it_names_no_function_no_address_and_no_call() {
    let server = Server::with(&METRICS);
    let f = server.function("verysecret", &guests::sleeps(A_YEAR), json!({"MaxConcurrency": 1}));
    let ids = [server.enqueue(&f, ""), server.enqueue(&f, "")];
    server.wait_for_running(1);
    server.request("DELETE", &output(&f, &ids[0])).send().expect(204);
    server.wait_for_running(1);
    let text = ask(&server).expect(200).text().to_owned();
    let uuid = f.split('/').nth(3).unwrap();
    for name in ["verysecret", uuid, &ids[0], &ids[1]] {
        assert!(!text.contains(name), "{text}");
    }
}

#[test]
fn it_answers_while_the_server_drains() {
    let mut server = Server::with(&METRICS);
    let f = server.function("f", &guests::sleeps(1_500_000_000), json!({}));
    let mut runs = begin(&server, &f);
    server.wait_for_running(1);
    server.signal(Signal::TERM);
    eventually("it drains", || server.get("/_ping").status == 503);
    assert_eq!(Samples::of(&server).get("hyperfunc_running"), 1.0);
    runs.reply().expect(200);
    assert_eq!(server.ended().code(), Some(0));
}
