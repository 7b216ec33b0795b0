//! How a record stands in a file: one line of JSON.
//!
//! JSON escapes what would end a line or a text, so that one record is one line whatever bytes a guest wrote.

use crate::domain::{CallId, Called, Digest, Gap, Place, Record, Short, Started, Stopped, Timestamp, Usage};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;
use uuid::Uuid;

/// The longest line with its end, in bytes. Three streams and a message take a tenth of it, escaped.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;
/// What all lines of records begin with, up to the call's id: serde keeps the order of fields.
const RECORD_HEAD: &[u8] = br#"{"call":{"id":""#;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, for as long as its line takes")]
pub(super) enum Line {
    Record(Record),
    Gap(Gap),
}

/// The file's shape. Keys are short, and absent parts are left out.
#[derive(Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "one at a time, for as long as its line takes")]
enum Shape {
    #[serde(rename = "call")]
    Record(RecordShape),
    #[serde(rename = "gap")]
    Gap { t: i64, n: u64 },
}

#[derive(Serialize, Deserialize)]
struct RecordShape {
    // First: lines are filtered by how they begin.
    id: String,
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    called: Option<CalledShape>,
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    pending: Option<i64>,
    #[serde(rename = "n", skip_serializing_if = "Option::is_none")]
    place: Option<u64>,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    running: Option<StartedShape>,
    #[serde(rename = "e", skip_serializing_if = "Option::is_none")]
    ended: Option<StoppedShape>,
}

