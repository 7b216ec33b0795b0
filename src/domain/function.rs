//! A function, and how create and update change one (`docs/api.md` sections 2 and 3).

use super::host::check_port;
use super::{
    AccountId, ContainerSize, FunctionName, FunctionUuid, HostChange, HostConfig, Image, ImageReference, Invalid, Json,
    Limits, ModuleInfo, NetworkMode, STDOUT_BYTES_MAX, quoted,
};
use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// A moment, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment so long before this one.
    #[must_use]
    pub fn before(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// `Timeout`: how long one execution may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(u32);

impl Timeout {
    /// What an absent Timeout means, in seconds.
    pub const DEFAULT_SECONDS: u32 = 300;
    /// The longest, in seconds.
    pub const SECONDS_MAX: u32 = 86_400;

    /// Checks a number of seconds.
    ///
    /// # Errors
    /// Names the field and the range.
    pub fn from_seconds(seconds: i64) -> Result<Self, Invalid> {
        match u32::try_from(seconds) {
            Ok(seconds @ 1..=Self::SECONDS_MAX) => Ok(Self(seconds)),
            _ => Err(Invalid::new("Timeout", format!("{seconds} is not between 1 and {} seconds", Self::SECONDS_MAX))),
        }
    }

    /// In seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self(Self::DEFAULT_SECONDS)
    }
}

/// `Config.Env`: the variables that win over everything derived from a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Env(Vec<String>);

impl Env {
    /// The most that all variables may take together, in bytes.
    pub const BYTES_MAX: usize = 32 << 10;

    /// Checks variables of the form `NAME=value`; one without `=` is dropped.
    ///
    /// # Errors
    /// Names the field: an empty name, a NUL, or more than [`Env::BYTES_MAX`].
    pub fn new(variables: Vec<String>) -> Result<Self, Invalid> {
        let invalid = |problem: String| Err(Invalid::new("Config.Env", problem));
        let variables: Vec<String> = variables.into_iter().filter(|variable| variable.contains('=')).collect();
        for variable in &variables {
            if variable.starts_with('=') {
                return invalid(format!("{} has an empty name", quoted(variable)));
            }
            if variable.contains('\0') {
                return invalid(format!("{} contains a NUL", quoted(variable)));
            }
        }
        let bytes: usize = variables.iter().map(String::len).sum();
        if bytes > Self::BYTES_MAX {
            return invalid(format!("is {bytes} bytes in sum; at most {} are allowed", Self::BYTES_MAX));
        }
        Ok(Self(variables))
    }

    /// `NAME=value` each, in the order given.
    pub fn variables(&self) -> &[String] {
        &self.0
    }
}

/// `Entrypoint` or `Cmd`: part of a guest's argv. Empty is unset.
pub type Command = Vec<String>;

/// `Config`: the contract's fields, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// stdout and stderr become one stream and report as a terminal.
    pub tty: bool,
    /// The variables.
    pub env: Env,
    /// Checked and kept: `80/tcp` each.
    pub exposed_ports: BTreeSet<String>,
    /// The end of argv.
    pub cmd: Command,
    /// The image, as it was named.
    pub image: ImageReference,
    /// The beginning of argv; set, it drops the image's `Cmd`.
    pub entrypoint: Command,
    /// `PWD`.
    pub working_dir: Option<String>,
    /// Kept; filterable.
    pub labels: BTreeMap<String, String>,
    /// Kept; has no effect.
    pub stop_signal: String,
}

/// What a create or update says of `Config`; `None` keeps what was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are those of Config")]
pub struct ConfigChange {
    pub tty: Option<bool>,
    pub env: Option<Env>,
    pub exposed_ports: Option<BTreeSet<String>>,
    pub cmd: Option<Command>,
    pub image: Option<ImageReference>,
    pub entrypoint: Option<Command>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
}

/// What a create or update asks for; `None` keeps what was, and for a new function means the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// `ContainerSize`
    pub size: Option<ContainerSize>,
    /// `Timeout`
    pub timeout: Option<Timeout>,
    /// `Config`
    pub config: ConfigChange,
    /// `HostConfig`
    pub host: HostChange,
    /// `NetworkingConfig`, kept as sent.
    pub networking: Option<Json>,
    /// `Fuel`; 0 clears it.
    pub fuel: Option<u64>,
    /// `MaxConcurrency`; 0 clears it.
    pub max_concurrency: Option<u32>,
}

