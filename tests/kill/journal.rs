//! What was answered, call by call, and whether what is answered now agrees with it (`docs/api.md` section 5).
//!
//! What can be decided from outside, and what not:
//!
//! - A call whose answer was lost may exist or not. It is adopted when a list shows it, if somebody has sent such a call
//!   and has no answer.
//! - A result that was read may come again after a kill, until a server that was started since does not list it; from
//!   then on it must never come back.
//! - Starts are numbered for the guest, which writes its number. How many servers, kills and drains a call has lived
//!   through bounds that number from above, and says when "interrupted" may be its end.
//! - The first start of a call that was started again is not known: its order is judged by what bounds it.

mod hindsight;

use crate::harness::Reply;
use crate::harness::calls::id;
use crate::harness::guests::Stamped;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// A violation, as it is printed.
pub type Checked<T = ()> = Result<T, String>;

/// What a function leaves of each of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// When it started, the number of its start, and its stdin.
    Stamp,
    /// A failure that says this.
    Failure(&'static str),
    /// An end because of too much output.
    TooMuch,
    /// So many bytes, of which few fit into what its results may keep.
    Large(usize),
    /// The version of the image that it ran.
    Version,
}

/// A function that is there all the time.
pub struct Function {
    pub name: &'static str,
    /// Where it is called.
    pub address: String,
    pub leaves: Leaves,
    /// It runs one call at a time.
    pub is_ordered: bool,
}

/// What a data directory has lived through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lives {
    /// Servers that were started.
    pub starts: u32,
    /// Servers that were killed.
    pub kills: u32,
    /// Servers that were asked to end.
    pub drains: u32,
}

/// How a result is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// To its end: it is forgotten then.
    Whole,
    /// It stays.
    Keeping,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    status: u16,
    body: Vec<u8>,
}

/// How far we have gone to get rid of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Discarded {
    No,
    Asked,
    Done,
}

pub struct Call {
    pub id: String,
    pub function: usize,
    /// What was sent with it; of one that was adopted it is not known before its end.
    body: Option<String>,
    /// When it was sent, and answered; neither of one that was adopted.
    sent: Option<u64>,
    answered: Option<u64>,
    born: Lives,
    /// The version that its image had for certain when it was sent.
    version: u32,
    end: Option<End>,
    /// By the wall clock.
    end_seen_ms: i64,
    stamp: Option<(u64, u8)>,
    /// Whether that start was made by a server that runs one call at a time.
    is_single: bool,
    was_read: bool,
    discarded: Discarded,
    /// It is not on disk any more.
    is_absent: bool,
    /// Its result was rotated out.
    is_gone: bool,
    is_busy: bool,
    lines: Vec<String>,
}

/// What is printed at the end.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: usize,
    pub adopted: usize,
    pub again: usize,
    pub refused: usize,
    pub synchronous: usize,
    pub read: usize,
    pub half_read: usize,
    pub rotated: usize,
    pub interrupted: usize,
    pub discarded: usize,
    pub started_again: usize,
    pub changes: usize,
    pub orders: usize,
    pub log_lines: usize,
}

/// A key, and the call that it means once we know that.
struct Key {
    function: usize,
    call: Option<String>,
}

pub struct Journal {
    pub functions: Vec<Function>,
    pub calls: Vec<Call>,
    by_id: HashMap<String, usize>,
    /// Calls that may still be on disk.
    live: Vec<usize>,
    /// What was sent without an answer, by function.
    unanswered: Vec<Vec<String>>,
    refused: HashSet<String>,
    synchronous: HashSet<String>,
    keys: Vec<Key>,
    pub lives: Lives,
    /// As it was when lists were last compared: what is adopted is younger.
    compared: Lives,
    /// When servers that run one call at a time were ready and when they were killed, by the guests' clock.
    single: Vec<(u64, u64)>,
    /// The image's version that was acknowledged last, and the last one that was sent.
    pub versions: (u32, u32),
    pub counts: Counts,
    began: Instant,
    bodies: usize,
}

/// Nanoseconds, as guests have them.
pub fn wall_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

