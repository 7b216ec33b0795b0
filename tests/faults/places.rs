//! Each place in the sources is broken by a test, and each that a test breaks is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The texts of all sources below a directory.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
    found
}

#[test]
fn each_place_is_broken_by_a_test_and_has_a_name_of_its_own() {
    let mut places = Vec::new();
    for (_, text) in sources("src") {
        for call in ["failpoint::check(\"", "failpoint::hit(\""] {
            places.extend(text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    assert!(places.len() > 30, "they are elsewhere: {places:?}");
    let names: BTreeSet<_> = places.iter().collect();
    assert_eq!(names.len(), places.len(), "a name that is given twice: {places:?}");
    let tests: String = sources("tests/faults").into_iter().map(|(_, text)| text).collect();
    let is_broken = |place: &&String| tests.contains(&format!("\"{place}\"")) || tests.contains(&format!("\"{place}="));
    let untested: Vec<_> = places.iter().filter(|place| !is_broken(place)).collect();
    assert!(untested.is_empty(), "nothing breaks these: {untested:?}");
    // Of what looks like a place.
    let word = |text: &str| text.contains('.') && text.chars().all(|c| matches!(c, 'a'..='z' | '_' | '.'));
    let steps = [".before_", ".after_", ".mid"];
    for text in tests.split('"').filter(|text| word(text) && steps.iter().any(|step| text.contains(step))) {
        assert!(steps.contains(&text) || names.contains(&text.to_owned()), "{text} is nowhere in the sources");
    }
}
