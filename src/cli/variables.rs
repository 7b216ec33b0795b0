//! The variables of an environment, as Docker's options have them.

use anyhow::Context as _;
use std::env::VarError;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Variables {
    /// A variable of its environment; without a value, this shell's
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl Variables {
    /// Whether one of them is empty: `-e ""` is how the Hyper command line clears an environment.
    pub(super) fn clear(&self) -> bool {
        self.env.iter().any(String::is_empty)
    }

    /// `NAME=value` each, those of the files first: of two with one name the later counts.
    ///
    /// # Errors
    /// When a file cannot be read, or a value of this shell's is not UTF-8.
    pub(super) fn read(self) -> anyhow::Result<Vec<String>> {
        let mut variables = lines(&self.env_file)?;
        variables.extend(self.env);
        variables.into_iter().filter_map(|variable| with_value(variable).transpose()).collect()
    }
}

/// The lines of all files that are neither empty nor comments.
///
/// # Errors
/// When one cannot be read.
pub(super) fn lines(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let read = |file: &Path| std::fs::read_to_string(file).with_context(|| format!("{}", file.display()));
    let texts = files.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?;
    let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// Of a name alone, the value that it has in this process, if it has one.
fn with_value(variable: String) -> anyhow::Result<Option<String>> {
    if variable.contains('=') {
        return Ok(Some(variable));
    }
    match std::env::var(&variable) {
        Ok(value) => Ok(Some(format!("{variable}={value}"))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => anyhow::bail!("--env {variable}: its value in this shell is not UTF-8"),
    }
}
