//! The Func object as it is answered.

use super::rfc3339;
use crate::domain::{Config, Function, HostConfig, PortBindings};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A Func. Optional fields that are unset are absent; ours come after those of 2018, the warnings last.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FuncJson<'a> {
    name: &'a str,
    container_size: &'static str,
    timeout: u32,
    #[serde(rename = "UUID")]
    uuid: String,
    created: String,
    config: ConfigJson<'a>,
    host_config: HostConfigJson<'a>,
    networking_config: NetworkingConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigJson<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tty: bool,
    env: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [String],
    image: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    stop_signal: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfigJson<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    volumes_from: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    port_bindings: BTreeMap<&'a str, Vec<PortBindingJson<'a>>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    links: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    publish_all_ports: bool,
    network_mode: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortBindingJson<'a> {
    host_ip: &'a str,
    host_port: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum NetworkingConfig<'a> {
    AsSent(&'a RawValue),
    Default {
        #[serde(rename = "EndpointsConfig")]
        endpoints_config: (),
    },
}

/// `{}`
#[derive(Serialize)]
struct Empty {}

/// A function as clients see it.
pub(in crate::api) fn func<'a>(function: &'a Function, warnings: &'a [String]) -> impl Serialize + use<'a> {
    let definition = &function.definition;
    let networking = definition.networking.as_ref().and_then(|json| serde_json::from_str(&json.0).ok());
    FuncJson {
        name: function.name.as_str(),
        container_size: definition.size.name(),
        timeout: definition.timeout.seconds(),
        uuid: function.uuid.reveal(),
        created: rfc3339(function.created),
        config: config(&definition.config),
        host_config: host_config(&definition.host),
        networking_config: networking
            .map_or(NetworkingConfig::Default { endpoints_config: () }, NetworkingConfig::AsSent),
        fuel: definition.fuel.map(Into::into),
        max_concurrency: definition.max_concurrency.map(Into::into),
        warnings,
    }
}

fn config(config: &Config) -> ConfigJson<'_> {
    ConfigJson {
        tty: config.tty,
        env: config.env.variables(),
        exposed_ports: config.exposed_ports.iter().map(|port| (port.as_str(), Empty {})).collect(),
        cmd: &config.cmd,
        image: config.image.to_string(),
        entrypoint: &config.entrypoint,
        working_dir: config.working_dir.as_deref(),
        labels: &config.labels,
        stop_signal: &config.stop_signal,
    }
}

fn host_config(host: &HostConfig) -> HostConfigJson<'_> {
    HostConfigJson {
        volumes_from: &host.volumes_from,
        port_bindings: port_bindings(&host.port_bindings),
        links: &host.links,
        publish_all_ports: host.publish_all_ports,
        network_mode: host.network_mode.text(),
    }
}

fn port_bindings(bindings: &PortBindings) -> BTreeMap<&str, Vec<PortBindingJson<'_>>> {
    let json = bindings.iter().map(|(port, bindings)| {
        let bindings = bindings.iter().map(|b| PortBindingJson { host_ip: &b.host_ip, host_port: &b.host_port });
        (port.as_str(), bindings.collect())
    });
    json.collect()
}
