//! `rm`: removes functions.

use super::client::{Client, escaped};
use super::{exit, output, suggest};
use clap::builder::NonEmptyStringValueParser;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc rm -f hello")]
pub(super) struct Rm {
    /// End the calls that run
    #[arg(short, long)]
    force: bool,
    /// The functions
    #[arg(required = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
}

impl Rm {
    /// Removes what it can, and says what it cannot.
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut status = 0;
        for name in &self.names {
            let target = format!("/funcs/{}?force={}", escaped(name), u8::from(self.force));
            match client.delete(&target).await {
                Ok(_) => output::line(name)?,
                Err(error) => {
                    let error = suggest::function(client, error, name).await;
                    status = exit::of_one(&error, &self.names);
                    output::failure(&error);
                }
            }
        }
        Ok(status)
    }
}
