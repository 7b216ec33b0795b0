//! What goes back: a text, a JSON value, what a guest wrote, or the progress of a load.

use super::error::{ending_status, load_error, retry_after};
use super::wire;
use crate::service::Callable;
use crate::service::calls::Ended;
use crate::service::images::Loading;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
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

/// The error message of a client that asked for JSON.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    pub(super) message: &'a str,
}

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

/// One line of text.
pub(super) fn text(status: StatusCode, line: &str) -> Answer {
    with_body(status, TEXT, Bytes::from(format!("{line}\n")))
}

/// A JSON value, and a newline for whoever reads it on a terminal.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            with_body(status, JSON, bytes.into())
        }
        // No shape of ours can fail: their keys are strings.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "server error"),
    }
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
pub(super) fn ended(function: &Callable, ended: Ended) -> Answer {
    let Ended { call_id, outcome } = ended;
    let definition = &function.definition;
    let status = ending_status(outcome.ending);
    let mut answer = match outcome.message(definition.size, definition.timeout) {
        Some(message) => text(status, &message),
        None => {
            let labelled = definition.content_type().and_then(|label| HeaderValue::from_str(label).ok());
            let guessed = || if std::str::from_utf8(&outcome.stdout).is_ok() { TEXT } else { BYTES };
            with_body(status, labelled.unwrap_or_else(guessed), outcome.stdout.into())
        }
    };
    let headers = answer.headers_mut();
    if let Ok(call_id) = HeaderValue::from_str(&call_id.to_string()) {
        headers.insert(CALL_ID, call_id);
    }
    if let Some(seconds) = retry_after(outcome.ending) {
        headers.insert(RETRY_AFTER, seconds);
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
