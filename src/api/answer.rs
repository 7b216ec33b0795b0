//! What goes back: a text, a JSON value, what a guest wrote, or the progress of a load.

use super::delivery::Delivery;
use super::error::{load_error, open_status, verdict_status};
use super::wire;
use crate::domain::{CallId, CallResult, CallState, Entry};
use crate::service::Phases;
use crate::service::images::Loading;
use crate::service::logs::LogEntries;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// An answer.
pub(super) type Answer = Response<AnswerBody>;

/// Clients of 2018 compare it as a string.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// An error as a client sees it that asks for JSON.
#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

/// 509 has no name in any standard.
const OUTPUT_LIMIT: ReasonPhrase = ReasonPhrase::from_static(b"Output Limit Exceeded");
/// What Docker's daemon says.
const UPGRADED: ReasonPhrase = ReasonPhrase::from_static(b"UPGRADED");

/// The body of an answer.
pub(super) enum AnswerBody {
    /// All of it; taken by the first poll.
    Whole(Bytes),
    /// All of it, of which somebody wants to know that it has arrived.
    Delivered(Bytes, Option<Delivery>),
    /// JSON lines, while a module is loaded.
    Loading(Box<LoadingLines>),
    /// JSON lines of a log.
    Log(LogEntries),
}

/// What tells whoever watches that the server is there.
pub(super) fn pong() -> Answer {
    with_body(StatusCode::OK, TEXT, Bytes::from_static(b"OK"))
}

/// Why something is not as it was asked for: a line of text, or JSON for a client whose `Accept` names it.
pub(super) fn message(status: StatusCode, message: &str, headers: &HeaderMap) -> Answer {
    let message = &one_line(message);
    let mut accepts = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let mut answer = if accepts.any(|accept| accept.contains("application/json")) {
        json(status, &Message { message })
    } else {
        with_body(status, TEXT, Bytes::from(format!("{message}\n")))
    };
    if status.canonical_reason().is_none() {
        answer.extensions_mut().insert(OUTPUT_LIMIT);
    }
    answer
}

/// What a client or a guest wrote comes into messages: a message is one line all the same, and not for ever.
fn one_line(message: &str) -> String {
    const CHARS_MAX: usize = 1000;
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
}

/// Says which call an answer is about.
pub(super) fn name_call(answer: &mut Answer, call_id: CallId) {
    if let Ok(call_id) = HeaderValue::from_str(&call_id.to_string()) {
        answer.headers_mut().insert(CALL_ID, call_id);
    }
}

/// Says what a call has spent its time on.
pub(super) fn time(answer: &mut Answer, phases: &Phases) {
    if let Ok(timing) = HeaderValue::try_from(server_timing(phases)) {
        answer.headers_mut().insert(SERVER_TIMING, timing);
    }
}

/// W3C Server Timing, in milliseconds.
fn server_timing(phases: &Phases) -> String {
    let mut text = String::with_capacity(96);
    for (name, duration) in phases.named() {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(name);
        text.push_str(";dur=");
        push_milliseconds(&mut text, duration);
    }
    text
}

/// Every synchronous call comes by here, and `write!` takes ten times as long.
fn push_milliseconds(text: &mut String, duration: Duration) {
    let mut digits = *b"00000000000000000.000";
    let mut rest = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut at = digits.len();
    while rest > 0 {
        at -= if digits[at - 1] == b'.' { 2 } else { 1 };
        // A digit is less than 10.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let shown = &digits[at.min(digits.len() - "0.000".len())..];
    text.push_str(std::str::from_utf8(shown).unwrap_or_default());
}

/// A JSON value, and a newline for whoever reads it on a terminal.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // No shape of ours can fail: their keys are strings.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    with_body(status, JSON, bytes.into())
}

