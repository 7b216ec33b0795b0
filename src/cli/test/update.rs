//! `--update`: what has come becomes what is expected.

use super::cases::{At, TestFile};
use super::execute::{Job, Problem, Stream, Verdict};
use super::junit::replace;
use super::matching::{Expected, Mismatch};
use anyhow::{Context as _, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is to be written once all cases have ended.
#[derive(Default)]
pub(super) struct Updates {
    /// Files that outputs are compared with.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Those that hold what a case has written: new bytes would fail it.
    kept: BTreeSet<PathBuf>,
    /// Texts in test files.
    texts: BTreeMap<PathBuf, (Arc<TestFile>, Vec<Edit>)>,
}

/// Puts a text in a place.
type Edit = (At, String);

/// One of these.
enum Change {
    File(PathBuf, Vec<u8>),
    Text(Edit),
}

impl Updates {
    /// Keeps the files that are as a case expects them. To be told of all cases before any is accepted.
    pub(super) fn keep(&mut self, job: &Job, verdict: &Verdict) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let file = stream.expected(&job.case().expected).and_then(Expected::file);
            let differs = |problem: &Problem| match problem {
                Problem::Output(other, mismatch) => *other == stream && !matches!(mismatch, Mismatch::Not(_)),
                Problem::NotRun(_) => true,
                Problem::Ended(_) | Problem::Budget(_) => false,
            };
            if let Some(file) = file
                && !verdict.problems.iter().any(differs)
                && let Ok(file) = fs::canonicalize(job.file.beside(file))
            {
                self.kept.insert(file);
            }
        }
    }

    /// Accepts what a case has come to.
    ///
    /// # Errors
    /// Why that is not for us to write: it stays wrong then.
    pub(super) fn accept(&mut self, job: &Job, verdict: &Verdict) -> Result<(), &'static str> {
        let changes: Vec<Change> =
            verdict.problems.iter().map(|problem| change(job, verdict, problem)).collect::<Result<_, _>>()?;
        let disagrees = |change: &Change| match change {
            Change::File(path, bytes) => {
                self.kept.contains(path) || self.files.get(path).is_some_and(|other| other != bytes)
            }
            Change::Text(_) => false,
        };
        if changes.iter().any(disagrees) {
            return Err("another case expects other bytes in the same file");
        }
        for change in changes {
            match change {
                Change::File(path, bytes) => drop(self.files.insert(path, bytes)),
                Change::Text(edit) => {
                    let (_, edits) =
                        self.texts.entry(job.file.path.clone()).or_insert_with(|| (Arc::clone(&job.file), vec![]));
                    edits.push(edit);
                }
            }
        }
        Ok(())
    }

    /// Writes all of it that can be, and returns what is wrong with the rest.
    pub(super) fn write(self) -> Vec<anyhow::Error> {
        let files = self.files.into_iter().map(|(path, bytes)| write_file(&path, &bytes));
        let texts = self.texts.into_iter().map(|(path, (file, edits))| write_text(&path, &file, edits));
        files.chain(texts).filter_map(Result::err).collect()
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    }
    replace(path, bytes)
}

fn write_text(path: &Path, file: &TestFile, edits: Vec<Edit>) -> anyhow::Result<()> {
    let now = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    ensure!(now == file.text, "{}: has changed meanwhile, and is not updated", path.display());
    replace(path, edited(&file.text, edits).as_bytes())
}

/// Where a file is, whatever links lead to it, if it is below its test file: tests are not always written by whoever runs
/// them.
fn place(file: &TestFile, named: &Path) -> Result<PathBuf, &'static str> {
    const OUTSIDE: &str = "the file that it expects is not below the directory of its test file";
    let mut place = file.beside(named);
    let mut missing = Vec::new();
    let mut place = loop {
        // No directory is named by nothing.
        let asked = if place.as_os_str().is_empty() { Path::new(".") } else { &place };
        match fs::canonicalize(asked) {
            Ok(there) => break there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Err("the file that it expects cannot be looked at"),
        }
        // It has none if it ends in `..`, which leads anywhere.
        missing.push(place.file_name().ok_or(OUTSIDE)?.to_owned());
        place.pop();
    };
    place.extend(missing.iter().rev());
    let dir = file.beside(Path::new("."));
    if fs::canonicalize(dir).is_ok_and(|dir| place.starts_with(dir)) { Ok(place) } else { Err(OUTSIDE) }
}

/// What makes a problem none.
fn change(job: &Job, verdict: &Verdict, problem: &Problem) -> Result<Change, &'static str> {
    let outcome = verdict.outcome.as_ref().ok_or("it did not run")?;
    let (stream, mismatch) = match problem {
        Problem::Output(stream, mismatch) => (stream, mismatch),
        Problem::Ended(_) => return Err("it ended in another way"),
        Problem::Budget(_) => return Err("a budget is for people to raise"),
        Problem::NotRun(_) => return Err("it did not run"),
    };
    if matches!(mismatch, Mismatch::Not(_)) {
        return Err("what `contains`, `regex` and `json` ask for is for people to change");
    }
    let output = stream.written(outcome).into_owned();
    match stream.expected(&job.case().expected) {
        Some(Expected::Exact { at, .. }) => {
            let text = String::from_utf8(output).map_err(|_| "its output is no UTF-8: expect it as { file = … }")?;
            Ok(Change::Text((at.clone(), literal(&text))))
        }
        Some(expected) => {
            let file = expected.file().ok_or("nothing of it is exact")?;
            Ok(Change::File(place(&job.file, file)?, output))
        }
        None => Err("nothing of it is exact"),
    }
}

