//! Every way to be refused or to fail, and every ending of a call, to its status and its text: the one table
//! (`docs/api.md` sections 1, 3 and 4).

use super::answer::{self, Answer};
use super::auth::Denied;
use super::body::{BodyError, TooManyVariables, has_large_body};
use super::route::NoRoute;
use crate::domain::{CallState, Invalid, Verdict};
use crate::service::logs::LogError;
use crate::service::{self, Busy, CallError, Failure, NotRun, SERVER_ERROR};
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
    /// There is no such call, or its result was read.
    #[error("no such call")]
    NoSuchCall,
    /// The result of the call is not kept any more.
    #[error("the output of this call is not kept any more")]
    Gone,
    /// We failed, with nobody's call.
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error("the server is about to end")]
    Draining,
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Busy(busy) => Self::Call(CallError::Busy(busy)),
            LogError::Failure(failure) => Self::Failure(failure),
        }
    }
}

/// What a client that was told to come back later should wait, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

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
            Self::NoRoute(NoRoute::Unknown | NoRoute::BesideRoot) | Self::NoSuchAddress | Self::NoSuchCall => {
                StatusCode::NOT_FOUND
            }
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
            Self::Call(CallError::NotRun { why: NotRun::NoMemory, .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Call(CallError::NotRun { why: NotRun::Failure(failure), .. }) | Self::Failure(failure) => {
                failure_status(failure)
            }
            Self::Gone => StatusCode::GONE,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What a client may know.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Service(service::Error::Failure(Failure::DiskFull)) | Self::Failure(Failure::DiskFull) => {
                Failure::DiskFull.to_string()
            }
            Self::Service(service::Error::Failure(_)) | Self::Failure(_) => SERVER_ERROR.to_owned(),
            Self::Call(CallError::NotRun { call_id, why }) => why.message(*call_id),
            Self::Call(CallError::Busy(_)) => self.to_string(),
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
            | Self::NoSuchCall
            | Self::Gone
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
        Busy::PendingFull | Busy::KeysFull => StatusCode::TOO_MANY_REQUESTS,
        Busy::TooManyReaders | Busy::WaitedTooLong | Busy::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Busy::Removed => StatusCode::NOT_FOUND,
    }
}

/// The number of the status that tells of such an end.
pub fn status_of(verdict: Verdict) -> u16 {
    verdict_status(verdict).as_u16()
}

/// The status of a call that has ended.
pub(super) fn verdict_status(verdict: Verdict) -> StatusCode {
    match verdict {
        Verdict::Finished => StatusCode::OK,
        Verdict::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Verdict::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        // 509, which no standard has.
        Verdict::OutputLimit => StatusCode::from_u16(509).unwrap_or(StatusCode::INSUFFICIENT_STORAGE),
    }
}

/// The status of a call that has not ended.
pub(super) fn open_status(state: CallState) -> StatusCode {
    match state {
        CallState::Running => StatusCode::CREATED,
        CallState::Pending | CallState::Finished | CallState::Failed => StatusCode::ACCEPTED,
    }
}

/// What a client may know of a load that has failed.
pub(super) fn load_error(error: service::Error) -> String {
    Error::from(error).text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_calls_have_the_statuses_of_the_documentation() {
        let statuses = Verdict::ALL.map(|verdict| verdict_status(verdict).as_u16());
        assert_eq!(statuses, [200, 500, 504, 509]);
        let open = [CallState::Running, CallState::Pending].map(|state| open_status(state).as_u16());
        assert_eq!(open, [201, 202]);
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
