//! The real binary, on ports of its own and a data directory of its own.

use super::{Connection, PATIENCE, Reply, Request, address, eventually};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

/// The program under test, with nothing of this process's settings.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperfunc"));
    // Nor of whoever runs the tests.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HYPERFUNC_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running server; dropped, it is killed.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Where functions are called.
    pub functions: SocketAddr,
    /// Where metrics are, if they have a listener.
    pub metrics: Option<SocketAddr>,
    pub data: PathBuf,
    dir: Option<TempDir>,
    log: Arc<Mutex<String>>,
    logging: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with further arguments for `serve`.
    pub fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::on(&dir.path().join("data"), arguments);
        server.dir = Some(dir);
        server
    }

    /// Starts a server on a data directory that outlives it.
    pub fn on(data: &Path, arguments: &[&str]) -> Self {
        Self::try_on(data, arguments).unwrap_or_else(|log| panic!("no server: {log}"))
    }

    /// Starts a server, or says what it said before it ended.
    pub fn try_on(data: &Path, arguments: &[&str]) -> Result<Self, String> {
        Self::try_as(binary(), data, arguments)
    }

    /// The same of a command that becomes [`binary`].
    pub fn try_as(mut serve: Command, data: &Path, arguments: &[&str]) -> Result<Self, String> {
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(arguments);
        let mut child = serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let lines = Arc::clone(&log);
        let logging = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                lines.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let (mut addresses, mut metrics) = (Vec::new(), None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once(" on http://") {
                addresses.push(address.parse::<SocketAddr>().unwrap());
            }
            if let Some(address) = line.strip_prefix("metrics are at http://") {
                metrics = Some(address.strip_suffix("/metrics").unwrap().parse().unwrap());
            }
            if line.starts_with("next: ") {
                break;
            }
        }
        let (Some(&address), Some(&functions)) = (addresses.first(), addresses.last()) else {
            child.wait().unwrap();
            logging.join().unwrap();
            let said = log.lock().unwrap().clone();
            return Err(said);
        };
        Ok(Self { child, address, functions, metrics, data: data.to_owned(), dir: None, log, logging: Some(logging) })
    }

    /// Ends the server hard and starts another on its data directory.
    pub fn kill_and_restart(self) -> Self {
        self.kill_and_restart_with(&[])
    }

    /// The same, with arguments for the other.
    pub fn kill_and_restart_with(mut self, arguments: &[&str]) -> Self {
        self.kill();
        self.restart(arguments)
    }

    /// Starts another server on the data directory of this one, which has ended.
    pub fn restart(mut self, arguments: &[&str]) -> Self {
        let mut restarted = Self::on(&self.data, arguments);
        restarted.dir = self.dir.take();
        restarted
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(logging) = self.logging.take() {
                    logging.join().unwrap();
                }
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// A file of `/proc` about the process.
    pub fn proc(&self, file: &str) -> String {
        let mut text = String::new();
        std::fs::File::open(format!("/proc/{}/{file}", self.pid())).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// How many sockets it has open.
    pub fn open_sockets(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        // One that is closed meanwhile leads nowhere.
        let leads_to = |file: std::io::Result<std::fs::DirEntry>| std::fs::read_link(file.ok()?.path()).ok();
        files.filter_map(leads_to).filter(|path| path.to_string_lossy().starts_with("socket:")).count()
    }

    /// A number of `/proc/PID/status`, such as `Threads` or `VmRSS` (in kB).
    pub fn status(&self, key: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits until the server has read all that was sent to it.
    pub fn wait_until_all_is_read(&self) {
        let local = format!("0100007F:{:04X}", self.functions.port());
        // sl local_address rem_address st tx_queue:rx_queue …
        let is_read = |line: &str| {
            let mut columns = line.split_whitespace().skip(1);
            let (address, queues) = (columns.next(), columns.nth(2));
            address != Some(&local) || queues.is_none_or(|queues| queues.ends_with(":00000000"))
        };
        // Of the socket that listens it is the queue of connections.
        eventually("all is read", || self.proc("net/tcp").lines().skip(1).all(is_read));
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    pub fn get(&self, target: &str) -> Reply {
        self.request("GET", target).send()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Loads a module in text form under a name.
    #[track_caller]
    pub fn load(&self, name: &str, wat: &str) {
        self.load_bytes(name, &wat::parse_str(wat).unwrap());
    }

    /// Loads a module under a name.
    #[track_caller]
    pub fn load_bytes(&self, name: &str, wasm: &[u8]) {
        self.try_load(name, wasm).expect(200);
    }

    pub fn try_load(&self, name: &str, wasm: &[u8]) -> Reply {
        let load = self.request("POST", &format!("/images/load?quiet=1&name={name}"));
        load.header("Content-Type", "application/wasm").body(wasm).send()
    }

    /// Asks for a function.
    pub fn try_create(&self, function: &Value) -> Reply {
        self.request("POST", "/funcs/create").json(function).send()
    }

    /// Defines a function.
    #[track_caller]
    pub fn create(&self, function: &Value) -> Value {
        self.try_create(function).expect(201).json()
    }

    /// Loads a module and defines a function of it, both under `name`; returns where it is called. `fields` are merged
    /// into the definition.
    #[track_caller]
    pub fn function(&self, name: &str, wat: &str, fields: Value) -> String {
        self.load(name, wat);
        let mut function = json!({"Name": name, "Config": {"Image": name}});
        merge(&mut function, fields);
        address(&self.create(&function))
    }

    /// A call with a body.
    pub fn call(&self, address: &str, body: impl Into<Vec<u8>>) -> Reply {
        Request::new(self.functions, "POST", address).body(body).send()
    }

    /// Waits until so many calls run.
    pub fn wait_for_running(&self, running: u64) {
        self.wait_for_info("Running", running);
    }

    /// Waits until a number of `/info` is this.
    pub fn wait_for_info(&self, key: &str, number: u64) {
        eventually(&format!("{key} {number}"), || self.get("/info").json()[key] == number);
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
