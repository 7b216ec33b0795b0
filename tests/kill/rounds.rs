//! One round after the other: a server starts, is compared with the journal, has clients, and is killed.

use crate::changes::Changes;
use crate::dice::Dice;
use crate::harness::calls::output;
use crate::harness::logs::{lines, route};
use crate::harness::{Connection, Request, Server, binary, eventually, guests};
use crate::journal::{Checked, Function, Journal, Leaves, Reading, wall_ns};
use crate::load::Client;
use rustix::process::Signal;
use serde_json::json;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 10;
/// What large results share: six of them.
const OUTPUT_CACHE: &str = "2MB";
const LARGE_BYTES: u32 = 300_000;
/// So few that calls are refused.
const PENDING_MAX: &str = "150";
/// Shorter than some guests run.
const DRAIN: &str = "200ms";
/// A server lives so long after it is ready.
const LIFE_MS: usize = 500;
/// A server that is killed while it starts is killed by then.
const START_MS: usize = 150;
/// A drain that is broken off is broken off by then.
const DRAIN_MS: usize = 300;
/// Results are read before they are more than that.
const LIVE_MAX: usize = 400;
/// Logs are compared after so many kills, by their last lines.
const LOGS_EVERY: u32 = 25;
const LOG_TAIL: usize = 5_000;
/// A server runs one call at a time in so many of a hundred rounds.
const SINGLE_PERCENT: usize = 30;

/// When it is enough.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Kills(u32),
    Passed(Duration),
}

/// All of it.
pub struct Run {
    seed: u64,
    data: PathBuf,
    is_audited: bool,
    dice: Dice,
    journal: Mutex<Journal>,
    changes: Changes,
    server: Option<Server>,
    is_single: bool,
    ready_ns: u64,
    began: Instant,
    rounds: u64,
    /// Times from the start of a process until it was ready.
    ready: Vec<Duration>,
    kills: Kills,
}

/// How often servers were killed, and when.
#[derive(Debug, Default)]
struct Kills {
    loaded: u32,
    starting: u32,
    draining: u32,
    /// Drains that came to their end.
    drained: u32,
}

impl Kills {
    fn total(&self) -> u32 {
        self.loaded + self.starting + self.draining
    }
}

fn functions(server: &Server) -> Vec<Function> {
    let function = |name, wat: &str, fields, leaves| Function {
        name,
        address: server.function(name, wat, fields),
        leaves,
        is_ordered: name == "ordered",
    };
    vec![
        function("echo", &guests::stamps(0), json!({}), Leaves::Stamp),
        function("slow", &guests::stamps(150_000_000), json!({}), Leaves::Stamp),
        function("ordered", &guests::stamps(2_000_000), json!({"MaxConcurrency": 1}), Leaves::Stamp),
        function("fails", &guests::fails(3, "no luck"), json!({}), Leaves::Failure("exit status 3: no luck")),
        function("traps", &guests::start("unreachable"), json!({}), Leaves::Failure("trap: unreachable")),
        function("floods", &guests::floods(1), json!({}), Leaves::TooMuch),
        function("large", &guests::writes(1, LARGE_BYTES), json!({}), Leaves::Large(LARGE_BYTES as usize)),
        Function {
            name: "deployed",
            address: crate::harness::address(
                &server.create(&json!({"Name": "deployed", "Config": {"Image": "deployed"}})),
            ),
            leaves: Leaves::Version,
            is_ordered: false,
        },
    ]
}

impl Run {
    /// Starts the first server, on an empty directory.
    pub fn begin(seed: u64, data: &Path, is_audited: bool) -> Self {
        let server = Server::on(data, &arguments(false));
        let changes = Changes::begin(&server);
        let mut journal = Journal::new(functions(&server));
        journal.lives.starts = 1;
        Self {
            seed,
            data: data.to_owned(),
            is_audited,
            dice: Dice::new(seed, 0),
            journal: Mutex::new(journal),
            changes,
            server: Some(server),
            is_single: false,
            ready_ns: wall_ns(),
            began: Instant::now(),
            rounds: 0,
            ready: Vec::new(),
            kills: Kills::default(),
        }
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.get_mut().unwrap()
    }

