//! The data directory: where it is, and whose.

use super::exit::{self, USAGE};
use super::{host, settings};
use crate::config::{Config, RawConfig, data_dir};
use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which data directory a verb is about that works without a server: found as `serve` finds it.
#[derive(clap::Args)]
pub(super) struct Data {
    /// The data directory [default: the XDG data directory, ~/.local/share/hyperfunc]
    #[arg(long, env = "HYPERFUNC_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    settings: settings::FileFlag,
}

impl Data {
    /// The directory, whether it is there or not.
    pub(super) fn find(&self) -> anyhow::Result<PathBuf> {
        let file = self.settings.read()?.file.settings.server;
        data_dir(self.data.clone().or(file.data), host::data_dir()).map_err(|invalid| exit::with(USAGE, invalid))
    }

    /// The settings that its server has: these flags, and where one is absent the settings file.
    pub(super) fn settings(&self, flags: RawConfig) -> anyhow::Result<Config> {
        self.settings.read()?.of_server(RawConfig { data: self.data.clone(), ..flags })
    }
}

/// How often a lock is asked for, and how long between.
const LOCK_TRIES: u32 = 5;
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The data directory is this process's alone while this is held.
pub(super) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes it, and makes the directory if there is none.
    pub(super) fn take(data: &Path) -> anyhow::Result<Self> {
        let shown = data.display();
        let is_new = !data.exists();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data).with_context(|| format!("--data {shown}"))?;
        if is_new {
            // It is durable when the directory that names it is.
            let parent = data.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent).and_then(|dir| dir.sync_all()).with_context(|| format!("{}", parent.display()))?;
        }
        let path = data.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("{}", path.display()))?;
        // An audit looks at it for a moment.
        let is_taken = (0..LOCK_TRIES).any(|again| {
            if again > 0 {
                std::thread::sleep(LOCK_AGAIN_AFTER);
            }
            flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        if !is_taken {
            let mut holder = String::new();
            // It says only whom to look for.
            let _ = file.read_to_string(&mut holder);
            bail!("--data {shown}: another server uses it: process {}", holder.trim());
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.with_context(|| format!("{}", path.display()))?;
        Ok(Self { _file: file })
    }
}
