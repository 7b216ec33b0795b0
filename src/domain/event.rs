//! What the log of a function says (`docs/api.md` section 4).
//!
//! Whoever runs a call tells of it in a [`Record`]: at once when the call is synchronous, piece by piece when it is
//! not. Whoever reads the log gets [`Entry`]s, one a line of the answer.

use super::{CallId, Digest, Place, Timestamp, Usage};

/// The beginning of a stream of bytes.
///
/// Made while a call is answered, so that only bytes are copied; what they mean is found out when they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Short(Box<[u8]>);

impl Short {
    /// The most that is kept, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Keeps the beginning of `bytes`, without a character that the limit would cut. An empty one allocates nothing.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes[..kept_bytes(bytes)].into())
    }

    /// Takes what [`Short::text`] gave before. It may be longer than [`Short::BYTES_MAX`]: what replaces an invalid
    /// byte has three of them.
    pub fn from_text(text: String) -> Self {
        Self(text.into_bytes().into())
    }

    /// As text, invalid UTF-8 replaced; `None` if there is nothing.
    pub fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| String::from_utf8_lossy(&self.0).into_owned())
    }
}

/// How many of the first bytes are at most the limit and end where a character does.
fn kept_bytes(bytes: &[u8]) -> usize {
    const MAX: usize = Short::BYTES_MAX;
    let is_inside_character = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    if bytes.len() <= MAX {
        return bytes.len();
    }
    // A character is at most four bytes long: the one that stands at the limit begins here or in the three before.
    let Some(start) = (MAX - 3..=MAX).rev().find(|&at| !is_inside_character(at)) else { return MAX };
    let width = match bytes[start] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    if start + width > MAX { start } else { MAX }
}

/// What is told at once of one call. The parts are in the order in which they happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The call.
    pub call_id: CallId,
    /// It was accepted.
    pub called: Option<Called>,
    /// It waits since then.
    pub pending: Option<Timestamp>,
    /// Its place in the queue on disk, when it was accepted there. No reader is told: an audit compares it with the store.
    pub place: Option<Place>,
    /// It was started.
    pub running: Option<Started>,
    /// It ended.
    pub ended: Option<Stopped>,
}

/// A call was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// When.
    pub at: Timestamp,
    /// What it was given.
    pub stdin: Short,
}

/// A call was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// When.
    pub at: Timestamp,
    /// The module that runs.
    pub digest: Digest,
}

/// A call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// When.
    pub at: Timestamp,
    /// Why it failed, in one line; `None` if it finished.
    pub message: Option<String>,
    /// What it wrote to stdout.
    pub stdout: Short,
    /// What it wrote to stderr.
    pub stderr: Short,
    /// What it used.
    pub usage: Usage,
}

impl Record {
    /// A record that tells nothing of `call_id` yet.
    pub fn new(call_id: CallId) -> Self {
        Self { call_id, called: None, pending: None, place: None, running: None, ended: None }
    }

    /// The time of the last thing that it tells; `None` if it tells nothing.
    pub fn last_at(&self) -> Option<Timestamp> {
        let Self { called, pending, running, ended, .. } = self;
        let before = || running.map(|part| part.at).or(*pending).or(called.as_ref().map(|part| part.at));
        ended.as_ref().map(|part| part.at).or_else(before)
    }

    /// What it tells, one by one.
    pub fn events(self) -> impl Iterator<Item = Event> {
        let called = self.called.map(|part| (part.at, EventKind::Called { stdin: part.stdin.text() }));
        let pending = self.pending.map(|at| (at, EventKind::Pending));
        let running = self.running.map(|part| (part.at, EventKind::Running { digest: part.digest }));
        let ended = self.ended.map(|part| {
            let output = Output { stdout: part.stdout.text(), stderr: part.stderr.text(), usage: part.usage };
            let kind = match part.message {
                None => EventKind::Finished(output),
                Some(message) => EventKind::Failed { message, output },
            };
            (part.at, kind)
        });
        let call_id = self.call_id;
        [called, pending, running, ended].into_iter().flatten().map(move |(at, kind)| Event { at, call_id, kind })
    }
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Something happened to a call.
    Event(Event),
    /// Something is missing: of any call.
    Gap(Gap),
}

impl Entry {
    /// When it was.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Event(event) => event.at,
            Self::Gap(gap) => gap.at,
        }
    }

    /// Whether that call ended here.
    pub fn ends(&self, call_id: CallId) -> bool {
        match self {
            Self::Event(event) => {
                event.call_id == call_id && matches!(event.kind, EventKind::Finished(_) | EventKind::Failed { .. })
            }
            Self::Gap(_) => false,
        }
    }
}

