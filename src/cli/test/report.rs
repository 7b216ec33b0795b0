//! What is told of cases as they end, and of all of them.

use super::diff::{self, Kind, Line};
use super::execute::{Job, Problem, Stream, Verdict, ms, told};
use super::matching::Mismatch;
use crate::cli::output;
use crate::domain::Outcome;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;
use std::io::{self, Write as _};
use std::time::Instant;

/// What is shown of an output that is not compared, at most: its end.
const END_LINES_MAX: usize = 20;

/// What a case has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    Fail,
    /// What it expected was changed to what has come.
    Updated,
}

/// A case that has ended.
pub(super) struct Finished {
    pub(super) job: Job,
    pub(super) status: Status,
    pub(super) outcome: Option<Outcome>,
    /// What is wrong, for people.
    pub(super) details: Vec<Line>,
}

/// Who reads what is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    People,
    /// One object a line.
    Program,
}

/// Tells of the cases of one run.
pub(super) struct Report {
    reader: Reader,
    began: Instant,
    bar: ProgressBar,
    passed: usize,
    updated: usize,
    failed: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    file: String,
    case: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_peak: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
}

impl Finished {
    /// What `details` say, as one text.
    pub(super) fn text(&self) -> String {
        let lines: Vec<&str> = self.details.iter().map(|line| line.text.as_str()).collect();
        lines.join("\n")
    }

    fn told(&self) -> Told {
        let (case, outcome) = (self.job.case(), self.outcome.as_ref());
        Told {
            file: self.job.file.path.display().to_string(),
            case: case.name.clone(),
            status: self.status,
            ending: outcome.map(|outcome| told(outcome, case.given.bounds)),
            duration_ms: outcome.map(|outcome| (ms(outcome.usage.duration) * 1e3).round() / 1e3),
            memory_peak: outcome.map(|outcome| outcome.usage.memory_peak_bytes),
            fuel_used: outcome.and_then(|outcome| outcome.usage.fuel),
            details: (!self.details.is_empty()).then(|| self.text()),
        }
    }
}

/// What is wrong with a case, and what its guest said of it.
pub(super) fn details(verdict: &Verdict) -> Vec<Line> {
    let mut lines = Vec::new();
    for problem in &verdict.problems {
        match problem {
            Problem::NotRun(not_run) => lines.push(Line::plain(diff::shown(&not_run.why))),
            Problem::Ended(how) | Problem::Budget(how) => lines.push(Line::plain(diff::shown(how))),
            Problem::Output(stream, mismatch) => {
                let written = verdict.outcome.as_ref().map(|outcome| stream.written(outcome));
                output_differs(&mut lines, mismatch, &written.unwrap_or_default(), stream.name());
            }
        }
    }
    let shown_already = |problem: &Problem| matches!(problem, Problem::Output(Stream::Stderr, _));
    if let Some(outcome) = &verdict.outcome
        && !verdict.problems.is_empty()
        && !verdict.problems.iter().any(shown_already)
    {
        end_of(&mut lines, &Stream::Stderr.written(outcome), Stream::Stderr.name());
    }
    lines
}

fn output_differs(lines: &mut Vec<Line>, mismatch: &Mismatch, written: &[u8], what: &str) {
    match mismatch {
        Mismatch::Differs { expected } => lines.extend(diff::unified(expected, written, what)),
        Mismatch::Not(problem) => {
            lines.push(Line::plain(diff::shown(&format!("{what} {problem}"))));
            end_of(lines, written, what);
        }
        Mismatch::NoFile(problem) => lines.push(Line::plain(diff::shown(&format!("{what}: {problem}")))),
    }
}

/// The end of what a guest wrote.
fn end_of(lines: &mut Vec<Line>, bytes: &[u8], what: &str) {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(END_LINES_MAX);
    if !all.is_empty() {
        let cut = if from > 0 { format!(", the last {END_LINES_MAX} lines") } else { String::new() };
        lines.push(Line { kind: Kind::Place, text: format!("{what}{cut}:") });
    }
    lines.extend(all[from..].iter().map(|line| Line::plain(format!("  {}", diff::shown(line)))));
}

impl Report {
    /// Begins to tell of so many cases. A bar shows how far they are, on a terminal.
    pub(super) fn new(reader: Reader, cases: usize) -> Self {
        let style =
            ProgressStyle::with_template("[{bar:40}] {pos}/{len}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(cases as u64).with_style(style).with_finish(ProgressFinish::AndClear);
        Self { reader, began: Instant::now(), bar, passed: 0, updated: 0, failed: Vec::new() }
    }

    /// Tells of a case.
    pub(super) fn case(&mut self, finished: &Finished) -> anyhow::Result<()> {
        match finished.status {
            Status::Pass => self.passed += 1,
            Status::Updated => self.updated += 1,
            Status::Fail => self.failed.push(finished.job.id()),
        }
        self.bar.inc(1);
        self.bar.suspend(|| match self.reader {
            Reader::Program => Ok(output::line(&serde_json::to_string(&finished.told())?)?),
            Reader::People => Ok(for_people(finished)?),
        })
    }

    /// Tells of all of them, and whether none failed.
    pub(super) fn end(self) -> io::Result<bool> {
        self.bar.finish_using_style();
        let all_passed = self.failed.is_empty();
        if self.reader == Reader::People {
            let mut out = anstream::stdout();
            // Whoever has seen many lines go by finds those that count here again.
            for id in self.failed.iter().filter(|_| self.passed + self.updated + self.failed.len() > 1) {
                writeln!(out, "{} {}", painted("FAIL", AnsiColor::Red), output::one_line(id))?;
            }
            let counts = [("passed", self.passed), ("updated", self.updated), ("failed", self.failed.len())];
            let counts = counts.iter().filter(|(what, count)| *count > 0 || *what == "passed");
            let counts: Vec<String> = counts.map(|(what, count)| format!("{count} {what}")).collect();
            writeln!(out, "{} in {}", counts.join(", "), output::duration(self.began.elapsed()))?;
        }
        Ok(all_passed)
    }
}

fn for_people(finished: &Finished) -> io::Result<()> {
    let (word, colour) = match finished.status {
        Status::Pass => ("PASS", AnsiColor::Green),
        Status::Fail => ("FAIL", AnsiColor::Red),
        Status::Updated => ("UPDATED", AnsiColor::Yellow),
    };
    let used = finished.outcome.as_ref().map(|outcome| {
        let fuel = outcome.usage.fuel.map(|fuel| format!(", fuel {fuel}")).unwrap_or_default();
        format!("[{:>8}{fuel}] ", output::duration(outcome.usage.duration))
    });
    let id = output::one_line(&finished.job.id());
    let mut out = anstream::stdout();
    writeln!(out, "{} {}{id}", painted(word, colour), used.unwrap_or_default())?;
    for Line { kind, text } in &finished.details {
        let style = match kind {
            Kind::Plain => Style::new(),
            Kind::Removed => AnsiColor::Red.on_default(),
            Kind::Added => AnsiColor::Green.on_default(),
            Kind::Place => AnsiColor::Cyan.on_default(),
        };
        writeln!(out, "    {style}{text}{style:#}")?;
    }
    Ok(())
}

fn painted(word: &str, colour: AnsiColor) -> String {
    let style = colour.on_default().bold();
    format!("{style}{word}{style:#}")
}
