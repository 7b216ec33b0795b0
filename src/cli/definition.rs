//! What `create` and `update` can say of a function: their common options, and the Func that they send.

use super::address::Address;
use super::client::{Client, Reply, no_sense};
use super::output;
use super::variables::{Variables, lines};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Definition {
    /// s1 s2 s3 s4 m1 m2 m3 l1 l2 l3: the memory that a call may hold, 64 MB to 16 GB [default of a new one: s4, 512 MB]
    #[arg(long)]
    size: Option<String>,
    /// Seconds that a call may take [default of a new one: 300]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<i64>,
    #[command(flatten)]
    variables: Variables,
    /// The beginning of its arguments, in place of the image's
    #[arg(long, value_name = "WORD")]
    entrypoint: Option<String>,
    /// Its working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// A label
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// A file of such lines
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// stdout and stderr become one stream, a terminal's
    #[arg(short, long)]
    tty: bool,
    /// The fuel that a call may spend [default of a new one: not metered]
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// Calls of it that may run at once [default of a new one: no limit]
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// What the Hyper command line has, and is of no use here: it is kept as it was said.
#[derive(clap::Args)]
struct WithoutEffect {
    /// A port: kept, without effect
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Ports that are published: kept, without effect
    #[arg(short, long, value_name = "[[IP:]HOST:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all ports: kept, without effect
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A link: kept, without effect
    #[arg(long, value_name = "NAME[:ALIAS]")]
    link: Vec<String>,
    /// Volumes: kept, without effect
    #[arg(long, value_name = "NAME[:ro|rw]")]
    volumes_from: Vec<String>,
    /// A signal: kept, without effect
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
}

/// How it is told what became of a function.
#[derive(clap::Args)]
pub(super) struct Telling {
    /// Print its name alone
    #[arg(short, long)]
    quiet: bool,
    /// Print the function as the server answers
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// A function as it is sent. What is not said is not sent: to a new one the server gives its defaults, of another it
/// keeps what was.
#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Func {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) refresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<i64>,
    pub(super) config: Config,
    host_config: HostConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u32>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    tty: bool,
    #[serde(skip_serializing_if = "is_default")]
    exposed_ports: BTreeMap<String, BTreeMap<(), ()>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(skip_serializing_if = "is_default")]
    volumes_from: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    port_bindings: BTreeMap<String, Vec<PortBinding>>,
    #[serde(skip_serializing_if = "is_default")]
    links: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    publish_all_ports: bool,
}

#[derive(Serialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct PortBinding {
    host_ip: String,
    host_port: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Definition {
    /// What was said, for a Func that has its image, its command and its name from elsewhere.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn func(self) -> anyhow::Result<Func> {
        let mut labels = lines(&self.label_file)?;
        labels.extend(self.labels);
        let WithoutEffect { expose, publish, publish_all, link, volumes_from, stop_signal } = self.without_effect;
        let mut exposed: Vec<String> = expose.iter().map(|port| with_protocol(port)).collect();
        let mut port_bindings: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
        for published in &publish {
            let (port, binding) = binding(published);
            exposed.push(port.clone());
            port_bindings.entry(port).or_default().push(binding);
        }
        let clears = self.variables.clear();
        let env = self.variables.read()?;
        Ok(Func {
            name: None,
            refresh: false,
            container_size: self.size,
            timeout: self.timeout,
            config: Config {
                image: None,
                cmd: Vec::new(),
                env: (clears || !env.is_empty()).then_some(env),
                tty: self.tty,
                exposed_ports: exposed.into_iter().map(|port| (port, BTreeMap::new())).collect(),
                entrypoint: self.entrypoint,
                working_dir: self.workdir,
                labels: labels.into_iter().map(|label| key_and_value(&label)).collect(),
                stop_signal,
            },
            host_config: HostConfig { volumes_from, port_bindings, links: link, publish_all_ports: publish_all },
            fuel: self.fuel,
            max_concurrency: self.max_concurrency,
        })
    }
}

impl Telling {
    /// Tells what a server has made of a function, in the words `in_words(name, address)` if nothing else is asked for.
    ///
    /// # Errors
    /// When its answer is not what it should be, or cannot be printed.
    pub(super) async fn tell(
        &self,
        client: &Client,
        reply: Reply,
        in_words: impl FnOnce(&str, &str) -> String,
    ) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Warned {
            name: String,
            #[serde(default)]
            warnings: Vec<String>,
        }
        let func: Value = reply.json().await?;
        let Warned { name, warnings } = Warned::deserialize(&func).map_err(no_sense)?;
        for warning in &warnings {
            output::warning(&output::one_line(warning));
        }
        if self.json {
            return output::json(&func);
        }
        if self.quiet {
            return Ok(output::line(&name)?);
        }
        let address = Address::public(client, &func).await?;
        Ok(output::line(&in_words(&name, &address))?)
    }
}

fn key_and_value(label: &str) -> (String, String) {
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    (key.to_owned(), value.to_owned())
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

/// `[[IP:]HOST:]PORT[/PROTOCOL]`, as Docker has it. The server checks the parts.
fn binding(published: &str) -> (String, PortBinding) {
    let (host, port) = published.rsplit_once(':').unwrap_or(("", published));
    let (host_ip, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    let host_ip = host_ip.trim_start_matches('[').trim_end_matches(']').to_owned();
    (with_protocol(port), PortBinding { host_ip, host_port: host_port.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn published_ports_are_read_as_docker_reads_them() {
        let of = |text| {
            let (port, PortBinding { host_ip, host_port }) = binding(text);
            format!("{port} {host_ip} {host_port}")
        };
        assert_eq!(of("80"), "80/tcp  ");
        assert_eq!(of("8080:80"), "80/tcp  8080");
        assert_eq!(of("127.0.0.1:8080:53/udp"), "53/udp 127.0.0.1 8080");
        assert_eq!(of("[::1]::80"), "80/tcp ::1 ");
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
        #[derive(clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            definition: Definition,
        }
        let sent = |arguments: &[&str]| {
            let arguments = [&["x"], arguments].concat();
            let Arguments { definition } = clap::Parser::try_parse_from(arguments).unwrap();
            serde_json::to_value(definition.func().unwrap()).unwrap()
        };
        let silent = json!({"Config": {}, "HostConfig": {}});
        assert_eq!(sent(&[]), silent);
        // A variable that this process does not have changes nothing.
        assert_eq!(sent(&["-e", "NOT_SET_ANYWHERE"]), silent);
        assert_eq!(sent(&["-e", ""])["Config"], json!({"Env": []}));
        assert_eq!(sent(&["-e", "", "-e", "A=1"])["Config"], json!({"Env": ["A=1"]}));
        assert_eq!(sent(&["--fuel", "0"])["Fuel"], json!(0));
    }
}
