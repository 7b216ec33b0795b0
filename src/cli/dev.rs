//! `dev`: serves the module of a file while it is being written, as a server would.

use super::exit::{self, INTERRUPTED, NOT_FOUND, NOT_RUNNABLE, SERVER_ERROR};
use super::run::Bounds;
use super::serve::{start_log, start_service};
use super::variables::Variables;
use super::{host, output};
use crate::api::{Api, Face, Faces, Listener, Refused, Root, Server, status_of};
use crate::config::{Config, Host, RawConfig};
use crate::domain::{Captured, Change, ConfigChange, Env, FunctionName, ImageReference, Invalid};
use crate::service::development::{EndedCall, Event, NotServed};
use crate::service::{self, Callable, CompilerThreads, Service};
use anyhow::{Context as _, anyhow};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// SIGTERM, and a terminal that is closed: 128 and the number of the signal.
const TERMINATED: u8 = 143;
const HUNG_UP: u8 = 129;
/// Refused requests that were not printed yet: further ones are not.
const REFUSED_MAX: usize = 64;
/// How long the calls that run have to end, and their function to be removed.
const END_MAX: Duration = Duration::from_secs(2);
/// How often it is tried to remove what was kept, and how long between.
const REMOVE_TRIES: u32 = 20;
const REMOVE_AGAIN_AFTER: Duration = Duration::from_millis(10);

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc dev --size s1 hello.wasm\n         curl -d payload http://127.0.0.1:8081/")]
pub(super) struct Dev {
    /// Where to listen; port 0 is any that is free
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    listen: SocketAddr,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    bounds: Bounds,
    /// Its stdout and stderr are one stream, and report as a terminal
    #[arg(short, long)]
    tty: bool,
    /// The module, in bytes or as text, and the end of its argv
    #[arg(required = true, trailing_var_arg = true, value_names = ["FILE", "CMD"])]
    command: Vec<String>,
}

/// A module that is being served.
struct Session {
    service: Service,
    /// Answers as long as it is there.
    server: Server,
    function: Arc<Callable>,
    /// In a task of its own, for it may write to a terminal that nobody reads. Ends only when it must.
    printing: AbortOnDropHandle<anyhow::Result<Infallible>>,
    /// In another one: calls wait for the file with it.
    watching: AbortOnDropHandle<()>,
}

impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        // Before there is anything to leave behind.
        let told_to_end = told_to_end()?;
        let kept = tempfile::Builder::new().prefix("hyperfunc-dev-").tempdir().context("a temporary directory")?;
        let ended = self.serve(kept.path(), told_to_end).await;
        remove(kept);
        ended
    }

    /// Serves until it is told to end, or must; after that nothing is written any more.
    async fn serve(self, data: &Path, told_to_end: impl Future<Output = u8>) -> anyhow::Result<u8> {
        let mut told_to_end = pin!(told_to_end);
        let mut session = tokio::select! {
            status = &mut told_to_end => return Ok(status),
            session = self.start(data) => session?,
        };
        let ended = tokio::select! {
            status = told_to_end => Ok(status),
            Ok(Err(error)) = &mut session.printing => Err(error),
        };
        session.end().await;
        ended
    }

    /// What the function is made of, and its file.
    fn definition(self) -> anyhow::Result<(PathBuf, FunctionName, Change)> {
        let Self { variables, bounds, tty, command, .. } = self;
        let mut command = command.into_iter();
        let file = PathBuf::from(command.next().unwrap_or_default());
        let name = function_name(&file)?;
        let config = ConfigChange {
            tty: Some(tty),
            env: Some(Env::new(variables.read()?)?),
            cmd: Some(command.collect()),
            image: Some(ImageReference::parse(name.as_str()).map_err(|e| anyhow!("{name}: {e}"))?),
            ..ConfigChange::default()
        };
        let (size, timeout, fuel) = (Some(bounds.size()), Some(bounds.timeout()), bounds.fuel());
        Ok((file, name, Change { size, timeout, fuel, config, ..Change::default() }))
    }

    async fn start(self, data: &Path) -> anyhow::Result<Session> {
        let listen = self.listen;
        let (file, name, change) = self.definition()?;
        let shown = file.display();
        // Its words are the settings of a server; what a server logs of its calls is told here in another way.
        let settings = RawConfig { data: Some(data.to_owned()), log: Some("warn".to_owned()), ..RawConfig::default() };
        let config = Config::new(settings, Host { memory_bytes: host::memory_available(), data: None })?
            .fit_open_files(host::raise_open_files());
        start_log(&config)?;
        let listener = Listener::bind(listen, Faces::Only(Face::Functions)).map_err(|e| not_bound(listen, &e))?;
        let address = listener.address()?;

        let service =
            start_service(&config, CompilerThreads::Incremental).await.map_err(|e| exit::with(SERVER_ERROR, e))?;
        let developed = service.develop(&file, name, change, host::cache_dir().as_deref()).await;
        let (function, events) = developed.map_err(|e| exit::with(status(&e), format_args!("{shown}: {e}")))?;
        let (refusals, refused) = mpsc::channel(REFUSED_MAX);
        let on_refused = move |request: &Refused<'_>| {
            // Browsers ask for one by themselves.
            if request.path != "/favicon.ico" {
                let _ = refusals.try_send(refused_line(request));
            }
        };
        let root = Root { function: Arc::clone(&function), on_refused: Box::new(on_refused) };
        let memory_total = host::memory_total();
        let api =
            Api { service: service.clone(), func_endpoint: None, func_listen: None, memory_total, root: Some(root) };
        let server = Server::start(api, vec![listener], config.connections_max);

        let uuid = function.uuid.reveal();
        let called_at = format!(
            "{shown} is called at http://{address}/\n\
             as on a server, with outputs and logs, at http://{address}/call/{}/{uuid}\n\
             Ctrl-C ends it",
            function.name
        );
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let printing = print(called_at, name, service.clone(), events, refused);
        let printing = AbortOnDropHandle::new(tokio::spawn(printing));
        let watched = service.clone();
        let watching = AbortOnDropHandle::new(tokio::spawn(async move { watched.watch_development().await }));
        Ok(Session { service, server, function, printing, watching })
    }
}

