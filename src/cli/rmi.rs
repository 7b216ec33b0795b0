//! `rmi`: removes images.

use super::client::{Client, escaped_path};
use super::{exit, output, suggest};
use clap::builder::NonEmptyStringValueParser;
use std::collections::BTreeMap;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc rmi ubuntu acme/tool:2")]
pub(super) struct Rmi {
    /// Remove one that functions use, too: their calls fail from then on
    #[arg(short, long)]
    force: bool,
    /// The images: names, with or without a tag, or Ids
    #[arg(required = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
}

impl Rmi {
    /// Removes what it can, and says what it cannot.
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut status = 0;
        for name in &self.names {
            if let Err(error) = self.remove(client, name).await {
                let error = suggest::image(client, error, name).await;
                status = exit::of_one(&error, &self.names);
                output::failure(&error);
            }
        }
        Ok(status)
    }

    /// Removes one, and prints what that did: `Untagged: NAME`, `Deleted: ID`.
    async fn remove(&self, client: &Client, name: &str) -> anyhow::Result<()> {
        let target = format!("/images/{}?force={}", escaped_path(name), u8::from(self.force));
        let done: Vec<BTreeMap<String, String>> = client.delete(&target).await?.json().await?;
        for (what, name) in done.iter().flatten() {
            output::line(&format!("{what}: {name}"))?;
        }
        Ok(())
    }
}
