//! Who may manage (`docs/api.md` section 7): while the server listens for this machine alone, whoever is on it.
//!
//! A browser on this machine is not its user: what a foreign page sends carries a foreign `Host` (after DNS was
//! rebound), an `Origin`, a `Sec-Fetch-Site`, or a content type that needs no preflight. Each is refused.

use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING};
use std::net::{Ipv4Addr, Ipv6Addr};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a management request is refused before anything looks at what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("Host: open to this machine alone: call it localhost, 127.0.0.1 or [::1]")]
    Host,
    #[error("Origin: not open to pages of other sites")]
    Origin,
    #[error("Sec-Fetch-Site: not open to pages of other sites")]
    Site,
    #[error("Content-Type: a body is sent as application/json or application/wasm")]
    MediaType,
}

/// Checks a management request by its headers; see the module.
pub(super) fn open_to_this_machine(headers: &HeaderMap) -> Result<(), Denied> {
    let host = called_as_this_machine(headers)?;
    let own = |origin: &str| origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host));
    if !all(headers, &ORIGIN, own) {
        return Err(Denied::Origin);
    }
    if !all(headers, &SEC_FETCH_SITE, |site| matches!(site, "none" | "same-origin")) {
        return Err(Denied::Site);
    }
    let is_ours = ["application/json", "application/wasm"].iter().any(|media_type| is_media_type(headers, media_type));
    if has_body(headers) && !is_ours {
        return Err(Denied::MediaType);
    }
    Ok(())
}

/// The `Host` of a request, if it is a name of this machine.
pub(super) fn called_as_this_machine(headers: &HeaderMap) -> Result<&str, Denied> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.filter(|host| is_this_machine(host)).ok_or(Denied::Host)
}

/// Whether every value of a header, if there is any, is allowed.
fn all(headers: &HeaderMap, name: &HeaderName, allowed: impl Fn(&str) -> bool) -> bool {
    headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(&allowed))
}

/// Whether a `Host` (a name or an address, and perhaps a port) is this machine's.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if port.is_empty() || port.starts_with(':') => {
            return address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
        }
        Some(_) => return false,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a request brings a body that is not empty.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Whether `Content-Type`, its parameters left out, is this one.
pub(super) fn is_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(media_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&'static str, &'static str)]) -> Result<(), Denied> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        open_to_this_machine(&headers)
    }

    #[test]
    fn this_machine_is_let_in_by_each_of_its_names() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:80"] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["example.org", "localhost.example.org", "10.0.0.1", "127.0.0.1.example.org", "[::2]", "[::1]x", "::1", ""]
        {
            assert_eq!(check(&[("host", host)]), Err(Denied::Host), "{host}");
        }
        assert_eq!(check(&[]), Err(Denied::Host));
    }

    #[test]
    fn a_foreign_page_is_kept_out() {
        let local = ("host", "localhost:8080");
        for (name, value, expected) in [
            ("origin", "http://localhost:8080", Ok(())),
            ("origin", "http://localhost:81", Err(Denied::Origin)),
            ("origin", "https://localhost:8080", Err(Denied::Origin)),
            ("origin", "http://example.org", Err(Denied::Origin)),
            ("origin", "null", Err(Denied::Origin)),
            ("sec-fetch-site", "none", Ok(())),
            ("sec-fetch-site", "same-origin", Ok(())),
            ("sec-fetch-site", "same-site", Err(Denied::Site)),
            ("sec-fetch-site", "cross-site", Err(Denied::Site)),
        ] {
            assert_eq!(check(&[local, (name, value)]), expected, "{name}: {value}");
        }
        assert_eq!(check(&[local, ("origin", "http://localhost:8080"), ("origin", "null")]), Err(Denied::Origin));
    }

    #[test]
    fn a_body_needs_a_type_that_a_form_cannot_have() {
        let local = ("host", "localhost");
        let length = ("content-length", "2");
        for (media_type, expected) in [
            ("application/json", Ok(())),
            ("Application/JSON; charset=utf-8", Ok(())),
            ("application/wasm", Ok(())),
            ("text/plain", Err(Denied::MediaType)),
            ("application/x-www-form-urlencoded", Err(Denied::MediaType)),
        ] {
            assert_eq!(check(&[local, length, ("content-type", media_type)]), expected, "{media_type}");
        }
        assert_eq!(check(&[local, length]), Err(Denied::MediaType));
        assert_eq!(check(&[local, ("transfer-encoding", "chunked")]), Err(Denied::MediaType));
        assert_eq!(check(&[local, ("content-length", "0")]), Ok(()));
    }
}
