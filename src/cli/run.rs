//! `run`: runs a module here and now, as a program of this machine.

use super::exit::{self, NOT_FOUND, NOT_RUNNABLE, SERVER_ERROR, USAGE};
use super::variables::Variables;
use super::{host, output};
use crate::domain::{ContainerSize, Ending, Limits, MB, Outcome, Timeout, Usage};
use crate::service::local::{Invocation, Local, Metering, NotLoaded, SharedDir, Stdio};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The largest file that is read as a module: what a server can be set to take.
const FILE_BYTES_MAX: u64 = 1024 * MB;
/// How long a guest is waited for after its timeout: a host call that waits cannot be cut, nor one bulk memory
/// instruction.
const GRACE: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "Example: echo 'hello there' | hyperfunc run --size s1 --stats toolbox.wasm wc")]
pub(super) struct Run {
    #[command(flatten)]
    variables: Variables,
    /// A directory that it may read and write, and what it calls it [default: the same]
    #[arg(long = "dir", value_name = "HOST[::GUEST]")]
    dirs: Vec<Dir>,
    #[command(flatten)]
    bounds: Bounds,
    /// Say on stderr what it has used: time, memory, fuel
    #[arg(long)]
    stats: bool,
    /// The module, in bytes or as text, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["FILE", "ARGS"])]
    command: Vec<String>,
}

/// The limits of a module that runs here.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct Bounds {
    /// s1 s2 s3 s4 m1 m2 m3 l1 l2 l3: the memory that it may hold, 64 MB to 16 GB [default: s4, 512 MB]
    #[arg(long, value_parser = ContainerSize::parse, value_name = "SIZE")]
    size: Option<ContainerSize>,
    /// Seconds that it may take [default: 300]
    #[arg(long, value_parser = timeout, value_name = "SECONDS")]
    timeout: Option<Timeout>,
    /// The fuel that it may spend [default: not metered, as with 0]
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
}

/// `HOST[::GUEST]`
#[derive(Clone)]
struct Dir(SharedDir);

impl FromStr for Dir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, guest) = text.split_once("::").unwrap_or((text, text));
        if host.is_empty() || guest.is_empty() {
            return Err("must be HOST or HOST::GUEST".to_owned());
        }
        let found = fs::metadata(host).map_err(|e| format!("{host}: {e}"))?;
        if !found.is_dir() {
            return Err(format!("{host} is no directory"));
        }
        Ok(Self(SharedDir { host: host.into(), guest: guest.to_owned() }))
    }
}

fn timeout(seconds: &str) -> Result<Timeout, String> {
    let seconds = seconds.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    Timeout::from_seconds(seconds).map_err(|e| e.to_string())
}

impl Bounds {
    /// The limits, for a guest whose stdout is bounded by nothing.
    pub(super) fn limits(self) -> Limits {
        Limits {
            memory_bytes: self.size().memory_bytes(),
            timeout: Duration::from_secs(self.timeout().seconds().into()),
            fuel: self.fuel.and_then(NonZeroU64::new),
            stdout_bytes: usize::MAX,
        }
    }

    /// Whether one is set that a guest keeps, and not its caller.
    pub(super) fn are_of_a_guest(self) -> bool {
        self.size.is_some() || self.fuel.is_some()
    }

    pub(super) fn size(self) -> ContainerSize {
        self.size.unwrap_or_default()
    }

    pub(super) fn fuel(self) -> Option<u64> {
        self.fuel
    }

    pub(super) fn timeout(self) -> Timeout {
        self.timeout.unwrap_or_default()
    }
}

impl Run {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let Self { variables, dirs, bounds, stats, command } = self;
        let mut args = command.into_iter();
        let file = PathBuf::from(args.next().unwrap_or_default());
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let invocation = Invocation {
            args: std::iter::once(name).chain(args).collect(),
            env: environment(variables.read().map_err(|e| exit::with(USAGE, format_args!("{e:#}")))?),
            stdio: Stdio::Inherited,
            dirs: dirs.into_iter().map(|Dir(dir)| dir).collect(),
            aside: None,
        };
        let mut limits = bounds.limits();
        if stats {
            // All that there is, so that it is counted.
            limits.fuel = limits.fuel.or(Some(NonZeroU64::MAX));
        }
        let metering = if limits.fuel.is_some() { Metering::Fuel } else { Metering::None };
        let local = local(NonZeroU32::MIN)?;
        let module = local.load(read(&file)?, metering).await.map_err(|e| not_loaded(&file, e))?;

