//! The log as its users see it: what is told, what is read, and what happens in between.

mod following;

use super::*;
use crate::domain::{Called, Digest, Entry, EventKind, Output, Short, Started, Stopped, Usage};
use proptest::prelude::*;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use uuid::Uuid;

/// Enough for all but the tests of rotation.
const ROOMY: u64 = MB;

struct Room {
    dir: tempfile::TempDir,
    logs: Logs,
}

impl Room {
    fn new(bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { logs: Logs::open(dir.path(), bytes_max).unwrap(), dir }
    }

    fn reopened(self, bytes_max: u64) -> Self {
        drop(self.logs);
        Self { logs: Logs::open(self.dir.path(), bytes_max).unwrap(), dir: self.dir }
    }

    fn log(&self, name: &str) -> FunctionLog {
        let (account, name) = key(name);
        self.logs.function(&account, &name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("default/f").join(name)
    }

    fn bytes(&self, name: &str) -> u64 {
        fs::metadata(self.file(name)).map_or(0, |data| data.len())
    }
}

fn key(name: &str) -> (AccountId, FunctionName) {
    (AccountId::open_to_this_machine(), FunctionName::new(name).unwrap())
}

fn id(number: u64) -> CallId {
    CallId::new(Uuid::from_u128(u128::from(number)))
}

/// A record of one event, at the time of its number.
fn pending(number: u64) -> Record {
    Record { pending: Some(Timestamp(number as i64)), ..Record::new(id(number)) }
}

/// What a record takes in a file; all that are made by [`pending`] of a number of two digits take the same.
fn line_bytes(record: &Record) -> u64 {
    let mut line = Vec::new();
    line::encode_record(record, &mut line).unwrap();
    line.len() as u64
}

/// A record of a whole call.
fn whole(number: u64, at: [i64; 4], bytes: &[u8]) -> Record {
    Record {
        called: Some(Called { at: Timestamp(at[0]), stdin: Short::of(bytes) }),
        pending: Some(Timestamp(at[1])),
        running: Some(Started { at: Timestamp(at[2]), digest: Digest::new([1; 32]) }),
        ended: Some(Stopped {
            at: Timestamp(at[3]),
            message: None,
            stdout: Short::of(bytes),
            stderr: Short::default(),
            usage: Usage::default(),
        }),
        ..Record::new(id(number))
    }
}

/// All that is there now.
fn drain(reader: &mut LogReader) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let entries = reader.next().unwrap();
        if entries.is_empty() {
            return all;
        }
        all.extend(entries);
    }
}

fn read(log: &FunctionLog, selection: Selection) -> Vec<Entry> {
    drain(&mut log.read(selection).unwrap())
}

fn times(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.at().0).collect()
}

fn all_times(log: &FunctionLog) -> Vec<i64> {
    times(&read(log, Selection::default()))
}

fn tail(lines: u64) -> Selection {
    Selection { tail: Some(lines), ..Selection::default() }
}

fn of_call(number: u64) -> Selection {
    Selection { call_id: Some(id(number)), ..Selection::default() }
}

fn gap(at: i64, lost: u64) -> Entry {
    Entry::Gap(Gap { at: Timestamp(at), lost })
}

fn range(numbers: std::ops::Range<u64>) -> Vec<i64> {
    numbers.map(|number| number as i64).collect()
}

/// Runs a future with a clock of its own; fails when it takes too long.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing happens") })
}

#[test]
fn what_was_told_is_read_at_once() {
    let room = Room::new(ROOMY);
    let log = room.log("f");
    assert!(read(&log, Selection::default()).is_empty());
    let nasty = b"\x1b[31m\0\n{\"call\":\"x\"}\r\n\"\\\xFF";
    log.push(whole(7, [1, 2, 3, 4], nasty));
    let entries = read(&log, Selection::default());
    assert_eq!(times(&entries), [1, 2, 3, 4]);
    let Entry::Event(ended) = &entries[3] else { panic!("{entries:?}") };
    let stdout = Some(String::from_utf8_lossy(nasty).into_owned());
    assert_eq!(ended.kind, EventKind::Finished(Output { stdout, stderr: None, usage: Usage::default() }));
    assert_eq!(ended.call_id, id(7));
    assert_eq!(room.logs.bytes_written(), room.bytes("current"));
    assert_eq!(room.logs.records_lost(), 0);
}

#[test]
fn files_are_for_nobody_else() {
    let room = Room::new(ROOMY);
    let long = "x".repeat(255);
    room.log(&long).push(pending(1));
    room.log("f").push(pending(1));
    assert_eq!(all_times(&room.log("f")), [1]);
    assert_eq!(all_times(&room.log(&long)), [1]);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(room.file("current")), 0o600);
    assert_eq!(mode(room.file("")), 0o700);
    assert_eq!(mode(room.dir.path().join("default")), 0o700);
}

