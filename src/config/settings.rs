//! All settings, those of the server and those of its clients.

use super::{Config, Host, RawConfig};
use clap::{Args as _, FromArgMatches as _};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};

/// The server that clients ask when nobody names one: that of this machine, with its default settings.
pub const SERVER: &str = "http://127.0.0.1:8080";

/// The settings of clients, as they were written.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case")]
pub struct RawClient {
    /// The server to ask: a URL, or a name from the settings file [default: http://127.0.0.1:8080]
    #[arg(long, env = "HYPERFUNC_SERVER", value_name = "NAME|URL")]
    pub server: Option<String>,
}

/// All settings, as they were written: one list for flags, variables and the settings file.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
pub struct RawSettings {
    /// Those of clients.
    #[command(flatten)]
    #[serde(flatten)]
    pub client: RawClient,
    /// Those of the server.
    #[command(flatten)]
    #[serde(flatten)]
    pub server: RawConfig,
}

/// What a setting is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// In the settings file, and behind `--` as a flag.
    pub key: String,
    /// In the environment.
    pub variable: String,
}

impl RawSettings {
    /// What all of them are called.
    pub fn names() -> Vec<Name> {
        let name = |argument: &clap::Arg| {
            let variable = argument.get_env()?.to_string_lossy().into_owned();
            Some(Name { key: argument.get_long()?.to_owned(), variable })
        };
        command().get_arguments().filter_map(name).collect()
    }

    /// One setting, as its flag or its variable has it.
    ///
    /// # Errors
    /// Says what is wrong with the value.
    pub fn one(key: &str, value: &OsStr) -> Result<Self, String> {
        let mut flag = OsString::from(format!("--{key}="));
        flag.push(value);
        // What the environment says of the others is no matter of this one.
        let command = command().mut_args(|argument| argument.env(None::<&str>));
        let read = command.no_binary_name(true).try_get_matches_from([flag]);
        let setting = read.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| {
            let text = error.to_string();
            // Below stands how to ask for help.
            let problem = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            problem.split_whitespace().collect::<Vec<_>>().join(" ")
        })?;
        setting.checked()
    }

    /// These, if none of them is wrong by itself.
    ///
    /// # Errors
    /// Says what is wrong with the first that is.
    pub(super) fn checked(self) -> Result<Self, String> {
        // On a machine that has enough of everything.
        let host = Host { memory_bytes: u64::MAX, data: Some("/".into()) };
        Config::new(self.server.clone(), host).map_err(|invalid| invalid.problem)?;
        Ok(self)
    }

    /// These settings, and where one is absent that of `weaker`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        let RawClient { server } = self.client;
        Self { client: RawClient { server: server.or(weaker.client.server) }, server: self.server.or(weaker.server) }
    }
}

fn command() -> clap::Command {
    RawSettings::augment_args(clap::Command::new(""))
}
