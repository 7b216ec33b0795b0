//! Rows, and the JSON in their columns: mirrors of what the domain holds.
//!
//! What is read goes through the domain's checking constructors again. A row that does not pass is
//! [`Error::CorruptRow`], with its table and its key. A row never shows its UUID.

use super::Error;
use crate::domain::{
    AccountId, Change, Config, ConfigChange, ContainerSize, Definition, Digest, Env, Function, FunctionName,
    FunctionUuid, HostChange, HostConfig, Image, ImageConfig, ImageReference, Json, MemoryKind, ModuleInfo,
    NetworkMode, PortBinding, Timeout, Timestamp,
};
use rusqlite::Row;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroU64};
use uuid::Uuid;

/// A row of `functions`.
pub(super) struct FunctionRow {
    pub(super) account: String,
    pub(super) name: String,
    pub(super) uuid: Vec<u8>,
    pub(super) created_ms: i64,
    pub(super) definition: String,
}

impl FunctionRow {
    pub(super) fn new(function: &Function) -> Result<Self, Error> {
        let Function { account, name, uuid, created, definition } = function;
        Ok(Self {
            account: account.as_str().to_owned(),
            name: name.as_str().to_owned(),
            uuid: uuid.as_bytes().to_vec(),
            created_ms: created.0,
            definition: to_json(&DefinitionRecord::from(definition))?,
        })
    }

    /// Reads the columns in the order of the fields.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            account: row.get(0)?,
            name: row.get(1)?,
            uuid: row.get(2)?,
            created_ms: row.get(3)?,
            definition: row.get(4)?,
        })
    }

    pub(super) fn into_function(self) -> Result<Function, Error> {
        let key = format!("functions ({}, {})", self.account, self.name);
        self.convert().map_err(|problem| Error::CorruptRow(format!("{key}: {problem}")))
    }

    fn convert(self) -> Result<Function, String> {
        // The domain reads a UUID only as text.
        let uuid = Uuid::from_slice(&self.uuid).ok().map(|uuid| uuid.hyphenated().to_string());
        Ok(Function {
            account: AccountId::new(&self.account).map_err(text)?,
            name: FunctionName::new(&self.name).map_err(text)?,
            uuid: uuid.as_deref().and_then(FunctionUuid::parse).ok_or("uuid: is none")?,
            created: Timestamp(self.created_ms),
            definition: from_json::<DefinitionRecord>("definition", &self.definition)?.into_definition()?,
        })
    }
}

/// A row of `images`.
pub(super) struct ImageRow {
    pub(super) account: String,
    pub(super) repository: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Vec<u8>,
    pub(super) size_bytes: i64,
    pub(super) created_ms: i64,
    pub(super) info: String,
    pub(super) config: String,
}

impl ImageRow {
    pub(super) fn new(image: &Image) -> Result<Self, Error> {
        let Image { account, repository, tag, digest, size_bytes, created, info, config } = image;
        Ok(Self {
            account: account.as_str().to_owned(),
            repository: repository.clone(),
            tag: tag.clone(),
            digest: digest.as_bytes().to_vec(),
            size_bytes: i64::try_from(*size_bytes).map_err(|e| Error::Failed(format!("a module's size: {e}")))?,
            created_ms: created.0,
            info: to_json(&InfoRecord::from(info))?,
            config: to_json(&ImageConfigRecord::from(config))?,
        })
    }

