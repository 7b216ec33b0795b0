//! `cancel`: ends a call, or discards what it left behind.

use super::address::Address;
use super::client::Client;
use super::output;
use clap::builder::NonEmptyStringValueParser;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc cancel 01a21058-8253-7790-9b0b-56681865e47e")]
pub(super) struct Cancel {
    /// The call: one that waits is dropped, one that runs is ended, one that has ended is discarded
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    call_id: String,
}

impl Cancel {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let function = Address::of_call(client, &self.call_id).await?;
        function.endpoint.delete(&function.output(&self.call_id)).await?;
        output::line(&self.call_id)?;
        Ok(0)
    }
}
