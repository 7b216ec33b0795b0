//! `inspect`: shows functions as JSON, or what a template makes of them.

use super::client::{Client, escaped};
use super::template::Template;
use super::{exit, output, suggest};
use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use serde_json::Value;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc inspect -f '{{.Config.Image}} {{json .Config.Env}}' hello")]
pub(super) struct Inspect {
    /// Print what this Go template makes of each: {{.Name}}, {{json .Config}}, {{index .Config.Env 0}}, {{len X}},
    /// {{range X}}…{{end}}, {{if X}}…{{else}}…{{end}}
    #[arg(short, long, value_name = "TEMPLATE", allow_hyphen_values = true)]
    format: Option<Template>,
    /// The functions
    #[arg(required = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
}

impl Inspect {
    /// Prints those that are there, and says which are not.
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut found = Vec::new();
        let mut status = 0;
        for name in &self.names {
            match (self.one(client, name).await, &self.format) {
                (Ok(function), None) => found.push(function),
                (Ok(made), Some(_)) => output::line(made.as_str().unwrap_or_default())?,
                (Err(error), _) => {
                    status = exit::of_one(&error, &self.names);
                    output::failure(&error);
                }
            }
        }
        if self.format.is_none() {
            output::json(&found)?;
        }
        Ok(status)
    }

    /// A function, or the text that the template makes of it.
    async fn one(&self, client: &Client, name: &str) -> anyhow::Result<Value> {
        let function = match client.get(&format!("/funcs/{}", escaped(name))).await {
            Ok(function) => function,
            Err(error) => return Err(suggest::function(client, error, name).await),
        };
        match &self.format {
            Some(template) => Ok(template.render(&function).context("--format")?.into()),
            None => Ok(function),
        }
    }
}
