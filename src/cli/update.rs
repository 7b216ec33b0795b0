//! `update`: changes a function; what is not said stays.

use super::client::{Client, escaped};
use super::definition::{Definition, Telling};
use super::suggest;
use clap::builder::NonEmptyStringValueParser;

#[derive(clap::Args)]
#[command(
    after_help = "What is not said stays as it is, except that -e and --env-file replace the whole environment: \
    -e \"\" clears it. --fuel 0 and --max-concurrency 0 remove the limit.\n\n\
    Example: hyperfunc update --size m1 -e LEVEL=debug hello"
)]
pub(super) struct Update {
    /// Give it a new address; the old one is dead at once
    #[arg(long)]
    refresh: bool,
    /// Run another image from now on
    #[arg(long)]
    image: Option<String>,
    #[command(flatten)]
    definition: Definition,
    #[command(flatten)]
    telling: Telling,
    /// The function
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// The end of its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    cmd: Vec<String>,
}

impl Update {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let Self { refresh, image, definition, telling, name, cmd } = self;
        let mut func = definition.func()?;
        func.refresh = refresh;
        func.config.cmd = cmd;
        func.config.image.clone_from(&image);
        let reply = match client.put_json(&format!("/funcs/{}", escaped(&name)), &func).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = suggest::function(client, error, &name).await;
                return Err(suggest::image(client, error, &image.unwrap_or_default()).await);
            }
        };
        let in_words = |name: &str, address: &str| {
            if refresh {
                format!("Function {name} is updated with the address of {address}")
            } else {
                format!("Function {name} is updated.")
            }
        };
        telling.tell(client, reply, in_words).await?;
        Ok(0)
    }
}
