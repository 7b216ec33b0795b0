//! Functions and images that come, change and go: a change that was acknowledged is there, one that was not is there
//! whole or not at all.

use crate::harness::calls::{asynchronous, id};
use crate::harness::{Request, Server, address, guests};
use crate::journal::Checked;
use crate::load::{Asked, Client, Gone};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;

const NAMES: [&str; 4] = ["comes-and-goes", "changes", "is-rebuilt", "moves"];
/// The image of which a function always runs the newest version.
const DEPLOYED: &str = "deployed";
/// An image that comes and goes.
const PASSING: &str = "passing";

/// A change that was not answered.
#[derive(Debug, Clone, PartialEq)]
enum Unanswered {
    Create,
    Update { refresh: bool },
    Remove,
}

/// A function by name.
#[derive(Debug)]
struct Changing {
    name: &'static str,
    /// As it was answered last.
    known: Option<Value>,
    unanswered: Option<Unanswered>,
    /// Of the last change: each sets fields by it.
    version: u32,
    /// Its calls that were accepted, of which none is ever read.
    calls: Vec<String>,
    /// Those that were not answered.
    unanswered_calls: usize,
}

pub struct Changes {
    functions: Vec<Changing>,
    /// Versions of the deployed image: modules in binary form.
    versions: Vec<Vec<u8>>,
    passing: bool,
    /// Whether the passing image was loaded or removed without an answer.
    passing_unanswered: bool,
    lines: Vec<String>,
}

/// The module that prints its version.
fn version(number: usize) -> Vec<u8> {
    wat::parse_str(guests::prints(&format!("v{number}"))).unwrap()
}

