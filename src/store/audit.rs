//! What an audit of a store says.

use crate::domain::{CallId, Place};
use std::collections::HashMap;

/// What is not as it must be: each in one line, with its file or table and its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    shown: Vec<String>,
    count: u64,
}

impl Findings {
    /// Those that are told; the others are counted.
    pub const SHOWN_MAX: usize = 1_000;

    /// One more.
    pub fn add(&mut self, finding: String) {
        self.count += 1;
        if self.shown.len() < Self::SHOWN_MAX {
            self.shown.push(finding);
        }
    }

    /// Those that are told.
    pub fn shown(&self) -> &[String] {
        &self.shown
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// What a store holds, and what of that is wrong.
#[derive(Debug, Clone, Default)]
pub struct StoreAudit {
    /// What is wrong.
    pub findings: Findings,
    /// Functions.
    pub functions: u64,
    /// Images.
    pub images: u64,
    /// Calls that wait.
    pub pending: u64,
    /// Calls that run, or ran when the server went down.
    pub running: u64,
    /// Calls that have a result.
    pub ended: u64,
    /// Calls whose result was rotated out or has expired.
    pub gone: u64,
    /// Calls that were read or removed.
    pub taken: u64,
    /// Calls of functions that were removed.
    pub removed: u64,
    /// The last place that was given to a call: the number of calls that were ever accepted.
    pub last_place: Place,
    pub(super) places: HashMap<Place, CallId>,
}

impl StoreAudit {
    /// What is wrong with a call that a log tells of.
    pub fn check_logged(&self, call_id: CallId, place: Place) -> Result<(), String> {
        match self.places.get(&place) {
            _ if place > self.last_place => Err(format!(
                "call {call_id} was accepted at place {}, and the store ends at {}: it has lost its end",
                place.0, self.last_place.0
            )),
            Some(other) if *other != call_id => {
                Err(format!("call {call_id} was accepted at place {}, where the store has call {other}", place.0))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_findings_ends() {
        let mut findings = Findings::default();
        for number in 0..Findings::SHOWN_MAX + 5 {
            findings.add(format!("finding {number}"));
        }
        assert_eq!(findings.shown().len(), Findings::SHOWN_MAX);
        assert_eq!(findings.count(), Findings::SHOWN_MAX as u64 + 5);
    }
}
