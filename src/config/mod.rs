//! Settings: what was typed, and what was meant by it.
//!
//! A setting is taken from its flag, else from `HYPERFUNC_*`, else from the settings file, else from the defaults below.
//! [`RawSettings`] is one list for all of them, of which [`RawConfig`] is the server's part; [`Config::new`] checks that
//! and says which setting is wrong.

mod amount;
mod file;
mod raw;
mod settings;

pub use amount::{Bytes, Memory, Wait};
pub use file::{Mistake, NamedServer, Problem, SERVERS, SettingsFile};
pub use raw::{LogFormat, RawConfig};
pub use settings::{Name, RawClient, RawSettings, SERVER};

use crate::domain::{MB, Quota};
use crate::service::Retention;
use crate::service::scheduler::Bounds;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Where the server listens.
const LISTEN: &str = "127.0.0.1:8080";
/// Calls that may run at once.
const MAX_RUNNING: u32 = 100;
/// The most that [`MAX_RUNNING`] may be set to: each call has a slot of 4 GiB of address space, of which there are 128 TiB
/// for two pools.
const MAX_RUNNING_MAX: u32 = 10_000;
/// Calls of one account that may wait.
const MAX_PENDING: usize = 10_000;
/// Bytes of request bodies of one account that may wait.
const MAX_PENDING_BYTES: u64 = 1024 * MB;
/// How long a synchronous call may wait to start.
const SYNC_WAIT: Duration = Duration::from_secs(60);
/// How long running calls may take to end once the server was asked to.
const DRAIN: Duration = Duration::from_secs(30);
/// What running guests may hold of the machine's memory, in percent.
const MEMORY_PERCENT: u64 = 75;
/// The least memory budget that makes sense: one call of the smallest size, in bytes.
const MEMORY_MIN: u64 = 64 * MB;
/// The largest module, in bytes.
const MAX_IMAGE_BYTES: u64 = 64 * MB;
/// The most that [`MAX_IMAGE_BYTES`] may be set to, in bytes: a module is held in memory while it is compiled.
const MAX_IMAGE_BYTES_MAX: u64 = 1024 * MB;
/// Functions of one account.
const QUOTA_FUNCTIONS: u64 = 10_000;
/// Images of one account.
const QUOTA_IMAGES: u64 = 1_000;
/// Bytes of modules of one account.
const QUOTA_IMAGE_BYTES: u64 = 10 * 1024 * MB;
/// Connections that may be open at once. Idle ones are closed after ten seconds.
const MAX_CONNECTIONS: usize = 10_000;
/// What the ended calls of one function may keep together, in bytes.
const OUTPUT_CACHE: u64 = 50 * MB;
/// How long they keep it.
const OUTPUT_TTL: Duration = Duration::from_secs(86_400);
/// The ended calls of one function, however little they keep.
const OUTPUT_CALLS: u64 = 100_000;
/// How long, and how many calls of one function, are known to have ended whose result is not kept.
const GONE_TTL: Duration = Duration::from_secs(7 * 86_400);
const GONE_CALLS: u64 = 100_000;
/// How long, and how many of one function, idempotency keys are remembered.
const KEY_TTL: Duration = Duration::from_secs(86_400);
const KEYS: u64 = 100_000;

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{setting}: {problem}")]
pub struct Invalid {
    setting: &'static str,
    problem: String,
}

/// The settings of a server, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where management, and without [`Config::func_listen`] everything, is served.
    pub listen: SocketAddr,
    /// Where the function endpoint is served if not there.
    pub func_listen: Option<SocketAddr>,
    /// Where the server says what it counts of itself.
    pub metrics_listen: Option<SocketAddr>,
    /// The function endpoint as callers see it, without a slash at its end; `None` is where it listens.
    pub public_url: Option<String>,
    /// The data directory.
    pub data: PathBuf,
    /// The bounds of running and waiting.
    pub bounds: Bounds,
    /// [`Bounds::running`] again, as the engine counts.
    pub instances_max: NonZeroU32,
    /// How long a synchronous call may wait to start.
    pub sync_wait: Duration,
    /// What running guests may hold together, in bytes.
    pub memory_bytes: u64,
    /// How long running calls may take to end once the server was asked to.
    pub drain: Duration,
    /// The largest module, in bytes.
    pub image_bytes_max: u64,
    /// What is kept of ended calls.
    pub retention: Retention,
    /// What one account may own.
    pub quota: Quota,
    /// Connections that may be open at once.
    pub connections_max: NonZeroUsize,
    /// What the log tells.
    pub log: String,
    /// How it is written.
    pub log_format: LogFormat,
}

/// What the checks need to know of the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// The memory of the machine or its control group, in bytes.
    pub memory_bytes: u64,
    /// The data directory of a user who names none.
    pub data: Option<PathBuf>,
}

