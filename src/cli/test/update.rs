//! `--update`: what has come becomes what is expected.

use super::cases::{At, TestFile};
use super::execute::{Job, Problem, Verdict};
use super::junit::replace;
use super::matching::{Expected, Mismatch};
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// What is to be written once all cases have ended.
#[derive(Default)]
pub(super) struct Updates {
    /// Files that outputs are compared with.
    files: BTreeMap<PathBuf, Vec<u8>>,
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
    /// Accepts what a case has come to.
    ///
    /// # Errors
    /// Why that is not for us to write: it stays wrong then.
    pub(super) fn accept(&mut self, job: &Job, verdict: &Verdict) -> Result<(), &'static str> {
        let changes: Vec<Change> =
            verdict.problems.iter().map(|problem| change(job, verdict, problem)).collect::<Result<_, _>>()?;
        let disagrees = |change: &Change| match change {
            Change::File(path, bytes) => self.files.get(path).is_some_and(|other| other != bytes),
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

    /// Writes all of it.
    ///
    /// # Errors
    /// Names the first file that cannot be written, or has changed since it was read.
    pub(super) fn write(self) -> anyhow::Result<()> {
        for (path, bytes) in self.files {
            replace(&path, &bytes)?;
        }
        for (path, (file, edits)) in self.texts {
            let now = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            ensure!(now == file.text, "{}: has changed meanwhile, and is not updated", path.display());
            replace(&path, edited(&file.text, edits).as_bytes())?;
        }
        Ok(())
    }
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
            Ok(Change::File(job.file.beside(file), output))
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
            Updates { texts, ..Updates::default() }.write().map_err(|e| e.to_string())
        };
        let theirs = format!("# theirs\n{text}");
        fs::write(&path, &theirs).unwrap();
        assert!(update().unwrap_err().contains("has changed meanwhile"));
        assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        fs::write(&path, text).unwrap();
        update().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text.replace("'old'", "\"new\""));
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
