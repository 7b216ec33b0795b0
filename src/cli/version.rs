//! `version`: which program this is, and which server answers.

use super::client::Client;
use super::output;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc version")]
pub(super) struct Version {
    /// As one object; `Server` is as the server answers, or null
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    version: String,
    api_version: String,
}

impl Version {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        if self.json {
            let server: Option<Value> = client.get("/version").await.ok();
            output::json(&json!({"Client": {"Version": env!("CARGO_PKG_VERSION")}, "Server": server}))?;
            return Ok(0);
        }
        output::line(&format!("client: hyperfunc {}", env!("CARGO_PKG_VERSION")))?;
        // Which program this is, one may ask without a server.
        let server = match client.get::<Server>("/version").await {
            Ok(Server { version, api_version }) => {
                format!("hyperfunc {version}, API {api_version}, at {}", client.server())
            }
            Err(_) => format!("none answers at {}", client.server()),
        };
        output::line(&format!("server: {server}"))?;
        Ok(0)
    }
}
