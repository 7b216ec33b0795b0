//! What the logs say of calls that were accepted, and what they take: read beside a server or without one.

use super::files::FILES;
use super::line::{Line, decode};
use super::{LOG_BYTES_MAX, subdirectories};
use crate::domain::{CallId, Place};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::path::Path;

/// Reads all logs below `dir`. `accepted` hears of each call that was accepted on disk, and `too_large` of each function
/// whose log takes more than it may, with its bytes.
///
/// # Errors
/// When something cannot be read.
pub fn audit_logs(
    dir: &Path,
    mut accepted: impl FnMut(CallId, Place),
    mut too_large: impl FnMut(&str, u64),
) -> io::Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for (account_dir, _) in subdirectories(dir)? {
        let functions = match subdirectories(&account_dir) {
            // Its last function was removed meanwhile.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            functions => functions?,
        };
        for (function_dir, function) in functions {
            let mut bytes = 0;
            for name in FILES {
                match File::open(function_dir.join(name)) {
                    Ok(file) => {
                        bytes += file.metadata()?.len();
                        audit_file(file, &mut accepted)?;
                    }
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            if bytes > LOG_BYTES_MAX {
                too_large(&function.to_string_lossy(), bytes);
            }
        }
    }
    Ok(())
}

fn audit_file(file: File, accepted: &mut impl FnMut(CallId, Place)) -> io::Result<()> {
    for line in BufReader::new(file).split(b'\n') {
        // A line that nobody reads is told as a gap: logs are not promised.
        if let Some(Line::Record(record)) = decode(&line?)
            && let Some(place) = record.place
        {
            accepted(record.call_id, place);
        }
    }
    Ok(())
}
