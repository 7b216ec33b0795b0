//! (method, path) to route: the whole surface, in one match.
//!
//! `docs/api.md` sections 1, 3 and 4.

use hyper::Method;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a request asks for. Names are as the path carries them, decoded and not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Ping,
    Version,
    Info,
    ListFunctions,
    CreateFunction,
    InspectFunction(Cow<'a, str>),
    UpdateFunction(Cow<'a, str>),
    RemoveFunction(Cow<'a, str>),
    ListImages,
    LoadImage,
    InspectImage(String),
    RemoveImage(String),
    FunctionOfCall(Cow<'a, str>),
    /// `/`, where it calls a function.
    CallRoot,
    CallSync(Address<'a>),
    CallAsync(Address<'a>),
    /// What a call has left; waited for or not.
    Output(Address<'a>, Cow<'a, str>, Wait),
    Stderr(Address<'a>, Cow<'a, str>),
    Discard(Address<'a>, Cow<'a, str>),
    Logs(Address<'a>),
    Status(Address<'a>),
    Metrics,
}

/// What names a function to its callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) uuid: Cow<'a, str>,
}

/// Whether to wait for the end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    UntilEnded,
    No,
}

/// The faces of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Changes definitions and images.
    Management,
    /// Calls functions, and reads what calls left.
    Functions,
    /// Says what the server counts of itself.
    Metrics,
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoute {
    #[error("path: {0}")]
    BadPath(&'static str),
    #[error("no such route")]
    Unknown,
    /// As unknown, where somebody may look for it at another path.
    #[error("no such route: the function is called at /")]
    BesideRoot,
    /// The path is there; the methods that it takes.
    #[error("method not allowed: {0} is")]
    Method(&'static str),
}

/// The most segments that a path may have: an image's name may hold many, within its 255 bytes.
const SEGMENTS_MAX: usize = 136;

/// The path of a request, decoded.
pub(super) struct Path<'a> {
    segments: Vec<Cow<'a, str>>,
    /// How many of them say only for which version of the API the client was written.
    versions: usize,
}

impl<'a> Path<'a> {
    /// Takes a path apart.
    ///
    /// # Errors
    /// [`NoRoute::BadPath`] for what something behind or in front of us could read as another path.
    pub(super) fn decode(path: &'a str) -> Result<Self, NoRoute> {
        let path = path.strip_prefix('/').ok_or(NoRoute::BadPath("must begin with /"))?;
        if path.split('/').nth(SEGMENTS_MAX).is_some() {
            return Err(NoRoute::BadPath("has too many segments"));
        }
        let segments: Vec<_> = path.split('/').map(decoded).collect::<Result<_, _>>()?;
        let versions = usize::from(segments.len() > 1 && is_version(&segments[0]));
        Ok(Self { segments, versions })
    }

    /// The face that the path belongs to, whether or not there is a route; `None` is both.
    pub(super) fn face(&self) -> Option<Face> {
        match (self.segments[self.versions].as_ref(), self.versions) {
            ("call" | "output" | "logs" | "status", 0) => Some(Face::Functions),
            ("metrics", 0) => Some(Face::Metrics),
            ("_ping", _) => None,
            _ => Some(Face::Management),
        }
    }

    /// Finds the route of a request.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn route(&self, method: &Method) -> Result<Route<'a>, NoRoute> {
        let words: Vec<&str> = self.segments[self.versions..].iter().map(AsRef::as_ref).collect();
        let segment = |at: usize| self.segments[self.versions + at].clone();
        let address = || Address { name: segment(1), uuid: segment(2) };
        let method = method.as_str();
        match (words.as_slice(), self.versions) {
            (["call", _, _], 0) if is_call(method) => Ok(Route::CallAsync(address())),
            (["call", _, _, "sync"], 0) if is_call(method) => Ok(Route::CallSync(address())),
            (["call", _, _] | ["call", _, _, "sync"], 0) => Err(NoRoute::Method(CALL_METHODS)),
            (["output", _, _, _], 0) => match method {
                "GET" => Ok(Route::Output(address(), segment(3), Wait::No)),
                "DELETE" => Ok(Route::Discard(address(), segment(3))),
                _ => Err(NoRoute::Method("DELETE, GET")),
            },
            (["output", _, _, _, "wait"], 0) => {
                one(method, "GET", Route::Output(address(), segment(3), Wait::UntilEnded))
            }
            (["output", _, _, _, "stderr"], 0) => one(method, "GET", Route::Stderr(address(), segment(3))),
            (["logs", _, _], 0) => one(method, "GET", Route::Logs(address())),
            (["status", _, _], 0) => one(method, "GET", Route::Status(address())),
            (["metrics"], 0) => one(method, "GET", Route::Metrics),
            (["_ping"], _) => one(method, "GET", Route::Ping),
            (["version"], _) => one(method, "GET", Route::Version),
            (["info"], _) => one(method, "GET", Route::Info),
            (["funcs"], _) => one(method, "GET", Route::ListFunctions),
            (["funcs", "create"], _) if method == "POST" => Ok(Route::CreateFunction),
            (["funcs", "call", _], _) => one(method, "GET", Route::FunctionOfCall(segment(2))),
            (["funcs", name], _) => match method {
                "GET" => Ok(Route::InspectFunction(segment(1))),
                "PUT" => Ok(Route::UpdateFunction(segment(1))),
                "DELETE" => Ok(Route::RemoveFunction(segment(1))),
                // A function may be called `create`.
                _ if *name == "create" => Err(NoRoute::Method("DELETE, GET, POST, PUT")),
                _ => Err(NoRoute::Method("DELETE, GET, PUT")),
            },
            (["images", "json"], _) if method == "GET" => Ok(Route::ListImages),
            (["images", "load"], _) if method == "POST" => Ok(Route::LoadImage),
            (["images", name @ .., "json"], _) if !name.is_empty() && method != "DELETE" => {
                one(method, "GET", Route::InspectImage(name.join("/")))
            }
            (["images", name @ ..], _) if !name.is_empty() => match (method, name) {
                ("DELETE", _) => Ok(Route::RemoveImage(name.join("/"))),
                (_, ["json"]) => Err(NoRoute::Method("DELETE, GET")),
                (_, ["load"]) => Err(NoRoute::Method("DELETE, POST")),
                _ => Err(NoRoute::Method("DELETE")),
            },
            _ => Err(NoRoute::Unknown),
        }
    }
}

/// The route of `/`, where it calls a function: no path of the API.
///
/// # Errors
/// When a call is not made with that method.
pub(super) fn root(method: &Method) -> Result<Route<'static>, NoRoute> {
    if is_call(method.as_str()) { Ok(Route::CallRoot) } else { Err(NoRoute::Method(CALL_METHODS)) }
}

/// What [`is_call`] takes.
const CALL_METHODS: &str = "GET, POST, PUT, DELETE";

/// A call may be made with any of these, and its guest sees which.
fn is_call(method: &str) -> bool {
    matches!(method, "GET" | "POST" | "PUT" | "DELETE")
}

fn one<'a>(method: &str, allowed: &'static str, route: Route<'a>) -> Result<Route<'a>, NoRoute> {
    if method == allowed { Ok(route) } else { Err(NoRoute::Method(allowed)) }
}

/// `v1.23`: clients put the version of the API that they were written for in front.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix("v1.").is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()))
}

/// One segment, decoded.
fn decoded(segment: &str) -> Result<Cow<'_, str>, NoRoute> {
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| NoRoute::BadPath("is not UTF-8"))?;
    match text.as_ref() {
        "" => Err(NoRoute::BadPath("has an empty segment")),
        "." | ".." => Err(NoRoute::BadPath("has a segment that is . or ..")),
        segment if segment.contains('/') => Err(NoRoute::BadPath("has a %2F in a segment")),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(method: &str, path: &'static str) -> Result<Route<'static>, NoRoute> {
        Path::decode(path)?.route(&Method::from_bytes(method.as_bytes()).unwrap())
    }

    fn address() -> Address<'static> {
        Address { name: "f".into(), uuid: "u".into() }
    }

    #[test]
    fn what_calls_left_has_its_routes() {
        for (method, path, expected) in [
            ("GET", "/output/f/u/c", Route::Output(address(), "c".into(), Wait::No)),
            ("GET", "/output/f/u/c/wait", Route::Output(address(), "c".into(), Wait::UntilEnded)),
            ("GET", "/output/f/u/c/stderr", Route::Stderr(address(), "c".into())),
            ("DELETE", "/output/f/u/c", Route::Discard(address(), "c".into())),
            ("GET", "/logs/f/u", Route::Logs(address())),
            ("GET", "/status/f/u", Route::Status(address())),
        ] {
            assert_eq!(at(method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn every_route_is_found_and_with_a_version_too() {
        for (method, path, expected) in [
            ("GET", "/_ping", Route::Ping),
            ("GET", "/version", Route::Version),
            ("GET", "/info", Route::Info),
            ("GET", "/funcs", Route::ListFunctions),
            ("POST", "/funcs/create", Route::CreateFunction),
            ("GET", "/funcs/a", Route::InspectFunction("a".into())),
            ("PUT", "/funcs/a", Route::UpdateFunction("a".into())),
            ("DELETE", "/funcs/a", Route::RemoveFunction("a".into())),
            ("GET", "/funcs/create", Route::InspectFunction("create".into())),
            ("GET", "/funcs/call", Route::InspectFunction("call".into())),
            ("GET", "/funcs/call/c", Route::FunctionOfCall("c".into())),
            ("GET", "/images/json", Route::ListImages),
            ("POST", "/images/load", Route::LoadImage),
            ("GET", "/images/ubuntu/json", Route::InspectImage("ubuntu".into())),
            ("GET", "/images/a/b%3A1/json", Route::InspectImage("a/b:1".into())),
            ("GET", "/images/json/json", Route::InspectImage("json".into())),
            ("DELETE", "/images/localhost:5000/a/b:1", Route::RemoveImage("localhost:5000/a/b:1".into())),
            ("DELETE", "/images/json", Route::RemoveImage("json".into())),
        ] {
            assert_eq!(at(method, path), Ok(expected.clone()), "{method} {path}");
            let versioned: &'static str = format!("/v1.23{path}").leak();
            assert_eq!(at(method, versioned), Ok(expected), "{method} {versioned}");
        }
        for method in ["GET", "POST", "PUT", "DELETE"] {
            assert_eq!(at(method, "/call/f/u/sync"), Ok(Route::CallSync(address())));
            assert_eq!(at(method, "/call/f/u"), Ok(Route::CallAsync(address())));
        }
    }

    #[test]
    fn what_is_not_a_route_says_why() {
        for path in ["", "x", "*", "//", "/", "/funcs/", "//funcs", "/funcs//a", "/funcs/..", "/./funcs"] {
            assert!(matches!(at("GET", path), Err(NoRoute::BadPath(_))), "{path}");
        }
        for path in
            ["/funcs/%2e%2e", "/funcs/%2E", "/images/a%2Fb/json", "/funcs/a%2fb", "/funcs/%ff", "/call/f/u/%2Fsync"]
        {
            assert!(matches!(at("GET", path), Err(NoRoute::BadPath(_))), "{path}");
        }
        let deep: &'static str = format!("/images{}/json", "/a".repeat(200)).leak();
        assert!(matches!(at("GET", deep), Err(NoRoute::BadPath(_))));
        for path in [
            "/nothing",
            "/v1.23",
            "/v1.x/funcs",
            "/v2.0/funcs",
            "/images",
            "/funcs/a/b",
            "/v1.23/call/f/u/sync",
            "/call/f",
        ] {
            assert_eq!(at("GET", path), Err(NoRoute::Unknown), "{path}");
        }
    }

    #[test]
    fn another_method_is_told_which_are_allowed() {
        for (method, path, allowed) in [
            ("POST", "/_ping", "GET"),
            ("DELETE", "/version", "GET"),
            ("PUT", "/funcs", "GET"),
            ("PATCH", "/funcs/create", "DELETE, GET, POST, PUT"),
            ("POST", "/funcs/a", "DELETE, GET, PUT"),
            ("PUT", "/images/json", "DELETE, GET"),
            ("GET", "/images/load", "DELETE, POST"),
            ("GET", "/images/ubuntu", "DELETE"),
            ("POST", "/images/ubuntu/json", "GET"),
            ("HEAD", "/call/f/u/sync", "GET, POST, PUT, DELETE"),
            ("HEAD", "/call/f/u", "GET, POST, PUT, DELETE"),
            ("POST", "/output/f/u/c", "DELETE, GET"),
            ("DELETE", "/output/f/u/c/wait", "GET"),
            ("POST", "/output/f/u/c/stderr", "GET"),
            ("POST", "/logs/f/u", "GET"),
            ("POST", "/status/f/u", "GET"),
            ("DELETE", "/funcs/call/c", "GET"),
        ] {
            assert_eq!(at(method, path), Err(NoRoute::Method(allowed)), "{method} {path}");
        }
    }

    #[test]
    fn each_path_has_its_face() {
        let face = |path| Path::decode(path).unwrap().face();
        assert_eq!((face("/_ping"), face("/v1.23/_ping")), (None, None));
        for path in ["/call/f/u/sync", "/%63all/f", "/call/f/u", "/output/f/u/c", "/logs/f/u", "/status/f/u"] {
            assert_eq!(face(path), Some(Face::Functions), "{path}");
        }
        assert_eq!(face("/metrics"), Some(Face::Metrics));
        for path in ["/funcs", "/v1.23/call/f/u/sync", "/nothing", "/v1.23"] {
            assert_eq!(face(path), Some(Face::Management), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_is_read_as_another(path in "(/|%2[fFeE]|[.a-z:%]){0,40}") {
            let path = format!("/{path}");
            if let Ok(route) = Path::decode(&path).and_then(|path| path.route(&Method::GET)) {
                let name = match &route {
                    Route::InspectFunction(name) => name.to_string(),
                    Route::InspectImage(name) => name.clone(),
                    _ => return Ok(()),
                };
                prop_assert!(!name.split('/').any(|segment| matches!(segment, "" | "." | "..")));
            }
        }
    }
}
