//! What a request carries: its body, read within bounds, and what it tells a guest of itself (RFC 3875).

use super::auth::has_body;
use crate::domain::Variable;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Sleep, sleep, timeout};

/// A body of which nothing comes for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Over this time a body must bring at least [`PACE_BYTES_MIN`].
const PACE_WINDOW: Duration = Duration::from_secs(60);
/// 1 KB a second.
const PACE_BYTES_MIN: u64 = 60 << 10;
/// What a request may add to a guest's environment, in bytes of names and values.
pub(super) const VARIABLES_BYTES_MAX: usize = 32 << 10;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("the body came too slowly: at least 1 KB a second, and never nothing for 10 seconds")]
    TooSlow,
    #[error("the body broke off")]
    BrokenOff,
}

/// A body on its way in, that ends after so many bytes, or when it comes too slowly.
pub(super) struct Reader {
    body: Incoming,
    bytes_max: u64,
    read: u64,
    /// After a piece that is not the last: the end of its window, and how much must have been read by then.
    pace: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Reader {
    /// Looks at what the body says of its length, before the client is asked for it.
    pub(super) fn new(body: Incoming, bytes_max: u64) -> Result<Self, BodyError> {
        if body.size_hint().lower() > bytes_max {
            return Err(BodyError::TooLarge { bytes_max });
        }
        Ok(Self { body, bytes_max, read: 0, pace: None })
    }

    /// The most that the body can bring, in bytes: what it says of itself, or what it may.
    pub(super) fn bytes_max(&self) -> u64 {
        self.body.size_hint().upper().unwrap_or(self.bytes_max)
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if self.body.is_end_stream() {
                return Ok(None);
            }
            let frame = timeout(STALL_MAX, self.body.frame());
            let frame = match &mut self.pace {
                None => frame.await,
                Some((window, due)) => tokio::select! {
                    biased;
                    () = window.as_mut() => {
                        if self.read < *due {
                            return Err(BodyError::TooSlow);
                        }
                        self.pace = None;
                        continue;
                    }
                    frame = frame => frame,
                },
            };
            let Some(frame) = frame.map_err(|_| BodyError::TooSlow)? else { return Ok(None) };
            // Trailers say nothing that we need.
            let Ok(data) = frame.map_err(|_| BodyError::BrokenOff)?.into_data() else { continue };
            self.read += data.len() as u64;
            if self.read > self.bytes_max {
                return Err(BodyError::TooLarge { bytes_max: self.bytes_max });
            }
            if !self.body.is_end_stream() && self.pace.is_none() {
                self.pace = Some((Box::pin(sleep(PACE_WINDOW)), self.read + PACE_BYTES_MIN));
            }
            return Ok(Some(data));
        }
    }

    /// All that is left.
    pub(super) async fn whole(mut self) -> Result<Bytes, BodyError> {
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await? else { return Ok(first) };
        let expected = self.body.size_hint().lower().min(self.bytes_max);
        let mut whole = BytesMut::with_capacity(first.len() + second.len() + usize::try_from(expected).unwrap_or(0));
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// What a request tells of itself takes more than [`VARIABLES_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the headers and the query make more than {VARIABLES_BYTES_MAX} bytes of environment")]
pub(super) struct TooManyVariables;

/// Headers that concern one connection and not the guest, and `Proxy`, which programs would take for their own
/// `HTTP_PROXY`.
const NOT_FOR_GUESTS: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy"),
];

/// The ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// The variables that a request gives to its guest (`docs/api.md` section 4). The function's address is not among them:
/// `SCRIPT_NAME` leaves the UUID out.
pub(super) fn variables(
    parts: &Parts,
    ends: Ends,
    function: &str,
    body: &Bytes,
) -> Result<Vec<Variable>, TooManyVariables> {
    let headers = &parts.headers;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut variables: Vec<Variable> = Vec::with_capacity(11 + headers.len());
    let mut put = |name: &'static str, value: String| variables.push((Cow::Borrowed(name), value));
    put("GATEWAY_INTERFACE", "CGI/1.1".to_owned());
    put("REQUEST_METHOD", parts.method.as_str().to_owned());
    put("SCRIPT_NAME", format!("/call/{function}"));
    put("PATH_INFO", String::new());
    put("QUERY_STRING", parts.uri.query().unwrap_or_default().to_owned());
    put("SERVER_NAME", server_name(host, ends));
    put("SERVER_PORT", ends.local.port().to_string());
    put("SERVER_PROTOCOL", format!("{:?}", parts.version));
    put("SERVER_SOFTWARE", concat!("hyperfunc/", env!("CARGO_PKG_VERSION")).to_owned());
    put("REMOTE_ADDR", ends.peer.ip().to_canonical().to_string());
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        put("CONTENT_TYPE", String::from_utf8_lossy(content_type.as_bytes()).into_owned());
    }
    if headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING) {
        put("CONTENT_LENGTH", body.len().to_string());
    }
    put_headers(&mut variables, headers);
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > VARIABLES_BYTES_MAX { Err(TooManyVariables) } else { Ok(variables) }
}

