//! `bench`: measures calls of a module in this process, of a function on a server, or of a URL.

mod alarm;
mod compare;
mod load;
mod progress;
mod record;
mod report;
mod show;
mod target;

use super::address::Address;
use super::client::{Client, Repeated};
use super::exit::{self, FAILED, SERVER_ERROR, USAGE};
use super::output;
use super::run::{self, Bounds};
use super::variables::Variables;
use crate::config::Wait;
use crate::domain::{Limits, STDIN_BYTES_MAX, STDOUT_BYTES_MAX};
use crate::service::local::Metering;
use bytes::Bytes;
use compare::Comparison;
use load::{Load, Pace, Until};
use report::{LoadMade, Report, What};
use serde::Serialize;
use std::borrow::Cow;
use std::io::Read as _;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use target::{Kind, Module, Target};

/// The most calls at once: connections, or instances.
const CONCURRENCY_MAX: usize = 10_000;
/// How many calls may run at once when they come at a rate, unless it is said.
const CONCURRENCY_OPEN: usize = 100;

#[derive(clap::Args)]
#[command(
    after_help = "What is called: http://… is a URL; what has a dot or a slash in it is the file of a module, which runs in \
this process; anything else is a function on the server.

Example: hyperfunc bench -c 8 --duration 30s helloworld"
)]
pub(super) struct Bench {
    /// Make so many calls, however long they take
    #[arg(short = 'n', long = "calls", value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// Make calls for so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// So many calls at once [default: 1; with --rate at most 100]
    #[arg(short, long, value_name = "N", value_parser = concurrency)]
    concurrency: Option<NonZeroUsize>,
    /// So many calls a second are due, and latency counts from when one was [default: as many as end]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// First make calls that do not count: for a time such as 500ms, or a number of them
    #[arg(long, value_name = "TIME|N", default_value = "1s", value_parser = warm_up)]
    warmup: Until,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    variables: Variables,
    /// What each call gets on stdin; makes the request to a URL a POST
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// The numbers as JSON
    #[arg(long)]
    json: bool,
    /// Say whether this is faster than the run whose --json is in that file
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// What is called
    #[arg(value_name = "NAME|FILE|URL")]
    name: String,
    /// The arguments of a module
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

fn concurrency(number: &str) -> Result<NonZeroUsize, String> {
    let number = number.parse().ok().filter(|number: &NonZeroUsize| number.get() <= CONCURRENCY_MAX);
    number.ok_or_else(|| format!("must be 1 to {CONCURRENCY_MAX}"))
}

fn rate(number: &str) -> Result<f64, &'static str> {
    let number = number.parse().ok().filter(|rate| (0.01..=1e6).contains(rate));
    number.ok_or("must be 0.01 to 1000000 calls a second")
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<Wait>()?.duration();
    if duration.is_zero() { Err("must not be 0".to_owned()) } else { Ok(duration) }
}

