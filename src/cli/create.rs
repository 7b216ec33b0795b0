//! `create`: defines a function.

use super::client::{Client, escaped};
use super::output;
use super::variables::{Variables, lines};
use anyhow::bail;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Create {
    /// Its name [default: the image's, and a few letters]
    #[arg(long)]
    name: Option<String>,
    /// s1 s2 s3 s4 m1 m2 m3 l1 l2 l3: the memory that a call may hold, 64 MB to 16 GB [default: s4, 512 MB]
    #[arg(long)]
    size: Option<String>,
    /// Seconds that a call may take [default: 300]
    #[arg(long)]
    timeout: Option<i64>,
    #[command(flatten)]
    variables: Variables,
    /// The beginning of its arguments, in place of the image's
    #[arg(long)]
    entrypoint: Option<String>,
    /// Its working directory
    #[arg(short, long)]
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
    #[arg(long)]
    stop_signal: Option<String>,
    /// The fuel that a call may spend [default: not metered]
    #[arg(long)]
    fuel: Option<u64>,
    /// Calls of it that may run at once [default: no limit of its own]
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    /// The image
    image: String,
    /// The end of its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    cmd: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Func {
    name: String,
    container_size: Option<String>,
    timeout: Option<i64>,
    config: Config,
    host_config: HostConfig,
    fuel: Option<u64>,
    max_concurrency: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    tty: bool,
    env: Vec<String>,
    exposed_ports: BTreeMap<String, BTreeMap<(), ()>>,
    cmd: Vec<String>,
    image: String,
    entrypoint: Option<String>,
    working_dir: Option<String>,
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    volumes_from: Vec<String>,
    port_bindings: BTreeMap<String, Vec<PortBinding>>,
    links: Vec<String>,
    publish_all_ports: bool,
}

#[derive(Serialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct PortBinding {
    host_ip: String,
    host_port: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    name: String,
    #[serde(rename = "UUID")]
    uuid: String,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Create {
    pub(super) async fn run(self, client: &Client) -> anyhow::Result<u8> {
        let function = serde_json::to_vec(&self.func()?)?.into();
        let reply = client.post("/funcs/create", "application/json", function, |_| {}).await?;
        let created: Created = reply.json().await?;
        for warning in &created.warnings {
            output::problem(&format!("warning: {warning}"));
        }
        let (name, endpoint) = (&created.name, client.func_endpoint().await?.public);
        let address = format!("{endpoint}/call/{}/{}", escaped(name), created.uuid);
        output::line(&format!("{name} is created with the address of {address}"))?;
        Ok(0)
    }

    fn func(self) -> anyhow::Result<Func> {
        let name = match self.name {
            Some(name) => name,
            None => made_name(&self.image)?,
        };
        let mut labels = lines(&self.label_file)?;
        labels.extend(self.labels);
        let mut exposed: Vec<String> = self.expose.iter().map(|port| with_protocol(port)).collect();
        let mut port_bindings: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
        for published in &self.publish {
            let (port, binding) = binding(published);
            exposed.push(port.clone());
            port_bindings.entry(port).or_default().push(binding);
        }
        Ok(Func {
            name,
            container_size: self.size,
            timeout: self.timeout,
            config: Config {
                tty: self.tty,
                env: self.variables.read()?,
                exposed_ports: exposed.into_iter().map(|port| (port, BTreeMap::new())).collect(),
                cmd: self.cmd,
                image: self.image,
                entrypoint: self.entrypoint,
                working_dir: self.workdir,
                labels: labels.into_iter().map(|label| key_and_value(&label)).collect(),
                stop_signal: self.stop_signal,
            },
            host_config: HostConfig {
                volumes_from: self.volumes_from,
                port_bindings,
                links: self.link,
                publish_all_ports: self.publish_all,
            },
            fuel: self.fuel,
            max_concurrency: self.max_concurrency,
        })
    }
}

/// A name that is probably free: the last part of the image's, and six random letters.
fn made_name(image: &str) -> anyhow::Result<String> {
    let last = image.split('@').next().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    let base: String = last.split(':').next().unwrap_or_default().replace(['.', '_'], "-");
    let mut random = [0_u8; 3];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    let [a, b, c] = random;
    let name = format!("{base}-{a:02x}{b:02x}{c:02x}");
    if base.is_empty() { bail!("{image:?} is not the name of an image") } else { Ok(name) }
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
    fn a_made_name_is_a_functions() {
        for image in ["ubuntu", "a/b_c.d:1", "localhost:5000/x@sha256:00"] {
            let name = made_name(image).unwrap();
            assert!(crate::domain::FunctionName::new(&name).is_ok(), "{name}");
        }
        assert!(made_name("").is_err());
    }
}