impl Journal {
    pub fn new(functions: Vec<Function>) -> Self {
        Self {
            unanswered: functions.iter().map(|_| Vec::new()).collect(),
            functions,
            calls: Vec::new(),
            by_id: HashMap::new(),
            live: Vec::new(),
            refused: HashSet::new(),
            synchronous: HashSet::new(),
            keys: Vec::new(),
            lives: Lives::default(),
            compared: Lives::default(),
            single: Vec::new(),
            versions: (0, 0),
            counts: Counts::default(),
            began: Instant::now(),
            bodies: 0,
        }
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    /// A body that nobody has sent.
    pub fn body(&mut self) -> String {
        self.bodies += 1;
        format!("body {}.", self.bodies)
    }

    /// A key for a call of a function: a new one, or one that was used before.
    pub fn key(&mut self, function: usize, choice: Option<usize>) -> (usize, usize, String) {
        let number = match choice {
            Some(choice) if !self.keys.is_empty() => choice % self.keys.len(),
            _ => {
                self.keys.push(Key { function, call: None });
                self.keys.len() - 1
            }
        };
        (number, self.keys[number].function, format!("key {number}."))
    }

    /// The journal's lines of a call, with what is wrong with it.
    pub fn wrong(&self, call: usize, what: &str) -> String {
        let call = &self.calls[call];
        let name = self.functions[call.function].name;
        format!("call {} of {name}: {what}\n  {}", call.id, call.lines.join("\n  "))
    }

    fn note(&mut self, call: usize, what: String) {
        let line = format!("{:.3} s, server {}: {what}", self.began.elapsed().as_secs_f64(), self.lives.starts);
        self.calls[call].lines.push(line);
    }

    /// A server that runs one call at a time is gone, and was ready at that time.
    pub fn was_single(&mut self, ready_ns: u64) {
        self.single.push((ready_ns, wall_ns()));
    }

    fn open(&mut self, id: &str, function: usize, body: Option<String>) -> usize {
        let (lives, version) = if body.is_some() { (self.lives, self.versions.0) } else { (self.compared, 0) };
        self.calls.push(Call {
            id: id.to_owned(),
            function,
            body,
            sent: None,
            answered: None,
            born: lives,
            version,
            end: None,
            end_seen_ms: 0,
            stamp: None,
            is_single: false,
            was_read: false,
            discarded: Discarded::No,
            is_absent: false,
            is_gone: false,
            is_busy: false,
            lines: Vec::new(),
        });
        let call = self.calls.len() - 1;
        self.by_id.insert(id.to_owned(), call);
        self.live.push(call);
        call
    }

    /// An asynchronous call was sent at that time, and this is its answer, if there was one.
    pub fn called(
        &mut self,
        function: usize,
        body: &str,
        key: Option<usize>,
        sent: u64,
        answer: Option<&Reply>,
    ) -> Checked {
        let known = key.and_then(|key| self.keys[key].call.clone());
        let Some(answer) = answer else {
            if known.is_none() {
                self.unanswered[function].push(body.to_owned());
            }
            return Ok(());
        };
        let name = self.functions[function].name;
        match answer.status {
            200 => {}
            // Refused for want of room, although it needs none.
            429 if known.is_some() => return Err(format!("{name}: a key that is known was refused: {body}")),
            429 | 503 => {
                self.counts.refused += 1;
                if key.is_none() {
                    self.refused.insert(body.to_owned());
                }
                return Ok(());
            }
            other => return Err(format!("{name}: a call is answered {other}: {}", answer.text())),
        }
        let id = id(&answer.json());
        if known.as_ref().is_some_and(|known| *known != id) {
            return Err(self.wrong(self.by_id[&id], &format!("{body} meant {known:?} before")));
        }
        match (self.by_id.get(&id).copied(), key) {
            (None, _) => {
                let now = self.now();
                let call = self.open(&id, function, Some(body.to_owned()));
                let opened = &mut self.calls[call];
                (opened.sent, opened.answered) = (Some(sent), Some(now));
                self.counts.accepted += 1;
                self.note(call, format!("accepted, {body}"));
                // Somebody else may have sent it before, without an answer.
                if key.is_some() {
                    let opened = &mut self.calls[call];
                    (opened.sent, opened.born) = (None, self.compared);
                    opened.version = 0;
                }
            }
            (Some(call), Some(_)) => {
                if self.calls[call].function != function {
                    return Err(self.wrong(call, &format!("{body} is of {name}")));
                }
                self.counts.again += 1;
                self.calls[call].body.get_or_insert_with(|| body.to_owned());
                self.note(call, format!("meant again by {body}"));
            }
            (Some(call), None) => return Err(self.wrong(call, &format!("its id was given again, to {body}"))),
        }
        if let Some(key) = key {
            self.keys[key].call = Some(id);
        }
        Ok(())
    }

    /// A synchronous call is about to be sent.
    pub fn calls_synchronously(&mut self, body: &str) {
        self.synchronous.insert(body.to_owned());
    }

    /// It was answered.
    pub fn called_synchronously(&mut self, function: usize, body: &str, version: u32, answer: &Reply) -> Checked {
        if [429, 503].contains(&answer.status) {
            self.counts.refused += 1;
            self.refused.insert(body.to_owned());
            return Ok(());
        }
        self.counts.synchronous += 1;
        let Function { name, leaves, .. } = self.functions[function];
        let wrong = |why: String| format!("a synchronous call of {name}, {body} {why}");
        let call_id = answer.header("x-call-id").ok_or_else(|| wrong("has no id".to_owned()))?;
        if let Some(call) = self.by_id.get(call_id) {
            return Err(self.wrong(*call, &format!("its id was given again, to the synchronous {body}")));
        }
        let stamp = self.fits(leaves, version, answer.status, &answer.body).map_err(wrong)?;
        match stamp {
            Some(found) if found.body != body => Err(wrong(format!("has the answer to {}", found.body))),
            Some(found) if found.attempt != 1 => Err(wrong(format!("is start {}", found.attempt))),
            _ => Ok(()),
        }
    }

    /// Whether this is what such a function leaves.
    fn fits(&self, leaves: Leaves, version: u32, status: u16, body: &[u8]) -> Checked<Option<Stamped>> {
        let shown = || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let is_it = match leaves {
            Leaves::Stamp if status == 200 && body.len() > 9 => return Ok(Some(Stamped::of(body))),
            Leaves::Stamp => false,
            Leaves::Failure(said) => status == 500 && body.strip_suffix(b"\n") == Some(said.as_bytes()),
            Leaves::TooMuch => status == 509,
            Leaves::Large(bytes) => status == 200 && body.len() == bytes && body.iter().all(|byte| *byte == b'x'),
            Leaves::Version => {
                let found = std::str::from_utf8(body).ok().and_then(|text| text.strip_prefix('v')?.parse::<u32>().ok());
                status == 200 && found.is_some_and(|found| version <= found && found <= self.versions.1)
            }
        };
        if is_it { Ok(None) } else { Err(format!("is answered {status}: {}", shown())) }
    }

    /// A call for one reader alone.
    pub fn take(&mut self, choice: usize) -> Option<usize> {
        let call = *self.live.get(choice % self.live.len().max(1))?;
        (!std::mem::replace(&mut self.calls[call].is_busy, true)).then_some(call)
    }

    /// It is free again.
    pub fn put(&mut self, call: usize) {
        self.calls[call].is_busy = false;
    }

    /// Whether its result is large enough to be read by half.
    pub fn is_large(&self, call: usize) -> bool {
        matches!(self.functions[self.calls[call].function].leaves, Leaves::Large(_))
    }

    /// Somebody has left half way.
    pub fn half_read(&mut self, call: usize, status: u16) {
        if status == 200 {
            self.counts.half_read += 1;
        }
        self.note(call, format!("half read: {status}"));
    }

    /// A result was asked for, and this is the answer, if there was one.
    pub fn answered(&mut self, call: usize, reading: Reading, answer: Option<&Reply>) -> Checked {
        let Some(answer) = answer else {
            self.note(call, format!("{reading:?}: no answer"));
            return Ok(());
        };
        self.note(call, format!("{reading:?}: {}, {} bytes", answer.status, answer.body.len()));
        let known = &self.calls[call];
        let wrong = |what: &str| Err(self.wrong(call, what));
        match answer.status {
            // The server ends.
            503 => Ok(()),
            201 | 202 => match known.discarded {
                _ if known.end.is_some() => wrong("it has ended, and was started again"),
                Discarded::Done => wrong("it was discarded, and is there"),
                _ if known.is_absent => wrong("it was gone, and came back"),
                _ => Ok(()),
            },
            404 if known.was_read || known.discarded != Discarded::No => Ok(()),
            404 => wrong("it is lost"),
            410 if self.is_large(call) => {
                if !std::mem::replace(&mut self.calls[call].is_gone, true) {
                    self.counts.rotated += 1;
                }
                Ok(())
            }
            410 => wrong("it is gone, and nothing has pushed it out"),
            _ if known.is_absent => wrong("it was gone, and came back"),
            _ if known.is_gone => wrong("it was rotated out, and came back"),
            status => {
                self.ended(call, End { status, body: answer.body.clone() })?;
                if reading == Reading::Whole {
                    self.calls[call].was_read = true;
                    self.counts.read += 1;
                }
                Ok(())
            }
        }
    }

    fn ended(&mut self, call: usize, end: End) -> Checked {
        let known = &self.calls[call];
        if let Some(first) = &known.end {
            let shown =
                |end: &End| format!("{}, {}", end.status, String::from_utf8_lossy(&end.body[..end.body.len().min(99)]));
            let (is_it, ends) = (*first == end, format!("it has two ends: {}; {}", shown(first), shown(&end)));
            return if is_it { Ok(()) } else { Err(self.wrong(call, &ends)) };
        }
        let lived = Lives {
            starts: self.lives.starts - known.born.starts,
            kills: self.lives.kills - known.born.kills,
            drains: self.lives.drains - known.born.drains,
        };
        let wrong = |what: &str| Err(self.wrong(call, what));
        let stamp = match (end.status, &end.body[..]) {
            (500, b"cancelled\n") if known.discarded == Discarded::No => return wrong("nobody has cancelled it"),
            (500, b"interrupted\n") if lived.kills < 3 => {
                return wrong(&format!("interrupted by {} kills", lived.kills));
            }
            (500, b"cancelled\n") => None,
            (500, b"interrupted\n") => {
                self.counts.interrupted += 1;
                None
            }
            (status, body) => {
                let leaves = self.functions[known.function].leaves;
                match self.fits(leaves, known.version, status, body) {
                    Err(why) => return wrong(&why),
                    Ok(found) => found,
                }
            }
        };
        if let Some(stamp) = stamp {
            self.stamped(call, stamp, lived)?;
        }
        self.calls[call].end = Some(end);
        self.calls[call].end_seen_ms = jiff::Timestamp::now().as_millisecond();
        Ok(())
    }

    /// A call was started so, in so many lives.
    fn stamped(&mut self, call: usize, stamp: Stamped, lived: Lives) -> Checked {
        let Stamped { at, attempt, body } = stamp;
        let known = &self.calls[call];
        let (function, starts) = (known.function, u32::from(attempt));
        if known.body.as_ref().is_some_and(|sent| *sent != body) {
            return Err(self.wrong(call, &format!("it has run with {body}")));
        }
        if starts == 0 || starts > lived.starts + 1 || starts > 3 + lived.drains {
            return Err(self.wrong(call, &format!("start {starts} in {lived:?}")));
        }
        if known.body.is_none() {
            let Some(sent) = self.unanswered[function].iter().position(|sent| *sent == body) else {
                return Err(self.wrong(call, &format!("it runs, and nobody has sent {body}")));
            };
            self.unanswered[function].swap_remove(sent);
            self.calls[call].body = Some(body);
        }
        self.counts.started_again += usize::from(starts > 1);
        self.calls[call].stamp = Some((at, attempt));
        self.note(call, format!("start {starts}, at {at}"));
        Ok(())
    }

    /// A call is about to be discarded.
    pub fn discards(&mut self, call: usize) {
        let known = &mut self.calls[call];
        known.discarded = known.discarded.max_with_asked();
        self.note(call, "discarding".to_owned());
    }

    /// It was, or not, as the answer says.
    pub fn discarded(&mut self, call: usize, answer: Option<&Reply>) -> Checked {
        self.note(call, format!("discarded: {:?}", answer.map(|answer| answer.status)));
        let known = &self.calls[call];
        match answer.map(|answer| answer.status) {
            None | Some(503) => Ok(()),
            Some(204) if known.is_absent => Err(self.wrong(call, "it was gone, and came back")),
            Some(204) => {
                self.counts.discarded += 1;
                self.calls[call].discarded = Discarded::Done;
                Ok(())
            }
            Some(404) if known.was_read || known.is_absent || known.discarded == Discarded::Done => Ok(()),
            // It was asked before, and not answered; or it is gone.
            Some(404) if known.lines.iter().filter(|line| line.ends_with("discarding")).count() > 1 => Ok(()),
            Some(404) if self.is_large(call) => Ok(()),
            Some(404) => Err(self.wrong(call, "there was nothing to discard")),
            Some(other) => Err(self.wrong(call, &format!("discarding it is answered {other}"))),
        }
    }

    /// All calls of a function that a server lists while nobody reads or discards any. Answers those that are not
    /// there although they should, if only they were not rotated out; and those that have ended.
    pub fn listed(&mut self, function: usize, list: &[Value]) -> Checked<(Vec<usize>, Vec<usize>)> {
        let mut ended = Vec::new();
        let mut there = HashSet::with_capacity(list.len());
        for listed in list {
            let id = id(listed);
            let has_ended = ["FINISHED", "FAILED"].contains(&listed["Status"].as_str().unwrap());
            let call = match self.by_id.get(&id) {
                Some(call) => *call,
                None => self.adopt(&id, function)?,
            };
            let known = &self.calls[call];
            let wrong = |what: &str| Err(self.wrong(call, what));
            if !there.insert(call) {
                return wrong("it is listed twice");
            }
            if known.is_absent {
                return wrong("it was gone, and came back");
            }
            if known.is_gone {
                return wrong("it was rotated out, and came back");
            }
            if !has_ended && known.end.is_some() {
                return wrong("it has ended, and was started again");
            }
            if !has_ended && known.discarded == Discarded::Done {
                return wrong("it was discarded, and runs");
            }
            if has_ended {
                ended.push(call);
            }
        }
        let mut missing = Vec::new();
        for call in self.live.clone() {
            let known = &mut self.calls[call];
            if known.function != function || known.is_gone || there.contains(&call) {
                continue;
            }
            if known.was_read || known.discarded != Discarded::No {
                known.is_absent = true;
            } else {
                missing.push(call);
            }
        }
        self.live.retain(|call| !self.calls[*call].is_absent && !self.calls[*call].is_gone);
        Ok((missing, ended))
    }

    fn adopt(&mut self, id: &str, function: usize) -> Checked<usize> {
        let call = self.open(id, function, None);
        self.counts.adopted += 1;
        self.note(call, "adopted".to_owned());
        let name = self.functions[function].name;
        if self.functions[function].leaves == Leaves::Stamp {
            // Its body says which it is.
            return Ok(call);
        }
        match self.unanswered[function].pop() {
            Some(_) => Ok(call),
            None => Err(self.wrong(call, &format!("nobody has called {name} without an answer"))),
        }
    }

    /// The lists of all functions were compared.
    pub fn has_compared(&mut self) {
        self.compared = self.lives;
    }

    /// Calls that may still be on disk.
    pub fn live(&self) -> usize {
        self.live.len()
    }
}

impl Discarded {
    fn max_with_asked(self) -> Self {
        if self == Self::Done { Self::Done } else { Self::Asked }
    }
}