fn warm_up(text: &str) -> Result<Until, String> {
    match text.parse() {
        Ok(calls) => Ok(Until::Calls(calls)),
        Err(_) => Ok(Until::Time(text.parse::<Wait>()?.duration())),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Printed<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Comparison>,
}

impl Bench {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let load = self.load();
        let json = self.json;
        let old = self.compare.as_deref().map(compare::read).transpose()?;
        let kind = Kind::of(&self.name);
        if let Some(old) = &old {
            compare::check_alike(old, kind, &LoadMade::of(&load))?;
        }
        let what = What { kind, name: self.name.clone(), args: self.args.clone() };
        let target = self.target(client, &what).await?;
        let recorded = progress::watched(load.start(&target), &load).await?;
        let report = Report::of(what, &load, target.sent_bytes(), &recorded);
        let comparison = old.as_ref().map(|old| Comparison::of(old, &report));
        if json {
            output::json(&Printed { report: &report, comparison: comparison.as_ref() })?;
        } else {
            show::print(&report, comparison.as_ref())?;
        }
        Ok(if report.calls.failed > 0 { FAILED } else { 0 })
    }

    fn load(&self) -> Load {
        let pace = self.rate.map_or(Pace::Closed, Pace::PerSecond);
        let many = NonZeroUsize::new(CONCURRENCY_OPEN).filter(|_| self.rate.is_some()).unwrap_or(NonZeroUsize::MIN);
        Load {
            pace,
            concurrency: self.concurrency.unwrap_or(many),
            warm_up: self.warmup,
            measured: self.calls.map_or(Until::Time(self.duration), Until::Calls),
        }
    }

    async fn target(self, client: &Client, What { kind, name, args }: &What) -> anyhow::Result<Target> {
        let stdin = self.stdin.as_deref().map(stdin).transpose()?;
        if *kind == Kind::File {
            return self.module(Path::new(name), args, stdin.unwrap_or_default()).await;
        }
        let patience = Duration::from_secs(self.bounds.timeout().seconds().into());
        if !args.is_empty() || self.bounds.are_of_a_guest() || !self.variables.read()?.is_empty() {
            let problem = "ARGS, --env, --size and --fuel are for a file: a function has its own (see `create`)";
            return Err(exit::with(USAGE, problem));
        }
        if *kind == Kind::Url {
            let request = Repeated::to_url(name, stdin, patience).map_err(|problem| exit::with(USAGE, problem))?;
            request.connect().await.map_err(|e| exit::with(SERVER_ERROR, format_args!("{name}: {e}")))?;
            return Ok(Target::Url(Arc::new(request)));
        }
        let function = Address::of_function(client, name).await?;
        let target = format!("{}/sync", function.path("call"));
        let request = function.endpoint.repeated_call(&target, stdin.unwrap_or_default(), patience)?;
        Ok(Target::Function(Arc::new(request)))
    }

    async fn module(self, file: &Path, args: &[String], stdin: Bytes) -> anyhow::Result<Target> {
        let concurrency = u32::try_from(self.load().concurrency.get())?;
        // What a function may write, and what is kept of it for each.
        let limits = Limits { stdout_bytes: STDOUT_BYTES_MAX, ..self.bounds.limits() };
        let metering = if limits.fuel.is_some() { Metering::Fuel } else { Metering::None };
        let local = run::local(NonZeroU32::new(concurrency).unwrap_or(NonZeroU32::MIN))?;
        let module = local.load(run::read(file)?, metering).await.map_err(|e| run::not_loaded(file, e))?;
        let program = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let variable = |variable: String| {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            (Cow::Owned(name.to_owned()), value.to_owned())
        };
        Ok(Target::Module(Arc::new(Module {
            local,
            module,
            args: std::iter::once(program).chain(args.iter().cloned()).collect(),
            env: self.variables.read()?.into_iter().map(variable).collect(),
            stdin,
            limits,
            size: self.bounds.size(),
            timeout: self.bounds.timeout(),
        })))
    }
}

fn stdin(file: &Path) -> anyhow::Result<Bytes> {
    let shown = file.display();
    let problem = |e: std::io::Error| exit::with(FAILED, format_args!("--stdin: {shown}: {e}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(file).map_err(problem)?;
    file.take(STDIN_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(problem)?;
    if bytes.len() > STDIN_BYTES_MAX {
        return Err(exit::with(
            FAILED,
            format_args!("--stdin: {shown} is larger than 1 MB, and a call may bring no more"),
        ));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_is_a_time_or_a_number_of_calls() {
        assert_eq!(warm_up("500ms"), Ok(Until::Time(Duration::from_millis(500))));
        assert_eq!(warm_up("20"), Ok(Until::Calls(20)));
        assert!(warm_up("-1").is_err() && warm_up("x").is_err());
        assert!([rate("0"), rate("nan"), rate("-1"), rate("2e6")].iter().all(Result::is_err));
    }
}
