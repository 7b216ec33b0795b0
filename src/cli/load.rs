//! `load`: sends a module to the server.

use super::client::{Client, Payload, escaped};
use super::output;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How much is sent between two steps of the bar, in bytes.
const STEP_BYTES: usize = 64 << 10;

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
        let body = Sending { rest: module.into(), bar: bar.clone() };
        let payload = Payload { media_type: "application/wasm", body };
        let mut reply = client.post(&format!("/images/load?name={}", escaped(&name)), payload).await?;
        let mut text = Vec::new();
        let mut last = None;
        while let Some(piece) = reply.piece().await? {
            text.extend_from_slice(&piece);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line: Line = serde_json::from_slice(&line).context("the server's answer makes no sense")?;
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

/// A body that moves a bar as it is sent.
struct Sending {
    rest: Bytes,
    bar: ProgressBar,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let step = self.rest.len().min(STEP_BYTES);
        self.bar.inc(step as u64);
        let piece = self.rest.split_to(step);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
