//! `run`: runs a module here and now, as a program of this machine.

use super::exit::{self, NOT_FOUND, NOT_RUNNABLE, SERVER_ERROR};
use super::variables::Variables;
use super::{host, output};
use crate::domain::{ContainerSize, Ending, Limits, Outcome, Timeout, Usage};
use crate::service::local::{Invocation, Local, Metering, NotLoaded, SharedDir, Stdio};
use std::borrow::Cow;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// How long a guest is waited for after its timeout: one bulk memory instruction of it cannot be cut.
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
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["FILE", "ARGS"])]
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
    /// The fuel that it may spend [default: not metered]
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
}

/// `HOST[::GUEST]`
#[derive(Clone)]
struct Dir(SharedDir);

impl FromStr for Dir {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (host, guest) = text.split_once("::").unwrap_or((text, text));
        if host.is_empty() || guest.is_empty() {
            return Err("must be HOST or HOST::GUEST");
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
        let variable = |variable: String| {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            (Cow::Owned(name.to_owned()), value.to_owned())
        };
        let invocation = Invocation {
            args: std::iter::once(name).chain(args).collect(),
            env: variables.read()?.into_iter().map(variable).collect(),
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

        // In a task of its own: what cannot be cut is not waited for.
        let guest = async move { local.run(&module, invocation, &limits).await };
        let guest = AbortOnDropHandle::new(tokio::spawn(guest));
        let outcome = tokio::select! {
            ended = guest => ended?.map_err(|e| exit::with(SERVER_ERROR, e))?,
            () = tokio::time::sleep(limits.timeout + GRACE) => timed_out(limits.timeout),
        };
        if stats {
            output::note(&used(&outcome.usage));
        }
        match outcome.ending {
            Ending::Finished | Ending::ExitStatus(_) => {}
            Ending::Trapped(_)
            | Ending::TimedOut
            | Ending::OutOfFuel
            | Ending::StdoutLimit
            | Ending::MemoryLimit
            | Ending::MemoryBudget
            | Ending::Cancelled => {
                let why = outcome.message(bounds.size(), bounds.timeout()).unwrap_or_default();
                output::problem(&format!("{}: {why}", file.display()));
            }
        }
        Ok(exit::of_ending(outcome.ending))
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
/// When it is not there, or cannot be read.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).map_err(|e| {
        let status = if e.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
        exit::with(status, format_args!("{}: {e}", file.display()))
    })
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

/// What an execution has used, in one line.
fn used(usage: &Usage) -> String {
    let fuel = usage.fuel.map(|fuel| format!(", fuel {fuel}")).unwrap_or_default();
    format!("time {}, peak memory {}{fuel}", output::duration(usage.duration), output::bytes(usage.memory_peak_bytes))
}