#[test]
fn a_file_is_full_exactly_at_its_limit() {
    // Two files of three lines each.
    let cap = 6 * line_bytes(&pending(10));
    let room = Room::new(cap);
    let log = room.log("f");
    for number in 10..40 {
        log.push(pending(number));
        log.0.buffer.flush();
        let (current, previous) = (room.bytes("current"), room.bytes("previous"));
        assert!(current + previous <= cap, "{current} {previous}");
        assert_eq!(current, (number - 10) % 3 * cap / 6 + cap / 6);
        assert_eq!(previous, if number < 13 { 0 } else { cap / 2 });
    }
    assert_eq!(all_times(&log), range(34..40));
    // As one batch; and a line that fits in no file is lost alone.
    (40..43).for_each(|number| log.push(pending(number)));
    log.push(whole(43, [43; 4], b""));
    (44..50).for_each(|number| log.push(pending(number)));
    assert_eq!(all_times(&log), range(44..50));
    log.push(pending(50));
    assert!(read(&log, Selection::default()).contains(&gap(49, 1)));
    assert_eq!(room.logs.records_lost(), 1);
}

#[test]
fn a_tail_is_counted_from_the_end() {
    let room = Room::new(4096);
    let log = room.log("f");
    (100..150).for_each(|number| log.push(pending(number)));
    let kept = all_times(&log);
    assert!(room.bytes("previous") > 0 && kept.len() > 25 && kept.last() == Some(&149));
    for lines in [0, 1, 5, 30, kept.len() as u64, 1000, u64::MAX] {
        let expected = &kept[kept.len() - kept.len().min(lines.try_into().unwrap_or(usize::MAX))..];
        assert_eq!(times(&read(&log, tail(lines))), expected, "{lines}");
    }
    let mut reader = log.read(tail(1)).unwrap();
    log.push(pending(150));
    assert_eq!(times(&drain(&mut reader)), [149]);
    log.0.buffer.flush();
    assert_eq!(times(&drain(&mut reader)), [150]);
}

#[test]
fn a_tail_of_a_long_log_starts_near_its_end() {
    let room = Room::new(8 * MB);
    let log = room.log("f");
    let count = 12_000;
    for number in 0..count {
        log.push(whole(number % 2, [number as i64; 4], &[b'x'; 100]));
    }
    let is_short = |reader: &LogReader| reader.skipped < 4000;
    let mut reader = log.read(tail(5)).unwrap();
    assert!(is_short(&reader));
    let last = count as i64 - 1;
    assert_eq!(times(&drain(&mut reader)), [last - 1, last, last, last, last]);
    let mut reader = log.read(Selection { call_id: Some(id(0)), tail: Some(6) }).unwrap();
    assert!(is_short(&reader));
    assert_eq!(times(&drain(&mut reader)), [last - 3, last - 3, last - 1, last - 1, last - 1, last - 1]);
    // All of it, across both files, in batches.
    assert_eq!(all_times(&log).len() as u64, 4 * count);
    assert_eq!(times(&read(&log, tail(40_000))).len(), 40_000);
}

#[test]
fn one_call_is_picked_with_all_gaps() {
    let room = Room::new(ROOMY);
    let log = room.log("f");
    for number in 0..100 {
        log.push(Record {
            called: Some(Called { at: Timestamp(number as i64), stdin: Short::of(id(3).to_string().as_bytes()) }),
            ..Record::new(id(number % 10))
        });
    }
    log.0.loss.add(4, Some(Timestamp(100)));
    log.push(pending(101));
    let entries = read(&log, of_call(3));
    assert_eq!(times(&entries), [3, 13, 23, 33, 43, 53, 63, 73, 83, 93, 100]);
    assert_eq!(entries[10], gap(100, 4));
    assert_eq!(times(&read(&log, Selection { tail: Some(2), ..of_call(3) })), [93, 100]);
}

#[test]
fn calls_that_overlap_come_in_the_order_of_time() {
    let room = Room::new(ROOMY);
    let log = room.log("f");
    // The one that ends first is written first.
    log.push(whole(2, [2, 3, 4, 5], b""));
    log.push(whole(1, [1, 1, 1, 9], b""));
    log.push(whole(3, [6, 6, 6, 7], b""));
    assert_eq!(all_times(&log), [1, 1, 1, 2, 3, 4, 5, 6, 6, 6, 7, 9]);
    assert_eq!(times(&read(&log, tail(3))), [6, 7, 9]);
}

