//! Whether a data directory keeps what was promised (`docs/api.md` section 5), whether its server runs or not.

use super::error::Failure;
use crate::image::ImageFiles;
use crate::store::{LOG_BYTES_MAX, Retention, SqliteStore, StoreAudit, audit_logs};
use std::path::Path;
use std::time::Duration;

/// How old a file is that no image names and that a server is not about to name: its module may have to be compiled first.
const ORPHAN_AGE: Duration = Duration::from_secs(300);
/// How often images are read that name a module which is not there: it may have been removed with its image meanwhile.
const LOOKS: u32 = 3;

/// What an audit found.
#[derive(Debug)]
pub struct Audit {
    /// What the store holds, and all that is wrong.
    pub store: StoreAudit,
    /// Files that no image names, of a server that does not run: its next start removes them.
    pub left_over: u64,
}

/// Looks through the data directory `data`. Only reads. `is_running` says whether a server has it now, and `keep` what
/// that may keep of ended calls.
///
/// # Errors
/// When it cannot be looked through at all.
pub fn audit(data: &Path, keep: &Retention, is_running: bool) -> Result<Audit, Failure> {
    // First what was told of calls, and then the store, which knew of each before it was told.
    let (mut accepted, mut too_large) = (Vec::new(), Vec::new());
    let logs = data.join("logs");
    let read = audit_logs(
        &logs,
        |call_id, place| accepted.push((call_id, place)),
        |function, bytes| too_large.push(format!("logs ({function}): {bytes} bytes, and {LOG_BYTES_MAX} may be")),
    );
    read.map_err(|e| Failure::Internal(format!("{}: {e}", logs.display())))?;
    let path = data.join(SqliteStore::FILE_NAME);
    let mut store = SqliteStore::audit(&path, keep)?;
    if !is_running && let Err(error) = SqliteStore::check_log(&path) {
        store.findings.add(error.to_string());
    }
    let orphan_age = if is_running { ORPHAN_AGE } else { Duration::ZERO };
    let look = || Ok::<_, Failure>(ImageFiles::audit(data, &SqliteStore::modules(&path)?, orphan_age)?);
    let mut modules = look()?;
    for _ in 1..LOOKS {
        if modules.findings.is_empty() {
            break;
        }
        modules = look()?;
    }
    let lost: Vec<_> = accepted.iter().filter_map(|(id, place)| store.check_logged(*id, *place).err()).collect();
    let orphans = if is_running { modules.orphans.as_slice() } else { &[] };
    let orphans = orphans.iter().map(|path| format!("{path}: no image names it"));
    for finding in lost.into_iter().chain(too_large).chain(modules.findings).chain(orphans) {
        store.findings.add(finding);
    }
    let left_over = if is_running { 0 } else { modules.orphans.len() as u64 };
    Ok(Audit { store, left_over })
}