/// Something that happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The call.
    pub call_id: CallId,
    /// What.
    pub kind: EventKind,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// `CALL`: it was accepted.
    Called {
        /// The beginning of its stdin.
        stdin: Option<String>,
    },
    /// `PENDING`: it waits.
    Pending,
    /// `RUNNING`: it was started.
    Running {
        /// The module that runs.
        digest: Digest,
    },
    /// `FINISHED`: it ended well.
    Finished(Output),
    /// `FAILED`: it ended in any other way.
    Failed {
        /// Why, in one line.
        message: String,
        /// What it left all the same.
        output: Output,
    },
}

/// What an ended call left, as far as a log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The beginning of its stdout.
    pub stdout: Option<String>,
    /// The beginning of its stderr.
    pub stderr: Option<String>,
    /// What it used.
    pub usage: Usage,
}

/// A hole in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The time of what was lost last.
    pub at: Timestamp,
    /// How many [`Record`]s were lost.
    pub lost: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn text(bytes: &[u8]) -> String {
        Short::of(bytes).text().unwrap()
    }

    #[test]
    fn a_character_at_the_limit_is_whole_or_absent() {
        for character in ["é", "€", "𝄞"] {
            for before in 250..=255 {
                let stream = "x".repeat(before) + character + "yyyyyyyy";
                let expected = &stream[..stream.floor_char_boundary(Short::BYTES_MAX)];
                assert_eq!(text(stream.as_bytes()), expected, "{character} after {before}");
            }
        }
    }

    #[test]
    fn what_is_no_character_is_replaced_and_not_cut() {
        assert_eq!(text(b"a\xFFb"), "a\u{FFFD}b");
        assert_eq!(text(&[0xFF; 300]).chars().count(), Short::BYTES_MAX);
        assert_eq!(text(&[0x80; 300]).chars().count(), Short::BYTES_MAX);
        // A continuation at the limit that belongs to nothing takes nothing with it.
        let stray = ["x".repeat(255).as_bytes(), b"\x80yy"].concat();
        assert_eq!(text(&stray), "x".repeat(255));
        // The stream itself ends within a character, at the limit: nothing was cut.
        let torn = ["x".repeat(254).as_bytes(), b"\xC3"].concat();
        assert_eq!(text(&torn), "x".repeat(254) + "\u{FFFD}");
    }

    #[test]
    fn nothing_is_no_text() {
        assert_eq!(Short::of(b"").text(), None);
        assert_eq!(Short::default().text(), None);
    }

    #[test]
    fn a_record_of_all_parts_is_four_events() {
        let digest = Digest::new([1; 32]);
        let usage = Usage { memory_peak_bytes: 9, ..Usage::default() };
        let call_id = CallId::new(Uuid::from_u128(7));
        let stopped =
            Stopped { at: Timestamp(4), message: None, stdout: Short::of(b"out"), stderr: Short::default(), usage };
        let record = Record {
            called: Some(Called { at: Timestamp(1), stdin: Short::of(b"in") }),
            pending: Some(Timestamp(2)),
            running: Some(Started { at: Timestamp(3), digest }),
            ended: Some(stopped.clone()),
            ..Record::new(call_id)
        };
        assert_eq!(record.last_at(), Some(Timestamp(4)));
        let output = Output { stdout: Some("out".into()), stderr: None, usage };
        let kinds = [
            EventKind::Called { stdin: Some("in".into()) },
            EventKind::Pending,
            EventKind::Running { digest },
            EventKind::Finished(output.clone()),
        ];
        let expected = kinds.into_iter().zip(1..).map(|(kind, at)| Event { at: Timestamp(at), call_id, kind });
        assert!(record.events().eq(expected));

        let failed = Record {
            ended: Some(Stopped { message: Some("trap: unreachable".into()), ..stopped }),
            ..Record::new(call_id)
        };
        let kind = EventKind::Failed { message: "trap: unreachable".into(), output };
        assert!(failed.events().eq([Event { at: Timestamp(4), call_id, kind }]));
        assert_eq!(Record::new(call_id).last_at(), None);
    }

    proptest! {
        #[test]
        fn valid_text_is_cut_as_text_is(stream in "[xé€𝄞\0]{0,300}") {
            let expected = &stream[..stream.floor_char_boundary(Short::BYTES_MAX)];
            prop_assert_eq!(Short::of(stream.as_bytes()).text().unwrap_or_default(), expected);
        }

        #[test]
        fn text_comes_back_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 1..400)) {
            let text = text(&bytes);
            prop_assert_eq!(Short::from_text(text.clone()).text(), Some(text));
        }
    }
}
