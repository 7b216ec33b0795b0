//! `get`: reads what a call has answered.

use super::address::Address;
use super::client::{Client, Refusal, Reply};
use super::{FAILED, output};
use clap::builder::NonEmptyStringValueParser;

/// The statuses of a call that has not ended (`docs/api.md` section 4).
const RUNNING: u16 = 201;
const WAITING: u16 = 202;
/// Those of a call that has failed: its own failure, out of time or fuel, too much output.
const FAILURES: [u16; 3] = [500, 504, 509];
/// The status of a server that cannot say it now, mostly because it is about to end.
const UNAVAILABLE: u16 = 503;

#[derive(clap::Args)]
#[command(after_help = "Once its answer has been read a call is forgotten, also one that failed.\n\n\
    Example: hyperfunc get --wait $(hyperfunc call -q hello)")]
pub(super) struct Get {
    /// Wait until the call has ended
    #[arg(long)]
    wait: bool,
    /// Print the first 1 KB and the last 63 KB of its stderr; the call is not forgotten
    #[arg(long)]
    stderr: bool,
    /// Leave the call there, to be read again
    #[arg(long)]
    keep: bool,
    /// The call
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    call_id: String,
}

impl Get {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self.read(client).await {
            Err(error) if Refusal::of(&error).is_some_and(|refusal| refusal.status == UNAVAILABLE) => {
                // It may be long until it can, and whoever waits for it should know.
                Err(error.context("the call is not lost, ask again later"))
            }
            read => read,
        }
    }

    async fn read(self, client: &Client) -> anyhow::Result<u8> {
        let function = Address::of_call(client, &self.call_id).await?;
        let output = function.output(&self.call_id);
        let reply = if self.stderr {
            if self.wait {
                wait(&function.endpoint, &output).await?;
            }
            function.endpoint.ask(&format!("{output}/stderr")).await?
        } else {
            let wait = if self.wait { "/wait" } else { "" };
            function.endpoint.ask(&format!("{output}{wait}?keep={}", u8::from(self.keep))).await?
        };
        let state = match reply.status() {
            RUNNING => "is running",
            WAITING => "waits for its turn",
            _ => {
                output::body(reply).await?;
                return Ok(0);
            }
        };
        output::note(&format!("call {} {state}; with --wait its end is waited for", self.call_id));
        Ok(FAILED)
    }
}

/// Waits until a call has ended, however that may be.
async fn wait(endpoint: &Client, output: &str) -> anyhow::Result<()> {
    match endpoint.ask(&format!("{output}/wait?keep=1")).await {
        Err(error) if Refusal::of(&error).is_some_and(|refusal| FAILURES.contains(&refusal.status)) => Ok(()),
        ended => ended.map(drop::<Reply>),
    }
}