impl Session {
    /// Ends the calls that run, and their logs.
    async fn end(self) {
        let Self { service, server, function, printing, watching } = self;
        drop((server, printing, watching));
        let removed = service.remove_function(function.account.clone(), function.name.clone(), true);
        // What is kept is removed next, whatever became of this.
        let _ = tokio::time::timeout(END_MAX, removed).await;
    }
}

/// Prints where it is called, and what happens, until that cannot be.
async fn print(
    called_at: String,
    name: String,
    service: Service,
    mut events: mpsc::Receiver<Event>,
    mut refused: mpsc::Receiver<String>,
) -> anyhow::Result<Infallible> {
    print_line(&called_at)?;
    let mut failed = pin!(service.failed());
    let mut was_broken = false;
    loop {
        let text = tokio::select! {
            Some(event) = events.recv() => {
                let text = event_lines(&name, &event, was_broken);
                was_broken = match event {
                    Event::Broken(_) => true,
                    Event::Replaced(_) | Event::Mended => false,
                    Event::Ended(_) => was_broken,
                };
                text
            }
            Some(line) = refused.recv() => line,
            reason = &mut failed => return Err(exit::with(SERVER_ERROR, reason)),
        };
        print_line(&format!("{}  {text}", jiff::ZonedDateTime::now().strftime("%H:%M:%S")))?;
    }
}

/// The other tasks of this thread do not wait for a terminal that nobody reads.
fn print_line(text: &str) -> io::Result<()> {
    tokio::task::block_in_place(|| output::line(text))
}

/// Listens for the signals from now on; ready with the exit status when one comes.
fn told_to_end() -> io::Result<impl Future<Output = u8>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => INTERRUPTED,
            _ = terminate.recv() => TERMINATED,
            _ = hang_up.recv() => HUNG_UP,
        }
    })
}

/// Threads that are about to end may still write there.
fn remove(kept: TempDir) {
    let path = kept.keep();
    let is_removed = (0..REMOVE_TRIES).any(|again| {
        if again > 0 {
            std::thread::sleep(REMOVE_AGAIN_AFTER);
        }
        let removed = std::fs::remove_dir_all(&path);
        removed.map_or_else(|e| e.kind() == ErrorKind::NotFound, |()| true)
    });
    if !is_removed {
        output::problem(&format!("{}: cannot be removed", path.display()));
    }
}

fn not_bound(listen: SocketAddr, error: &io::Error) -> anyhow::Error {
    let way_out = if error.kind() == ErrorKind::AddrInUse { "; --listen 127.0.0.1:0 takes a free port" } else { "" };
    anyhow!("--listen {listen}: {error}{way_out}")
}

