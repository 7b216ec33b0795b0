//! `inspect`: shows functions as JSON.

use super::client::{Client, escaped};
use super::{FAILED, output};

#[derive(clap::Args)]
pub(super) struct Inspect {
    /// The functions
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Inspect {
    /// Prints those that are there, and says which are not.
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let mut found = Vec::new();
        let mut status = 0;
        for name in &self.names {
            match client.get::<serde_json::Value>(&format!("/funcs/{}", escaped(name))).await {
                Ok(function) => found.push(function),
                Err(error) => {
                    output::problem(&format!("{error:#}"));
                    status = FAILED;
                }
            }
        }
        output::json(&found)?;
        Ok(status)
    }
}