    /// Goes on until it is enough, and tells what there was.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn go(mut self, until: Until) -> Checked<String> {
        let mut logs_at = LOGS_EVERY;
        loop {
            let is_enough = match until {
                Until::Kills(kills) => self.kills.total() >= kills,
                Until::Passed(time) => self.began.elapsed() >= time,
            };
            if is_enough {
                break;
            }
            self.round()?;
            self.start()?;
            self.compare(false)?;
            if self.kills.total() >= logs_at {
                logs_at = self.kills.total() + LOGS_EVERY;
                self.compare_logs(&LOG_TAIL.to_string())?;
                self.progress();
            }
        }
        self.end()?;
        Ok(self.to_string())
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("one runs")
    }

    /// Clients, and in the midst of it the end of the server.
    fn round(&mut self) -> Checked {
        self.rounds += 1;
        let mut server = self.server.take().expect("one runs");
        let life = Duration::from_millis(self.dice.below(LIFE_MS) as u64);
        let drain = self.dice.percent(20).then(|| Duration::from_millis(self.dice.below(DRAIN_MS) as u64));
        let (is_ending, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (journal, changes) = (&self.journal, &mut self.changes);
        let (seed, rounds, serving) = (self.seed, self.rounds, &server);
        let checked = thread::scope(|scope| {
            let mut changes = Some(changes);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let dice = Dice::new(seed, rounds * CLIENTS + number + 1);
                    let (is_ending, is_over) = (&is_ending, &is_over);
                    let client = Client { server: serving, journal, is_ending, is_over, dice, connection: None };
                    let changes = changes.take();
                    scope.spawn(move || {
                        let checked = client.run(changes);
                        if checked.is_err() {
                            is_over.store(true, Ordering::SeqCst);
                        }
                        checked
                    })
                })
                .collect();
            // Chance decides when it ends, and not how far anything is.
            thread::sleep(life);
            is_ending.store(true, Ordering::SeqCst);
            if let Some(drain) = drain {
                serving.signal(Signal::TERM);
                thread::sleep(drain);
            }
            serving.signal(Signal::KILL);
            clients.into_iter().map(|client| client.join().expect("a client")).collect::<Checked<Vec<()>>>()
        });
        let status = server.ended();
        checked?;
        let log = server.log();
        match (status.code(), status.signal(), drain) {
            (Some(0), _, Some(_)) => self.kills.drained += 1,
            (_, Some(9), Some(_)) => self.kills.draining += 1,
            (_, Some(9), None) => self.kills.loaded += 1,
            _ => return Err(format!("the server has ended with {status}: {log}")),
        }
        if let Some(line) = log.lines().find(|line| line.contains("panicked") || line.contains("ERROR")) {
            return Err(format!("the server has said: {line}"));
        }
        let (is_single, ready_ns) = (self.is_single, self.ready_ns);
        let journal = self.journal();
        journal.lives.kills += u32::from(status.signal() == Some(9));
        journal.lives.drains += u32::from(drain.is_some());
        if is_single {
            journal.was_single(ready_ns);
        }
        Ok(())
    }

    /// Starts the next server; some are killed before they are ready.
    fn start(&mut self) -> Checked {
        self.is_single = self.dice.percent(SINGLE_PERCENT);
        let arguments = arguments(self.is_single);
        while self.dice.percent(35) {
            let lives = &mut self.journal().lives;
            (lives.starts, lives.kills) = (lives.starts + 1, lives.kills + 1);
            let mut starting = binary();
            starting.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&self.data).args(arguments);
            let mut starting = starting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(self.dice.below(START_MS) as u64));
            if let Some(status) = starting.try_wait().unwrap() {
                return Err(format!("a server that starts has ended with {status}"));
            }
            starting.kill().unwrap();
            starting.wait().unwrap();
            self.kills.starting += 1;
        }
        self.journal().lives.starts += 1;
        let began = Instant::now();
        let server = Server::try_on(&self.data, &arguments);
        self.server = Some(server.map_err(|log| format!("the server does not start: {log}"))?);
        self.ready.push(began.elapsed());
        self.ready_ns = wall_ns();
        Ok(())
    }

    /// Compares what the server has found with the journal, while no client is there.
    fn compare(&mut self, reads_all: bool) -> Checked {
        let server = self.server.as_ref().expect("one runs");
        let journal = self.journal.get_mut().unwrap();
        for function in 0..journal.functions.len() {
            let address = journal.functions[function].address.clone();
            let (missing, ended) = journal.listed(function, &server.list(&address))?;
            for call in missing {
                let target = format!("{}?keep=1", output(&address, &journal.calls[call].id));
                let answer = server.get(&target);
                if answer.status != 410 {
                    return Err(journal.wrong(call, &format!("it is lost: {}", answer.status)));
                }
                journal.answered(call, Reading::Keeping, Some(&answer))?;
            }
            if reads_all || journal.live() > LIVE_MAX {
                read(server, journal, &address, &ended)?;
            }
        }
        journal.has_compared();
        self.changes.check(server, &mut journal.versions)
    }

    fn compare_logs(&mut self, tail: &str) -> Checked {
        let server = self.server.as_ref().expect("one runs");
        let journal = self.journal.get_mut().unwrap();
        for function in 0..journal.functions.len() {
            let target = format!("{}?tail={tail}", route("logs", &journal.functions[function].address));
            journal.logged(function, &lines(server.get(&target).expect(200).text()))?;
        }
        Ok(())
    }

    /// The end of the run: everything ends, everything is read, and what is left is audited.
    fn end(&mut self) -> Checked {
        self.audit("a running server's")?;
        self.server.as_mut().expect("one runs").kill();
        self.server = None;
        self.audit("a killed server's")?;
        self.start()?;
        let addresses: Vec<String> = self.journal().functions.iter().map(|function| function.address.clone()).collect();
        eventually("the end of all calls", || {
            addresses.iter().map(|address| self.server().tally(address)).all(|tally| tally.pending + tally.running == 0)
        });
        self.compare(true)?;
        eventually("an end of what was read", || {
            addresses.iter().all(|address| self.server().list(address).is_empty())
        });
        self.server.as_mut().expect("one runs").kill();
        self.start()?;
        self.compare(true)?;
        let live = self.journal().live();
        if live > 0 {
            return Err(format!("{live} calls are not accounted for"));
        }
        self.compare_logs("all")?;
        self.journal().check_order()?;
        let mut server = self.server.take().expect("one runs");
        server.signal(Signal::TERM);
        let status = server.ended();
        if status.code() != Some(0) {
            return Err(format!("asked to end, it has ended with {status}"));
        }
        self.audit("a stopped server's")
    }

    /// What the program itself says about its data.
    fn audit(&self, whose: &str) -> Checked {
        if !self.is_audited {
            return Ok(());
        }
        let audit = binary().arg("audit").arg("--data").arg(&self.data).output().unwrap();
        if audit.status.success() {
            return Ok(());
        }
        let [said, erred] = [&audit.stdout, &audit.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Err(format!("the audit of {whose} data ends with {}: {said}{erred}", audit.status))
    }

    fn progress(&mut self) {
        let (kills, seconds) = (self.kills.total(), self.began.elapsed().as_secs());
        let counts = &self.journal().counts;
        println!("{kills} kills, {} calls accepted, {} results read after {seconds} s", counts.accepted, counts.read);
    }
}

