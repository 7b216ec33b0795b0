//! What goes back: a text, a JSON value, what a guest wrote, or the progress of a load.

use super::error::{ending_status, load_error, retry_after};
use super::wire;
use crate::domain::CallId;
use crate::service::calls::Ended;
use crate::service::images::Loading;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer.
pub(super) type Answer = Response<AnswerBody>;

/// Clients of 2018 compare it as a string.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");

/// An error as a client sees it that asks for JSON.
#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

/// 509 has no name in any standard.
const OUTPUT_LIMIT: ReasonPhrase = ReasonPhrase::from_static(b"Output Limit Exceeded");

/// The body of an answer.
pub(super) enum AnswerBody {
    /// All of it; taken by the first poll.
    Whole(Bytes),
    /// JSON lines, while a module is loaded.
    Loading(Box<LoadingLines>),
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
pub(super) fn ended(ended: Ended, headers: &HeaderMap) -> Answer {
    let Ended { call_id, function, outcome } = ended;
    let definition = &function.definition;
    let status = ending_status(outcome.ending);
    let mut answer = match outcome.message(definition.size, definition.timeout) {
        Some(text) => message(status, &text, headers),
        None => {
            let labelled = definition.content_type().and_then(|label| HeaderValue::from_str(label).ok());
            let guessed = || if std::str::from_utf8(&outcome.stdout).is_ok() { TEXT } else { BYTES };
            with_body(status, labelled.unwrap_or_else(guessed), outcome.stdout.into())
        }
    };
    name_call(&mut answer, call_id);
    if let Some(seconds) = retry_after(outcome.ending) {
        answer.headers_mut().insert(RETRY_AFTER, seconds);
    }
    answer
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
            Self::Loading(lines) => std::task::ready!(lines.poll_line(context)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Loading(lines) => lines.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Loading(_) => SizeHint::default(),
        }
    }
}
