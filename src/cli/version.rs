//! `version`: which program this is, and which server answers.

use super::client::Client;
use super::output;
use serde::Deserialize;

#[derive(clap::Args)]
pub(super) struct Version {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    version: String,
    api_version: String,
}

impl Version {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
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