/// A text with others in some places.
fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(at, _)| at.start);
    let mut edited = text.to_owned();
    // From the end, so that the places before stay where they are.
    for (at, new) in edits.into_iter().rev() {
        edited.replace_range(at, &new);
    }
    edited
}

/// A text as TOML, in the form that is the easiest to read.
fn literal(text: &str) -> String {
    let plain = !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    let lines = text.contains('\n');
    if lines && plain && text.contains(['"', '\\']) && !text.contains("'''") && !text.ends_with('\'') {
        return format!("'''\n{text}'''");
    }
    if !lines && plain && text.contains(['"', '\\']) && !text.contains('\'') {
        return format!("'{text}'");
    }
    // One line with its end looks better on one line.
    let quotes = if text.trim_end_matches('\n').contains('\n') { "\"\"\"" } else { "\"" };
    let mut literal = quotes.to_owned();
    if quotes.len() > 1 {
        literal.push('\n');
    }
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' if quotes.len() > 1 => literal.push('\n'),
            '\n' => literal.push_str("\\n"),
            '\t' => literal.push_str("\\t"),
            '\r' => literal.push_str("\\r"),
            c if c.is_control() => literal.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => literal.push(c),
        }
    }
    literal.push_str(quotes);
    literal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use toml::Spanned;

    #[derive(Deserialize)]
    struct Texts {
        a: Spanned<String>,
        b: Spanned<String>,
    }

    #[test]
    fn a_text_is_written_as_people_would() {
        for (text, written) in [
            ("", "\"\""),
            ("hi", "\"hi\""),
            ("hi\n", "\"hi\\n\""),
            ("a\nb\n", "\"\"\"\na\nb\n\"\"\""),
            ("{\"a\": 1}", "'{\"a\": 1}'"),
            ("{\"a\": 1}\n", "'''\n{\"a\": 1}\n'''"),
            ("\u{1b}\"", "\"\\u001B\\\"\""),
        ] {
            assert_eq!(literal(text), written);
        }
    }

    #[test]
    fn a_test_file_that_somebody_else_has_changed_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.test.toml");
        let text = "[[case]]\nname = 'c'\nstdout = 'old'\n";
        let file = Arc::new(TestFile::parse(&path, text.to_owned()).unwrap());
        let Some(Expected::Exact { at, .. }) = file.cases[0].expected.stdout.clone() else { panic!("an exact text") };
        let update = || {
            let edits = vec![(at.clone(), literal("new"))];
            let texts = BTreeMap::from([(path.clone(), (Arc::clone(&file), edits))]);
            Updates { texts, ..Updates::default() }.write().iter().map(ToString::to_string).collect::<String>()
        };
        let theirs = format!("# theirs\n{text}");
        fs::write(&path, &theirs).unwrap();
        assert!(update().contains("has changed meanwhile"));
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        fs::write(&path, text).unwrap();
        assert_eq!(update(), "");
        assert_eq!(fs::read_to_string(&path).unwrap(), text.replace("'old'", "\"new\""));
    }

    #[test]
    fn only_what_is_below_a_test_file_is_a_place_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let tests = root.join("tests");
        fs::create_dir_all(tests.join("sub")).unwrap();
        std::os::unix::fs::symlink(&root, tests.join("up")).unwrap();
        std::os::unix::fs::symlink("sub", tests.join("same")).unwrap();
        let path = tests.join("x.test.toml");
        let file = TestFile::parse(&path, "[[case]]\nname = 'c'\n".to_owned()).unwrap();
        for (named, is_at) in
            [("out", "out"), ("new/dir/./out", "new/dir/out"), ("same/out", "sub/out"), ("../tests/out", "out")]
        {
            assert_eq!(place(&file, Path::new(named)), Ok(tests.join(is_at)), "{named}");
        }
        for named in ["../out", "up/out", "/out", "new/../../out", ".."] {
            assert!(place(&file, Path::new(named)).is_err(), "{named}");
        }
    }

    proptest! {
        #[test]
        fn an_edit_changes_what_it_is_for_and_nothing_else(
            old in "[ -~\n\t\r\u{0}\u{7f}é'\"\\\\]{0,20}", new in "[ -~\n\t\r\u{0}\u{7f}\u{85}é'\"\\\\]{0,20}",
        ) {
            let text = format!("# before\na = {} # between\nb = {}\n# behind\n", literal(&old), literal(&old));
            let texts: Texts = toml::from_str(&text).unwrap();
            prop_assert_eq!((texts.a.get_ref(), texts.b.get_ref()), (&old, &old));
            let text = edited(&text, vec![(texts.b.span(), literal(&new)), (texts.a.span(), literal(&new))]);
            let texts: Texts = toml::from_str(&text).unwrap();
            prop_assert_eq!((texts.a.get_ref(), texts.b.get_ref()), (&new, &new));
            prop_assert!(text.starts_with("# before\na = ") && text.contains(" # between\nb = "));
            prop_assert!(text.ends_with("\n# behind\n"));
        }
    }
}