impl Config {
    /// Checks the settings and fills in the defaults.
    ///
    /// # Errors
    /// Names the first setting that is wrong, and its bounds.
    pub fn new(raw: RawConfig, host: Host) -> Result<Self, Invalid> {
        let listen = raw.listen.map_or_else(|| LISTEN.parse().map_err(|_| invalid("listen", "is no address")), Ok)?;
        if !listen.ip().is_loopback() {
            let problem = format!(
                "{listen} can be reached from other machines, and this version has no credentials to keep them out; \
                 use a loopback address such as {LISTEN} (--func-listen may be any)"
            );
            return Err(invalid("listen", problem));
        }
        let running = between("max-running", raw.max_running, MAX_RUNNING, 1, MAX_RUNNING_MAX)?;
        let account_running = between("account-running", raw.account_running, running, 1, MAX_RUNNING_MAX)?;
        let memory_bytes = match raw.memory.unwrap_or(Memory::Percent(MEMORY_PERCENT)) {
            Memory::Bytes(bytes) => bytes,
            // In whole megabytes: people read it.
            Memory::Percent(percent) => host.memory_bytes / 100 * percent / MB * MB,
        };
        if memory_bytes < MEMORY_MIN {
            return Err(invalid("memory", format!("{memory_bytes} bytes are less than the 64 MB of one small call")));
        }
        let image_bytes_max = raw.max_image_bytes.map(|bytes| bytes.0);
        Ok(Self {
            listen,
            func_listen: raw.func_listen,
            metrics_listen: raw.metrics_listen,
            public_url: raw.public_url.map(checked_url).transpose()?,
            data: data_dir(raw.data, host.data)?,
            bounds: Bounds {
                running: as_size(running),
                account_running: as_size(account_running),
                account_pending: raw.max_pending.unwrap_or(MAX_PENDING),
                account_pending_bytes: raw.max_pending_bytes.map_or(MAX_PENDING_BYTES, |bytes| bytes.0),
            },
            instances_max: NonZeroU32::new(running).unwrap_or(NonZeroU32::MIN),
            sync_wait: raw.sync_wait.map_or(SYNC_WAIT, |wait| wait.0),
            memory_bytes,
            drain: raw.drain.map_or(DRAIN, |wait| wait.0),
            image_bytes_max: between("max-image-bytes", image_bytes_max, MAX_IMAGE_BYTES, 1, MAX_IMAGE_BYTES_MAX)?,
            retention: Retention {
                function_bytes: raw.output_cache.map_or(OUTPUT_CACHE, |bytes| bytes.0),
                function_calls: OUTPUT_CALLS,
                function_gone: GONE_CALLS,
                result_ttl: raw.output_ttl.map_or(OUTPUT_TTL, |ttl| ttl.0),
                gone_ttl: GONE_TTL,
                key_ttl: KEY_TTL,
                function_keys: KEYS,
            },
            quota: Quota {
                functions: raw.quota_functions.unwrap_or(QUOTA_FUNCTIONS),
                images: raw.quota_images.unwrap_or(QUOTA_IMAGES),
                image_bytes: raw.quota_image_bytes.map_or(QUOTA_IMAGE_BYTES, |bytes| bytes.0),
            },
            connections_max: NonZeroUsize::new(raw.max_connections.unwrap_or(MAX_CONNECTIONS))
                .ok_or_else(|| invalid("max-connections", "must be at least 1"))?,
            log: checked_log(raw.log.unwrap_or_else(|| "info".to_owned()))?,
            log_format: raw.log_format.unwrap_or_default(),
        })
    }

    /// These settings as somebody writes them who means just them.
    #[must_use]
    pub fn written_out(&self) -> RawConfig {
        let Bounds { running: _, account_running, account_pending, account_pending_bytes } = self.bounds;
        RawConfig {
            listen: Some(self.listen),
            func_listen: self.func_listen,
            metrics_listen: self.metrics_listen,
            public_url: self.public_url.clone(),
            data: Some(self.data.clone()),
            max_running: Some(self.instances_max.get()),
            account_running: u32::try_from(account_running.get()).ok(),
            max_pending: Some(account_pending),
            max_pending_bytes: Some(Bytes(account_pending_bytes)),
            sync_wait: Some(Wait(self.sync_wait)),
            output_cache: Some(Bytes(self.retention.function_bytes)),
            output_ttl: Some(Wait(self.retention.result_ttl)),
            memory: Some(Memory::Bytes(self.memory_bytes)),
            drain: Some(Wait(self.drain)),
            max_image_bytes: Some(Bytes(self.image_bytes_max)),
            quota_functions: Some(self.quota.functions),
            quota_images: Some(self.quota.images),
            quota_image_bytes: Some(Bytes(self.quota.image_bytes)),
            max_connections: Some(self.connections_max.get()),
            log: Some(self.log.clone()),
            log_format: Some(self.log_format),
        }
    }
}