    /// Reads the columns in the order of the fields.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            account: row.get(0)?,
            repository: row.get(1)?,
            tag: row.get(2)?,
            digest: row.get(3)?,
            size_bytes: row.get(4)?,
            created_ms: row.get(5)?,
            info: row.get(6)?,
            config: row.get(7)?,
        })
    }

    pub(super) fn into_image(self) -> Result<Image, Error> {
        let tag = self.tag.as_deref().unwrap_or("no tag");
        let key = format!("images ({}, {}, {tag})", self.account, self.repository);
        self.convert().map_err(|problem| Error::CorruptRow(format!("{key}: {problem}")))
    }

    fn convert(self) -> Result<Image, String> {
        let name = self.tag.iter().fold(self.repository.clone(), |name, tag| format!("{name}:{tag}"));
        if ImageReference::parse(&name)?.repository() != self.repository {
            return Err("repository: has a tag or a digest".to_owned());
        }
        Ok(Image {
            account: AccountId::new(&self.account).map_err(text)?,
            repository: self.repository,
            tag: self.tag,
            digest: Digest::new(self.digest.try_into().map_err(|_| "digest: is none")?),
            size_bytes: u64::try_from(self.size_bytes).map_err(|e| format!("size_bytes: {e}"))?,
            created: Timestamp(self.created_ms),
            info: from_json::<InfoRecord>("info", &self.info)?.into(),
            config: from_json::<ImageConfigRecord>("config", &self.config)?.into(),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefinitionRecord {
    size: String,
    timeout_seconds: u32,
    config: ConfigRecord,
    host: HostRecord,
    /// The text as it was sent: as JSON within JSON, it would lose its spaces.
    networking: Option<String>,
    fuel: Option<NonZeroU64>,
    max_concurrency: Option<NonZeroU32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigRecord {
    tty: bool,
    env: Vec<String>,
    exposed_ports: BTreeSet<String>,
    cmd: Vec<String>,
    image: String,
    entrypoint: Vec<String>,
    working_dir: Option<String>,
    labels: BTreeMap<String, String>,
    stop_signal: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostRecord {
    volumes_from: Vec<String>,
    port_bindings: BTreeMap<String, Vec<BindingRecord>>,
    links: Vec<String>,
    publish_all_ports: bool,
    network_mode: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingRecord {
    host_ip: String,
    host_port: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InfoRecord {
    memory: MemoryRecord,
    initial_memory_bytes: u64,
    imports: Vec<String>,
    exports: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MemoryRecord {
    Narrow,
    Wide,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageConfigRecord {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: Option<String>,
}

impl From<&Definition> for DefinitionRecord {
    fn from(definition: &Definition) -> Self {
        let Definition { size, timeout, config, host, networking, fuel, max_concurrency } = definition;
        Self {
            size: size.name().to_owned(),
            timeout_seconds: timeout.seconds(),
            config: config.into(),
            host: host.into(),
            networking: networking.as_ref().map(|json| json.0.clone()),
            fuel: *fuel,
            max_concurrency: *max_concurrency,
        }
    }
}

impl DefinitionRecord {
    fn into_definition(self) -> Result<Definition, String> {
        let change = Change {
            size: Some(ContainerSize::parse(&self.size).map_err(text)?),
            timeout: Some(Timeout::from_seconds(self.timeout_seconds.into()).map_err(text)?),
            config: self.config.into_change()?,
            host: self.host.into_change()?,
            networking: self.networking.map(Json),
            fuel: self.fuel.map(NonZeroU64::get),
            max_concurrency: self.max_concurrency.map(NonZeroU32::get),
        };
        Definition::create(change).map_err(text)
    }
}

impl From<&Config> for ConfigRecord {
    fn from(config: &Config) -> Self {
        let Config { tty, env, exposed_ports, cmd, image, entrypoint, working_dir, labels, stop_signal } = config;
        Self {
            tty: *tty,
            env: env.variables().to_vec(),
            exposed_ports: exposed_ports.clone(),
            cmd: cmd.clone(),
            image: image.to_string(),
            entrypoint: entrypoint.clone(),
            working_dir: working_dir.clone(),
            labels: labels.clone(),
            stop_signal: stop_signal.clone(),
        }
    }
}

impl ConfigRecord {
    fn into_change(self) -> Result<ConfigChange, String> {
        Ok(ConfigChange {
            tty: Some(self.tty),
            env: Some(Env::new(self.env).map_err(text)?),
            exposed_ports: Some(self.exposed_ports),
            cmd: Some(self.cmd),
            image: Some(ImageReference::parse(&self.image).map_err(|problem| format!("Config.Image: {problem}"))?),
            entrypoint: Some(self.entrypoint),
            working_dir: self.working_dir,
            labels: Some(self.labels),
            stop_signal: Some(self.stop_signal),
        })
    }
}

impl From<&HostConfig> for HostRecord {
    fn from(host: &HostConfig) -> Self {
        let HostConfig { volumes_from, port_bindings, links, publish_all_ports, network_mode } = host;
        let records = |bindings: &Vec<PortBinding>| bindings.iter().map(BindingRecord::from).collect();
        Self {
            volumes_from: volumes_from.clone(),
            port_bindings: port_bindings.iter().map(|(port, bound)| (port.clone(), records(bound))).collect(),
            links: links.clone(),
            publish_all_ports: *publish_all_ports,
            network_mode: network_mode.text(),
        }
    }
}

impl HostRecord {
    fn into_change(self) -> Result<HostChange, String> {
        let bindings = |records: Vec<BindingRecord>| records.into_iter().map(PortBinding::from).collect();
        Ok(HostChange {
            volumes_from: Some(self.volumes_from),
            port_bindings: Some(self.port_bindings.into_iter().map(|(port, bound)| (port, bindings(bound))).collect()),
            links: Some(self.links),
            publish_all_ports: Some(self.publish_all_ports),
            network_mode: Some(NetworkMode::parse(&self.network_mode).map_err(text)?),
        })
    }
}

impl From<&PortBinding> for BindingRecord {
    fn from(binding: &PortBinding) -> Self {
        let PortBinding { host_ip, host_port } = binding;
        Self { host_ip: host_ip.clone(), host_port: host_port.clone() }
    }
}

impl From<BindingRecord> for PortBinding {
    fn from(BindingRecord { host_ip, host_port }: BindingRecord) -> Self {
        Self { host_ip, host_port }
    }
}

impl From<&ModuleInfo> for InfoRecord {
    fn from(info: &ModuleInfo) -> Self {
        let ModuleInfo { memory, initial_memory_bytes, imports, exports } = info;
        let memory = match memory {
            MemoryKind::Narrow => MemoryRecord::Narrow,
            MemoryKind::Wide => MemoryRecord::Wide,
        };
        let initial_memory_bytes = *initial_memory_bytes;
        Self { memory, initial_memory_bytes, imports: imports.clone(), exports: exports.clone() }
    }
}

impl From<InfoRecord> for ModuleInfo {
    fn from(InfoRecord { memory, initial_memory_bytes, imports, exports }: InfoRecord) -> Self {
        let memory = match memory {
            MemoryRecord::Narrow => MemoryKind::Narrow,
            MemoryRecord::Wide => MemoryKind::Wide,
        };
        Self { memory, initial_memory_bytes, imports, exports }
    }
}

impl From<&ImageConfig> for ImageConfigRecord {
    fn from(config: &ImageConfig) -> Self {
        let ImageConfig { entrypoint, cmd, env, working_dir } = config.clone();
        Self { entrypoint, cmd, env, working_dir }
    }
}

impl From<ImageConfigRecord> for ImageConfig {
    fn from(ImageConfigRecord { entrypoint, cmd, env, working_dir }: ImageConfigRecord) -> Self {
        Self { entrypoint, cmd, env, working_dir }
    }
}

fn to_json(record: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(record).map_err(|e| Error::Failed(format!("a record has no JSON: {e}")))
}

fn from_json<T: DeserializeOwned>(column: &str, json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|e| format!("{column}: {e}"))
}

fn text(invalid: crate::domain::Invalid) -> String {
    invalid.to_string()
}