/// Every other header, as `HTTP_NAME`.
fn put_headers(variables: &mut Vec<Variable>, headers: &HeaderMap) {
    for name in headers.keys() {
        let told_already = *name == header::CONTENT_TYPE || *name == header::CONTENT_LENGTH;
        // `X_Foo` would be taken for `X-Foo`.
        let ambiguous = name.as_str().contains('_');
        if told_already || ambiguous || NOT_FOR_GUESTS.contains(name) || is_named_by_connection(headers, name) {
            continue;
        }
        let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut joined = values.next().unwrap_or_default().into_owned();
        for value in values {
            joined.push_str(", ");
            joined.push_str(&value);
        }
        variables.push((variable_name(name), joined));
    }
}

/// `HTTP_USER_AGENT` of `user-agent`; those that nearly every request has are ready made.
fn variable_name(name: &HeaderName) -> Cow<'static, str> {
    Cow::Borrowed(match *name {
        header::HOST => "HTTP_HOST",
        header::USER_AGENT => "HTTP_USER_AGENT",
        header::ACCEPT => "HTTP_ACCEPT",
        header::ACCEPT_ENCODING => "HTTP_ACCEPT_ENCODING",
        _ => {
            let mut made = String::with_capacity(5 + name.as_str().len());
            made.push_str("HTTP_");
            made.extend(name.as_str().chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
            return Cow::Owned(made);
        }
    })
}

fn is_named_by_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

/// The name that the client called us by; without one, our address.
fn server_name(host: &str, ends: Ends) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    if name.is_empty() { ends.local.ip().to_canonical().to_string() } else { name.to_owned() }
}

/// Whether a request wants the connection to carry nothing but the answer: `Connection: Upgrade`, `Upgrade: tcp`.
pub(super) fn asks_for_raw_tcp(headers: &HeaderMap) -> bool {
    let protocol =
        headers.get(header::UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"tcp"));
    protocol && is_named_by_connection(headers, &header::UPGRADE)
}

/// Whether a request brings more than what is taken in, when nobody wants it, without ending the connection.
pub(super) fn has_large_body(headers: &HeaderMap) -> bool {
    const SMALL_BYTES_MAX: u64 = 4 << 10;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    has_body(headers) && length.is_none_or(|bytes| bytes > SMALL_BYTES_MAX)
}

/// Whether everything in front of us reads a request's framing and target the same way. What concerns `Content-Length`,
/// hyper has checked: beside `Transfer-Encoding` it is dropped, and the connection closed after the answer.
pub(super) fn check_framing(parts: &Parts) -> Result<(), &'static str> {
    let headers = &parts.headers;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err("Transfer-Encoding: only chunked, once");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (None, None) if parts.version < hyper::Version::HTTP_11 => Ok(()),
        _ => Err("Host: exactly one, a name or an address and perhaps a port"),
    }
}

