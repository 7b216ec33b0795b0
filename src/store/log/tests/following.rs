//! Following a log, and what its end means to those who do.

use super::*;

/// Follows until `count` entries have come.
fn follow(reader: &mut LogReader, count: usize) -> Vec<Entry> {
    let mut all = drain(reader);
    while all.len() < count {
        assert!(wait(reader.changed()));
        all.extend(drain(reader));
    }
    all
}

#[test]
fn followers_wake_up() {
    let room = Room::new(ROOMY);
    let log = room.log("f");
    let mut reader = log.read(Selection::default()).unwrap();
    assert!(reader.next().unwrap().is_empty());
    for number in 0..3 {
        log.push(pending(number));
        assert_eq!(times(&follow(&mut reader, 1)), [number as i64]);
    }
}

#[test]
fn a_follower_loses_nothing_in_rotations() {
    let room = Room::new(6 * line_bytes(&pending(10)));
    let log = room.log("f");
    let push = |numbers: std::ops::Range<u64>| {
        numbers.for_each(|number| log.push(pending(number)));
        log.0.buffer.flush();
    };
    let mut reader = log.read(Selection::default()).unwrap();
    for number in 10..40 {
        push(number..number + 1);
        assert_eq!(times(&drain(&mut reader)), [number as i64]);
    }
    // The file that it has read is full: after two rotations it is gone, and nothing was in between.
    push(40..46);
    assert_eq!(times(&drain(&mut reader)), range(40..46));
    // In the middle of a file.
    push(46..47);
    assert_eq!(times(&drain(&mut reader)), [46]);
    push(47..55);
    assert_eq!(times(&drain(&mut reader)), range(47..55));
    // After three, one file has come and gone unseen.
    push(55..64);
    assert_eq!(times(&drain(&mut reader)), range(58..64));
}

#[test]
fn a_removed_log_ends_its_followers() {
    let room = Room::new(ROOMY);
    let (account, name) = key("f");
    let log = room.log("f");
    log.push(pending(1));
    let mut follower = log.read(Selection::default()).unwrap();
    assert_eq!(times(&drain(&mut follower)), [1]);
    thread::scope(|scope| {
        let following = scope.spawn(|| {
            let mut late = Vec::new();
            while wait(follower.changed()) {
                late.extend(times(&drain(&mut follower)));
            }
            late
        });
        room.logs.remove(&account, &name).unwrap();
        assert_eq!(following.join().unwrap(), Vec::<i64>::new());
    });
    assert!(!room.file("").exists());
    // The second time, and of one that never was.
    room.logs.remove(&account, &name).unwrap();
}

#[test]
fn a_new_function_has_nothing_of_the_one_before() {
    let room = Room::new(ROOMY);
    let (account, name) = key("f");
    let old = room.log("f");
    old.push(pending(1));
    old.0.buffer.flush();
    // Still in the buffer when the log is removed.
    old.push(pending(2));
    room.logs.remove(&account, &name).unwrap();
    let new = room.log("f");
    old.push(pending(3));
    assert!(all_times(&new).is_empty());
    new.push(pending(4));
    old.push(pending(5));
    assert_eq!(all_times(&new), [4]);
    assert!(all_times(&old).is_empty());
    let mut late = old.read(tail(1)).unwrap();
    assert!(drain(&mut late).is_empty());
    assert!(!wait(late.changed()));
    assert_eq!(room.logs.records_lost(), 0);
}

#[test]
fn disabled_logs_do_nothing() {
    let logs = Logs::disabled();
    let (account, name) = key("f");
    let log = logs.function(&account, &name);
    log.push(pending(1));
    let mut reader = log.read(Selection::default()).unwrap();
    assert!(reader.next().unwrap().is_empty());
    assert!(!wait(reader.changed()));
    logs.remove(&account, &name).unwrap();
    logs.sweep(&HashSet::new()).unwrap();
}

#[test]
fn more_functions_than_open_files_keep_their_logs() {
    let room = Room::new(ROOMY);
    let names: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
    for round in 0..3 {
        names.iter().for_each(|name| room.log(name).push(pending(round)));
        room.log("f0").0.buffer.flush();
    }
    for name in &names {
        assert_eq!(all_times(&room.log(name)), [0, 1, 2], "{name}");
    }
    let open = names.iter().filter(|name| room.log(name).0.files().is_open()).count();
    assert_eq!(open, 64);
}

#[test]
fn many_tell_while_some_follow() {
    const TELLERS: u64 = 4;
    const EACH: u64 = 1000;
    let room = Room::new(8 * MB);
    let log = room.log("f");
    thread::scope(|scope| {
        for teller in 0..TELLERS {
            let log = log.clone();
            scope.spawn(move || (0..EACH).for_each(|number| log.push(pending(number * TELLERS + teller))));
        }
        for _ in 0..3 {
            let mut reader = log.read(Selection::default()).unwrap();
            scope.spawn(move || {
                let mut seen = times(&follow(&mut reader, (TELLERS * EACH) as usize));
                seen.sort_unstable();
                assert_eq!(seen, range(0..TELLERS * EACH));
            });
        }
    });
    assert_eq!(room.logs.records_lost(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the sizes: the cap holds, what is read is the end of what was told, and a follower sees all of it.
    #[test]
    fn rotations_keep_the_end(
        cap in 1400..6000_u64,
        batches in proptest::collection::vec(proptest::collection::vec(0..200_usize, 0..6), 0..30),
        lines in 0..40_u64,
    ) {
        let room = Room::new(cap);
        let log = room.log("f");
        let mut follower = log.read(Selection::default()).unwrap();
        let (mut told, mut followed) = (0, Vec::new());
        for sizes in batches {
            for size in sizes {
                let stdin = Short::of(&vec![b'x'; size]);
                let called = Some(Called { at: Timestamp(told as i64), stdin });
                log.push(Record { called, ..Record::new(id(told)) });
                told += 1;
            }
            log.0.buffer.flush();
            prop_assert!(room.bytes("current") + room.bytes("previous") <= cap);
            followed.extend(times(&drain(&mut follower)));
        }
        prop_assert_eq!(followed, range(0..told));
        let kept = all_times(&log);
        prop_assert_eq!(&kept, &range(told - kept.len() as u64..told));
        let expected = &kept[kept.len().saturating_sub(lines as usize)..];
        prop_assert_eq!(times(&read(&log, tail(lines))), expected);
    }
}
