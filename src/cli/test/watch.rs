//! `--watch`: which files have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How often files are looked at. Asking for them works on every file system, where being told does not.
const INTERVAL: Duration = Duration::from_millis(100);
/// Looking takes at most this part of the time, however many files there are.
const SHARE: u32 = 10;

/// What tells one state of a file from another; `None` if it is not there.
type Stamp = Option<(SystemTime, u64)>;

/// How files were when they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<PathBuf, Stamp>);

impl Stamps {
    /// Looks at more files.
    pub(super) fn look(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.0.extend(paths.into_iter().map(|path| (path.clone(), stamp(&path))));
    }

    /// Looks at the same files again.
    pub(super) fn again(&self) -> Self {
        let mut now = Self::default();
        now.look(self.0.keys().cloned());
        now
    }

    /// The files that are now as they were not, or that were not looked at before.
    fn changed(&self, now: &Self) -> BTreeSet<PathBuf> {
        let changed = now.0.iter().filter(|(path, stamp)| self.0.get(*path) != Some(stamp));
        changed.map(|(path, _)| path.clone()).collect()
    }

    /// Waits until files have changed, and then until they do not any more: a compiler writes its output in pieces.
    /// `appeared` names files that may be new.
    pub(super) async fn change(&self, appeared: impl Fn() -> Vec<PathBuf>) -> BTreeSet<PathBuf> {
        let mut before = self.clone();
        loop {
            let began = Instant::now();
            let mut now = self.again();
            now.look(appeared());
            let changed = self.changed(&now);
            if !changed.is_empty() && now == before {
                return changed;
            }
            before = now;
            tokio::time::sleep(INTERVAL.max(began.elapsed() * SHARE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn what_changes_appears_or_goes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let [same, changed, gone, new] = ["same", "changed", "gone", "new"].map(|name| dir.path().join(name));
        for file in [&same, &changed, &gone] {
            fs::write(file, "1").unwrap();
        }
        let mut stamps = Stamps::default();
        stamps.look([same, changed.clone(), gone.clone(), new.clone()]);
        fs::write(&changed, "22").unwrap();
        fs::remove_file(&gone).unwrap();
        fs::write(&new, "").unwrap();
        let other = dir.path().join("other");
        let seen = stamps.change(|| vec![other.clone()]).await;
        assert_eq!(seen, BTreeSet::from([changed, gone, new, other]));
    }
}
