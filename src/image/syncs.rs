//! Whether the disk has taken all that it was asked to keep.

use super::Error;
use std::io;
use std::path::Path;
use tokio::sync::watch;

/// Hears how every sync ended. After one that failed nobody knows what is on disk: a second one that succeeds proves
/// nothing. A cheap clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Syncs(watch::Sender<Option<String>>);

impl Syncs {
    /// How the sync of a file or directory ended.
    ///
    /// # Errors
    /// As it did. A full disk is no failure of it: what did not fit was promised to nobody.
    pub(super) fn ended(&self, path: &Path, synced: io::Result<()>) -> Result<(), Error> {
        synced.map_err(Error::io(path)).inspect_err(|error| {
            if !matches!(error, Error::DiskFull) {
                self.0.send_replace(Some(error.to_string()));
            }
        })
    }

    /// Ready once one has failed, with the file and the reason.
    pub(super) async fn failed(&self) -> String {
        let mut failed = self.0.subscribe();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        // Its sender is in here: there is a reason.
        reason.unwrap_or_default()
    }
}