        // Not taken down: the process ends, and that is faster.
        std::mem::forget(local.clone());
        // On a thread of its own, and a runtime: one that waits in a host call holds up nothing, and is not waited for.
        let guest = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            Ok::<_, io::Error>(runtime.block_on(local.run(&module, invocation, &limits)))
        });
        let outcome = tokio::select! {
            ended = guest => ended??.map_err(|e| exit::with(SERVER_ERROR, e))?,
            () = tokio::time::sleep(limits.timeout + GRACE) => timed_out(limits.timeout),
        };
        if let Some(why) = why(&outcome, bounds) {
            output::problem(&format!("{}: {why}", file.display()));
        }
        if stats {
            output::note(&used(&outcome.usage));
        }
        Ok(exit::of_ending(outcome.ending))
    }
}

/// The variables of an environment, each once: of two with one name the later counts.
fn environment(variables: Vec<String>) -> Vec<(Cow<'static, str>, String)> {
    let mut environment: Vec<(Cow<'static, str>, String)> = Vec::new();
    for variable in variables {
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        environment.retain(|(earlier, _)| earlier != name);
        environment.push((name.to_owned().into(), value.to_owned()));
    }
    environment
}

/// Why the guest was ended, if it did not end by itself.
fn why(outcome: &Outcome, bounds: Bounds) -> Option<String> {
    match outcome.ending {
        Ending::Finished | Ending::ExitStatus(_) => None,
        Ending::MemoryBudget => Some("this machine has no memory left for it".to_owned()),
        Ending::Trapped(_)
        | Ending::TimedOut
        | Ending::OutOfFuel
        | Ending::StdoutLimit
        | Ending::MemoryLimit
        | Ending::Cancelled => outcome.message(bounds.size(), bounds.timeout()),
    }
}

/// The engine for modules of files, which may hold what this machine has.
///
/// # Errors
/// When the host cannot run one.
pub(super) fn local(instances_max: NonZeroU32) -> anyhow::Result<Local> {
    let cache = host::cache_dir();
    Local::start(instances_max, host::memory_available(), cache.as_deref()).map_err(|e| exit::with(SERVER_ERROR, e))
}

/// A module's file.
///
/// # Errors
/// When it is not there, cannot be read, or is larger than a module may be.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    read_up_to(file, FILE_BYTES_MAX).map_err(|e| {
        let status = if e.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
        exit::with(status, format_args!("{}: {e}", file.display()))
    })
}

fn read_up_to(file: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let too_large = || Err(io::Error::other(format!("larger than {}", output::bytes(bytes_max))));
    let file = File::open(file)?;
    // Of what is no regular file, such as a pipe, it is 0.
    let expected = file.metadata()?.len();
    if expected > bytes_max {
        return too_large();
    }
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { too_large() } else { Ok(bytes) }
}

/// Why a file is not run.
pub(super) fn not_loaded(file: &Path, error: NotLoaded) -> anyhow::Error {
    let status = match error {
        NotLoaded::Rejected(_) => NOT_RUNNABLE,
        NotLoaded::Failure(_) => SERVER_ERROR,
    };
    exit::with(status, format_args!("{}: {error}", file.display()))
}

fn timed_out(duration: Duration) -> Outcome {
    let usage = Usage { duration, ..Usage::default() };
    Outcome { ending: Ending::TimedOut, stdout: Vec::new(), stderr: Default::default(), usage }
}

/// What an execution has used, as far as it is known, in one line.
fn used(usage: &Usage) -> String {
    let memory = match usage.memory_peak_bytes {
        // It has none, or has not told.
        0 => String::new(),
        peak => format!(", peak memory {}", output::bytes(peak)),
    };
    let fuel = usage.fuel.map(|fuel| format!(", fuel {fuel}")).unwrap_or_default();
    format!("time {}{memory}{fuel}", output::duration(usage.duration))
}