fn arguments(is_single: bool) -> [&'static str; 10] {
    let running = if is_single { "1" } else { "4" };
    [
        "--max-running",
        running,
        "--output-cache",
        OUTPUT_CACHE,
        "--max-pending",
        PENDING_MAX,
        "--drain",
        DRAIN,
        "--log",
        "warn",
    ]
}

/// Reads results to their end, each of which must not be there any more then.
fn read(server: &Server, journal: &mut Journal, address: &str, calls: &[usize]) -> Checked {
    let mut connection = Connection::open(server.functions);
    for call in calls {
        let target = output(address, &journal.calls[*call].id);
        let mut ask = || {
            connection.send(&Request::new(server.functions, "GET", &target));
            connection.reply()
        };
        let answer = ask();
        journal.answered(*call, Reading::Whole, Some(&answer))?;
        let again = ask().status;
        if answer.status != 410 && again != 404 {
            return Err(journal.wrong(*call, &format!("it was read, and is answered {again}")));
        }
    }
    Ok(())
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = self.journal.lock().unwrap();
        let counts = &journal.counts;
        let Kills { loaded, starting, draining, drained } = &self.kills;
        let mut ready = self.ready.clone();
        ready.sort();
        let [p50, most] = [ready[ready.len() / 2], ready[ready.len() - 1]].map(|time| time.as_millis());
        writeln!(
            f,
            "kills                 {} ({loaded} under load, {starting} during the start, {draining} during a drain)",
            self.kills.total()
        )?;
        writeln!(f, "drains to their end   {drained}")?;
        writeln!(f, "calls accepted        {}, {} adopted without an answer", counts.accepted, counts.adopted)?;
        writeln!(f, "keys sent again       {}", counts.again)?;
        writeln!(f, "calls refused         {}", counts.refused)?;
        writeln!(f, "synchronous calls     {}", counts.synchronous)?;
        writeln!(f, "results read          {}, {} left half way", counts.read, counts.half_read)?;
        writeln!(f, "results rotated       {}", counts.rotated)?;
        writeln!(f, "calls discarded       {}", counts.discarded)?;
        writeln!(
            f,
            "calls interrupted     {}, {} ended after more than one start",
            counts.interrupted, counts.started_again
        )?;
        writeln!(f, "changes               {}, {} calls of what changes kept", counts.changes, self.changes.calls())?;
        writeln!(f, "orders of two starts  {}", counts.orders)?;
        writeln!(f, "lines of logs         {}", counts.log_lines)?;
        writeln!(f, "ready after           {p50} ms (median), {most} ms (most)")?;
        write!(f, "duration              {} s", self.began.elapsed().as_secs())
    }
}
