//! Calls that nobody waits for: made, listed, waited for and read.

use super::{Connection, Reply, Request, Server, eventually};
use serde_json::{Value, json};

/// The address of a function whose calls nobody waits for, from that of its synchronous ones.
pub fn asynchronous(address: &str) -> &str {
    address.strip_suffix("/sync").unwrap()
}

/// Where a call's output is.
pub fn output(address: &str, call_id: &str) -> String {
    format!("{}/{call_id}", asynchronous(address).replacen("/call/", "/output/", 1))
}

/// Where it is said how the calls of a function stand.
pub fn status(address: &str) -> String {
    asynchronous(address).replacen("/call/", "/status/", 1)
}

impl Connection {
    /// Makes a call that nobody waits for, and returns its id; `None` if the server is gone before it says one.
    pub fn try_enqueue(&mut self, server: &Server, address: &str, body: &[u8]) -> Option<String> {
        self.send(&Request::new(server.functions, "POST", asynchronous(address)).body(body));
        Some(accepted_id(&self.try_reply()?))
    }
}

/// The id of the call that an answer tells of, and nothing else.
#[track_caller]
fn accepted_id(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    let accepted = reply.json();
    assert_eq!(accepted.as_object().unwrap().len(), 1, "{accepted}");
    id(&accepted)
}

impl Server {
    /// Makes a call that nobody waits for, and returns its id.
    #[track_caller]
    pub fn enqueue(&self, address: &str, body: &str) -> String {
        Connection::open(self.functions).try_enqueue(self, address, body.as_bytes()).expect("an answer")
    }

    /// Asks on a connection of its own, and leaves the answer for later.
    pub fn begin(&self, method: &str, target: &str) -> Connection {
        let mut connection = Connection::open(self.functions);
        connection.send(&Request::new(self.functions, method, target));
        connection
    }

    /// What there is of a call now.
    pub fn output(&self, address: &str, call_id: &str) -> Reply {
        Request::new(self.functions, "GET", &output(address, call_id)).send()
    }

    /// Waits for the end of a call, and reads what it left.
    pub fn wait(&self, address: &str, call_id: &str) -> Reply {
        Request::new(self.functions, "GET", &format!("{}/wait", output(address, call_id))).send()
    }

    /// How many calls of a function are known.
    #[track_caller]
    pub fn tally(&self, address: &str) -> Tally {
        Tally::of(&Request::new(self.functions, "GET", &status(address)).send().expect(200).json())
    }

    /// Waits until so many calls of a function are known.
    #[track_caller]
    pub fn wait_for_tally(&self, address: &str, tally: Tally) {
        eventually(&format!("{tally:?}"), || self.tally(address) == tally);
    }

    /// The calls of a function that are known, oldest first.
    #[track_caller]
    pub fn list(&self, address: &str) -> Vec<Value> {
        let list = format!("{}?list=1&limit=10000", status(address));
        let status = Request::new(self.functions, "GET", &list).send().expect(200).json();
        let list = status["List"].as_array().unwrap().clone();
        assert!(list.len() < 10_000, "there may be more");
        list
    }
}

/// How many calls of a function are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub pending: u64,
    pub running: u64,
    pub finished: u64,
    pub failed: u64,
}

impl Tally {
    /// Checks that the total is the sum.
    #[track_caller]
    pub fn of(status: &Value) -> Self {
        let number = |key: &str| status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"));
        let tally = Self {
            pending: number("Pending"),
            running: number("Running"),
            finished: number("Finished"),
            failed: number("Failed"),
        };
        assert_eq!(number("Total"), tally.total(), "{status}");
        tally
    }

    pub fn total(self) -> u64 {
        self.pending + self.running + self.finished + self.failed
    }
}

/// Pending, running, finished and failed.
impl PartialEq<[u64; 4]> for Tally {
    fn eq(&self, other: &[u64; 4]) -> bool {
        [self.pending, self.running, self.finished, self.failed] == *other
    }
}

/// The id of a call in an answer.
pub fn id(listed: &Value) -> String {
    listed["CallId"].as_str().unwrap().to_owned()
}

/// Longer than any test takes.
pub const A_YEAR: u64 = 365 * 86_400 * 1_000_000_000;

/// A call that was accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: String,
    /// Where its output is.
    pub output: String,
}

impl Accepted {
    /// The call that an answer tells of.
    #[track_caller]
    pub fn of(target: &str, reply: Reply) -> Self {
        let id = accepted_id(&reply);
        Self { output: output(target, &id), id }
    }

    /// Where its end is waited for.
    pub fn wait(&self) -> String {
        format!("{}/wait", self.output)
    }
}

impl Server {
    /// Calls a function without waiting.
    #[track_caller]
    pub fn accept(&self, target: &str, body: impl Into<Vec<u8>>) -> Accepted {
        Accepted::of(target, Request::new(self.functions, "POST", asynchronous(target)).body(body).send())
    }

    /// Waits for the end of a call, and leaves what it left.
    #[track_caller]
    pub fn ended_call(&self, call: &Accepted) -> Reply {
        self.get(&format!("{}?keep=1", call.wait()))
    }

    /// A call that runs until [`Server::cancel`].
    pub fn block(&self) -> Accepted {
        let target = self.function("blocker", &super::guests::sleeps(A_YEAR), json!({}));
        self.accept_and_run(&target)
    }

    /// Calls a function without waiting, and waits until the call runs.
    #[track_caller]
    pub fn accept_and_run(&self, target: &str) -> Accepted {
        let call = self.accept(target, "");
        self.wait_until_it_runs(&call);
        call
    }

    /// Waits until a call runs: it has its slot a moment before.
    pub fn wait_until_it_runs(&self, call: &Accepted) {
        eventually("the call runs", || self.get(&call.output).status == 201);
    }

    /// Ends a call that is open.
    #[track_caller]
    pub fn cancel(&self, call: &Accepted) {
        self.request("DELETE", &call.output).send().expect(204);
    }
}
