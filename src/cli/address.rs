//! Where a function is called, and where that is read which its calls left behind (`docs/api.md` section 4).

use super::client::{Client, escaped, no_sense};
use super::suggest;
use serde::Deserialize;
use serde_json::Value;

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
        match Self::at(client, &format!("/funcs/{}", escaped(name))).await {
            Err(error) => Err(suggest::function(client, error, name).await),
            address => address,
        }
    }

    /// Where everybody calls a function, as the server has described it.
    ///
    /// # Errors
    /// As [`Client::get`], or when that is no function.
    pub(super) async fn public(client: &Client, func: &Value) -> anyhow::Result<String> {
        let Func { name, uuid } = Func::deserialize(func).map_err(no_sense)?;
        Ok(format!("{}/call/{}/{uuid}", client.func_endpoint().await?.public, escaped(&name)))
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
