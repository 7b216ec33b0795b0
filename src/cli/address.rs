//! Where a function is called, and where that is read which its calls left behind (`docs/api.md` section 4).

use super::client::{Client, escaped};
use serde::Deserialize;

/// The address of a function, whose UUID is a secret: no message tells it.
pub(super) struct Address {
    /// Who answers there.
    pub(super) endpoint: Client,
    name: String,
    uuid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Func {
    name: String,
    #[serde(rename = "UUID")]
    uuid: String,
}

impl Address {
    /// The address of the function with that name.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn of_function(client: &Client, name: &str) -> anyhow::Result<Self> {
        Self::at(client, &format!("/funcs/{}", escaped(name))).await
    }

    /// The address of the function that a call belongs to.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn of_call(client: &Client, call_id: &str) -> anyhow::Result<Self> {
        Self::at(client, &format!("/funcs/call/{}", escaped(call_id))).await
    }

    async fn at(client: &Client, target: &str) -> anyhow::Result<Self> {
        let Func { name, uuid } = client.get(target).await?;
        Ok(Self { endpoint: client.func_endpoint().await?.near.client(), name, uuid })
    }

    /// The function's path on a route of the endpoint: `/call/NAME/UUID`.
    pub(super) fn path(&self, route: &str) -> String {
        format!("/{route}/{}/{}", escaped(&self.name), escaped(&self.uuid))
    }

    /// The path of what a call left behind.
    pub(super) fn output(&self, call_id: &str) -> String {
        format!("{}/{}", self.path("output"), escaped(call_id))
    }
}
