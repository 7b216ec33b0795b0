//! The wire: the only room on the server's side that knows HTTP and JSON.
//!
//! A connection of [`Server`] hands each request to `handle`, which asks `route` what it is, `auth` whether it may be,
//! reads what it carries with `body` and `wire`, calls one verb of the service, and answers. Statuses are chosen
//! in `error` alone.

mod answer;
mod auth;
mod body;
mod delivery;
mod error;
mod handle;
mod query;
mod route;
mod server;
mod stream;
mod view;
mod wire;

pub use error::status_of;
pub use route::Face;
pub use server::{Listener, Server};
pub use view::RequestView;

use crate::service::{Callable, Service};
use std::net::SocketAddr;
use std::sync::Arc;

/// What the handlers share.
pub struct Api {
    /// The verbs.
    pub service: Service,
    /// Where callers find the function endpoint, if not where functions are managed: `http://host:port`.
    pub func_endpoint: Option<String>,
    /// Where it listens, if not there.
    pub func_listen: Option<SocketAddr>,
    /// The memory of the machine, in bytes.
    pub memory_total: u64,
    /// The function that `/` calls, if one is.
    pub root: Option<Root>,
}

/// A function that `/` calls synchronously, for whoever develops it.
pub struct Root {
    /// The function.
    pub function: Arc<Callable>,
    /// Hears of what is refused before it is a call: of its calls the service tells.
    pub on_refused: Box<dyn Fn(&Refused<'_>) + Send + Sync>,
}

/// A request that came to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path; a function's UUID may be in it.
    pub path: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// What the answer says.
    pub why: &'a str,
}

/// Which faces a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faces {
    /// Management, and the function endpoint.
    Both,
    /// That one alone; the other's routes are not there.
    Only(Face),
}

impl Faces {
    fn serve(self, face: Face) -> bool {
        match self {
            Self::Both => matches!(face, Face::Management | Face::Functions),
            Self::Only(only) => only == face,
        }
    }
}
