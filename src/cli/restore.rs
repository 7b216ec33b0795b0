//! `restore`: makes a data directory of a backup.

use super::backup::said;
use super::data::{Data, DataLock};
use crate::service::backup::{self, Error};
use anyhow::{Context as _, anyhow};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc restore --data /srv/hyperfunc monday.tar")]
pub(super) struct Restore {
    #[command(flatten)]
    data: Data,
    /// What was restored, as JSON
    #[arg(long)]
    json: bool,
    /// The backup; - is stdin
    file: PathBuf,
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let data = self.data.find()?;
        if self.file == Path::new("-") {
            return self.restore(io::stdin().lock(), None, &data);
        }
        let shown = || format!("{}", self.file.display());
        let file = File::open(&self.file).with_context(shown)?;
        let metadata = file.metadata().with_context(shown)?;
        let len = metadata.is_file().then_some(metadata.len());
        self.restore(BufReader::new(file), len, &data)
    }

    fn restore(&self, from: impl Read, len: Option<u64>, data: &Path) -> anyhow::Result<u8> {
        // Before anything is made: most of what can be wrong with a backup is seen by now.
        let opened = backup::open(from, len).map_err(|e| self.named(e))?;
        let _lock = DataLock::take(data)?;
        let summary = opened.restore(data).map_err(|e| self.named(e))?;
        said(&summary, ("Data", &data.display().to_string()), self.json)?;
        Ok(0)
    }

    /// Says of which file an error tells, where it does not say so itself.
    fn named(&self, error: Error) -> anyhow::Error {
        match error {
            Error::Io { .. } | Error::DiskFull { .. } | Error::NotEmpty { .. } => error.into(),
            other => anyhow!(other).context(format!("{}", self.file.display())),
        }
    }
}
