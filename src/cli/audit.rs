//! `audit`: whether a data directory keeps what was promised, whether its server runs or not.

use super::data::Data;
use super::{FAILED, output};
use crate::config::{Bytes, RawConfig};
use crate::service::audit::{self, Audit as Found};
use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc audit --data /srv/hyperfunc")]
pub(super) struct Audit {
    #[command(flatten)]
    data: Data,
    /// What the ended calls of one function may keep together, as the server has it [default: 50MB]
    #[arg(long, env = "HYPERFUNC_OUTPUT_CACHE", value_name = "BYTES")]
    output_cache: Option<Bytes>,
    /// What was found, as JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    /// Exits with 1 when something is wrong, and says what on stdout: one line each.
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let flags = RawConfig { output_cache: self.output_cache, ..RawConfig::default() };
        let config = self.data.settings(flags)?;
        let is_running = is_running(&config.data)?;
        let found = audit::audit(&config.data, &config.retention, is_running)?;
        if self.json {
            output::json(&as_json(&found))?;
        } else {
            say(&found, &config.data, is_running)?;
        }
        Ok(if found.store.findings.count() > 0 { FAILED } else { 0 })
    }
}

/// Whether a server has the directory now.
fn is_running(data: &Path) -> anyhow::Result<bool> {
    let path = data.join("lock");
    let lock = File::open(&path).with_context(|| format!("--data {}: no server was ever here", data.display()))?;
    Ok(flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

fn say(found: &Found, data: &Path, is_running: bool) -> anyhow::Result<()> {
    let Found { store, left_over } = found;
    let findings = &store.findings;
    for finding in findings.shown() {
        output::line(&output::one_line(finding))?;
    }
    let more = findings.count() - findings.shown().len() as u64;
    if more > 0 {
        output::line(&format!("and {more} more"))?;
    }
    let server = if is_running { "its server runs" } else { "its server is stopped" };
    let summary = match findings.count() {
        0 => "every promise holds".to_owned(),
        problems => output::many(problems, "problem"),
    };
    let (functions, images) = (output::many(store.functions, "function"), output::many(store.images, "image"));
    let calls = output::many(store.last_place.0, "call");
    // If nobody listens there, nobody needs to know.
    let _ = writeln!(
        io::stderr(),
        "{} ({server}): {summary}\n\
         {functions}, {images}; {calls} accepted: {} pending, {} running, {} ended, {} rotated out or expired, {} read or \
         removed, {} of removed functions",
        data.display(),
        store.pending,
        store.running,
        store.ended,
        store.gone,
        store.taken,
        store.removed,
    );
    if *left_over > 0 {
        let files = output::many(*left_over, "file");
        let _ = writeln!(io::stderr(), "{files} that no image names: the next start removes what is left over");
    }
    Ok(())
}

fn as_json(found: &Found) -> serde_json::Value {
    let Found { store, left_over } = found;
    json!({
        "Findings": store.findings.shown(), "FindingsTotal": store.findings.count(), "Functions": store.functions,
        "Images": store.images, "Accepted": store.last_place.0, "Pending": store.pending, "Running": store.running,
        "Ended": store.ended, "Gone": store.gone, "Taken": store.taken, "Removed": store.removed, "LeftOver": left_over,
    })
}