/// Nothing.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// A load as it goes on.
pub(super) fn loading(name: String, loading: Loading) -> Answer {
    let mut answer = Response::new(AnswerBody::Loading(Box::new(LoadingLines { name, loading, ended: false })));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// A load that has gone well, told in one line.
pub(super) fn loaded(name: &str) -> Answer {
    with_body(StatusCode::OK, JSON, wire::loaded_line(name))
}

/// What a call left: its output, or why there is none (`docs/api.md` section 4).
pub(super) fn result(call_id: CallId, result: CallResult, headers: &HeaderMap) -> Answer {
    let CallResult { verdict, message: why, content_type, stdout, .. } = result;
    let status = verdict_status(verdict);
    let mut answer = match why {
        Some(why) => message(status, &why, headers),
        None => {
            let labelled = content_type.and_then(|label| HeaderValue::from_str(&label).ok());
            with_body(status, labelled.unwrap_or_else(|| guessed_type(&stdout)), stdout)
        }
    };
    name_call(&mut answer, call_id);
    answer
}

/// Bytes of a guest that it says nothing of.
pub(super) fn guest_bytes(bytes: Bytes) -> Answer {
    with_body(StatusCode::OK, guessed_type(&bytes), bytes)
}

fn guessed_type(bytes: &[u8]) -> HeaderValue {
    if std::str::from_utf8(bytes).is_ok() { TEXT } else { BYTES }
}

/// A call that has not ended.
pub(super) fn open(state: CallState) -> Answer {
    empty(open_status(state))
}

/// The same answer, of which somebody wants to know that it has arrived.
pub(super) fn delivered(answer: Answer, delivery: Delivery) -> Answer {
    answer.map(|body| match body {
        AnswerBody::Whole(bytes) if bytes.is_empty() => {
            // Only the head is to come, and that is written before anything is flushed.
            delivery.begin();
            AnswerBody::Whole(bytes)
        }
        AnswerBody::Whole(bytes) => AnswerBody::Delivered(bytes, Some(delivery)),
        other @ (AnswerBody::Delivered(..) | AnswerBody::Loading(_) | AnswerBody::Log(_)) => other,
    })
}

/// A log as it is read.
pub(super) fn log(entries: LogEntries) -> Answer {
    let mut answer = Response::new(AnswerBody::Log(entries));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// The connection carries the lines of a log from here on, and nothing else.
pub(super) fn upgraded() -> Answer {
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
    answer.extensions_mut().insert(UPGRADED);
    answer
}

/// What the server counts of itself.
pub(super) fn metrics(text: String) -> Answer {
    with_body(StatusCode::OK, OPEN_METRICS, text.into())
}

/// A portion of a log; an empty one is a blank line.
pub(super) fn log_lines(entries: &[Entry]) -> Bytes {
    if entries.is_empty() {
        return Bytes::from_static(b"\n");
    }
    // A slow reader keeps them waiting: no byte more than they have.
    entries.iter().map(wire::log_line).collect::<Vec<_>>().concat().into()
}

fn with_body(status: StatusCode, content_type: HeaderValue, bytes: Bytes) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A load that is told line by line.
pub(super) struct LoadingLines {
    name: String,
    loading: Loading,
    ended: bool,
}

impl LoadingLines {
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Some(step)) = self.loading.progress.poll_recv(context) {
            return Poll::Ready(Some(wire::progress_line(&self.name, step)));
        }
        let result = std::task::ready!(Pin::new(&mut self.loading).poll(context));
        self.ended = true;
        Poll::Ready(Some(match result {
            Ok(()) => wire::loaded_line(&self.name),
            Err(error) => wire::load_error_line(&load_error(error)),
        }))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(std::mem::take(bytes)),
            Self::Delivered(bytes, delivery) => {
                // hyper has all of it then, and flushes nothing before it has taken that over.
                if let Some(delivery) = delivery.take() {
                    delivery.begin();
                }
                Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())
            }
            Self::Log(entries) => std::task::ready!(entries.poll_recv(context)).map(|entries| log_lines(&entries)),
            Self::Loading(lines) => std::task::ready!(lines.poll_line(context)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) | Self::Delivered(bytes, _) => bytes.is_empty(),
            Self::Loading(lines) => lines.ended,
            Self::Log(entries) => entries.is_closed() && entries.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) | Self::Delivered(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Loading(_) | Self::Log(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_milliseconds() {
        let [queue, load, instantiate, run, output] = [12, 0, 1_000, 3_600_000_007, 999].map(Duration::from_micros);
        let phases = Phases { queue, load, instantiate, run, output };
        let told = "queue;dur=0.012, load;dur=0.000, instantiate;dur=1.000, run;dur=3600000.007, output;dur=0.999";
        assert_eq!(server_timing(&phases), told);
        let mut longest = String::new();
        push_milliseconds(&mut longest, Duration::MAX);
        assert_eq!(longest, "18446744073709551.615");
    }
}
