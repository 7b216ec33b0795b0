//! `test`: runs the cases of test files, each in a fresh instance, as a server would run it.

mod cases;
mod diff;
mod discover;
mod execute;
mod junit;
mod matching;
mod report;
mod update;
mod watch;

use super::exit::{self, FAILED, NOT_FOUND, USAGE};
use super::{output, run};
use crate::service::local::{Local, Metering};
use anyhow::Context as _;
use cases::{Case, FILE_BYTES_MAX, Malformed, TestFile};
use diff::Line;
use execute::{Job, ModuleFile, Problem, Verdict};
use junit::Junit;
use report::{Finished, Reader, Report, Status};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use update::Updates;
use watch::Stamps;

/// Cases that may run at once.
const JOBS_MAX: i64 = 256;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc test --filter greets guest-examples")]
pub(super) struct Test {
    /// Test files, modules with one beside them, or directories [default: all below this directory]
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Only the cases whose name, after that of their file, has this in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Cases that run at once [default: the number of cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=JOBS_MAX))]
    jobs: Option<u32>,
    /// Count the fuel of every case, and tell it
    #[arg(long)]
    fuel: bool,
    /// Accept what has come: rewrite the exact outputs and the files that cases expect
    #[arg(long)]
    update: bool,
    /// Go on: when files change, run the cases that they matter for
    #[arg(long, conflicts_with_all = ["update", "junit", "list"])]
    watch: bool,
    /// Print the names of the cases, and run none
    #[arg(long)]
    list: bool,
    /// One JSON object a line for each case
    #[arg(long, conflicts_with = "list")]
    json: bool,
    /// Write a JUnit report too
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    junit: Option<PathBuf>,
}

/// What is to run, and the state of the files that decide it.
#[derive(Default)]
struct Plan {
    files: Vec<Arc<TestFile>>,
    malformed: Vec<Malformed>,
    stamps: Stamps,
}

