//! `logs`: shows what happened to the calls of a function.

use super::address::Address;
use super::client::{Client, escaped, no_sense};
use super::output;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use std::io::Write as _;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc logs -f --tail 10 hello")]
pub(super) struct Logs {
    /// Go on with what happens next, until the function is removed or the call of --callid has ended
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines, or with all [default: all]
    #[arg(long, value_name = "N", value_parser = tail)]
    tail: Option<String>,
    /// Only what happened to this call
    #[arg(long, value_name = "CALL_ID")]
    callid: Option<String>,
    /// As the server answers: one object a line
    #[arg(long)]
    json: bool,
    /// The function
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

/// A line of the log, which says what there is to say of its event; of a gap, how many are missing.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Event {
    time: String,
    event: String,
    call_id: String,
    short_stdin: Option<String>,
    short_stdout: Option<String>,
    short_stderr: Option<String>,
    message: Option<String>,
    digest: Option<String>,
    duration_ms: Option<f64>,
    memory_peak: Option<u64>,
    fuel_used: Option<u64>,
    lost: Option<u64>,
}

impl Logs {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let function = Address::of_function(client, &self.name).await?;
        let mut target = format!("{}?follow={}", function.path("logs"), u8::from(self.follow));
        if let Some(tail) = &self.tail {
            target += &format!("&tail={tail}");
        }
        if let Some(call_id) = &self.callid {
            target += &format!("&callid={}", escaped(call_id));
        }
        let mut reply = function.endpoint.ask(&target).await?;
        let mut stdout = std::io::stdout();
        let coloured = output::stdout_is_coloured();
        while let Some(lines) = reply.lines().await? {
            let mut shown = Vec::with_capacity(lines.len());
            // A blank one says only that the server is still there.
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                if self.json {
                    shown.extend_from_slice(line);
                } else {
                    let event: Event = serde_json::from_slice(line).map_err(no_sense)?;
                    shown.extend_from_slice(event.line(coloured).as_bytes());
                }
                shown.push(b'\n');
            }
            // What came together goes out together, and at once: somebody may be watching.
            stdout.write_all(&shown)?;
            stdout.flush()?;
        }
        Ok(0)
    }
}

impl Event {
    /// The event as a line for people, who may see it in colours.
    fn line(&self, coloured: bool) -> String {
        let Self { time, event, call_id, .. } = self;
        let (event, rest) = match self.lost {
            Some(lost) => ("LOST", format!("lines that are missing here: {lost}")),
            None => (event.as_str(), format!("{call_id}  {}", self.details().join("  "))),
        };
        let padded = output::one_line(event) + &" ".repeat(8_usize.saturating_sub(event.len()));
        let event = if coloured { output::status_in_colour(event, &padded) } else { padded };
        format!("{}  {event}  {}", output::one_line(time), output::one_line(&rest))
    }

    /// What there is to say besides.
    fn details(&self) -> Vec<String> {
        let text = |name: &str, text: &Option<String>| text.as_ref().map(|text| format!("{name}: {}", text.trim_end()));
        let details = [
            self.digest.as_ref().map(|digest| format!("image {}", output::short(digest))),
            self.duration_ms.map(|milliseconds| {
                output::duration(Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default())
            }),
            self.memory_peak.map(output::bytes),
            self.fuel_used.map(|fuel| format!("fuel {fuel}")),
            self.message.clone(),
            text("stdin", &self.short_stdin),
            text("stdout", &self.short_stdout),
            text("stderr", &self.short_stderr),
        ];
        details.into_iter().flatten().collect()
    }
}

/// `all`, or a number of lines.
fn tail(text: &str) -> Result<String, &'static str> {
    let is_number = text.parse::<u64>().is_ok_and(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if is_number || text == "all" { Ok(text.to_owned()) } else { Err("must be a number of lines, or all") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> String {
        serde_json::from_str::<Event>(json).unwrap().line(false)
    }

    #[test]
    fn an_event_is_one_line() {
        let call = r#"{"Time":"2017-03-16T07:05:24.473Z","Event":"CALL","CallId":"x","ShortStdin":"a\nb\n"}"#;
        assert_eq!(line(call), "2017-03-16T07:05:24.473Z  CALL      x  stdin: a b");
        let pending = r#"{"Time":"t","Event":"PENDING","CallId":"x","Unheard":{"of":1}}"#;
        assert_eq!(line(pending), "t  PENDING   x");
        let running = format!(r#"{{"Time":"t","Event":"RUNNING","CallId":"x","Digest":"sha256:{}"}}"#, "ab".repeat(32));
        assert_eq!(line(&running), "t  RUNNING   x  image abababababab");
        let finished = r#"{"Time":"t","Event":"FINISHED","CallId":"x","ShortStdout":"hi\n","DurationMs":6,
            "MemoryPeak":1536,"FuelUsed":7}"#;
        assert_eq!(line(finished), "t  FINISHED  x  6.00 ms  1.5 KB  fuel 7  stdout: hi");
        let failed = r#"{"Time":"t","Event":"FAILED","CallId":"x","Message":"exit status 3: no luck",
            "ShortStderr":"\u001b[2Jno luck","DurationMs":0.25}"#;
        assert_eq!(line(failed), "t  FAILED    x  250 µs  exit status 3: no luck  stderr:  [2Jno luck");
    }

    #[test]
    fn on_a_terminal_the_event_has_a_colour() {
        let event: Event = serde_json::from_str(r#"{"Time":"t","Event":"FAILED","CallId":"x"}"#).unwrap();
        assert_eq!(event.line(true), "t  \u{1b}[38;5;1mFAILED  \u{1b}[0m  x");
        let event: Event = serde_json::from_str(r#"{"Time":"t","Event":"CALL\u001b[31m","CallId":"x"}"#).unwrap();
        assert_eq!(event.line(true), "t  CALL [31m  x");
    }

    #[test]
    fn a_gap_is_said() {
        let gap = r#"{"Time":"t","Event":"","Lost":12}"#;
        assert_eq!(line(gap), "t  LOST      lines that are missing here: 12");
    }

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert!(tail("0").is_ok() && tail("12").is_ok() && tail("all").is_ok());
        for bad in ["", "+1", "-1", "1.5", "All", "99999999999999999999"] {
            assert!(tail(bad).is_err(), "{bad}");
        }
    }
}