/// The data directory: the one that was named, else that of the user.
///
/// # Errors
/// When there is neither.
pub fn data_dir(named: Option<PathBuf>, of_user: Option<PathBuf>) -> Result<PathBuf, Invalid> {
    named.or(of_user).ok_or_else(|| invalid("data", "is needed: there is no home directory"))
}

/// What the log tells, of a level or a filter.
///
/// # Errors
/// When it is neither.
pub fn log_filter(log: &str) -> Result<EnvFilter, Invalid> {
    // A level by itself is meant for what we say: libraries tell of host calls, and a guest makes as many as it likes.
    let filter = match log.parse::<LevelFilter>() {
        Ok(level) => format!("off,hyperfunc={level}"),
        Err(_) if log.contains(['=', ',']) => log.to_owned(),
        Err(_) => {
            let problem = format!("{log} is none of off, error, warn, info, debug, trace, nor a filter");
            return Err(invalid("log", problem));
        }
    };
    EnvFilter::try_new(filter).map_err(|e| invalid("log", format!("{log}: {e}")))
}

/// Files that are kept for everything but connections: the store, modules and artifacts, and logs that are written and
/// read.
const FILES_KEPT: u64 = 384;

impl Config {
    /// These settings, with no more connections than the process can open files for.
    #[must_use]
    pub fn fit_open_files(mut self, files_max: u64) -> Self {
        let listeners = if self.func_listen.is_some() { 2 } else { 1 };
        let fitting = usize::try_from(files_max.saturating_sub(FILES_KEPT) / listeners).unwrap_or(usize::MAX);
        let fitting = NonZeroUsize::new(fitting).unwrap_or(NonZeroUsize::MIN);
        if fitting < self.connections_max {
            tracing::warn!(
                files_max,
                connections_max = fitting,
                "fewer connections than --max-connections: too few open files"
            );
            self.connections_max = fitting;
        }
        self
    }
}

fn invalid(setting: &'static str, problem: impl Into<String>) -> Invalid {
    Invalid { setting, problem: problem.into() }
}

fn as_size(number: u32) -> NonZeroUsize {
    NonZeroUsize::new(number as usize).unwrap_or(NonZeroUsize::MIN)
}

fn between<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    value: Option<T>,
    default: T,
    min: T,
    max: T,
) -> Result<T, Invalid> {
    let value = value.unwrap_or(default);
    if (&min..=&max).contains(&&value) {
        Ok(value)
    } else {
        Err(invalid(setting, format!("{value} is not between {min} and {max}")))
    }
}

fn checked_log(log: String) -> Result<String, Invalid> {
    log_filter(&log).map(|_filter| log)
}

