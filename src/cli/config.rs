//! `config`: which settings are in force, and who says so.

use super::exit::{self, USAGE};
use super::output;
use super::settings::{FileFlag, Settings};
use crate::config::{Name, RawSettings, SERVERS};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::env;

/// What no setting is from that nobody has set.
const DEFAULT: &str = "default";

#[derive(clap::Args)]
#[command(after_help = "Example: HYPERFUNC_MAX_RUNNING=7 hyperfunc config")]
pub(super) struct Config {
    #[command(flatten)]
    settings: FileFlag,
    /// The settings as JSON
    #[arg(long)]
    json: bool,
}

/// A setting in force.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    name: String,
    value: Value,
    from: String,
}

impl Config {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let environment = Environment::read();
        let (settings, environment) = match (self.settings.read(), environment) {
            (Ok(settings), Ok(environment)) => (settings, environment),
            (Ok(_), Err(problems)) => return Err(exit::with(USAGE, problems)),
            (Err(error), Ok(_)) => return Err(error),
            (Err(error), Err(problems)) => return Err(exit::with(USAGE, format_args!("{problems}\n{error}"))),
        };
        let rows = in_force(&settings, environment)?;
        let servers = settings.file.servers.iter().map(|(name, server)| Row {
            name: name.clone(),
            value: server.url.clone().into(),
            from: settings.place(server.line),
        });
        let file = self.file(&settings);
        if self.json {
            let servers: Vec<Row> = servers.collect();
            output::json(&json!({
                "File": { "Path": settings.path, "Exists": settings.is_there, "From": file.from },
                "Settings": rows, "Servers": servers,
            }))?;
        } else {
            let servers = servers.map(|row| Row { name: format!("{SERVERS}.{}", row.name), ..row });
            let rows = std::iter::once(file).chain(servers).chain(rows);
            let shown = rows.map(|Row { name, value, from }| vec![name, shown(&value), output::one_line(&from)]);
            output::table(&["SETTING", "VALUE", "FROM"], shown.collect())?;
        }
        Ok(0)
    }

    /// The settings file, as if it were a setting.
    fn file(&self, settings: &Settings) -> Row {
        const VARIABLE: &str = "HYPERFUNC_CONFIG";
        let from = match self.settings.named() {
            Some(path) if env::var_os(VARIABLE).is_some_and(|named| named == path) => VARIABLE,
            Some(_) => "--config",
            None => DEFAULT,
        };
        let path = settings.path.as_ref().map(|path| path.display().to_string());
        let value = path.map(|path| if settings.is_there { path } else { format!("{path} (is not there)") });
        Row { name: "config".to_owned(), value: value.into(), from: from.to_owned() }
    }
}

/// What the environment says of settings.
struct Environment {
    settings: RawSettings,
    /// Which variable says which setting.
    variables: HashMap<String, String>,
}

impl Environment {
    /// # Errors
    /// All that is wrong in it.
    fn read() -> Result<Self, String> {
        let mut read = Self { settings: RawSettings::default(), variables: HashMap::new() };
        let mut problems = Vec::new();
        for Name { key, variable } in RawSettings::names() {
            let Some(value) = env::var_os(&variable) else { continue };
            match RawSettings::one(&key, &value) {
                Ok(setting) => {
                    read.settings = setting.or(read.settings);
                    read.variables.insert(key, variable);
                }
                Err(problem) => problems.push(format!("{variable}: {problem}")),
            }
        }
        if problems.is_empty() { Ok(read) } else { Err(problems.join("\n")) }
    }
}

/// All settings: that of clients, and those that a server on this machine would have.
fn in_force(settings: &Settings, environment: Environment) -> anyhow::Result<Vec<Row>> {
    let RawSettings { client, server } = environment.settings;
    let asked = client.server.map_or_else(|| settings.server(), |server| settings.find("HYPERFUNC_SERVER", &server));
    let asked = asked.map_err(|problem| exit::with(USAGE, problem))?.to_string();
    let of_server = serde_json::to_value(settings.of_server(server)?.written_out())?;
    let row = |Name { key, .. }: Name| {
        let from = match (environment.variables.get(&key), settings.file.lines.get(&key)) {
            (Some(variable), _) => variable.clone(),
            (None, Some(line)) => settings.place(*line),
            (None, None) => DEFAULT.to_owned(),
        };
        let value = of_server.get(&key).cloned().unwrap_or_else(|| asked.clone().into());
        Row { name: key, value, from }
    };
    Ok(RawSettings::names().into_iter().map(row).collect())
}

/// A value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => output::one_line(text),
        other => other.to_string(),
    }
}
