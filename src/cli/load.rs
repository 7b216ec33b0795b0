//! `load`: sends a module to the server.

use super::client::{Client, NO_SENSE, escaped};
use super::output;
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(clap::Args)]
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
        let module = tokio::fs::read(&self.file).await.with_context(|| format!("{shown}"))?;
        let named = self.file.file_stem().and_then(|stem| stem.to_str()).map(str::to_lowercase);
        let name = self.tag.or(named).with_context(|| format!("{shown}: needs a name: -t NAME"))?;
        // Shown on a terminal only.
        let bar = ProgressBar::new(module.len() as u64).with_style(style());
        bar.set_message("sending");
        let sending = bar.clone();
        let on_sent = move |bytes| sending.inc(bytes as u64);
        let target = format!("/images/load?name={}", escaped(&name));
        let mut reply = client.post(&target, "application/wasm", module.into(), on_sent).await?;
        let mut last = None;
        while let Some(lines) = reply.lines().await? {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Line = serde_json::from_slice(line).context(NO_SENSE)?;
                if let Some(error) = line.error {
                    bail!("{shown}: {error}");
                }
                if let Some(ProgressDetail { current, total }) = line.progress_detail {
                    bar.set_message("compiling");
                    bar.set_length(total);
                    bar.set_position(current);
                }
                last = line.status;
            }
        }
        bar.finish_and_clear();
        output::line(&last.context("the server did not say how it went")?)?;
        Ok(0)
    }
}

fn style() -> ProgressStyle {
    const TEMPLATE: &str = "{msg:>9} [{bar:40}] {bytes}/{total_bytes}";
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}