fn checked_url(url: String) -> Result<String, Invalid> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(invalid("public-url", format!("{url:?} is not a URL such as https://functions.example.org"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { memory_bytes: 8 << 30, data: Some("/data".into()) }
    }

    fn raw(toml: &str) -> RawConfig {
        toml::from_str(toml).unwrap()
    }

    fn config(toml: &str) -> Result<Config, String> {
        Config::new(raw(toml), host()).map_err(|e| e.to_string())
    }

    fn shown(raw: &RawConfig) -> serde_json::Map<String, serde_json::Value> {
        serde_json::to_value(raw).unwrap().as_object().unwrap().clone()
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let config = config("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.bounds.running.get(), 100);
        assert_eq!(config.bounds.account_running.get(), 100);
        assert_eq!(config.bounds.account_pending, 10_000);
        assert_eq!(config.sync_wait, Duration::from_secs(60));
        assert_eq!(config.memory_bytes, 6143 * MB);
        assert_eq!(config.data, PathBuf::from("/data"));
        let Retention { function_bytes, function_calls, function_gone, function_keys, .. } = config.retention;
        assert_eq!(
            (function_bytes, function_calls, function_gone, function_keys),
            (50 * MB, 100_000, 100_000, 100_000)
        );
        let days = [config.retention.result_ttl, config.retention.gone_ttl, config.retention.key_ttl];
        assert_eq!(days.map(|ttl| ttl.as_secs() / 86_400), [1, 7, 1]);
        assert_eq!(config.metrics_listen, None);
    }

    #[test]
    fn units_are_read() {
        let config = config("memory = \"1GB\"\nsync-wait = 2\ndrain = \"500ms\"\nmax-image-bytes = 4096").unwrap();
        assert_eq!((config.memory_bytes, config.image_bytes_max), (1 << 30, 4096));
        assert_eq!((config.sync_wait, config.drain), (Duration::from_secs(2), Duration::from_millis(500)));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (toml, name) in [
            ("max-running = 0", "--max-running"),
            ("max-running = 10001", "--max-running"),
            ("memory = \"1MB\"", "--memory"),
            ("listen = \"0.0.0.0:80\"", "--listen"),
            ("public-url = \"ftp://x\"", "--public-url"),
            ("max-connections = 0", "--max-connections"),
            ("log = \"loud\"", "--log"),
            ("log = \"hyperfunc=loud\"", "--log"),
        ] {
            let error = config(toml).unwrap_err();
            assert!(error.contains(name), "{toml}: {error}");
        }
    }

    #[test]
    fn there_are_no_more_connections_than_files() {
        let connections = |toml: &str, files: u64| config(toml).unwrap().fit_open_files(files).connections_max.get();
        assert_eq!(connections("", 1 << 20), MAX_CONNECTIONS);
        assert_eq!(connections("", 1384), 1000);
        assert_eq!(connections("func-listen = \"127.0.0.1:1\"", 1384), 500);
        assert_eq!(connections("", 10), 1);
    }

    #[test]
    fn the_stronger_setting_wins() {
        let flags = RawConfig { max_running: Some(7), ..RawConfig::default() };
        let both = flags.or(raw("max-running = 8\nlisten = \"127.0.0.1:9\""));
        assert_eq!((both.max_running, both.listen.unwrap().port()), (Some(7), 9));
    }

    #[test]
    fn what_is_written_out_means_the_same() {
        let all = "listen = \"[::1]:1\"\nfunc-listen = \"0.0.0.0:2\"\nmetrics-listen = \"127.0.0.1:3\"\n\
                   public-url = \"https://x\"\ndata = \"/d\"\nmax-running = 4\naccount-running = 5\nmax-pending = 6\n\
                   max-pending-bytes = 7\nsync-wait = \"8ms\"\noutput-cache = 9\noutput-ttl = 10\nmemory = \"99MB\"\n\
                   drain = 12\nmax-image-bytes = 13\nquota-functions = 14\nquota-images = 15\nquota-image-bytes = 16\n\
                   max-connections = 17\nlog = \"debug\"\nlog-format = \"json\"\n";
        for toml in ["", all] {
            let once = Config::new(raw(toml), host()).unwrap();
            let twice = Config::new(once.written_out(), Host { memory_bytes: 0, data: None }).unwrap();
            assert_eq!(format!("{once:?}"), format!("{twice:?}"));
            if toml == all {
                assert_eq!(shown(&once.written_out()), shown(&raw(toml)));
                assert!(shown(&raw(toml)).values().all(|value| !value.is_null()), "one is missing above");
            }
        }
    }

    #[test]
    fn flags_variables_and_keys_have_one_name_each() {
        let names = RawSettings::names();
        let keys: Vec<&str> = names.iter().map(|name| name.key.as_str()).collect();
        let of_server = shown(&RawConfig::default());
        assert_eq!(keys, std::iter::once("server").chain(of_server.keys().map(String::as_str)).collect::<Vec<_>>());
        for Name { key, variable } in &names {
            assert_eq!(*variable, format!("HYPERFUNC_{}", key.to_uppercase().replace('-', "_")));
        }
    }

    #[test]
    fn help_tells_the_defaults() {
        use clap::Args as _;
        let in_force = shown(&config("").unwrap().written_out());
        for argument in RawSettings::augment_args(clap::Command::new("")).get_arguments() {
            let help = argument.get_help().unwrap().to_string();
            let told = help.split_once("[default: ").map(|(_, rest)| rest.strip_suffix(']').unwrap());
            let key = argument.get_long().unwrap();
            let default = match &in_force.get(key) {
                None => SERVER.to_owned(),
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            match (key, told) {
                ("data", Some(told)) => assert!(told.starts_with("the XDG data directory"), "{told}"),
                ("account-running", told) => assert_eq!(told, Some("as --max-running")),
                ("memory", told) => assert_eq!(told, Some("75%")),
                (_, told) => assert_eq!(told.unwrap_or("null"), default, "{key}"),
            }
        }
    }

    #[test]
    fn one_setting_is_read_by_itself() {
        let read = |key: &str, value: &str| RawSettings::one(key, value.as_ref()).map(|setting| setting.server);
        assert_eq!(read("max-running", "7").unwrap().max_running, Some(7));
        for (key, value, problem) in [
            ("max-running", "x", "invalid value 'x' for '--max-running <N>': invalid digit found in string"),
            ("max-running", "0", "0 is not between 1 and 10000"),
            ("log-format", "xml", "invalid value 'xml' for '--log-format <LOG_FORMAT>' [possible values: text, json]"),
        ] {
            assert_eq!(read(key, value).unwrap_err(), problem);
        }
    }
}
