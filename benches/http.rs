//! What a user sees, as ratios to what hyper can do on the same machine in the same run.
//!
//! `cargo bench --bench http` prints, each as the median of alternating rounds:
//!
//! - `sync_hello`: requests/s of a hello in a fresh sandbox each, against a bare hyper server that answers the same;
//! - `latency_c1`: what the sandbox adds to the median latency, one request at a time;
//! - `echo_1mib`: MB/s with 1 MiB in and out, against a bare hyper echo;
//! - `logging`: `sync_hello` with the log of the function, as it always is, against without;
//! - `enqueue`: durable accepts of asynchronous calls/s with 64 clients, against `sync_hello`: while the calls run as well,
//!   and while they only wait;
//! - `noisy_neighbour`: `sync_hello` while twice as many guests as cores spin, against without them.
//!
//! `cargo bench --bench http -- --serve` measures nothing: it prints the two addresses, for a load generator of your own.
//!
//! Server and load share the machine, so the absolute figures are lower than those of a server by itself.

#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyperfunc::api::{Api, Faces, Listener, Server};
use hyperfunc::domain::{
    AccountId, Change, ConfigChange, ContainerSize, FunctionName, ImageReference, MB, Quota, Timeout,
};
use hyperfunc::engine::{self, CompilerThreads, Engine};
use hyperfunc::image::ImageFiles;
use hyperfunc::service::scheduler::Bounds;
use hyperfunc::service::{self, Keeping, Retention, Service};
use hyperfunc::store::{LOG_BYTES_MAX, Logs, SqliteStore};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELLO: &[u8] = include_bytes!("../guest-examples/hello/hello.wasm");
const ECHO: &[u8] = include_bytes!("../guest-examples/echo/echo.wasm");
/// `(loop (br 0))` as `_start`.
const SPIN: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

const TOOLBOX: &[u8] = include_bytes!("../guest-examples/toolbox/toolbox.wasm");

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(800);
const CONNECTIONS: usize = 16;
/// More than the head of any answer here has.
const HEAD_BYTES_MAX: usize = 1 << 10;
/// Clients that make asynchronous calls.
const ENQUEUERS: usize = 64;
/// More than they make.
const PENDING_MAX: usize = 10_000_000;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let data = tempfile::tempdir().expect("a directory");
    let bare = runtime.block_on(bare_hyper());
    let logs = Logs::open(&data.path().join("logs"), LOG_BYTES_MAX).expect("logs");
    let ours = runtime.block_on(Ours::start(data.path(), logs));

    if std::env::args().any(|argument| argument == "--serve") {
        println!("ours http://{}{}\nbare http://{bare}/hello", ours.address, ours.hello);
        loop {
            std::thread::park();
        }
    }
    let hello = Target::new(ours.address, &ours.hello, &[]);
    let bare_hello = Target::new(bare, "/hello", &[]);
    let (ours_rate, bare_rate) = alternate(|| bare_hello.rate(CONNECTIONS), || hello.rate(CONNECTIONS));
    println!(
        "sync_hello       {:.2} of bare hyper ({ours_rate:.0} to {bare_rate:.0} requests/s)",
        ours_rate / bare_rate
    );

    let silent_data = tempfile::tempdir().expect("a directory");
    let silent = runtime.block_on(Ours::start(silent_data.path(), Logs::disabled()));
    let silent_hello = Target::new(silent.address, &silent.hello, &[]);
    let (logged, silent_rate) = alternate(|| silent_hello.rate(CONNECTIONS), || hello.rate(CONNECTIONS));
    println!("logging          {:.2} of without ({logged:.0} to {silent_rate:.0} requests/s)", logged / silent_rate);

    let awake = Awake::begin();
    let (ours_micros, bare_micros) = alternate(|| bare_hello.median_micros(), || hello.median_micros());
    println!(
        "latency_c1       {:.1} µs more than bare hyper ({ours_micros:.1} to {bare_micros:.1} µs)",
        ours_micros - bare_micros
    );

    drop(awake);

    let mib = vec![b'x'; MB as usize];
    let (ours_echo, bare_echo) = (Target::new(ours.address, &ours.echo, &mib), Target::new(bare, "/echo", &mib));
    let (ours_mb, bare_mb) = alternate(|| bare_echo.rate(2), || ours_echo.rate(2));
    println!("echo_1mib        {:.2} of bare hyper ({ours_mb:.0} to {bare_mb:.0} MB/s)", ours_mb / bare_mb);

    let quiet = ours_rate;
    let spinners = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let spin = Target::new(ours.address, &ours.spin, &[]);
    let _spinning: Vec<TcpStream> = (0..spinners).map(|_| spin.begin()).collect();
    let mut micros = Vec::new();
    let noisy = median((0..ROUNDS).map(|_| hello.measured(CONNECTIONS, &mut micros)).collect());
    micros.sort_by(f64::total_cmp);
    let p99 = micros[micros.len() * 99 / 100] / 1000.0;
    println!(
        "noisy_neighbour  {:.2} of quiet ({noisy:.0} to {quiet:.0} requests/s), p99 {p99:.2} ms, {spinners} guests spin",
        noisy / quiet
    );
    runtime.block_on(ours.end_spinning());

    let queue_data = tempfile::tempdir().expect("a directory");
    let logs = Logs::open(&queue_data.path().join("logs"), LOG_BYTES_MAX).expect("logs");
    let queue = runtime.block_on(Ours::start(queue_data.path(), logs));
    let queue_hello = Target::new(queue.address, &queue.hello, &[]);
    let waiting = Target::new(queue.address, without_waiting(&queue.sleep), &[]);
    let (accepted, sync_rate) = alternate(|| queue_hello.rate(CONNECTIONS), || waiting.rate(ENQUEUERS));
    println!(
        "enqueue          {:.2} of sync_hello ({accepted:.0} to {sync_rate:.0} requests/s) while the calls wait",
        accepted / sync_rate
    );
    let running = Target::new(queue.address, without_waiting(&queue.hello), &[]);
    let accepted = median((0..ROUNDS).map(|_| running.rate(ENQUEUERS)).collect());
    println!(
        "enqueue          {:.2} of sync_hello ({accepted:.0} to {sync_rate:.0} requests/s) while the calls run",
        accepted / sync_rate
    );
    runtime.block_on(queue.idle());
    // What still waits is not waited for.
    std::process::exit(0);
}