impl Test {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let plan = self.plan()?;
        if self.list {
            return self.print_names(&plan);
        }
        let local = run::local(self.at_once())?;
        let status = self.round(&local, &plan, None).await?;
        if self.watch { self.watch(&local, plan).await } else { Ok(status) }
    }

    fn at_once(&self) -> NonZeroU32 {
        let cores = || std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok());
        self.jobs.or_else(cores).and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    /// Finds the test files, and reads them.
    fn plan(&self) -> anyhow::Result<Plan> {
        let paths = discover::test_files(&self.paths)?;
        let mut plan = Plan::default();
        // Before they are read: what changes from now on is seen.
        plan.stamps.look(paths.iter().cloned());
        for path in paths {
            match TestFile::parse(&path, read(&path)?) {
                Ok(file) => plan.files.push(Arc::new(file)),
                Err(malformed) => plan.malformed.push(malformed),
            }
        }
        let files = plan.files.iter().flat_map(|file| {
            let named = file.cases.iter().flat_map(|case| file.files_of(case));
            named.chain([file.module.clone()])
        });
        let files: Vec<PathBuf> = files.collect();
        plan.stamps.look(files);
        Ok(plan)
    }

    fn print_names(&self, plan: &Plan) -> anyhow::Result<u8> {
        if let Some(status) = told(&plan.malformed) {
            return Ok(status);
        }
        for job in self.jobs(plan, None)? {
            output::line(&output::one_line(&job.id()))?;
        }
        Ok(0)
    }

    /// The cases that are asked for; of them those that one of these files matters for.
    ///
    /// # Errors
    /// When the filter leaves none.
    fn jobs(&self, plan: &Plan, changed: Option<&BTreeSet<PathBuf>>) -> anyhow::Result<Vec<Job>> {
        let mut jobs = Vec::new();
        let mut modules: Vec<Arc<ModuleFile>> = Vec::new();
        for file in &plan.files {
            for (index, case) in file.cases.iter().enumerate() {
                let metering = self.metering(case);
                let module = modules.iter().rev().find(|module| module.is(&file.module, metering)).cloned();
                let module = module.unwrap_or_else(|| {
                    modules.push(Arc::new(ModuleFile::new(file.module.clone(), metering)));
                    Arc::clone(&modules[modules.len() - 1])
                });
                jobs.push(Job { file: Arc::clone(file), index, module });
            }
        }
        if let Some(filter) = &self.filter {
            jobs.retain(|job| job.id().contains(filter.as_str()));
            if jobs.is_empty() && plan.malformed.is_empty() {
                return Err(exit::with(NOT_FOUND, format_args!("--filter: no case has {filter:?} in its name")));
            }
        }
        if let Some(changed) = changed {
            let own = |job: &Job| [job.file.path.clone(), job.file.module.clone()];
            jobs.retain(|job| job.file.files_of(job.case()).chain(own(job)).any(|path| changed.contains(&path)));
        }
        Ok(jobs)
    }

    fn metering(&self, case: &Case) -> Metering {
        let counted = self.fuel || case.given.bounds.fuel.is_some() || case.expected.max_fuel.is_some();
        if counted { Metering::Fuel } else { Metering::None }
    }

    /// Runs cases, tells of them, and returns what the program exits with if that was all.
    async fn round(&self, local: &Local, plan: &Plan, changed: Option<&BTreeSet<PathBuf>>) -> anyhow::Result<u8> {
        if let Some(status) = told(&plan.malformed) {
            return Ok(status);
        }
        let began = Instant::now();
        let jobs = self.jobs(plan, changed)?;
        if jobs.is_empty() {
            return Ok(0);
        }
        let reader = if self.json { Reader::Program } else { Reader::People };
        let mut report = Report::new(reader, jobs.len());
        let mut junit = self.junit.as_ref().map(|_| Junit::default());
        let mut updates = self.update.then(Updates::default);
        let mut not_run = NotRunAlone::default();
        let mut tell = |finished: Finished| {
            if let Some(junit) = &mut junit {
                junit.add(&finished);
            }
            report.case(&finished)
        };
        let mut held = Vec::new();
        let mut left = jobs.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.at_once().get() as usize
                && let Some(job) = left.next()
            {
                let local = local.clone();
                running.spawn(async move { (job.run(&local).await, job) });
            }
            let Some(ended) = running.join_next().await else { break };
            let (verdict, job) = ended.context("a case's task did not end")?;
            not_run.see(&verdict);
            if let Some(updates) = &mut updates {
                updates.keep(&job, &verdict);
            }
            // What may be updated is known when all have ended.
            if self.update && !verdict.problems.is_empty() {
                held.push((job, verdict));
            } else {
                tell(finish(job, verdict, None))?;
            }
        }
        for (job, verdict) in held {
            tell(finish(job, verdict, updates.as_mut()))?;
        }
        let mut not_written = updates.map(Updates::write).unwrap_or_default();
        if let (Some(junit), Some(path)) = (junit, &self.junit) {
            not_written.extend(junit.write(path, began.elapsed()).err());
        }
        let all_passed = report.end()?;
        not_written.iter().for_each(output::failure);
        if all_passed {
            return Ok(if not_written.is_empty() { 0 } else { FAILED });
        }
        Ok(not_run.status().unwrap_or(FAILED))
    }

    /// Runs cases again as files change, until Ctrl-C.
    async fn watch(&self, local: &Local, mut plan: Plan) -> anyhow::Result<u8> {
        // What nothing ran for stays to be run: all of it, if the first round could not.
        let mut all = !plan.malformed.is_empty();
        let mut changed = BTreeSet::new();
        loop {
            output::note("waits for changes; Ctrl-C ends it");
            let found = || discover::test_files(&self.paths).unwrap_or_default();
            changed.append(&mut plan.stamps.change(found).await);
            let mut seen = plan.stamps.again();
            seen.look(found());
            // What is wrong now may be right after the next change.
            let ended = match self.plan() {
                Ok(now) => {
                    plan = now;
                    self.round(local, &plan, Some(&changed).filter(|_| !all)).await
                }
                Err(error) => {
                    plan = Plan { stamps: seen, ..Plan::default() };
                    Err(error)
                }
            };
            match ended {
                Ok(_) if plan.malformed.is_empty() => {
                    all = false;
                    changed.clear();
                }
                Ok(_) => {}
                Err(error) => output::failure(&error),
            }
        }
    }
}

/// Says which test files are malformed; nothing runs then.
fn told(malformed: &[Malformed]) -> Option<u8> {
    for malformed in malformed {
        output::problem(&output::one_line(&malformed.to_string()));
    }
    (!malformed.is_empty()).then_some(USAGE)
}

/// What a case has come to, once its outputs are accepted if they are to be.
fn finish(job: Job, verdict: Verdict, updates: Option<&mut Updates>) -> Finished {
    let mut details = report::details(&verdict);
    let status = match updates {
        _ if verdict.problems.is_empty() => Status::Pass,
        None => Status::Fail,
        Some(updates) => match updates.accept(&job, &verdict) {
            Ok(()) => Status::Updated,
            Err(why) => {
                details.push(Line::plain(format!("not updated: {why}")));
                Status::Fail
            }
        },
    };
    Finished { job, status, outcome: verdict.outcome, details }
}

/// Whether modules that are not there, or that we do not run, are all that there was.
#[derive(Default)]
struct NotRunAlone {
    status: Option<u8>,
    ran: bool,
}

impl NotRunAlone {
    fn see(&mut self, verdict: &Verdict) {
        self.ran |= verdict.outcome.is_some();
        for problem in &verdict.problems {
            if let Problem::NotRun(not_run) = problem {
                self.status = self.status.or(Some(not_run.status));
            }
        }
    }

    fn status(&self) -> Option<u8> {
        self.status.filter(|_| !self.ran)
    }
}

/// A test file's text.
fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let malformed = |problem: &str| exit::with(USAGE, format_args!("{shown}: {problem}"));
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("{shown}"))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("{shown}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed("is larger than 4 MB"));
    }
    String::from_utf8(bytes).map_err(|_| malformed("is no UTF-8"))
}