/// All of a function that an update may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// `ContainerSize`
    pub size: ContainerSize,
    /// `Timeout`
    pub timeout: Timeout,
    /// `Config`
    pub config: Config,
    /// `HostConfig`
    pub host: HostConfig,
    /// `NetworkingConfig` as it was sent; `None` is the default.
    pub networking: Option<Json>,
    /// Fuel that one execution may spend; `None` is unmetered.
    pub fuel: Option<NonZeroU64>,
    /// Calls of this function that may run at once; `None` is no limit of its own.
    pub max_concurrency: Option<NonZeroU32>,
}

/// A definition under a name, with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Whose it is.
    pub account: AccountId,
    /// Its name in that account.
    pub name: FunctionName,
    /// Its capability.
    pub uuid: FunctionUuid,
    /// When it was created.
    pub created: Timestamp,
    /// What it does.
    pub definition: Definition,
}

/// The label whose value is the content type of a function's output.
const CONTENT_TYPE_LABEL: &str = "sh.hyperfunc.content-type";
/// The longest media type, in bytes.
const MEDIA_TYPE_BYTES_MAX: usize = 255;
/// Labels that begin so are ours: only known ones are allowed.
const OUR_LABELS: &str = "sh.hyperfunc.";
const DEFAULT_STOP_SIGNAL: &str = "SIGTERM";

impl Definition {
    /// Makes a new definition out of defaults and what was asked for.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn create(change: Change) -> Result<Self, Invalid> {
        let image = change.config.image.clone().ok_or_else(|| Invalid::new("Config.Image", "is required"))?;
        let blank = Self {
            size: ContainerSize::default(),
            timeout: Timeout::default(),
            config: Config {
                tty: false,
                env: Env::default(),
                exposed_ports: BTreeSet::new(),
                cmd: Command::new(),
                image,
                entrypoint: Command::new(),
                working_dir: None,
                labels: BTreeMap::new(),
                stop_signal: DEFAULT_STOP_SIGNAL.to_owned(),
            },
            host: HostConfig::default(),
            networking: None,
            fuel: None,
            max_concurrency: None,
        };
        blank.apply(change)
    }

    /// Merges what was asked for into this definition.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn apply(&self, change: Change) -> Result<Self, Invalid> {
        Ok(Self {
            size: change.size.unwrap_or(self.size),
            timeout: change.timeout.unwrap_or(self.timeout),
            config: self.config.apply(change.config)?,
            host: self.host.apply(change.host)?,
            networking: change.networking.or_else(|| self.networking.clone()),
            fuel: change.fuel.map_or(self.fuel, NonZeroU64::new),
            max_concurrency: change.max_concurrency.map_or(self.max_concurrency, NonZeroU32::new),
        })
    }

    /// Whether a module can start in this size at all.
    ///
    /// # Errors
    /// Names `ContainerSize`, what the module needs and what the size gives.
    pub fn check_fits(&self, module: &ModuleInfo) -> Result<(), Invalid> {
        let (needs, has) = (module.initial_memory_bytes, self.size.memory_bytes());
        if needs <= has {
            return Ok(());
        }
        let problem = format!("{} is less than the {needs} bytes that {} starts with", self.size, self.config.image);
        Err(Invalid::new("ContainerSize", problem))
    }

    /// argv: `Entrypoint ++ Cmd`; setting Entrypoint drops the image's Cmd, as in Docker.
    pub fn argv<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = &'a str> {
        let Config { entrypoint, cmd, .. } = &self.config;
        let (head, default_cmd) =
            if entrypoint.is_empty() { (&image.config.entrypoint, &image.config.cmd) } else { (entrypoint, cmd) };
        let tail = if cmd.is_empty() { default_cmd } else { cmd };
        head.iter().chain(tail).map(String::as_str)
    }

    /// `PWD` of the guest.
    pub fn working_dir<'a>(&'a self, image: &'a Image) -> Option<&'a str> {
        self.config.working_dir.as_deref().or(image.config.working_dir.as_deref())
    }

    /// The content type that its author gave to its output.
    pub fn content_type(&self) -> Option<&str> {
        self.config.labels.get(CONTENT_TYPE_LABEL).map(String::as_str)
    }

    /// The bounds of one execution.
    pub fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.size.memory_bytes(),
            timeout: Duration::from_secs(u64::from(self.timeout.seconds())),
            fuel: self.fuel,
            stdout_bytes: STDOUT_BYTES_MAX,
        }
    }

    /// The fields that are kept but have no effect, one line each (`docs/api.md` section 2).
    pub fn warnings(&self, image: Option<&Image>) -> Vec<String> {
        let Self { config, host, .. } = self;
        let egress = "a guest has no network".to_owned();
        let no_effect = |field: &str, why: &str| format!("{field} is kept but has no effect: {why}");
        let candidates = [
            (!config.exposed_ports.is_empty(), no_effect("Config.ExposedPorts", &egress)),
            (config.stop_signal != DEFAULT_STOP_SIGNAL, no_effect("Config.StopSignal", "a guest is stopped at once")),
            (!host.volumes_from.is_empty(), no_effect("HostConfig.VolumesFrom", "a guest has no files")),
            (!host.port_bindings.is_empty(), no_effect("HostConfig.PortBindings", &egress)),
            (!host.links.is_empty(), no_effect("HostConfig.Links", &egress)),
            (host.publish_all_ports, no_effect("HostConfig.PublishAllPorts", &egress)),
            (
                matches!(host.network_mode, NetworkMode::Host | NetworkMode::Container(_)),
                no_effect("HostConfig.NetworkMode", &egress),
            ),
            (self.networking.is_some(), no_effect("NetworkingConfig", &egress)),
            (
                image.is_some_and(|image| self.size_is_wasted_on(image)),
                format!("ContainerSize {}: a 32-bit module ends at 4 GB", self.size),
            ),
        ];
        candidates.into_iter().filter_map(|(applies, text)| applies.then_some(text)).collect()
    }

    fn size_is_wasted_on(&self, image: &Image) -> bool {
        const NARROW_MEMORY_BYTES_MAX: u64 = 4 << 30;
        self.size.memory_bytes() > NARROW_MEMORY_BYTES_MAX && image.info.memory == super::MemoryKind::Narrow
    }
}