/// What the program exits with when a file cannot be served from the start.
fn status(error: &NotServed) -> u8 {
    use service::Error as E;
    match error {
        NotServed::File(error) if error.kind() == ErrorKind::NotFound => NOT_FOUND,
        NotServed::File(_) | NotServed::TooLarge(_) => NOT_RUNNABLE,
        NotServed::NotLoaded(E::Rejected(_) | E::Invalid(_)) => NOT_RUNNABLE,
        NotServed::NotLoaded(
            E::NoSuchFunction(_)
            | E::NoSuchImage(_)
            | E::NameTaken(_)
            | E::FunctionBusy(_)
            | E::ImageInUse(_)
            | E::TooManyLoads
            | E::QuotaFull { .. }
            | E::Failure(_),
        ) => SERVER_ERROR,
    }
}

/// The name that the file's would be as a function's.
fn function_name(file: &Path) -> Result<FunctionName, Invalid> {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let fitting: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(128).collect();
    FunctionName::new(fitting.trim_matches('-')).or_else(|_| FunctionName::new("function"))
}

fn event_lines(name: &str, event: &Event, was_broken: bool) -> String {
    match event {
        Event::Replaced(took) => {
            let what = if was_broken { "is runnable again" } else { "has changed" };
            format!("{name} {what}: calls run it from now on, after {}", output::duration(*took))
        }
        Event::Broken(why) => {
            let why = output::one_line(&why.to_string());
            format!("{name} is not runnable: {why}; calls go on with what it was before")
        }
        Event::Mended => format!("{name} is runnable again: it is what it was before"),
        Event::Ended(call) => ended_lines(call),
    }
}

/// A call, and below it its stderr.
fn ended_lines(call: &EndedCall) -> String {
    let query = output::shortened(&call.asked.query);
    let query = if query.is_empty() { query } else { format!("?{query}") };
    let mut lines = format!(
        "{} /{query}  {}  {}  {}",
        output::shortened(&call.asked.method),
        status_of(call.verdict),
        output::duration(call.usage.duration),
        output::bytes(call.usage.memory_peak_bytes),
    );
    if let Some(fuel) = call.usage.fuel {
        lines += &format!("  fuel {fuel}");
    }
    if let Some(why) = &call.message {
        lines += &format!("  {}", output::one_line(why));
    }
    lines + &stderr_lines(&call.stderr)
}

/// All that is kept of it, each line marked and unable to act on the terminal.
fn stderr_lines(stderr: &Captured) -> String {
    let marked = |bytes: &[u8]| -> String {
        let text = String::from_utf8_lossy(bytes);
        text.lines().map(|line| format!("\n  | {}", output::one_line(line))).collect()
    };
    if stderr.lost == 0 {
        return marked(&[stderr.head.as_slice(), &stderr.tail].concat());
    }
    format!("{}\n  … {} bytes are not kept{}", marked(&stderr.head), stderr.lost, marked(&stderr.tail))
}

/// Of the path no more than its first part: a function's address may be in it.
fn refused_line(request: &Refused<'_>) -> String {
    let Refused { method, path, status, why } = *request;
    let mut parts = path.trim_start_matches('/').split('/');
    let first = output::shortened(parts.next().unwrap_or_default());
    let rest = if parts.next().is_some() { "/…" } else { "" };
    format!("{} /{first}{rest}  {status}  {}", output::shortened(method), output::one_line(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_gives_a_name() {
        let long = format!("{}.wasm", "x".repeat(200));
        for (file, name) in [
            ("a/hello.wasm", "hello"),
            ("My_Func.v2.wasm", "my-func-v2"),
            ("é.wasm", "function"),
            ("-.wat", "function"),
            ("", "function"),
            (&long, &long[..128]),
        ] {
            assert_eq!(function_name(Path::new(file)).unwrap().as_str(), name, "{file}");
        }
    }

    #[test]
    fn stderr_is_marked_and_does_nothing_to_the_terminal() {
        let stderr = |lost| Captured { head: b"one\n\nt\x1b[2Jw".to_vec(), tail: b"o\r\nthree".to_vec(), lost };
        assert_eq!(stderr_lines(&stderr(0)), "\n  | one\n  | \n  | t [2Jwo\n  | three");
        assert_eq!(stderr_lines(&stderr(9)), "\n  | one\n  | \n  | t [2Jw\n  … 9 bytes are not kept\n  | o\n  | three");
        assert_eq!(stderr_lines(&Captured::default()), "");
    }

    #[test]
    fn an_address_is_not_printed() {
        let request = Refused { method: "GET", path: "/call/f/e62c014e/sync", status: 404, why: "no such\nfunction" };
        assert_eq!(refused_line(&request), "GET /call/…  404  no such function");
        assert_eq!(refused_line(&Refused { path: "/", ..request }), "GET /  404  no such function");
    }
}
