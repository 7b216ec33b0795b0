//! What people and programs read.

use super::client::Reply;
use anstream::{AutoStream, ColorChoice};
use anstyle::{Ansi256Color, AnsiColor, Style};
use comfy_table::{Cell, Color, Table, presets};
use serde::Serialize;
use std::io::{self, Write as _};
use std::time::Duration;

const PROBLEM: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default();
const HEADER: Style = Style::new().bold();
/// The colours of help and of wrong usage.
pub(super) const HELP: clap::builder::Styles = clap::builder::Styles::styled()
    .header(HEADER)
    .usage(HEADER)
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default())
    .error(PROBLEM)
    .valid(AnsiColor::Green.on_default())
    .invalid(WARNING);

/// Says on stderr what went wrong.
pub(super) fn problem(text: &str) {
    said(PROBLEM, "hyperfunc:", text);
}

/// The same of an error.
pub(super) fn failure(error: &anyhow::Error) {
    problem(&format!("{error:#}"));
}

/// Says on stderr what is no problem, and not what was asked for either.
pub(super) fn note(text: &str) {
    said(HEADER, "hyperfunc:", text);
}

/// Says on stderr what did not go wrong, and may yet.
pub(super) fn warning(text: &str) {
    said(WARNING, "hyperfunc: warning:", text);
}

fn said(style: Style, prefix: &str, text: &str) {
    let coloured = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let prefix = if coloured { in_style(style, prefix) } else { prefix.to_owned() };
    // If nobody listens there, nobody needs to know.
    let _ = writeln!(io::stderr(), "{prefix} {text}");
}

/// Whether stdout is a terminal whose user wants colours.
pub(super) fn stdout_is_coloured() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

fn in_style(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// What shows the status of a call, in the colour of that status if it has one.
pub(super) fn status_in_colour(status: &str, shown: &str) -> String {
    colour(status).map_or_else(|| shown.to_owned(), |colour| in_style(Ansi256Color(colour).on_default(), shown))
}

/// The colour of a call's status, by its number.
fn colour(status: &str) -> Option<u8> {
    match status {
        "FINISHED" => Some(2),
        "FAILED" => Some(1),
        "RUNNING" => Some(6),
        "PENDING" => Some(3),
        _ => None,
    }
}

/// Writes a line to stdout.
pub(super) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Writes JSON to stdout, for people to read.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(&serde_json::to_string_pretty(value)?)?)
}

/// Writes a body to stdout, byte for byte and as it comes.
pub(super) async fn body(mut reply: Reply) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    while let Some(piece) = reply.piece().await? {
        stdout.write_all(&piece)?;
    }
    Ok(stdout.flush()?)
}

/// Writes a table to stdout.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    // No line is broken: what does not fit is for the terminal to wrap.
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    let coloured = stdout_is_coloured();
    if coloured {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let cell = |(title, text): (&&str, String)| match colour(&text) {
        Some(colour) if *title == "STATUS" => Cell::new(text).fg(Color::AnsiValue(colour)),
        _ => Cell::new(text),
    };
    table.add_rows(rows.into_iter().map(|row| header.iter().zip(row).map(cell).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().enumerate().try_for_each(|(number, text)| match text.trim_end() {
        text if coloured && number == 0 => line(&in_style(HEADER, text)),
        text => line(text),
    })
}

/// A text as one line that does nothing to a terminal: a guest may have written it.
pub(super) fn one_line(text: &str) -> String {
    // Those that order the text around them anew make a line read as another.
    let acts = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.trim_end().chars().map(|c| if acts(c) { ' ' } else { c }).collect()
}

/// A text that fits into a table.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut shown: String = one_line(text).chars().take(CHARS_MAX).collect();
    if text.chars().count() > CHARS_MAX {
        shown.push('…');
    }
    shown
}

/// The beginning of an id or a digest, as Docker shows it.
pub(super) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// So many of something: `1 function`, `2 functions`.
pub(super) fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A time for people: `1.23 ms`.
pub(super) fn duration(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    let (amount, unit) = match us {
        ..1e3 => (us, "µs"),
        ..1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    // Three digits that say something.
    let digits = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
    format!("{amount:.digits$} {unit}")
}

/// A number of bytes for people: `27.1 KB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KB", "MB", "GB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_acts_on_a_terminal() {
        assert_eq!(one_line("a\n\x1b[31mb\u{9b}c\u{202e}d\r\n"), "a  [31mb c d");
        assert_eq!(shortened(&format!("\t{}", "é".repeat(40))), format!(" {}…", "é".repeat(39)));
    }

    #[test]
    fn amounts_and_ids_are_short() {
        assert_eq!((bytes(1023).as_str(), bytes(1536).as_str()), ("1023 B", "1.5 KB"));
        assert_eq!(bytes(5 << 40), "5120.0 GB");
        assert_eq!(short(&format!("sha256:{}", "ab".repeat(32))), "abababababab");
        assert_eq!(short("x"), "x");
    }
}
