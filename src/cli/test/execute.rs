//! One case: its execution, and what is wrong with what came of it.

use super::cases::{Bounds, Case, Cut, End, Expectations, Given, Stdin, TestFile};
use super::matching::{Expected, Mismatch};
use crate::cli::{exit, run};
use crate::domain::{CallId, Ending, Limits, Outcome, STDIN_BYTES_MAX, STDOUT_BYTES_MAX, Timeout};
use crate::service::local::{Invocation, Local, LocalModule, Metering, Stdio, environment};
use bytes::Bytes;
use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use uuid::Uuid;

/// What every case is called as: two runs of a test must not differ.
const CALL_ID: CallId = CallId::new(Uuid::from_u128(0x7000_8000_0000_0000_0000));

/// A case that is to run.
pub(super) struct Job {
    pub(super) file: Arc<TestFile>,
    /// Which of its cases.
    pub(super) index: usize,
    pub(super) module: Arc<ModuleFile>,
}

/// A module, compiled when the first case needs it, and for all of them.
pub(super) struct ModuleFile {
    path: PathBuf,
    metering: Metering,
    loaded: OnceCell<Result<LocalModule, NotRun>>,
}

/// Why a case did not run.
#[derive(Debug, Clone)]
pub(super) struct NotRun {
    /// What the program exits with, if that is all there was to do.
    pub(super) status: u8,
    pub(super) why: String,
}

/// What came of a case.
pub(super) struct Verdict {
    /// `None` if it did not run.
    pub(super) outcome: Option<Outcome>,
    pub(super) problems: Vec<Problem>,
}

/// What is wrong.
#[derive(Debug)]
pub(super) enum Problem {
    NotRun(NotRun),
    /// It ended in another way.
    Ended(String),
    Output(Stream, Mismatch),
    /// It took more than it may.
    Budget(String),
}

/// What a guest writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// What is kept of it.
    pub(super) fn written(self, outcome: &Outcome) -> Cow<'_, [u8]> {
        match self {
            Self::Stdout => Cow::Borrowed(&outcome.stdout),
            Self::Stderr => Cow::Owned(outcome.stderr.clone().kept()),
        }
    }

    /// What it must be.
    pub(super) fn expected(self, expected: &Expectations) -> Option<&Expected> {
        match self {
            Self::Stdout => expected.stdout.as_ref(),
            Self::Stderr => expected.stderr.as_ref(),
        }
    }
}

impl Job {
    pub(super) fn case(&self) -> &Case {
        &self.file.cases[self.index]
    }

    /// What the case is called among all others.
    pub(super) fn id(&self) -> String {
        format!("{} > {}", self.file.title(), self.case().name)
    }

    /// Runs the case in a fresh instance.
    pub(super) async fn run(&self, local: &Local) -> Verdict {
        let outcome = match self.outcome(local).await {
            Ok(outcome) => outcome,
            Err(not_run) => return Verdict { outcome: None, problems: vec![Problem::NotRun(not_run)] },
        };
        let Case { given, expected, .. } = self.case();
        let read = |file: &Path| read(&self.file.beside(file), STDOUT_BYTES_MAX);
        let problems = problems(expected, given.bounds, &outcome, read);
        Verdict { outcome: Some(outcome), problems }
    }

    async fn outcome(&self, local: &Local) -> Result<Outcome, NotRun> {
        let case = self.case();
        let (invocation, limits) = self.prepare(&case.given).map_err(|why| NotRun { status: exit::FAILED, why })?;
        let module = self.module.loaded(local).await?;
        let failed = |e: crate::service::Failure| NotRun { status: exit::SERVER_ERROR, why: e.to_string() };
        local.run(&module, invocation, &limits).await.map_err(failed)
    }

    fn prepare(&self, given: &Given) -> Result<(Invocation, Limits), String> {
        let function = self.file.function();
        let body = match &given.stdin {
            Stdin::Text(text) => Bytes::from(text.clone()),
            Stdin::File(file) => Bytes::from(read(&self.file.beside(file), STDIN_BYTES_MAX)?),
        };
        let request = given.request.variables(&function, &body).map_err(|e| format!("request.{e}"))?;
        let env = environment(&function, request, CALL_ID, &given.env);
        let args = std::iter::once(function).chain(given.argv.iter().cloned()).collect();
        let limits = Limits {
            memory_bytes: given.bounds.size.memory_bytes(),
            timeout: given.bounds.timeout,
            fuel: match self.module.metering {
                Metering::None => None,
                // Only counted, unless the case wants it to end so.
                Metering::Fuel => given.bounds.fuel.and_then(NonZeroU64::new).or(Some(NonZeroU64::MAX)),
            },
            stdout_bytes: STDOUT_BYTES_MAX,
        };
        let stdio = Stdio::Captured { stdin: body, tty: false };
        Ok((Invocation { args, env, stdio, dirs: Vec::new(), aside: None }, limits))
    }
}

impl ModuleFile {
    pub(super) fn new(path: PathBuf, metering: Metering) -> Self {
        Self { path, metering, loaded: OnceCell::new() }
    }

    /// Whether this is that module, compiled so.
    pub(super) fn is(&self, path: &Path, metering: Metering) -> bool {
        self.path == path && self.metering == metering
    }

    async fn loaded(&self, local: &Local) -> Result<LocalModule, NotRun> {
        let load = || async {
            let not_run = |e: anyhow::Error| NotRun { status: exit::of(&e), why: e.to_string() };
            let bytes = run::read(&self.path).map_err(not_run)?;
            local.load(bytes, self.metering).await.map_err(|e| not_run(run::not_loaded(&self.path, e)))
        };
        self.loaded.get_or_init(load).await.clone()
    }
}

