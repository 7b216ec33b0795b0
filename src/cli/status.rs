//! `status`: counts the calls of a function, or lists them.

use super::address::Address;
use super::client::{Client, escaped, no_sense};
use super::output;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde_json::{Map, Value};

/// How many calls are asked for at once.
const PAGE: usize = 1000;

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc status --list hello")]
pub(super) struct Status {
    /// List the asynchronous calls that are still known, oldest first
    #[arg(long)]
    list: bool,
    /// As the server answers
    #[arg(long)]
    json: bool,
    /// The function
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Counts {
    total: u64,
    pending: u64,
    running: u64,
    finished: u64,
    failed: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    call_id: String,
    created: String,
    status: String,
    message: Option<String>,
}

impl Status {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let function = Address::of_function(client, &self.name).await?;
        let target = function.path("status");
        let mut status: Map<String, Value> = if self.list {
            whole_list(&function.endpoint, &target).await?
        } else {
            function.endpoint.get(&target).await?
        };
        if self.json {
            output::json(&status)?;
        } else if self.list {
            let listed = taken_list(&mut status)?;
            let listed: Vec<Listed> = serde_json::from_value(listed.into()).map_err(no_sense)?;
            let rows = listed.into_iter().map(|call| {
                let message = output::one_line(&call.message.unwrap_or_default());
                vec![call.call_id, call.created, call.status, message]
            });
            output::table(&["CALL ID", "CREATED", "STATUS", "MESSAGE"], rows.collect())?;
        } else {
            let Counts { total, pending, running, finished, failed } =
                serde_json::from_value(status.into()).map_err(no_sense)?;
            let row = [total, pending, running, finished, failed].map(|count| count.to_string()).to_vec();
            output::table(&["TOTAL", "PENDING", "RUNNING", "FINISHED", "FAILED"], vec![row])?;
        }
        Ok(0)
    }
}

/// What the server answers, with the calls of all its pages as one list. The counts are those of the first.
async fn whole_list(endpoint: &Client, target: &str) -> anyhow::Result<Map<String, Value>> {
    let target = format!("{target}?list=1&limit={PAGE}");
    let mut whole = endpoint.get(&target).await?;
    let mut list = taken_list(&mut whole)?;
    let mut of_page = list.len();
    while of_page >= PAGE {
        let Some(last) = list.last().and_then(|call| call["CallId"].as_str()).map(escaped) else {
            return Err(no_sense("a call has no id"));
        };
        let mut page = taken_list(&mut endpoint.get(&format!("{target}&after={last}")).await?)?;
        // A server that passes over `after` would be asked for ever.
        if page.last() == list.last() {
            return Err(no_sense("a page comes again"));
        }
        of_page = page.len();
        list.append(&mut page);
    }
    whole.insert("List".to_owned(), list.into());
    Ok(whole)
}

/// The calls of a page; in their place remains `null`.
fn taken_list(page: &mut Map<String, Value>) -> anyhow::Result<Vec<Value>> {
    match page.get_mut("List").map(Value::take) {
        Some(Value::Array(list)) => Ok(list),
        _ => Err(no_sense("there is no list of calls")),
    }
}
