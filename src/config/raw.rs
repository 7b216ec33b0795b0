//! The settings of a server as they were written, in flags, variables or the settings file. What they mean is checked by
//! [`Config::new`](super::Config::new).

use super::{Bytes, Memory, Wait};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The settings as they were written: on the command line, in the environment, or in the TOML file.
#[derive(Debug, Clone, Default, Deserialize, Serialize, clap::Args)]
#[serde(rename_all = "kebab-case")]
pub struct RawConfig {
    /// Where to listen; a loopback address [default: 127.0.0.1:8080]
    #[arg(long, env = "HYPERFUNC_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Moves the function endpoint to a listener of its own, on any address
    #[arg(long, env = "HYPERFUNC_FUNC_LISTEN", value_name = "ADDR")]
    pub func_listen: Option<SocketAddr>,
    /// Serves /metrics there, for Prometheus
    #[arg(long, env = "HYPERFUNC_METRICS_LISTEN", value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,
    /// The URL at which callers reach the function endpoint, if it is not where it listens
    #[arg(long, env = "HYPERFUNC_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Where everything is kept [default: the XDG data directory, ~/.local/share/hyperfunc]
    #[arg(long, env = "HYPERFUNC_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Calls that may run at once [default: 100]
    #[arg(long, env = "HYPERFUNC_MAX_RUNNING", value_name = "N")]
    pub max_running: Option<u32>,
    /// Calls of one account that may run at once [default: as --max-running]
    #[arg(long, env = "HYPERFUNC_ACCOUNT_RUNNING", value_name = "N")]
    pub account_running: Option<u32>,
    /// Calls of one account that may wait [default: 10000]
    #[arg(long, env = "HYPERFUNC_MAX_PENDING", value_name = "N")]
    pub max_pending: Option<usize>,
    /// Request bodies of one account that may wait [default: 1GB]
    #[arg(long, env = "HYPERFUNC_MAX_PENDING_BYTES", value_name = "BYTES")]
    pub max_pending_bytes: Option<Bytes>,
    /// How long a synchronous call may wait to start [default: 60s]
    #[arg(long, env = "HYPERFUNC_SYNC_WAIT", value_name = "TIME")]
    pub sync_wait: Option<Wait>,
    /// What the ended calls of one function may keep together [default: 50MB]
    #[arg(long, env = "HYPERFUNC_OUTPUT_CACHE", value_name = "BYTES")]
    pub output_cache: Option<Bytes>,
    /// How long they keep it [default: 24h]
    #[arg(long, env = "HYPERFUNC_OUTPUT_TTL", value_name = "TIME")]
    pub output_ttl: Option<Wait>,
    /// What running guests may hold together, in bytes or as a part of the machine's memory [default: 75%]
    #[arg(long, env = "HYPERFUNC_MEMORY", value_name = "BYTES|N%")]
    pub memory: Option<Memory>,
    /// How long running calls may take to end after SIGTERM [default: 30s]
    #[arg(long, env = "HYPERFUNC_DRAIN", value_name = "TIME")]
    pub drain: Option<Wait>,
    /// The largest module [default: 64MB]
    #[arg(long, env = "HYPERFUNC_MAX_IMAGE_BYTES", value_name = "BYTES")]
    pub max_image_bytes: Option<Bytes>,
    /// Functions of one account [default: 10000]
    #[arg(long, env = "HYPERFUNC_QUOTA_FUNCTIONS", value_name = "N")]
    pub quota_functions: Option<u64>,
    /// Images of one account [default: 1000]
    #[arg(long, env = "HYPERFUNC_QUOTA_IMAGES", value_name = "N")]
    pub quota_images: Option<u64>,
    /// Bytes of modules of one account [default: 10GB]
    #[arg(long, env = "HYPERFUNC_QUOTA_IMAGE_BYTES", value_name = "BYTES")]
    pub quota_image_bytes: Option<Bytes>,
    /// Connections that may be open at once [default: 10000]
    #[arg(long, env = "HYPERFUNC_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// What the log tells: error, warn, info, debug, or a filter such as `hyperfunc=debug` [default: info]
    #[arg(long, env = "HYPERFUNC_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
    /// How the log is written [default: text]
    #[arg(long, env = "HYPERFUNC_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How the server's log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl RawConfig {
    /// These settings, and where one is absent that of `weaker`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            listen: self.listen.or(weaker.listen),
            func_listen: self.func_listen.or(weaker.func_listen),
            metrics_listen: self.metrics_listen.or(weaker.metrics_listen),
            public_url: self.public_url.or(weaker.public_url),
            data: self.data.or(weaker.data),
            max_running: self.max_running.or(weaker.max_running),
            account_running: self.account_running.or(weaker.account_running),
            max_pending: self.max_pending.or(weaker.max_pending),
            max_pending_bytes: self.max_pending_bytes.or(weaker.max_pending_bytes),
            sync_wait: self.sync_wait.or(weaker.sync_wait),
            output_cache: self.output_cache.or(weaker.output_cache),
            output_ttl: self.output_ttl.or(weaker.output_ttl),
            memory: self.memory.or(weaker.memory),
            drain: self.drain.or(weaker.drain),
            max_image_bytes: self.max_image_bytes.or(weaker.max_image_bytes),
            quota_functions: self.quota_functions.or(weaker.quota_functions),
            quota_images: self.quota_images.or(weaker.quota_images),
            quota_image_bytes: self.quota_image_bytes.or(weaker.quota_image_bytes),
            max_connections: self.max_connections.or(weaker.max_connections),
            log: self.log.or(weaker.log),
            log_format: self.log_format.or(weaker.log_format),
        }
    }
}