impl Config {
    fn apply(&self, change: ConfigChange) -> Result<Self, Invalid> {
        let merged = Self {
            tty: change.tty.unwrap_or(self.tty),
            env: change.env.unwrap_or_else(|| self.env.clone()),
            exposed_ports: change.exposed_ports.unwrap_or_else(|| self.exposed_ports.clone()),
            cmd: change.cmd.unwrap_or_else(|| self.cmd.clone()),
            image: change.image.unwrap_or_else(|| self.image.clone()),
            entrypoint: change.entrypoint.unwrap_or_else(|| self.entrypoint.clone()),
            working_dir: change.working_dir.or_else(|| self.working_dir.clone()),
            labels: change.labels.unwrap_or_else(|| self.labels.clone()),
            stop_signal: change.stop_signal.unwrap_or_else(|| self.stop_signal.clone()),
        };
        check_command("Config.Cmd", &merged.cmd)?;
        check_command("Config.Entrypoint", &merged.entrypoint)?;
        for port in &merged.exposed_ports {
            check_port("Config.ExposedPorts", port)?;
        }
        if let Some(dir) = &merged.working_dir
            && (!dir.starts_with('/') || dir.contains('\0'))
        {
            return Err(Invalid::new("Config.WorkingDir", format!("{} is not an absolute path", quoted(dir))));
        }
        merged.labels.iter().try_for_each(|(key, value)| check_label(key, value))?;
        Ok(merged)
    }
}

/// argv is text without NULs, and bounded like the environment.
fn check_command(field: &'static str, command: &[String]) -> Result<(), Invalid> {
    let bytes: usize = command.iter().map(String::len).sum();
    if bytes > Env::BYTES_MAX {
        return Err(Invalid::new(field, format!("is {bytes} bytes in sum; at most {} are allowed", Env::BYTES_MAX)));
    }
    match command.iter().find(|argument| argument.contains('\0')) {
        Some(argument) => Err(Invalid::new(field, format!("{} contains a NUL", quoted(argument)))),
        None => Ok(()),
    }
}