/// A file that a case names.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(format!("{}: is larger than 1 MB, which is the most that goes in or out", path.display()));
    }
    Ok(bytes)
}

/// All that is wrong with what a guest has left.
fn problems(
    expected: &Expectations,
    bounds: Bounds,
    outcome: &Outcome,
    read: impl Fn(&Path) -> Result<Vec<u8>, String> + Copy,
) -> Vec<Problem> {
    let mut found = Vec::new();
    if end(outcome.ending) != Some(expected.end) {
        found.push(Problem::Ended(format!("{}; expected: {}", told(outcome, bounds), expected.end)));
    }
    for stream in [Stream::Stdout, Stream::Stderr] {
        let Some(expected) = stream.expected(expected) else { continue };
        let mismatches = expected.check(&stream.written(outcome), read);
        found.extend(mismatches.into_iter().map(|mismatch| Problem::Output(stream, mismatch)));
    }
    let took = ms(outcome.usage.duration);
    if let Some(max) = expected.max_ms.filter(|max| took > *max) {
        found.push(Problem::Budget(format!("took {took:.2} ms; max_ms is {max}")));
    }
    if let (Some(spent), Some(max)) = (outcome.usage.fuel, expected.max_fuel)
        && spent > max
    {
        found.push(Problem::Budget(format!("spent {spent} fuel; max_fuel is {max}")));
    }
    found
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// How a guest ended, as a case expects it; `None` if that was not the guest's doing.
fn end(ending: Ending) -> Option<End> {
    Some(match ending {
        Ending::Finished => End::Exit(0),
        Ending::ExitStatus(status) => End::Exit(status),
        Ending::Trapped(_) => End::Other(Cut::Trap),
        Ending::TimedOut => End::Other(Cut::Timeout),
        Ending::OutOfFuel => End::Other(Cut::Fuel),
        Ending::StdoutLimit => End::Other(Cut::Output),
        Ending::MemoryLimit => End::Other(Cut::Memory),
        Ending::MemoryBudget | Ending::Cancelled => return None,
    })
}

/// How a guest ended, in the words of a server.
pub(super) fn told(outcome: &Outcome, bounds: Bounds) -> String {
    match outcome.ending {
        Ending::TimedOut => format!("timeout of {} s reached", bounds.timeout.as_secs_f64()),
        Ending::MemoryBudget => "this machine has no memory left for it: -j lets fewer run at once".to_owned(),
        Ending::Finished
        | Ending::ExitStatus(_)
        | Ending::Trapped(_)
        | Ending::OutOfFuel
        | Ending::StdoutLimit
        | Ending::MemoryLimit
        | Ending::Cancelled => {
            outcome.message(bounds.size, Timeout::default()).unwrap_or_else(|| End::Exit(0).to_string())
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Other(cut) => f.write_str(match cut {
                Cut::Trap => "trap",
                Cut::Timeout => "timeout",
                Cut::Fuel => "fuel",
                Cut::Memory => "memory",
                Cut::Output => "output",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Captured, ContainerSize, Trap, Usage};

    const BOUNDS: Bounds = Bounds { size: ContainerSize::S1, timeout: Duration::from_millis(50), fuel: None };

    fn outcome(ending: Ending) -> Outcome {
        let usage = Usage { duration: Duration::from_millis(10), fuel: Some(100), ..Usage::default() };
        Outcome { ending, stdout: b"out".to_vec(), stderr: Captured::default(), usage }
    }

    fn told_of(expected: Expectations, ending: Ending) -> Vec<String> {
        let none = |_: &Path| Err("no file".to_owned());
        let text = |problem| match problem {
            Problem::Ended(how) | Problem::Budget(how) => how,
            other => format!("{other:?}"),
        };
        problems(&expected, BOUNDS, &outcome(ending), none).into_iter().map(text).collect()
    }

    #[test]
    fn a_budget_is_what_may_be_spent() {
        let within = |max_ms, max_fuel| {
            let end = End::Exit(0);
            let expected =
                Expectations { stdout: None, stderr: None, end, max_ms: Some(max_ms), max_fuel: Some(max_fuel) };
            told_of(expected, Ending::Finished)
        };
        assert!(within(10.0, 100).is_empty());
        assert_eq!(within(9.9, 99), ["took 10.00 ms; max_ms is 9.9", "spent 100 fuel; max_fuel is 99"]);
    }

    #[test]
    fn an_ending_is_one_of_those_that_a_case_can_name() {
        let endings = [
            (Ending::Finished, Some(End::Exit(0)), "exit status 0"),
            (Ending::ExitStatus(3), Some(End::Exit(3)), "exit status 3"),
            (Ending::Trapped(Trap::Unreachable), Some(End::Other(Cut::Trap)), "trap: unreachable"),
            (Ending::TimedOut, Some(End::Other(Cut::Timeout)), "timeout of 0.05 s reached"),
            (Ending::OutOfFuel, Some(End::Other(Cut::Fuel)), "fuel limit reached"),
            (Ending::MemoryLimit, Some(End::Other(Cut::Memory)), "memory limit of s1 (64 MB) reached"),
            (Ending::StdoutLimit, Some(End::Other(Cut::Output)), "output limit of 1 MB reached"),
            (Ending::MemoryBudget, None, "this machine has no memory left for it: -j lets fewer run at once"),
        ];
        for (ending, named, words) in endings {
            let expecting =
                |end| told_of(Expectations { stdout: None, stderr: None, end, max_ms: None, max_fuel: None }, ending);
            assert_eq!(expecting(End::Exit(77)), [format!("{words}; expected: exit status 77")]);
            if let Some(end) = named {
                assert!(expecting(end).is_empty(), "{end}");
                assert!(words.starts_with(&end.to_string()), "{words}");
            }
        }
    }
}