/// Where a function is called without waiting.
fn without_waiting(path: &str) -> &str {
    path.strip_suffix("/sync").expect("a synchronous call")
}

/// A server of ours with four functions.
struct Ours {
    service: Service,
    address: SocketAddr,
    hello: String,
    echo: String,
    spin: String,
    /// Sleeps for an hour; one call at a time.
    sleep: String,
}

impl Ours {
    async fn start(data: &std::path::Path, logs: Logs) -> Self {
        let running = NonZeroUsize::new(100).expect("not zero");
        let engine = Engine::new(engine::Settings {
            instances_max: NonZeroU32::new(100).expect("not zero"),
            memory_budget_bytes: 2048 * MB,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            compiler: CompilerThreads::One,
            clock: Instant::now,
        });
        let settings = service::Settings {
            bounds: Bounds {
                running,
                account_running: running,
                account_pending: PENDING_MAX,
                account_pending_bytes: 1024 * MB,
            },
            sync_wait: Duration::from_secs(60),
            quota: Quota { functions: 100, images: 100, image_bytes: 1024 * MB },
            image_bytes_max: 64 * MB,
            retention: Retention {
                function_bytes: 50 * MB,
                function_calls: 100_000,
                function_gone: 100_000,
                result_ttl: Duration::from_secs(86_400),
                gone_ttl: Duration::from_secs(7 * 86_400),
                key_ttl: Duration::from_secs(86_400),
                function_keys: 100_000,
            },
        };
        let store = SqliteStore::open(&data.join("hyperfunc.db")).expect("a store");
        let files = ImageFiles::open(data, [1; 32]).expect("files");
        let keeping = Keeping { store: Arc::new(store), files, logs };
        let service = Service::start(settings, keeping, engine.expect("an engine")).await.expect("a service");
        let plain = Change::default;
        let hello = function(&service, "hello", HELLO, plain()).await;
        let echo = function(&service, "echo", ECHO, plain()).await;
        let spin = function(&service, "spin", SPIN, plain()).await;
        let cmd = Some(["sleep", "3600"].map(str::to_owned).to_vec());
        let config = ConfigChange { cmd, ..ConfigChange::default() };
        let one_at_a_time = Change { config, max_concurrency: Some(1), ..plain() };
        let sleep = function(&service, "sleep", TOOLBOX, one_at_a_time).await;
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Faces::Both).expect("a port");
        let address = listener.address().expect("an address");
        let api = Api { service: service.clone(), func_endpoint: None, func_listen: None, memory_total: 0, root: None };
        // It serves as long as the process lives.
        std::mem::forget(Server::start(api, vec![listener], NonZeroUsize::MAX));
        Self { service, address, hello, echo, spin, sleep }
    }

    async fn end_spinning(&self) {
        let (name, account) = (FunctionName::new("spin").expect("a name"), AccountId::open_to_this_machine());
        self.service.remove_function(account, name, true).await.expect("removed");
    }

    /// Waits until nothing runs but the one that sleeps, and what was accepted has ended.
    async fn idle(&self) {
        let (name, account) = (FunctionName::new("hello").expect("a name"), AccountId::open_to_this_machine());
        let hello = self.service.inspect_function(&account, &name).expect("a function").function;
        while self.service.tally(&hello).await.is_ok_and(|tally| tally.pending + tally.running > 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Loads a module and makes a function of it; returns where it is called.
async fn function(service: &Service, name: &str, wasm: &[u8], change: Change) -> String {
    let account = AccountId::open_to_this_machine();
    let reference = ImageReference::parse(name).expect("a name");
    let mut upload = service.begin_upload().await.expect("an upload");
    upload.write(wasm).expect("written");
    let received = service.receive(&account, &reference, upload).await.expect("a module");
    service.load_image(account.clone(), reference.clone(), received).await.expect("loaded");
    let change = Change {
        size: Some(ContainerSize::S1),
        timeout: Some(Timeout::from_seconds(3600).expect("a timeout")),
        config: ConfigChange { image: Some(reference), ..change.config },
        ..change
    };
    let name = FunctionName::new(name).expect("a name");
    let created = service.create_function(account, name.clone(), change).await.expect("created");
    format!("/call/{name}/{}/sync", created.function.uuid.reveal())
}

/// A hyper server that answers what our guests answer, and does nothing else.
async fn bare_hyper() -> SocketAddr {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let echo = request.uri().path() == "/echo";
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body = if echo { body } else { Bytes::from_static(b"Hello, World!\n") };
        Ok(Response::new(Full::new(body)))
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = tcp.set_nodelay(true);
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { http.serve_connection(TokioIo::new(tcp), service_fn(answer)).await });
        }
    });
    address
}

