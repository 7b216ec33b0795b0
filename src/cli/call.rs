//! `call`: calls a function, and waits for what it answers or does not.

use super::address::Address;
use super::client::{Client, IdempotencyKey};
use super::output;
use bytes::Bytes;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use std::io::{IsTerminal as _, Read as _};

#[derive(clap::Args)]
#[command(after_help = "Example: echo hi | hyperfunc call --sync hello")]
pub(super) struct Call {
    /// Wait for the answer and print it, in place of the id that `get` asks for it by
    #[arg(long)]
    sync: bool,
    /// Print the id alone
    #[arg(short, long, conflicts_with = "sync")]
    quiet: bool,
    /// Make the call once: sent again with its key within 24 hours, it is the same call
    #[arg(long, value_name = "KEY", conflicts_with = "sync")]
    idempotency_key: Option<IdempotencyKey>,
    /// The function
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Accepted {
    call_id: String,
}

impl Call {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let function = Address::of_function(client, &self.name).await?;
        let target = function.path("call");
        if self.sync {
            let reply = function.endpoint.call(&format!("{target}/sync"), stdin().await?, None).await?;
            output::body(reply).await?;
            return Ok(0);
        }
        let reply = function.endpoint.call(&target, stdin().await?, self.idempotency_key).await?;
        let Accepted { call_id } = reply.json().await?;
        output::line(&if self.quiet { call_id } else { format!("CallId: {call_id}") })?;
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