#[test]
fn a_torn_line_is_a_gap_and_harms_no_other() {
    let room = Room::new(ROOMY);
    room.log("f").push(pending(1));
    room.log("f").0.buffer.flush();
    let mut file = OpenOptions::new().append(true).open(room.file("current")).unwrap();
    file.write_all(b"{\"call\":{\"id\":\"0000").unwrap();
    let room = room.reopened(ROOMY);
    // Nobody knows yet whether it goes on.
    assert_eq!(all_times(&room.log("f")), [1]);
    room.log("f").push(pending(2));
    let expected = [1, 1, 2];
    let entries = read(&room.log("f"), Selection::default());
    assert_eq!(times(&entries), expected);
    assert_eq!(entries[1], gap(1, 1));
    // In a file that is complete, it ends where the file does.
    fs::write(room.file("previous"), b"torn").unwrap();
    assert_eq!(read(&room.log("f"), Selection::default())[0], gap(0, 1));
    // What a power cut leaves: a length without its bytes.
    fs::write(room.file("previous"), vec![0; 200_000]).unwrap();
    assert_eq!(times(&read(&room.log("f"), tail(4))), [0, 1, 1, 2]);
}

#[test]
fn what_finds_no_room_is_one_gap() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::with_buffer(dir.path(), ROOMY, 10).unwrap();
    let (account, name) = key("f");
    let log = logs.function(&account, &name);
    let other = logs.function(&account, &FunctionName::new("g").unwrap());
    log.push(pending(0));
    log.0.buffer.flush();
    {
        // The disk does not answer.
        let _stuck = log.0.files();
        log.push(pending(1));
        while !log.0.buffer.is_empty() {
            thread::yield_now();
        }
        (2..12).for_each(|number| log.push(pending(number)));
        (12..20).for_each(|number| log.push(pending(number)));
        (20..25).for_each(|number| other.push(pending(number)));
    }
    let expected = [range(0..12), vec![19]].concat();
    let entries = read(&log, Selection::default());
    assert_eq!(times(&entries), expected);
    assert_eq!(entries[12], gap(19, 8));
    assert_eq!(read(&other, Selection::default()), [gap(24, 5)]);
    assert_eq!(logs.records_lost(), 13);
    // Told once.
    log.push(pending(30));
    assert_eq!(all_times(&log).len(), 14);
}

#[test]
fn what_the_disk_refuses_is_a_gap_once_it_can_be_told() {
    let room = Room::new(ROOMY);
    let log = room.log("f");
    // In place of a directory.
    fs::write(room.dir.path().join("default"), b"").unwrap();
    (1..4).for_each(|number| log.push(pending(number)));
    log.0.buffer.flush();
    log.push(pending(4));
    log.0.buffer.flush();
    assert_eq!(room.logs.records_lost(), 4);
    fs::remove_file(room.dir.path().join("default")).unwrap();
    (5..7).for_each(|number| log.push(pending(number)));
    let entries = read(&log, Selection::default());
    assert_eq!(times(&entries), [4, 5, 6]);
    assert_eq!(entries[0], gap(4, 4));
    assert_eq!((room.logs.records_lost(), log.0.loss.gap()), (4, None));
}

#[test]
fn files_that_somebody_took_away_are_made_again() {
    let room = Room::new(6 * line_bytes(&pending(10)));
    let log = room.log("f");
    (10..13).for_each(|number| log.push(pending(number)));
    log.0.buffer.flush();
    fs::remove_dir_all(room.dir.path().join("default")).unwrap();
    log.push(pending(13));
    log.0.buffer.flush();
    log.push(pending(14));
    assert_eq!(read(&log, Selection::default())[0], gap(13, 1));
    assert_eq!(all_times(&log), [13, 14]);
}

#[test]
fn reopening_keeps_everything() {
    let mut room = Room::new(4 * 1024);
    for round in 0..5 {
        (0..5).for_each(|number| room.log("f").push(pending(round * 5 + number)));
        room = room.reopened(4 * 1024);
    }
    assert_eq!(all_times(&room.log("f")), range(0..25));
}

#[test]
fn handles_outlive_the_logs() {
    let room = Room::new(ROOMY);
    let log = room.log("f");
    log.push(pending(1));
    let mut follower = log.read(Selection::default()).unwrap();
    log.push(pending(2));
    drop(room.logs);
    log.push(pending(3));
    assert_eq!(all_times(&log), [1, 2]);
    assert_eq!(times(&drain(&mut follower)), [1, 2]);
    assert!(!wait(follower.changed()));
}

#[test]
fn only_functions_that_exist_keep_their_log() {
    let room = Room::new(ROOMY);
    for name in ["f", "g"] {
        room.log(name).push(pending(1));
    }
    fs::create_dir_all(room.dir.path().join("other/f")).unwrap();
    let room = room.reopened(ROOMY);
    room.logs.sweep(&HashSet::from([key("f")])).unwrap();
    assert!(!room.dir.path().join("other").exists());
    assert!(!room.dir.path().join("default/g").exists());
    assert_eq!(all_times(&room.log("f")), [1]);
    room.logs.sweep(&HashSet::new()).unwrap();
    assert_eq!(fs::read_dir(room.dir.path()).unwrap().count(), 0);
}