fn is_host(host: &[u8]) -> bool {
    std::str::from_utf8(host).is_ok_and(|host| {
        host.is_empty() || host.parse::<hyper::http::uri::Authority>().is_ok_and(|_| !host.contains('@'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use std::collections::BTreeMap;

    fn parts(target: &str, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = Request::builder().method("POST").uri(target);
        for (name, value) in headers {
            request = request.header(*name, hyper::header::HeaderValue::from_bytes(value).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn ends() -> Ends {
        Ends { local: "127.0.0.1:80".parse().unwrap(), peer: "[::ffff:10.0.0.9]:5".parse().unwrap() }
    }

    fn told(target: &str, headers: &[(&str, &[u8])], body: &'static [u8]) -> BTreeMap<String, String> {
        let variables = variables(&parts(target, headers), ends(), "f", &Bytes::from_static(body)).unwrap();
        let told: BTreeMap<_, _> = variables.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        assert_eq!(told.len(), variables.len(), "a name twice");
        told
    }

    #[test]
    fn a_request_is_told_as_cgi_tells_it() {
        let secret = "e62c014e-386c-42ea-8d07-41d44e98cc3d";
        let headers: &[(&str, &[u8])] = &[
            ("host", b"example.org:8080"),
            ("content-type", b"text/plain"),
            ("content-length", b"3"),
            ("x-a", b"1"),
            ("x-a", b"2"),
            ("authorization", b"Basic x"),
            ("cookie", b"c"),
            ("x_a", b"ambiguous"),
            ("proxy", b"http://evil"),
            ("connection", b"close, x-hop"),
            ("x-hop", b"hop"),
            ("te", b"trailers"),
            ("x-latin", b"\xe9"),
        ];
        let told = told(&format!("/call/f/{secret}/sync?a=b&c"), headers, b"abc");
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", "POST"),
            ("SCRIPT_NAME", "/call/f"),
            ("PATH_INFO", ""),
            ("QUERY_STRING", "a=b&c"),
            ("CONTENT_TYPE", "text/plain"),
            ("CONTENT_LENGTH", "3"),
            ("SERVER_NAME", "example.org"),
            ("SERVER_PORT", "80"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REMOTE_ADDR", "10.0.0.9"),
            ("HTTP_HOST", "example.org:8080"),
            ("HTTP_X_A", "1, 2"),
            ("HTTP_AUTHORIZATION", "Basic x"),
            ("HTTP_COOKIE", "c"),
            ("HTTP_X_LATIN", "\u{fffd}"),
        ] {
            assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(told["SERVER_SOFTWARE"].starts_with("hyperfunc/"));
        assert_eq!(told.len(), 17, "{told:?}");
        assert!(told.values().all(|value| !value.contains(secret)));
    }

    #[test]
    fn without_a_body_there_is_no_length_and_without_a_host_the_address() {
        let told = told("/call/f/u/sync", &[], b"");
        assert!(!told.contains_key("CONTENT_LENGTH") && !told.contains_key("CONTENT_TYPE"));
        assert_eq!((told["SERVER_NAME"].as_str(), told["QUERY_STRING"].as_str()), ("127.0.0.1", ""));
        assert_eq!(server_name("[::1]:80", ends()), "[::1]");
        assert_eq!(server_name("[::1]", ends()), "[::1]");
    }

    #[test]
    fn the_environment_of_a_request_is_exact_at_its_limit() {
        let value = |len: usize| {
            let value = vec![b'v'; len];
            variables(&parts("/call/f/u/sync", &[("x-a", &value)]), ends(), "f", &Bytes::new())
        };
        let empty: usize = value(0).unwrap().iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(value(VARIABLES_BYTES_MAX - empty).is_ok());
        assert_eq!(value(VARIABLES_BYTES_MAX - empty + 1), Err(TooManyVariables));
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let host: (&str, &[u8]) = ("host", b"a");
        let te = |value: &'static [u8]| ("transfer-encoding", value);
        let check = |headers: &[(&str, &[u8])]| check_framing(&parts("/", headers)).is_ok();
        assert!(check(&[host]) && check(&[host, te(b"chunked")]) && check(&[("host", b"[::1]:80")]));
        for bad in [
            &[host, te(b"gzip, chunked")] as &[_],
            &[host, te(b"xchunked")],
            &[host, te(b"chunked"), te(b"chunked")],
            &[],
            &[host, host],
            &[("host", b"a b")],
            &[("host", b"a/b")],
            &[("host", b"user@a")],
        ] {
            assert!(!check(bad), "{bad:?}");
        }
    }
}
