//! What a guest is told of a request that no connection has brought: the same as of one that did.

use super::body::{Ends, variables};
use crate::domain::{Invalid, Variable};
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use std::net::{Ipv4Addr, SocketAddr};

/// Where such a request seems to have arrived: the server's default.
const PORT: u16 = 8080;

/// A request, as people write one by hand.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'a str,
    /// Without `?`.
    pub query: &'a str,
    /// Names in any case; one may come twice.
    pub headers: &'a [(String, String)],
}

impl RequestView<'_> {
    /// The variables that its guest sees, on a server of this machine (`docs/api.md` section 4). `Host` and
    /// `Content-Length` are as a client sends them, unless they are given.
    ///
    /// # Errors
    /// Names what no server would take.
    pub fn variables(self, function: &str, body: &Bytes) -> Result<Vec<Variable>, Invalid> {
        let method = Method::from_bytes(self.method.as_bytes()).ok();
        let method = method.filter(|method| [Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(method));
        let method = method.ok_or_else(|| Invalid::new("method", "must be GET, POST, PUT or DELETE"))?;
        // A guest sees nothing of the path but its own name, which need not be one that a function may have here.
        let target = format!("/{}{}", if self.query.is_empty() { "" } else { "?" }, self.query);
        let has_length = !body.is_empty() || method == Method::POST || method == Method::PUT;
        let request = Request::builder().method(method).uri(target).body(());
        let (mut parts, ()) = request.map_err(|e| Invalid::new("query", e.to_string()))?.into_parts();
        for (name, value) in self.headers {
            let invalid = |e: &dyn std::fmt::Display| Invalid::new(format!("headers.{name}"), e.to_string());
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|e| invalid(&e))?;
            parts.headers.append(header, HeaderValue::from_str(value).map_err(|e| invalid(&e))?);
        }
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        if !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8080"));
        }
        if has_length && !parts.headers.contains_key(CONTENT_LENGTH) {
            parts.headers.insert(CONTENT_LENGTH, body.len().into());
        }
        variables(&parts, Ends { local: at, peer: at }, function, body)
            .map_err(|e| Invalid::new("headers", e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn view<'a>(method: &'a str, query: &'a str, headers: &'a [(String, String)]) -> RequestView<'a> {
        RequestView { method, query, headers }
    }

    fn header(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn a_request_by_hand_is_told_as_one_that_came() {
        let headers = header("X-Id", "7");
        let told = view("PUT", "a=b", &headers).variables("f", &Bytes::from_static(b"abc")).unwrap();
        let told: BTreeMap<_, _> = told.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
        for (name, value) in [
            ("REQUEST_METHOD", "PUT"),
            ("QUERY_STRING", "a=b"),
            ("SCRIPT_NAME", "/call/f"),
            ("CONTENT_LENGTH", "3"),
            ("HTTP_X_ID", "7"),
            ("HTTP_HOST", "127.0.0.1:8080"),
            ("SERVER_PORT", "8080"),
            ("REMOTE_ADDR", "127.0.0.1"),
        ] {
            assert_eq!(told.get(name), Some(&value), "{name}");
        }
        let told = view("GET", "", &[]).variables("f", &Bytes::new()).unwrap();
        assert!(told.iter().all(|(name, _)| name != "CONTENT_LENGTH"));
    }

    #[test]
    fn what_no_server_takes_is_named() {
        let refused = |view: RequestView| view.variables("f", &Bytes::new()).unwrap_err().field;
        assert_eq!(refused(view("PATCH", "", &[])), "method");
        assert_eq!(refused(view("GET", "a b", &[])), "query");
        assert_eq!(refused(view("GET", "", &header("a b", "x"))), "headers.a b");
        assert_eq!(refused(view("GET", "", &header("a", "x\n"))), "headers.a");
        assert_eq!(refused(view("GET", "", &header("a", &"x".repeat(40_000)))), "headers");
    }
}
