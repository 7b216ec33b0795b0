//! `call`: runs a function and waits for what it answers.

use super::client::{Client, escaped};
use bytes::Bytes;
use serde::Deserialize;
use std::io::{IsTerminal as _, Read as _, Write as _};

#[derive(clap::Args)]
pub(super) struct Call {
    /// Wait for the answer; this version has no other way to call
    #[arg(long, required = true)]
    sync: bool,
    /// The function
    name: String,
}

impl Call {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        #[derive(Deserialize)]
        struct Func {
            #[serde(rename = "UUID")]
            uuid: String,
        }
        let Func { uuid } = client.get(&format!("/funcs/{}", escaped(&self.name))).await?;
        let endpoint = client.func_endpoint().await?.near.client();
        let target = format!("/call/{}/{uuid}/sync", escaped(&self.name));
        let mut reply = endpoint.post(&target, "application/octet-stream", stdin().await?, |_| {}).await?;
        let mut stdout = std::io::stdout();
        while let Some(piece) = reply.piece().await? {
            stdout.write_all(&piece)?;
        }
        stdout.flush()?;
        Ok(0)
    }
}

/// What was piped in; nothing from a terminal.
async fn stdin() -> anyhow::Result<Bytes> {
    let read = || {
        let mut input = Vec::new();
        if !std::io::stdin().is_terminal() {
            // One byte more than a call may bring: the server then says what the limit is.
            std::io::stdin().take(crate::domain::STDIN_BYTES_MAX as u64 + 1).read_to_end(&mut input)?;
        }
        Ok(input.into())
    };
    tokio::task::spawn_blocking(read).await?
}
