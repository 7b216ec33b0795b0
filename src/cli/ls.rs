//! `ls`: lists functions.

use super::client::{Client, escaped};
use super::output;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc ls -f image=ubuntu -f label=team=x")]
pub(super) struct Ls {
    /// Only those that match: name=, image=, size= or label=, several times
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// As the server answers
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Func {
    name: String,
    container_size: String,
    timeout: u32,
    created: String,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: String,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
}

impl Ls {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut filters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for filter in &self.filters {
            let (key, value) = filter
                .split_once('=')
                .ok_or_else(|| anyhow::anyhow!("--filter {filter}: must be KEY=VALUE, such as name=hello"))?;
            filters.entry(key).or_default().push(value);
        }
        let target = format!("/funcs?filters={}", escaped(&serde_json::to_string(&filters)?));
        if self.json {
            output::json(&client.get::<serde_json::Value>(&target).await?)?;
            return Ok(0);
        }
        let functions: Vec<Func> = client.get(&target).await?;
        if self.quiet {
            functions.iter().try_for_each(|function| output::line(&function.name))?;
            return Ok(0);
        }
        let rows = functions.into_iter().map(|function| {
            let Config { image, entrypoint, cmd } = function.config;
            let command = output::shortened(&[entrypoint, cmd].concat().join(" "));
            vec![
                function.name,
                function.container_size,
                format!("{}s", function.timeout),
                image,
                command,
                function.created,
            ]
        });
        output::table(&["NAME", "SIZE", "TIMEOUT", "IMAGE", "COMMAND", "CREATED"], rows.collect())?;
        Ok(0)
    }
}