#[derive(Serialize, Deserialize)]
struct CalledShape {
    t: i64,
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    stdin: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StartedShape {
    t: i64,
    #[serde(rename = "d")]
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct StoppedShape {
    t: i64,
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(rename = "err", skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    ns: u64,
    mem: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>,
}

/// Appends a record with the end of its line.
///
/// # Errors
/// Never, as long as its shape is one that JSON has.
pub(super) fn encode_record(record: &Record, line: &mut Vec<u8>) -> io::Result<()> {
    encode(&Shape::Record(RecordShape::of(record)), line)
}

/// Appends a gap with the end of its line.
///
/// # Errors
/// Those of [`encode_record`].
pub(super) fn encode_gap(gap: Gap, line: &mut Vec<u8>) -> io::Result<()> {
    encode(&Shape::Gap { t: gap.at.0, n: gap.lost }, line)
}

fn encode(shape: &Shape, line: &mut Vec<u8>) -> io::Result<()> {
    serde_json::to_writer(&mut *line, shape)?;
    line.push(b'\n');
    Ok(())
}

/// Reads a line; `None` if nobody here wrote it so.
pub(super) fn decode(line: &[u8]) -> Option<Line> {
    Some(match serde_json::from_slice(line).ok()? {
        Shape::Record(shape) => Line::Record(shape.into_record()?),
        Shape::Gap { t, n } => Line::Gap(Gap { at: Timestamp(t), lost: n }),
    })
}

/// Which lines a reader wants.
pub(super) struct Filter(Option<String>);

impl Filter {
    /// All, or those of one call.
    pub(super) fn new(call_id: Option<CallId>) -> Self {
        Self(call_id.map(|id| id.to_string()))
    }

    /// Whether a line is wanted, without reading all of it. One that tells of no call is: what is missing may be
    /// of any.
    pub(super) fn takes(&self, line: &[u8]) -> bool {
        match (&self.0, line.strip_prefix(RECORD_HEAD)) {
            (Some(id), Some(rest)) => rest.starts_with(id.as_bytes()),
            (None, _) | (_, None) => true,
        }
    }
}

impl RecordShape {
    fn of(record: &Record) -> Self {
        let stopped = |part: &Stopped| StoppedShape {
            t: part.at.0,
            message: part.message.clone(),
            stdout: part.stdout.text(),
            stderr: part.stderr.text(),
            ns: part.usage.duration.as_nanos().try_into().unwrap_or(u64::MAX),
            mem: part.usage.memory_peak_bytes,
            fuel: part.usage.fuel,
        };
        Self {
            id: record.call_id.to_string(),
            called: record.called.as_ref().map(|part| CalledShape { t: part.at.0, stdin: part.stdin.text() }),
            pending: record.pending.map(|at| at.0),
            place: record.place.map(|place| place.0),
            running: record.running.map(|part| StartedShape { t: part.at.0, digest: part.digest.hex() }),
            ended: record.ended.as_ref().map(stopped),
        }
    }

    fn into_record(self) -> Option<Record> {
        let short = |text: Option<String>| text.map(Short::from_text).unwrap_or_default();
        let running = match self.running {
            None => None,
            Some(part) => {
                let digest = Digest::parse(&format!("{}{}", Digest::PREFIX, part.digest))?;
                Some(Started { at: Timestamp(part.t), digest })
            }
        };
        Some(Record {
            call_id: CallId::new(Uuid::try_parse(&self.id).ok()?),
            called: self.called.map(|part| Called { at: Timestamp(part.t), stdin: short(part.stdin) }),
            pending: self.pending.map(Timestamp),
            place: self.place.map(Place),
            running,
            ended: self.ended.map(|part| Stopped {
                at: Timestamp(part.t),
                message: part.message,
                stdout: short(part.stdout),
                stderr: short(part.stderr),
                usage: Usage {
                    duration: Duration::from_nanos(part.ns),
                    memory_peak_bytes: part.mem,
                    fuel: part.fuel,
                    ..Usage::default()
                },
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        encode_record(record, &mut line).unwrap();
        line
    }

    fn id(number: u128) -> CallId {
        CallId::new(Uuid::from_u128(number))
    }

    fn full(call_id: CallId, bytes: &[u8], message: Option<String>) -> Record {
        let usage =
            Usage { duration: Duration::from_nanos(1), memory_peak_bytes: 2, fuel: Some(3), ..Usage::default() };
        Record {
            call_id,
            called: Some(Called { at: Timestamp(1), stdin: Short::of(bytes) }),
            pending: Some(Timestamp(2)),
            place: Some(Place(9)),
            running: Some(Started { at: Timestamp(3), digest: Digest::new([4; 32]) }),
            ended: Some(Stopped {
                at: Timestamp(4),
                message,
                stdout: Short::of(bytes),
                stderr: Short::of(bytes),
                usage,
            }),
        }
    }

    #[test]
    fn absent_parts_take_no_place() {
        let record = Record { pending: Some(Timestamp(5)), ..Record::new(id(0)) };
        let text = String::from_utf8(encoded(&record)).unwrap();
        assert_eq!(text, "{\"call\":{\"id\":\"00000000-0000-0000-0000-000000000000\",\"p\":5}}\n");
        assert_eq!(decode(text.as_bytes()), Some(Line::Record(record)));
    }

    #[test]
    fn gaps_come_back() {
        let (gap, mut line) = (Gap { at: Timestamp(5), lost: 7 }, Vec::new());
        encode_gap(gap, &mut line).unwrap();
        assert_eq!(decode(&line), Some(Line::Gap(gap)));
    }

    #[test]
    fn the_longest_record_is_far_from_the_longest_line() {
        for worst in [[0; 300], [0xFF; 300], [b'"'; 300]] {
            let message = "\u{1}".repeat(400);
            assert!(encoded(&full(id(1), &worst, Some(message))).len() < LINE_BYTES_MAX / 8);
        }
    }

    #[test]
    fn what_is_cut_or_made_up_is_no_line() {
        let line = encoded(&full(id(1), b"x", None));
        for cut in 0..line.len() - 1 {
            assert_eq!(decode(&line[..cut]), None, "{cut}");
        }
        for bad in ["", "null", "\0\0", "{}", r#"{"call":{"id":"x"}}"#, r#"{"call":{}}"#, r#"{"other":{}}"#] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_filter_takes_one_call_and_what_is_of_none() {
        // A guest may write the id of another call.
        let forged = format!("{}{}", String::from_utf8_lossy(RECORD_HEAD), id(2));
        let line = encoded(&full(id(1), forged.as_bytes(), Some(forged.clone())));
        assert!(Filter::new(Some(id(1))).takes(&line));
        assert!(!Filter::new(Some(id(2))).takes(&line));
        assert!(Filter::new(None).takes(&line));
        assert!(Filter::new(Some(id(2))).takes(br#"{"gap":{"t":1,"n":1}}"#));
        assert!(Filter::new(Some(id(2))).takes(b"unreadable"));
    }

    proptest! {
        #[test]
        fn one_record_is_one_line_and_comes_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            message: Option<String>,
            number: u128,
        ) {
            let record = full(id(number), &bytes, message);
            let line = encoded(&record);
            prop_assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
            prop_assert!(line.iter().all(|&b| b >= b' ' || b == b'\n'));
            let Some(Line::Record(read)) = decode(&line) else { return Err(TestCaseError::fail("unreadable")) };
            prop_assert_eq!(read.place, record.place);
            prop_assert!(read.events().eq(record.events()));
        }
    }
}
