//! The report that CI systems read.

use super::report::{Finished, Status};
use crate::cli::output;
use anyhow::Context as _;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// What is known so far: a suite for each test file, in the order in which their first cases ended.
#[derive(Default)]
pub(super) struct Junit(Vec<TestSuite>);

impl Junit {
    pub(super) fn add(&mut self, finished: &Finished) {
        let job = &finished.job;
        let title = output::one_line(&job.file.title());
        let status = match finished.status {
            Status::Pass | Status::Updated => TestCaseStatus::success(),
            Status::Fail => {
                let mut status = TestCaseStatus::non_success(match finished.outcome {
                    Some(_) => NonSuccessKind::Failure,
                    None => NonSuccessKind::Error,
                });
                let text = finished.text();
                status.set_message(text.lines().next().unwrap_or_default()).set_description(text);
                status
            }
        };
        let mut case = TestCase::new(job.case().name.as_str(), status);
        case.set_classname(title.as_str());
        if let Some(outcome) = &finished.outcome {
            case.set_time(outcome.usage.duration);
            if finished.status == Status::Fail {
                case.set_system_out_lossy(&outcome.stdout).set_system_err_lossy(outcome.stderr.clone().kept());
            }
        }
        let suites = &mut self.0;
        let at = suites.iter().position(|suite| suite.name.as_str() == title).unwrap_or_else(|| {
            suites.push(TestSuite::new(title));
            suites.len() - 1
        });
        suites[at].add_test_case(case);
    }

    /// Writes the report: the whole of it, or nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(self, path: &Path, took: Duration) -> anyhow::Result<()> {
        let mut report = Report::new("hyperfunc");
        report.set_time(took).add_test_suites(self.0);
        replace(path, report.to_string().context("the JUnit report")?.as_bytes())
    }
}

/// Writes a file, so that nobody ever sees a part of it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    // A link stays one: what it leads to is written.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // Nobody can have put a link there that would be followed.
    let partial = path.with_file_name(format!(".{}.partial", Uuid::now_v7()));
    let shown = || format!("{}", path.display());
    let mut file = File::create_new(&partial).with_context(shown)?;
    let written = file.write_all(bytes).and_then(|()| {
        if let Ok(now) = fs::metadata(&path) {
            file.set_permissions(now.permissions())?;
        }
        fs::rename(&partial, &path)
    });
    written
        .inspect_err(|_| {
            // What cannot be removed either says the same as what is told.
            let _ = fs::remove_file(&partial);
        })
        .with_context(shown)
}
