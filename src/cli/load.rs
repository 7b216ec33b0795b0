//! `load`: sends a module to the server.

use super::client::{Client, Refusal, escaped, no_sense};
use super::exit::{self, FAILED, NOT_RUNNABLE, SERVER_ERROR};
use super::{output, run};
use crate::domain::ImageReference;
use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc load toolbox.wasm -t ubuntu")]
pub(super) struct Load {
    /// A WebAssembly module
    file: PathBuf,
    /// Its name [default: the file's, without .wasm]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
}

/// A line of what the server tells.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    status: Option<String>,
    progress_detail: Option<ProgressDetail>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct ProgressDetail {
    current: u64,
    total: u64,
}

impl Load {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let shown = self.file.display();
        let module = run::read(&self.file)?;
        let named = self.file.file_stem().and_then(|stem| stem.to_str()).map(str::to_lowercase);
        let name = self.tag.clone().or(named).with_context(|| format!("{shown}: needs a name: -t NAME"))?;
        // A wrong name is said before anything is sent: what the server then refuses is the module.
        ImageReference::parse(&name).map_err(|e| anyhow!("-t {name}: {e}"))?;
        // Shown on a terminal only.
        let bar = ProgressBar::new(module.len() as u64).with_style(style()).with_finish(ProgressFinish::AndClear);
        bar.set_message("sending");
        let sending = bar.clone();
        let on_sent = move |bytes| sending.inc(bytes as u64);
        let target = format!("/images/load?name={}", escaped(&name));
        let mut reply = client.load(&target, module.into(), on_sent).await.map_err(|e| self.refused(e))?;
        let mut last = None;
        while let Some(lines) = reply.lines().await? {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Line = serde_json::from_slice(line).map_err(no_sense)?;
                if let Some(error) = line.error {
                    return Err(self.not_compiled(&error));
                }
                if let Some(ProgressDetail { current, total }) = line.progress_detail {
                    bar.set_message("compiling");
                    bar.set_length(total);
                    bar.set_position(current);
                    // What was sent has used up the draws that a moment has, and the next line may take its time.
                    bar.force_draw();
                }
                last = line.status;
            }
        }
        bar.finish_and_clear();
        output::line(&last.context("the server did not say how it went")?)?;
        Ok(0)
    }

    fn refused(&self, error: anyhow::Error) -> anyhow::Error {
        match Refusal::of(&error) {
            Some(Refusal { status: 400, message }) => {
                exit::with(NOT_RUNNABLE, format_args!("{}: {message}", self.file.display()))
            }
            _ => error,
        }
    }

    /// What is said after the status 200: that the module cannot be compiled, that by then the account was full, or
    /// that the server failed.
    fn not_compiled(&self, error: &str) -> anyhow::Error {
        let status = match error {
            "server error" | "the disk is full" => SERVER_ERROR,
            _ if error.starts_with("quota: ") => FAILED,
            _ => NOT_RUNNABLE,
        };
        exit::with(status, format_args!("{}: {}", self.file.display(), output::one_line(error)))
    }
}

fn style() -> ProgressStyle {
    const TEMPLATE: &str = "{msg:>9} [{wide_bar}] {bytes}/{total_bytes}";
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}
