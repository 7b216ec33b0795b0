//! `create`: defines a function.

use super::client::Client;
use super::definition::{Definition, Telling};
use super::suggest;
use anyhow::bail;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc create --name hello -e WHO=me ubuntu echo Hello")]
pub(super) struct Create {
    /// Its name [default: the image's, and a few letters]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    definition: Definition,
    #[command(flatten)]
    telling: Telling,
    /// The image
    image: String,
    /// The end of its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    cmd: Vec<String>,
}

impl Create {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let Self { name, definition, telling, image, cmd } = self;
        let mut func = definition.func()?;
        func.name = Some(name.map_or_else(|| made_name(&image), Ok)?);
        func.config.cmd = cmd;
        func.config.image = Some(image.clone());
        let reply = match client.post_json("/funcs/create", &func).await {
            Ok(reply) => reply,
            Err(error) => return Err(suggest::image(client, error, &image).await),
        };
        let in_words = |name: &str, address: &str| format!("{name} is created with the address of {address}");
        telling.tell(client, reply, in_words).await?;
        Ok(0)
    }
}

/// A name that is probably free: the last part of the image's, and six random letters.
fn made_name(image: &str) -> anyhow::Result<String> {
    let last = image.split('@').next().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    let base: String = last.split(':').next().unwrap_or_default().replace(['.', '_'], "-");
    let mut random = [0_u8; 3];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    let [a, b, c] = random;
    let name = format!("{base}-{a:02x}{b:02x}{c:02x}");
    if base.is_empty() { bail!("{image:?} is not the name of an image") } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_name_is_a_functions() {
        for image in ["ubuntu", "a/b_c.d:1", "localhost:5000/x@sha256:00"] {
            let name = made_name(image).unwrap();
            assert!(crate::domain::FunctionName::new(&name).is_ok(), "{name}");
        }
        assert!(made_name("").is_err());
    }
}