/// One request to one server, made again and again. The bodies of its answers all have the same length.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    request: Vec<u8>,
    body_bytes: usize,
}

impl Target {
    fn new(address: SocketAddr, path: &str, body: &[u8]) -> Self {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let method = if body.is_empty() { "GET" } else { "POST" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{length}\r\n");
        let request = [head.as_bytes(), body].concat();
        let mut target = Self { address, request, body_bytes: 0 };
        if !path.contains("/spin/") {
            target.body_bytes = target.length_of_body();
        }
        target
    }

    /// Sends the request and leaves.
    fn begin(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.write_all(&self.request).expect("sent");
        stream
    }

    fn length_of_body(&self) -> usize {
        let mut stream = self.begin();
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = stream.read(&mut piece).expect("an answer");
            answer.extend_from_slice(&piece[..read]);
            let Some(end) = head_bytes(&answer) else { continue };
            let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).expect("a length");
            return length.parse().expect("a number");
        }
    }

    /// Requests a second, over so many connections.
    fn rate(&self, connections: usize) -> f64 {
        self.measured(connections, &mut Vec::new())
    }

    /// The same, and how long each took, in microseconds.
    ///
    /// One thread asks on all connections, as load generators do: with a thread for each, waking them would be most of
    /// what is measured.
    fn measured(&self, connections: usize, micros: &mut Vec<f64>) -> f64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let began = Instant::now();
            let tasks: JoinSet<Vec<f64>> = (0..connections).map(|_| self.clone().repeat(began)).collect();
            let per_connection = tasks.join_all().await;
            let seconds = began.elapsed().as_secs_f64();
            let requests: usize = per_connection.iter().map(Vec::len).sum();
            micros.extend(per_connection.into_iter().flatten());
            requests as f64 / seconds
        })
    }

    fn median_micros(&self) -> f64 {
        let mut micros = Vec::new();
        self.measured(1, &mut micros);
        median(micros)
    }

    async fn repeat(self, began: Instant) -> Vec<f64> {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut answer = vec![0; HEAD_BYTES_MAX + self.body_bytes];
        let mut micros = Vec::new();
        while began.elapsed() < ROUND {
            let sent = Instant::now();
            stream.write_all(&self.request).await.expect("sent");
            self.read(&mut stream, &mut answer).await;
            micros.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        micros
    }

    /// Reads one answer, and nothing of what comes behind it.
    async fn read(&self, stream: &mut tokio::net::TcpStream, answer: &mut [u8]) {
        let (mut read, mut end) = (0, None);
        while end != Some(read) {
            let more = stream.read(&mut answer[read..]).await.expect("answered");
            assert!(more > 0, "the answer breaks off");
            read += more;
            end = end.or_else(|| Some(head_bytes(&answer[..read])? + self.body_bytes));
        }
    }
}

/// How long the head of an answer is, if all of it is there.
fn head_bytes(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Keeps every core awake, at the lowest priority, while it lives: a core that sleeps takes longer to wake than an answer
/// takes.
struct Awake(Arc<AtomicBool>);

impl Awake {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                rustix::process::setpriority_process(None, 19).expect("a low priority");
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The medians of two measurements, taken in turns: ours and the other's.
fn alternate(mut other: impl FnMut() -> f64, mut ours: impl FnMut() -> f64) -> (f64, f64) {
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (other(), ours())).collect();
    let (others, ours) = rounds.into_iter().unzip();
    (median(ours), median(others))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
