//! `backup`: puts all that a server must know into one file, whether it runs or not.

use super::data::Data;
use super::{host, output};
use crate::service::backup::{self, Summary};
use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc backup monday.tar")]
pub(super) struct Backup {
    #[command(flatten)]
    data: Data,
    /// The keys too: whoever has the backup can then use all secrets that are in it
    #[arg(long)]
    with_keys: bool,
    /// Replaces FILE if it is there
    #[arg(long)]
    force: bool,
    /// What was written, as JSON
    #[arg(long)]
    json: bool,
    /// Where to write it; - is stdout
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let data = self.data.find()?;
        // Each module is one while it waits to be copied.
        host::raise_open_files();
        if self.file == Path::new("-") {
            return self.to_stdout(&data);
        }
        let shown = self.file.display().to_string();
        self.check_target()?;
        let partial = Partial::begin(&self.file)?;
        let backup = backup::Backup::take(&data, self.with_keys, &beside(&self.file, ".partial.db")?)?;
        let summary = backup.write(BufWriter::new(&partial.file), &self.file)?;
        partial.file.sync_all().with_context(|| shown.clone())?;
        self.check_target()?;
        partial.finish(&self.file)?;
        self.say(&summary, &shown)?;
        Ok(0)
    }

    /// Another program takes it, such as a `restore` on another machine; so what was written is said on stderr.
    fn to_stdout(&self, data: &Path) -> anyhow::Result<u8> {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            bail!("a backup is no text for a terminal: name a file, or another program");
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| anyhow!("no random bytes: {e}"))?;
        let scratch = std::env::temp_dir().join(format!("hyperfunc-backup-{:016x}", u64::from_ne_bytes(random)));
        let backup = backup::Backup::take(data, self.with_keys, &scratch)?;
        let summary = backup.write(BufWriter::new(stdout.lock()), Path::new("stdout"));
        let summary = summary.map_err(|e| match e {
            // Whoever reads it has seen enough, or is gone: it is no backup.
            backup::Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                anyhow!("stdout: its reader has left before the end")
            }
            other => other.into(),
        })?;
        // If nobody listens there, nobody needs to know.
        let _ = writeln!(io::stderr(), "{}", line(&summary, "stdout"));
        Ok(0)
    }

    /// What is there is only replaced by one who says so, and only if it is a file.
    fn check_target(&self) -> anyhow::Result<()> {
        let shown = self.file.display();
        match fs::symlink_metadata(&self.file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(anyhow!(e).context(format!("{shown}"))),
            Ok(found) if !found.is_file() => bail!("{shown}: is there already, and is no file"),
            Ok(_) if !self.force => bail!("{shown}: is there already; --force replaces it"),
            Ok(_) => Ok(()),
        }
    }

    fn say(&self, summary: &Summary, shown: &str) -> anyhow::Result<()> {
        said(summary, ("File", shown), self.json)
    }
}

/// Says what a backup holds: as a line, or as JSON.
pub(super) fn said(summary: &Summary, (key, shown): (&str, &str), json: bool) -> anyhow::Result<()> {
    if !json {
        return Ok(output::line(&line(summary, shown))?);
    }
    let Summary { created, functions, images, queued, results, bytes } = summary;
    output::json(&serde_json::json!({
        key: shown, "Created": created, "Functions": functions, "Images": images, "Queued": queued, "Results": results,
        "Bytes": bytes,
    }))
}

fn line(summary: &Summary, shown: &str) -> String {
    let Summary { created: _, functions, images, queued, results, bytes } = *summary;
    let counts = [(functions, "function"), (images, "image"), (queued, "queued call"), (results, "result")];
    let counts = counts.map(|(count, what)| output::many(count, what)).join(", ");
    format!("{shown}: {counts}, {}", output::bytes(bytes))
}

fn beside(file: &Path, suffix: &str) -> anyhow::Result<PathBuf> {
    let mut name: OsString = file.file_name().with_context(|| format!("{}: names no file", file.display()))?.into();
    name.push(suffix);
    Ok(file.with_file_name(name))
}

/// A file that gets its name once it is whole; dropped before, it is gone.
struct Partial {
    path: PathBuf,
    file: File,
    is_named: bool,
}

impl Partial {
    /// Takes the place of one that was left by a backup that was killed, but not of one that is being written.
    fn begin(target: &Path) -> anyhow::Result<Self> {
        let path = beside(target, ".partial")?;
        let shown = || format!("{}", path.display());
        let mut options = File::options();
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        let options = options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
        let file = options.open(&path).with_context(shown)?;
        let found = file.metadata().with_context(shown)?;
        // In a directory that others write to as well.
        if !found.is_file() || found.nlink() > 1 || found.uid() != geteuid().as_raw() {
            bail!("{}: is somebody else's", path.display());
        }
        file.set_permissions(fs::Permissions::from_mode(0o600)).with_context(shown)?;
        let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // One that has just ended has given the file its name.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let is_there = is_ours && fs::metadata(&path).ok().map(identity) == file.metadata().ok().map(identity);
        if !is_there {
            bail!("{}: another backup is being written to it", target.display());
        }
        file.set_len(0).with_context(shown)?;
        Ok(Self { path, file, is_named: false })
    }

    fn finish(mut self, target: &Path) -> anyhow::Result<()> {
        let shown = || format!("{}", target.display());
        fs::rename(&self.path, target).with_context(shown)?;
        self.is_named = true;
        let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).with_context(shown)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_named {
            // What cannot be removed now makes way for the next one.
            let _ = fs::remove_file(&self.path);
        }
    }
}