fn image_id(wasm: &[u8]) -> String {
    Sha256::digest(wasm).iter().fold("sha256:".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

impl Changing {
    /// What the change to this version sets.
    fn fields(&self) -> Value {
        json!({"Timeout": 100 + self.version, "Config": {"Image": "echo", "Env": [format!("V={}", self.version)]}})
    }

    /// Whether this is what the unanswered change makes of it.
    fn is_changed(&self, now: &Value) -> bool {
        let fields = self.fields();
        let has_fields = now["Timeout"] == fields["Timeout"] && now["Config"]["Env"] == fields["Config"]["Env"];
        match (&self.unanswered, &self.known) {
            (Some(Unanswered::Create), None) => has_fields,
            (Some(Unanswered::Update { refresh }), Some(before)) => {
                let mut expected = before.clone();
                expected["Timeout"] = fields["Timeout"].clone();
                expected["Config"]["Env"] = fields["Config"]["Env"].clone();
                if *refresh {
                    expected["UUID"] = now["UUID"].clone();
                }
                expected == *now && (before["UUID"] != now["UUID"]) == *refresh
            }
            _ => false,
        }
    }
}

impl Changes {
    /// Makes the images that the functions need.
    pub fn begin(server: &Server) -> Self {
        server.load_bytes(DEPLOYED, &version(0));
        let changing =
            |name| Changing { name, known: None, unanswered: None, version: 0, calls: Vec::new(), unanswered_calls: 0 };
        Self {
            functions: NAMES.map(changing).into(),
            versions: vec![version(0)],
            passing: false,
            passing_unanswered: false,
            lines: Vec::new(),
        }
    }

    fn wrong(&self, what: &str) -> String {
        let from = self.lines.len().saturating_sub(60);
        format!("{what}\n  {}", self.lines[from..].join("\n  "))
    }

    /// Changes something, or calls what changes.
    pub fn change(&mut self, client: &mut Client<'_>) -> Asked {
        if client.dice.percent(12) {
            return self.deploy(client);
        }
        if client.dice.percent(8) {
            return self.pass(client);
        }
        let at = client.dice.below(self.functions.len());
        // What an answer has not told is found out after the kill.
        if self.functions[at].unanswered.is_some() {
            return Ok(Ok(()));
        }
        client.journal().counts.changes += 1;
        match (self.functions[at].known.is_some(), client.dice.below(100)) {
            (false, _) => self.create(client, at),
            (true, 0..45) => self.call(client, at),
            (true, 45..80) => self.update(client, at),
            (true, _) => self.remove(client, at),
        }
    }

    /// Asks for a change of a function; answers what it is now, or that the server is gone or ends.
    fn ask(
        &mut self,
        client: &mut Client<'_>,
        at: usize,
        request: &Request,
        what: Unanswered,
        status: u16,
    ) -> Asked<Value> {
        let changing = &mut self.functions[at];
        self.lines.push(format!("{}: {what:?}, version {}", changing.name, changing.version));
        changing.unanswered = Some(what);
        let Some(answer) = client.ask(request) else { return Ok(Err(Gone)) };
        self.lines.push(format!("{}: {}", changing.name, answer.status));
        if answer.status == 503 {
            // Refused: nothing has changed.
            changing.unanswered = None;
            return Ok(Err(Gone));
        }
        if answer.status != status {
            return Err(self.wrong(&format!("answered {}: {}", answer.status, answer.text())));
        }
        changing.unanswered = None;
        Ok(Ok(if answer.body.is_empty() { Value::Null } else { answer.json() }))
    }

    fn create(&mut self, client: &mut Client<'_>, at: usize) -> Asked {
        self.functions[at].version += 1;
        let mut function = self.functions[at].fields();
        function["Name"] = json!(self.functions[at].name);
        let request = client.request("POST", "/funcs/create").json(&function);
        Ok(self.ask(client, at, &request, Unanswered::Create, 201)?.map(|made| {
            self.functions[at].known = Some(made);
            self.functions[at].calls.clear();
            self.functions[at].unanswered_calls = 0;
        }))
    }

    fn update(&mut self, client: &mut Client<'_>, at: usize) -> Asked {
        let refresh = client.dice.percent(40);
        self.functions[at].version += 1;
        let mut change = self.functions[at].fields();
        change["Refresh"] = json!(refresh);
        let request = client.request("PUT", &format!("/funcs/{}", self.functions[at].name)).json(&change);
        let updated = match self.ask(client, at, &request, Unanswered::Update { refresh }, 200)? {
            Ok(updated) => updated,
            Err(gone) => return Ok(Err(gone)),
        };
        let before = self.functions[at].known.replace(updated);
        if let (true, Some(before)) = (refresh, before) {
            let dead = client.request("POST", asynchronous(&address(&before))).body("dead");
            match client.ask(&dead) {
                None => return Ok(Err(Gone)),
                Some(answer) if [404, 503].contains(&answer.status) => {}
                Some(answer) => return Err(self.wrong(&format!("an old address is answered {}", answer.status))),
            }
        }
        Ok(Ok(()))
    }

    fn remove(&mut self, client: &mut Client<'_>, at: usize) -> Asked {
        let request = client.request("DELETE", &format!("/funcs/{}?force=1", self.functions[at].name));
        Ok(self.ask(client, at, &request, Unanswered::Remove, 204)?.map(|_| self.functions[at].known = None))
    }

    fn call(&mut self, client: &mut Client<'_>, at: usize) -> Asked {
        let Some(known) = &self.functions[at].known else { return Ok(Ok(())) };
        let call =
            client.request("POST", asynchronous(&address(known))).body(format!("of {}", self.functions[at].name));
        let Some(answer) = client.ask(&call) else {
            self.functions[at].unanswered_calls += 1;
            return Ok(Err(Gone));
        };
        match answer.status {
            200 => self.functions[at].calls.push(id(&answer.json())),
            429 | 503 => {}
            other => return Err(self.wrong(&format!("a call of {} is answered {other}", self.functions[at].name))),
        }
        Ok(Ok(()))
    }

    /// Loads another module under the name of an image that a function uses.
    fn deploy(&mut self, client: &mut Client<'_>) -> Asked {
        let number = self.versions.len();
        let wasm = version(number);
        self.versions.push(wasm.clone());
        client.journal().versions.1 = u32::try_from(number).unwrap();
        client.journal().counts.changes += 1;
        self.lines.push(format!("{DEPLOYED}: version {number}"));
        let answer = client.ask(&load(client, DEPLOYED, wasm));
        self.lines.push(format!("{DEPLOYED}: {:?}", answer.as_ref().map(|answer| answer.status)));
        match answer {
            None => Ok(Err(Gone)),
            Some(answer) if answer.status == 200 => {
                client.journal().versions.0 = u32::try_from(number).unwrap();
                Ok(Ok(()))
            }
            Some(answer) if answer.status == 503 => Ok(Ok(())),
            Some(answer) => Err(self.wrong(&format!("a load is answered {}: {}", answer.status, answer.text()))),
        }
    }

    /// Loads an image that no function uses, or removes it.
    fn pass(&mut self, client: &mut Client<'_>) -> Asked {
        if self.passing_unanswered {
            return Ok(Ok(()));
        }
        let request = if self.passing {
            client.request("DELETE", &format!("/images/{PASSING}"))
        } else {
            load(client, PASSING, wat::parse_str(guests::prints("passing")).unwrap())
        };
        client.journal().counts.changes += 1;
        self.passing_unanswered = true;
        self.lines.push(format!("{PASSING}: there: {}", !self.passing));
        let Some(answer) = client.ask(&request) else { return Ok(Err(Gone)) };
        self.passing_unanswered = false;
        match answer.status {
            200 => self.passing = !self.passing,
            503 => {}
            other => return Err(self.wrong(&format!("{PASSING} is answered {other}: {}", answer.text()))),
        }
        Ok(Ok(()))
    }

    /// Compares all of it with what a server has found on disk.
    pub fn check(&mut self, server: &Server, versions: &mut (u32, u32)) -> Checked {
        for at in 0..self.functions.len() {
            self.check_function(server, at)?;
        }
        let found = server.get(&format!("/images/{DEPLOYED}/json")).expect(200).json();
        let number = (versions.0..=versions.1).find(|number| found["Id"] == image_id(&self.versions[*number as usize]));
        let Some(number) = number else {
            return Err(self.wrong(&format!("{DEPLOYED} is none of {versions:?}: {found}")));
        };
        versions.0 = number;
        // A load that was not answered may have been whole, or not be at all.
        let there = server.get(&format!("/images/{PASSING}/json")).status == 200;
        if there != self.passing && !self.passing_unanswered {
            return Err(self.wrong(&format!("{PASSING} is there: {there}")));
        }
        (self.passing, self.passing_unanswered) = (there, false);
        Ok(())
    }

    fn check_function(&mut self, server: &Server, at: usize) -> Checked {
        let changing = &self.functions[at];
        let answer = server.get(&format!("/funcs/{}", changing.name));
        let found = (answer.status == 200).then(|| answer.json());
        let changed = match &found {
            None => changing.unanswered == Some(Unanswered::Remove),
            Some(found) => changing.is_changed(found),
        };
        if found != changing.known && !changed {
            let (known, unanswered) = (&changing.known, &changing.unanswered);
            return Err(self.wrong(&format!("{} is {found:?}, and was {known:?}; {unanswered:?}", changing.name)));
        }
        self.lines.push(format!("{}: found, {}", changing.name, found.is_some()));
        let changing = &mut self.functions[at];
        let was_made = changing.known.is_none() && found.is_some();
        if was_made || found.is_none() {
            changing.calls.clear();
            changing.unanswered_calls = 0;
        }
        (changing.known, changing.unanswered) = (found, None);
        let Some(known) = &changing.known else { return Ok(()) };
        let listed: HashSet<String> = server.list(&address(known)).iter().map(id).collect();
        let lost = changing.calls.iter().find(|call| !listed.contains(*call)).cloned();
        let (name, unanswered) = (changing.name, changing.unanswered_calls);
        if let Some(lost) = lost {
            return Err(self.wrong(&format!("call {lost} of {name} is lost")));
        }
        if listed.len() > self.functions[at].calls.len() + unanswered {
            return Err(self.wrong(&format!("{name} has calls that nobody has made: {}", listed.len())));
        }
        Ok(())
    }

    /// Calls of functions that change, as far as they are known.
    pub fn calls(&self) -> usize {
        self.functions.iter().map(|changing| changing.calls.len()).sum()
    }
}

fn load(client: &Client<'_>, name: &str, wasm: Vec<u8>) -> Request {
    let load = client.request("POST", &format!("/images/load?quiet=1&name={name}"));
    load.header("Content-Type", "application/wasm").body(wasm)
}
