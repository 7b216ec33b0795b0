//! Every way to be refused or to fail, and every ending of a call, to its status and its text: the one table
//! (`docs/api.md` sections 1, 3 and 4).

use super::answer::{self, Answer};
use super::auth::Denied;
use super::body::{BodyError, TooManyVariables, has_large_body};
use super::route::NoRoute;
use crate::domain::{Ending, Invalid};
use crate::service::{self, Busy, CallError, Failure, NotRun};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderMap, HeaderValue, RETRY_AFTER};

/// Why a request is not answered as it was meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    #[error("{0}")]
    Framing(&'static str),
    #[error("the path and the query are longer than {0} bytes")]
    TargetTooLong(usize),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("Content-Type: must be {0}")]
    MediaType(&'static str),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Variables(#[from] TooManyVariables),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Service(#[from] service::Error),
    /// To a stranger everything that can be wrong with an address looks like this.
    #[error("no such function")]
    NoSuchAddress,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the server is about to end")]
    Draining,
}

/// What a client that was told to come back later should wait, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// All that a client learns of a fault of ours: the cause is in the server's log.
const SERVER_ERROR: &str = "server error";

impl Error {
    /// The answer: a line of text, or JSON for a client that asks for it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Answer {
        let status = self.status();
        let mut answer = answer::message(status, &self.text(), headers);
        if let Self::NoRoute(NoRoute::Method(allowed)) = self {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Self::Call(CallError::NotRun { call_id, .. }) = self {
            answer::name_call(&mut answer, *call_id);
        }
        if self.ends_connection() || (self.leaves_body() && has_large_body(headers)) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute(NoRoute::BadPath(_)) | Self::Framing(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute(NoRoute::Unknown | NoRoute::NotSync) | Self::NoSuchAddress => StatusCode::NOT_FOUND,
            Self::NoRoute(NoRoute::Method(_)) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong(_) => StatusCode::URI_TOO_LONG,
            Self::Denied(Denied::Host | Denied::Origin | Denied::Site) => StatusCode::FORBIDDEN,
            Self::Denied(Denied::MediaType) | Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::BrokenOff) => StatusCode::BAD_REQUEST,
            Self::Variables(TooManyVariables) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Service(error) => service_status(error),
            Self::Call(CallError::Busy(busy)) => busy_status(*busy),
            Self::Call(CallError::NotRun { why: NotRun::NoSuchImage(_) | NotRun::DoesNotFit(_), .. }) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Call(CallError::NotRun { why: NotRun::Failure(failure), .. }) => failure_status(failure),
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What a client may know.
    fn text(&self) -> String {
        match self {
            Self::Service(service::Error::Failure(Failure::DiskFull)) => Failure::DiskFull.to_string(),
            Self::Service(service::Error::Failure(_)) => SERVER_ERROR.to_owned(),
            Self::Call(CallError::NotRun { call_id, why: NotRun::Failure(_) }) => {
                format!("{SERVER_ERROR}, call {call_id}")
            }
            Self::Call(CallError::NotRun { why, .. }) => why.to_string(),
            Self::Call(CallError::Busy(busy)) => busy_text(*busy).to_owned(),
            Self::NoRoute(_)
            | Self::Framing(_)
            | Self::TargetTooLong(_)
            | Self::Denied(_)
            | Self::MediaType(_)
            | Self::Body(_)
            | Self::Variables(_)
            | Self::Invalid(_)
            | Self::Service(_)
            | Self::NoSuchAddress
            | Self::Draining => self.to_string(),
        }
    }

    /// Whether it was said before anybody read the request's body.
    fn leaves_body(&self) -> bool {
        matches!(
            self,
            Self::NoRoute(_) | Self::TargetTooLong(_) | Self::Denied(_) | Self::MediaType(_) | Self::NoSuchAddress
        )
    }

    /// Whether what the client sends next could be taken for something that it is not, or is not wanted.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::Framing(_) | Self::Body(_) | Self::Draining | Self::Call(CallError::Busy(Busy::Draining)))
    }
}

fn service_status(error: &service::Error) -> StatusCode {
    use service::Error as E;
    match error {
        E::Invalid(_) | E::Rejected(_) => StatusCode::BAD_REQUEST,
        E::NoSuchFunction(_) | E::NoSuchImage(_) => StatusCode::NOT_FOUND,
        E::NameTaken(_) | E::FunctionBusy(_) | E::ImageInUse(_) => StatusCode::CONFLICT,
        E::QuotaFull { .. } => StatusCode::FORBIDDEN,
        E::TooManyLoads => StatusCode::SERVICE_UNAVAILABLE,
        E::Failure(failure) => failure_status(failure),
    }
}

fn failure_status(failure: &Failure) -> StatusCode {
    match failure {
        Failure::DiskFull => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Loading(failure) => failure_status(failure),
        Failure::Store(_) | Failure::Image(_) | Failure::Engine(_) | Failure::Rejected(_) | Failure::Internal(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn busy_status(busy: Busy) -> StatusCode {
    match busy {
        Busy::PendingFull => StatusCode::TOO_MANY_REQUESTS,
        Busy::WaitedTooLong | Busy::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Busy::Removed => StatusCode::NOT_FOUND,
    }
}

fn busy_text(busy: Busy) -> &'static str {
    match busy {
        Busy::PendingFull => "too many calls are waiting already",
        Busy::WaitedTooLong => "the call has waited too long for others to end",
        Busy::Draining => "the server is about to end",
        Busy::Removed => "no such function",
    }
}

/// The status of a synchronous call that ran.
pub(super) fn ending_status(ending: Ending) -> StatusCode {
    match ending {
        Ending::Finished => StatusCode::OK,
        Ending::ExitStatus(_) | Ending::Trapped(_) | Ending::MemoryLimit | Ending::Cancelled => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Ending::TimedOut | Ending::OutOfFuel => StatusCode::GATEWAY_TIMEOUT,
        // 509, which no standard has.
        Ending::StdoutLimit => StatusCode::from_u16(509).unwrap_or(StatusCode::INSUFFICIENT_STORAGE),
        Ending::MemoryBudget => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Whether a call that ended so may be tried again later.
pub(super) fn retry_after(ending: Ending) -> Option<HeaderValue> {
    (ending == Ending::MemoryBudget).then_some(RETRY_AFTER_SECONDS)
}

/// What a client may know of a load that has failed.
pub(super) fn load_error(error: service::Error) -> String {
    Error::from(error).text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Trap;

    #[test]
    fn endings_have_the_statuses_of_the_documentation() {
        for (ending, status) in [
            (Ending::Finished, 200),
            (Ending::ExitStatus(3), 500),
            (Ending::Trapped(Trap::Unreachable), 500),
            (Ending::MemoryLimit, 500),
            (Ending::Cancelled, 500),
            (Ending::TimedOut, 504),
            (Ending::OutOfFuel, 504),
            (Ending::StdoutLimit, 509),
            (Ending::MemoryBudget, 503),
        ] {
            assert_eq!(ending_status(ending).as_u16(), status, "{ending:?}");
        }
    }

    #[test]
    fn a_fault_of_ours_tells_nothing_of_its_cause() {
        let secret = || Failure::Internal("/path/of/the/machine".to_owned());
        let error = Error::from(service::Error::from(secret()));
        assert_eq!((error.status().as_u16(), error.text().as_str()), (500, "server error"));
        let call_id = crate::domain::CallId::new(uuid::Uuid::nil());
        let error = Error::from(CallError::NotRun { call_id, why: NotRun::Failure(secret()) });
        assert_eq!(error.text(), format!("server error, call {call_id}"));
    }
}
