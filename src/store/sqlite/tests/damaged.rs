//! Files that a disk has damaged: cut short, or with a byte that changed.

use super::*;
use crate::store::conformance::{KEEP, accept, new_call, output, run};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

/// What of a store is compared: functions in the order of their creation, and what is known of two calls of each.
type Seen = Vec<(Function, Vec<Option<KnownCall>>)>;

const FUNCTIONS: u64 = 12;

fn name(number: u64) -> String {
    format!("f{number:02}")
}

/// A store with functions and calls, half of it in its log, as a server leaves it that is killed: the file and its log.
async fn left_by_a_kill() -> ([Vec<u8>; 2], Seen) {
    let directory = Directory::new();
    drop(fill(&directory, 0..FUNCTIONS / 2).await);
    let store = fill(&directory, FUNCTIONS / 2..FUNCTIONS).await;
    let files = ["", "-wal"].map(|suffix| fs::read(directory.0.path().join(format!("store.db{suffix}"))).unwrap());
    let seen = seen(&store).await.unwrap();
    assert!(seen.len() == FUNCTIONS as usize && files[1].len() > 50_000);
    (files, seen)
}

async fn fill(directory: &Directory, numbers: std::ops::Range<u64>) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Disk::open(directory);
    for number in numbers {
        let f = name(number);
        store.create_function(&function(&f), AMPLE).await.unwrap();
        accept(&store, NewCall { idempotency: None, ..new_call(&f, 2 * number) }).await;
        run(&store, new_call(&f, 2 * number + 1), output(2_000), 1, &KEEP).await;
    }
    store
}

async fn seen(store: &Arc<dyn Store>) -> Result<Seen, Error> {
    let mut seen = Vec::new();
    for function in store.functions().await? {
        let number: u64 = function.name.as_str()[1..].parse().unwrap();
        let mut calls = Vec::new();
        for call in [2 * number, 2 * number + 1] {
            calls.push(store.call(&new_call(&name(number), call).key).await?);
        }
        seen.push((function, calls));
    }
    Ok(seen)
}

/// How one of the files was damaged.
#[derive(Debug, Clone)]
enum Damage {
    Cut(usize),
    Flip(usize, u8),
    Zero(usize, usize),
}

impl Damage {
    fn on(&self, file: &mut Vec<u8>) {
        match *self {
            Self::Cut(at) => file.truncate(at % (file.len() + 1)),
            Self::Flip(at, bit) => {
                let at = at % file.len();
                file[at] ^= 1 << bit;
            }
            // A sector that was never written.
            Self::Zero(at, sectors) => {
                let at = at % file.len() / 512 * 512;
                let end = file.len().min(at + sectors * 512);
                file[at..end].fill(0);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        1 => any::<usize>().prop_map(Damage::Cut),
        4 => (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => (any::<usize>(), 1..16_usize).prop_map(|(at, sectors)| Damage::Zero(at, sectors)),
    ]
}

/// What a store tells that was opened on these files; `Err` if it says that they are damaged.
fn told(runtime: &tokio::runtime::Runtime, files: &[Vec<u8>; 2]) -> Result<Seen, String> {
    let directory = Directory::new();
    for (suffix, bytes) in ["", "-wal"].into_iter().zip(files) {
        fs::write(directory.0.path().join(format!("store.db{suffix}")), bytes).unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.file()).map_err(|e| e.to_string())?);
    runtime.block_on(seen(&store)).map_err(|e| e.to_string())
}

#[test]
fn a_damaged_file_is_told_or_ends_at_an_earlier_commit() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (files, whole) = runtime.block_on(left_by_a_kill());
    assert_eq!(told(&runtime, &files), Ok(whole.clone()));
    let (mut told_so, mut shorter) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases: 1_000,
        failure_persistence: None,
        ..Default::default()
    });
    let cases = (0..2_usize, damage());
    // What seldom comes by chance: a lost header, a file that is gone.
    let telling = [(1, Damage::Zero(0, 1)), (1, Damage::Flip(17, 0)), (1, Damage::Flip(9, 3)), (0, Damage::Cut(0))];
    for (file, damage) in &telling {
        let mut damaged = files.clone();
        damage.on(&mut damaged[*file]);
        told(&runtime, &damaged).expect_err(&format!("{damage:?}"));
    }
    for _ in 0..1_000 {
        let (file, damage) = cases.new_tree(&mut runner).unwrap().current();
        let mut damaged = files.clone();
        damage.on(&mut damaged[file]);
        match told(&runtime, &damaged) {
            Err(problem) => {
                told_so += 1;
                assert!(!problem.is_empty());
            }
            Ok(seen) if seen == whole => {}
            // The end of its log is lost, and nothing else: what SQLite cannot see, and an audit does. If the file is as
            // long as it was, that is its last commit at most, which a crash may have left half written.
            Ok(seen) => {
                shorter += 1;
                assert_eq!(file, 1, "{damage:?}: {} functions", seen.len());
                let least = if matches!(damage, Damage::Cut(_)) { FUNCTIONS / 2 } else { FUNCTIONS };
                assert!(seen.len() >= least as usize, "{damage:?}: {} functions", seen.len());
                let (last, before) = seen.split_last().unwrap();
                assert_eq!(before, &whole[..before.len()], "{damage:?}");
                assert_eq!(last.0, whole[before.len()].0, "{damage:?}");
            }
        }
    }
    assert!(told_so > 50 && shorter > 50, "{told_so} were told, {shorter} have lost their end");
}