fn check_label(key: &str, value: &str) -> Result<(), Invalid> {
    if key.starts_with(OUR_LABELS) && key != CONTENT_TYPE_LABEL {
        let problem = format!("{} is not a label of ours; there is {CONTENT_TYPE_LABEL}", quoted(key));
        return Err(Invalid::new("Config.Labels", problem));
    }
    // It becomes a header of an answer: visible ASCII, a type and a subtype.
    let halves = value.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty());
    let is_type = halves && value.len() <= MEDIA_TYPE_BYTES_MAX && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    if key == CONTENT_TYPE_LABEL && !is_type {
        let problem = format!("{CONTENT_TYPE_LABEL} {} is not a media type", quoted(value));
        return Err(Invalid::new("Config.Labels", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Digest, ImageConfig, MemoryKind, ModuleInfo};

    fn image(memory: MemoryKind, initial_memory_bytes: u64) -> Image {
        Image {
            account: AccountId::open_to_this_machine(),
            repository: "acme/tool".into(),
            tag: Some("latest".into()),
            digest: Digest::new([0; 32]),
            size_bytes: 8,
            created: Timestamp(0),
            info: ModuleInfo { memory, initial_memory_bytes, imports: vec![], exports: vec![] },
            config: ImageConfig {
                entrypoint: vec!["tool".into()],
                cmd: vec!["help".into()],
                env: vec![],
                working_dir: None,
            },
        }
    }

    fn change() -> Change {
        let image = Some(ImageReference::parse("acme/tool").unwrap());
        Change { config: ConfigChange { image, ..ConfigChange::default() }, ..Change::default() }
    }

    #[test]
    fn an_empty_change_changes_nothing() {
        let mut asked = change();
        asked.timeout = Some(Timeout::from_seconds(7).unwrap());
        asked.fuel = Some(9);
        asked.config.env = Some(Env::new(vec!["A=1".into(), "dropped".into()]).unwrap());
        let definition = Definition::create(asked).unwrap();
        assert_eq!(definition.config.env.variables(), ["A=1"]);
        assert_eq!(definition.apply(Change::default()).unwrap(), definition);
        let cleared = definition.apply(Change { fuel: Some(0), ..Change::default() }).unwrap();
        assert_eq!(cleared.fuel, None);
    }

    #[test]
    fn argv_follows_docker() {
        let image = image(MemoryKind::Narrow, 0);
        let argv = |entrypoint: &[&str], cmd: &[&str]| {
            let mut asked = change();
            asked.config.entrypoint = Some(entrypoint.iter().map(ToString::to_string).collect());
            asked.config.cmd = Some(cmd.iter().map(ToString::to_string).collect());
            Definition::create(asked).unwrap().argv(&image).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(argv(&[], &[]), ["tool", "help"]);
        assert_eq!(argv(&[], &["x"]), ["tool", "x"]);
        assert_eq!(argv(&["e"], &[]), ["e"]);
        assert_eq!(argv(&["e"], &["x"]), ["e", "x"]);
    }

    #[test]
    fn a_size_must_hold_the_initial_memory_and_should_not_be_wasted() {
        let mut asked = change();
        asked.size = Some(ContainerSize::S1);
        let definition = Definition::create(asked).unwrap();
        assert!(definition.check_fits(&image(MemoryKind::Narrow, 64 << 20).info).is_ok());
        let error = definition.check_fits(&image(MemoryKind::Narrow, (64 << 20) + 1).info).unwrap_err();
        assert_eq!(error.field, "ContainerSize");

        let large = definition.apply(Change { size: Some(ContainerSize::L2), ..Change::default() }).unwrap();
        assert_eq!(large.warnings(Some(&image(MemoryKind::Narrow, 0))).len(), 1);
        assert!(large.warnings(Some(&image(MemoryKind::Wide, 0))).is_empty());
    }

    #[test]
    fn timeouts_have_a_range() {
        for bad in [-1, 0, 86_401, i64::MAX] {
            assert_eq!(Timeout::from_seconds(bad).unwrap_err().field, "Timeout");
        }
        assert_eq!(Timeout::from_seconds(86_400).unwrap().seconds(), 86_400);
    }
}
