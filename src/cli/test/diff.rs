//! How two outputs differ, for people to read.

use similar::udiff::UnifiedHunkHeader;
use similar::{ChangeTag, TextDiff};
use std::time::Duration;

/// Lines around what differs.
const CONTEXT_LINES: usize = 3;
/// What is shown of a diff, at most.
const LINES_MAX: usize = 100;
/// What is shown of a line, at most.
const LINE_CHARS_MAX: usize = 500;
/// After so long a diff need not be the shortest any more.
const TIME_MAX: Duration = Duration::from_millis(500);

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// What a line is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Was expected, and is not there.
    Removed,
    /// Is there, and was not expected.
    Added,
    /// Says where.
    Place,
}

impl Line {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { kind: Kind::Plain, text: text.into() }
    }
}

/// The unified diff of what was expected and what came. Nothing in it acts on a terminal.
pub(super) fn unified(expected: &[u8], got: &[u8], what: &str) -> Vec<Line> {
    let (expected_text, got_text) = (String::from_utf8_lossy(expected), String::from_utf8_lossy(got));
    let place = |text: String| Line { kind: Kind::Place, text };
    let mut lines = vec![place(format!("--- expected {what}")), place(format!("+++ {what}"))];
    if expected_text == got_text {
        let at = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
        lines.push(Line::plain(format!("the first byte that differs, which is no UTF-8, is number {}", at + 1)));
        return lines;
    }
    let diff = TextDiff::configure().timeout(TIME_MAX).diff_lines(&*expected_text, &*got_text);
    for group in diff.grouped_ops(CONTEXT_LINES) {
        lines.push(place(UnifiedHunkHeader::new(&group).to_string()));
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (kind, sign) = match change.tag() {
                ChangeTag::Equal => (Kind::Plain, ' '),
                ChangeTag::Delete => (Kind::Removed, '-'),
                ChangeTag::Insert => (Kind::Added, '+'),
            };
            let value = change.value();
            lines.push(Line { kind, text: format!("{sign}{}", shown(value.strip_suffix('\n').unwrap_or(value))) });
            if change.missing_newline() {
                lines.push(Line::plain("\\ no newline at the end"));
            }
            if lines.len() >= LINES_MAX {
                lines.push(Line::plain("… and more"));
                return lines;
            }
        }
    }
    lines
}

/// A line in which all is to be seen that would act on a terminal, or look like something else.
pub(super) fn shown(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut chars = line.chars();
    for c in chars.by_ref().take(LINE_CHARS_MAX) {
        let reorders = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() || reorders => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(expected: &str, got: &[u8]) -> String {
        let lines = unified(expected.as_bytes(), got, "stdout");
        lines.into_iter().map(|line| line.text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_diff_is_what_patch_reads() {
        let expected = "--- expected stdout\n+++ stdout\n@@ -1,2 +1,2 @@\n a\n-b\n+B\n\\ no newline at the end";
        assert_eq!(text("a\nb\n", b"a\nB"), expected);
    }

    #[test]
    fn what_acts_on_a_terminal_is_shown() {
        assert!(text("", b"\x1b[31m\ta\r\n").ends_with("+\\u{1b}[31m\\ta\\r"));
        assert!(text("\u{fffd}", b"\xff").ends_with("the first byte that differs, which is no UTF-8, is number 1"));
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn a_diff_is_not_for_ever() {
        let many: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        assert!(text(&many, b"").lines().count() <= LINES_MAX + 1);
        assert!(text("", &[b'x'; 10_000]).len() < 1_000);
    }

    proptest! {
        #[test]
        fn nothing_in_a_diff_acts_on_a_terminal(expected in any::<Vec<u8>>(), got in any::<Vec<u8>>()) {
            for line in unified(&expected, &got, "stdout") {
                prop_assert!(!line.text.chars().any(char::is_control));
            }
        }
    }
}
