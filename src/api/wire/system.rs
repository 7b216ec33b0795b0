//! `/version` and `/info`, in Docker's shapes and with what is ours behind.

use crate::domain::{STDIN_BYTES_MAX, STDOUT_BYTES_MAX};
use crate::service::{Counts, Settings};
use serde::Serialize;
use std::net::SocketAddr;

/// The version of the API that is spoken: Hyper.sh's of 2016-04-04.
const API_VERSION: &str = "1.23";
/// What `build.rs` found out; empty where there was no git. The time is the commit's: a build can be repeated.
const GIT_COMMIT: Option<&str> = option_env!("HYPERFUNC_GIT_COMMIT");
const BUILD_TIME: Option<&str> = option_env!("HYPERFUNC_BUILD_TIME");

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct VersionJson {
    version: &'static str,
    api_version: &'static str,
    os: &'static str,
    arch: &'static str,
    kernel_version: String,
    git_commit: &'static str,
    build_time: &'static str,
}

/// Which server this is.
pub(in crate::api) fn version() -> impl Serialize {
    VersionJson {
        version: env!("CARGO_PKG_VERSION"),
        api_version: API_VERSION,
        os: std::env::consts::OS,
        arch: arch(),
        kernel_version: kernel_version(),
        git_commit: GIT_COMMIT.unwrap_or_default(),
        build_time: BUILD_TIME.unwrap_or_default(),
    }
}

/// Docker's names for processors are Go's.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel_version() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// What `/info` tells.
pub(in crate::api) struct Info<'a> {
    pub(in crate::api) counts: Counts,
    pub(in crate::api) settings: &'a Settings,
    /// Where functions are called, if not where this is asked.
    pub(in crate::api) func_endpoint: Option<&'a str>,
    /// Where that listens.
    pub(in crate::api) func_listen: Option<SocketAddr>,
    /// The memory of the machine, in bytes.
    pub(in crate::api) memory_total: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InfoJson<'a> {
    name: String,
    server_version: &'static str,
    operating_system: &'static str,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: &'static str,
    kernel_version: String,
    #[serde(rename = "NCPU")]
    ncpu: usize,
    mem_total: u64,
    /// Docker counts containers: the calls that run are ours.
    containers: usize,
    containers_running: usize,
    images: usize,
    functions: usize,
    running: usize,
    pending: usize,
    memory_charged: u64,
    memory_budget: u64,
    quotas: Quotas,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    func_endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    func_listen: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Quotas {
    functions: u64,
    images: u64,
    image_bytes: u64,
    running: usize,
    pending: usize,
    pending_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Limits {
    running: usize,
    sync_wait_seconds: f64,
    stdin_bytes: usize,
    stdout_bytes: usize,
    image_bytes: u64,
    output_cache_bytes: u64,
    output_ttl_seconds: f64,
}

/// What is there, what goes on, and the limits of both.
pub(in crate::api) fn info<'a>(info: &Info<'a>) -> impl Serialize + use<'a> {
    let Info { counts, settings, func_endpoint, func_listen, memory_total } = info;
    let bounds = &settings.bounds;
    InfoJson {
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        server_version: env!("CARGO_PKG_VERSION"),
        operating_system: "hyperfunc",
        os_type: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
        kernel_version: kernel_version(),
        ncpu: std::thread::available_parallelism().map_or(1, usize::from),
        mem_total: *memory_total,
        containers: counts.load.running,
        containers_running: counts.load.running,
        images: counts.images,
        functions: counts.functions,
        running: counts.load.running,
        pending: counts.load.pending,
        memory_charged: counts.memory_charged,
        memory_budget: counts.memory_budget,
        quotas: Quotas {
            functions: settings.quota.functions,
            images: settings.quota.images,
            image_bytes: settings.quota.image_bytes,
            running: bounds.account_running.get(),
            pending: bounds.account_pending,
            pending_bytes: bounds.account_pending_bytes,
        },
        limits: Limits {
            running: bounds.running.get(),
            sync_wait_seconds: settings.sync_wait.as_secs_f64(),
            stdin_bytes: STDIN_BYTES_MAX,
            stdout_bytes: STDOUT_BYTES_MAX,
            image_bytes: settings.image_bytes_max,
            output_cache_bytes: settings.retention.function_bytes,
            output_ttl_seconds: settings.retention.result_ttl.as_secs_f64(),
        },
        func_endpoint: *func_endpoint,
        func_listen: func_listen.map(|address| address.to_string()),
    }
}
