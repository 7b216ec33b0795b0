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
        let reply = self.try_reply()?.expect(200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let accepted = reply.json();
        assert_eq!(accepted.as_object().unwrap().len(), 1, "{accepted}");
        Some(accepted["CallId"].as_str().unwrap().to_owned())
    }
}

impl Server {
    /// Makes a call that nobody waits for, and returns its id.
    #[track_caller]
    pub fn enqueue(&self, address: &str, body: &str) -> String {
        Connection::open(self.functions).try_enqueue(self, address, body.as_bytes()).expect("an answer")
    }

    /// What there is of a call now.
    pub fn output(&self, address: &str, call_id: &str) -> Reply {
        Request::new(self.functions, "GET", &output(address, call_id)).send()
    }

    /// Waits for the end of a call, and reads what it left.
    pub fn wait(&self, address: &str, call_id: &str) -> Reply {
        Request::new(self.functions, "GET", &format!("{}/wait", output(address, call_id))).send()
    }

    /// How the calls of a function stand.
    #[track_caller]
    pub fn stand(&self, address: &str) -> Stand {
        Stand::of(&Request::new(self.functions, "GET", &status(address)).send().expect(200).json())
    }

    /// Waits until the calls of a function stand so.
    #[track_caller]
    pub fn wait_for_stand(&self, address: &str, stand: Stand) {
        let mut last = Stand::default();
        eventually(&format!("{stand:?}"), || {
            last = self.stand(address);
            last == stand
        });
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
pub struct Stand {
    pub pending: u64,
    pub running: u64,
    pub finished: u64,
    pub failed: u64,
}

impl Stand {
    /// Checks that the total is the sum.
    #[track_caller]
    pub fn of(status: &Value) -> Self {
        let number = |key: &str| status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"));
        let stand = Self {
            pending: number("Pending"),
            running: number("Running"),
            finished: number("Finished"),
            failed: number("Failed"),
        };
        assert_eq!(number("Total"), stand.total(), "{status}");
        stand
    }

    pub fn total(self) -> u64 {
        self.pending + self.running + self.finished + self.failed
    }
}

/// The id of a listed call.
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
        let id = reply.expect(200).json()["CallId"].as_str().unwrap().to_owned();
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

    /// How many calls of a function are pending, running, finished and failed.
    #[track_caller]
    pub fn tally(&self, target: &str) -> [u64; 4] {
        let status = self.get(&status(target)).expect(200).json();
        let tally = ["Pending", "Running", "Finished", "Failed"].map(|state| status[state].as_u64().unwrap());
        assert_eq!(status["Total"], tally.iter().sum::<u64>());
        tally
    }
}
