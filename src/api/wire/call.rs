//! Calls as they are answered: the id, the counts, the list, the log (`docs/api.md` section 4).

use super::rfc3339;
use crate::domain::{CallId, Entry, Event, EventKind, Listed, Output, Tally};
use serde::Serialize;

/// An accepted call.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AcceptedJson {
    call_id: String,
}

pub(in crate::api) fn accepted(call_id: CallId) -> impl Serialize {
    AcceptedJson { call_id: call_id.to_string() }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StatusJson {
    total: u64,
    pending: u64,
    running: u64,
    finished: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<ListedJson>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedJson {
    call_id: String,
    created: String,
    status: &'static str,
    message: Option<String>,
}

/// How the calls of a function stand, and some of them.
pub(in crate::api) fn status(tally: Tally, list: Option<Vec<Listed>>) -> impl Serialize {
    let list = list.map(|list| list.into_iter().map(listed).collect());
    let Tally { pending, running, finished, failed } = tally;
    StatusJson { total: tally.total(), pending, running, finished, failed, list }
}

fn listed(call: Listed) -> ListedJson {
    let Listed { call_id, created, state, message } = call;
    ListedJson { call_id: call_id.to_string(), created: rfc3339(created), status: state.text(), message }
}

/// An entry of a log; a gap has no event and no call.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventJson<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short_stdin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short_stdout: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short_stderr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_peak: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

impl<'a> EventJson<'a> {
    fn with(self, output: &'a Output) -> Self {
        let Output { stdout, stderr, usage } = output;
        Self {
            short_stdout: stdout.as_deref(),
            short_stderr: stderr.as_deref(),
            // To the microsecond.
            duration_ms: Some(usage.duration.as_micros() as f64 / 1000.0),
            memory_peak: Some(usage.memory_peak_bytes),
            fuel_used: usage.fuel,
            ..self
        }
    }
}

/// One entry as one line.
pub(in crate::api) fn log_line(entry: &Entry) -> Vec<u8> {
    let time = rfc3339(entry.at());
    let json = match entry {
        Entry::Gap(gap) => EventJson { time, lost: Some(gap.lost), ..EventJson::default() },
        Entry::Event(event) => event_json(time, event),
    };
    // Its keys are strings.
    let mut line = serde_json::to_vec(&json).unwrap_or_default();
    line.push(b'\n');
    line
}

fn event_json(time: String, event: &Event) -> EventJson<'_> {
    let of_call = |event_name| EventJson {
        time,
        event: event_name,
        call_id: Some(event.call_id.to_string()),
        ..EventJson::default()
    };
    match &event.kind {
        EventKind::Called { stdin } => EventJson { short_stdin: stdin.as_deref(), ..of_call("CALL") },
        EventKind::Pending => of_call("PENDING"),
        EventKind::Running { digest } => EventJson { digest: Some(digest.to_string()), ..of_call("RUNNING") },
        EventKind::Finished(output) => of_call("FINISHED").with(output),
        EventKind::Failed { message, output } => EventJson { message: Some(message), ..of_call("FAILED") }.with(output),
    }
}
