//! `HostConfig` and `NetworkingConfig`: checked and kept, for clients that send them.

use super::{Invalid, quoted};
use std::collections::BTreeMap;

/// A JSON text that is kept as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(pub String);

/// `HostConfig.NetworkMode`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// The default.
    #[default]
    Bridge,
    /// `host`
    Host,
    /// `none`
    None,
    /// `container:<name or id>`
    Container(String),
}

impl NetworkMode {
    /// Checks a mode.
    ///
    /// # Errors
    /// Names the field and lists the modes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("container:") {
                Some(name) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
                _ => Err(Invalid::new(
                    "HostConfig.NetworkMode",
                    format!("{} is none of bridge, host, none, container:<name or id>", quoted(text)),
                )),
            },
        }
    }

    /// The mode as it is written.
    pub fn text(&self) -> String {
        match self {
            Self::Bridge => "bridge".to_owned(),
            Self::Host => "host".to_owned(),
            Self::None => "none".to_owned(),
            Self::Container(name) => format!("container:{name}"),
        }
    }
}

/// One host address that a port is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// May be empty.
    pub host_ip: String,
    /// Empty, a port, or a range `8000-8010`.
    pub host_port: String,
}

/// `HostConfig.PortBindings`: `80/tcp` to where it is bound.
pub type PortBindings = BTreeMap<String, Vec<PortBinding>>;

/// What a function keeps of `HostConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostConfig {
    /// `name[:ro|rw]` each.
    pub volumes_from: Vec<String>,
    /// Checked ports.
    pub port_bindings: PortBindings,
    /// `name` or `name:alias` each.
    pub links: Vec<String>,
    /// Kept.
    pub publish_all_ports: bool,
    /// Kept; egress is denied whatever it says.
    pub network_mode: NetworkMode,
}

/// What a create or update says of `HostConfig`; `None` keeps what was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are those of HostConfig")]
pub struct HostChange {
    pub volumes_from: Option<Vec<String>>,
    pub port_bindings: Option<PortBindings>,
    pub links: Option<Vec<String>>,
    pub publish_all_ports: Option<bool>,
    pub network_mode: Option<NetworkMode>,
}

impl HostConfig {
    /// Merges a change into this.
    ///
    /// # Errors
    /// Names the first field that breaks its rule; nothing is then changed.
    pub(super) fn apply(&self, change: HostChange) -> Result<Self, Invalid> {
        let merged = Self {
            volumes_from: change.volumes_from.unwrap_or_else(|| self.volumes_from.clone()),
            port_bindings: change.port_bindings.unwrap_or_else(|| self.port_bindings.clone()),
            links: change.links.unwrap_or_else(|| self.links.clone()),
            publish_all_ports: change.publish_all_ports.unwrap_or(self.publish_all_ports),
            network_mode: change.network_mode.unwrap_or_else(|| self.network_mode.clone()),
        };
        for volume in &merged.volumes_from {
            check_volume(volume)?;
        }
        for (port, bindings) in &merged.port_bindings {
            check_port("HostConfig.PortBindings", port)?;
            bindings.iter().try_for_each(check_binding)?;
        }
        merged.links.iter().try_for_each(|link| check_link(link))?;
        Ok(merged)
    }
}

fn is_container_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_volume(volume: &str) -> Result<(), Invalid> {
    let name = match volume.split_once(':') {
        Some((name, "ro" | "rw")) => name,
        Some(_) => "",
        None => volume,
    };
    if is_container_name(name) {
        return Ok(());
    }
    Err(Invalid::new("HostConfig.VolumesFrom", format!("{} is not of the form name[:ro|rw]", quoted(volume))))
}

fn check_link(link: &str) -> Result<(), Invalid> {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    if is_container_name(name) && is_container_name(alias) {
        return Ok(());
    }
    Err(Invalid::new("HostConfig.Links", format!("{} is not of the form name or name:alias", quoted(link))))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Checks `80/tcp`, `53/udp` or `80`.
pub(super) fn check_port(field: &'static str, port: &str) -> Result<(), Invalid> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    if is_port(number) && matches!(protocol, "tcp" | "udp") {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{} is not of the form <port>/<tcp|udp>", quoted(port))))
}

fn check_binding(binding: &PortBinding) -> Result<(), Invalid> {
    let port = binding.host_port.as_str();
    let fine = port.is_empty()
        || match port.split_once('-') {
            None => is_port(port),
            Some((first, last)) => {
                is_port(first) && is_port(last) && first.parse::<u16>().ok() <= last.parse::<u16>().ok()
            }
        };
    if !fine {
        let problem = format!("HostPort {} is not empty, a port or a range like 8000-8010", quoted(port));
        return Err(Invalid::new("HostConfig.PortBindings", problem));
    }
    if !binding.host_ip.is_empty() && binding.host_ip.parse::<std::net::IpAddr>().is_err() {
        let problem = format!("HostIp {} is not an address", quoted(&binding.host_ip));
        return Err(Invalid::new("HostConfig.PortBindings", problem));
    }
    Ok(())
}
