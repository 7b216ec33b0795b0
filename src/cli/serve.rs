//! `serve`: puts the rooms together, and takes them apart again.

use super::data::DataLock;
use super::exit::{self, USAGE};
use super::{host, output, settings};
use crate::api::{Api, Face, Faces, Listener, Server};
use crate::config::{Config, LogFormat, RawConfig, log_filter};
use crate::engine::{self, CompilerThreads, Engine};
use crate::image::ImageFiles;
use crate::service::{self, Keeping, Service, backup};
use crate::store::{LOG_BYTES_MAX, Logs, SqliteStore};
use anyhow::{Context as _, anyhow, bail};
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long asynchronous calls may take to go back to the queue.
const GIVE_BACK_MAX: Duration = Duration::from_secs(2);
/// How long the last answers may take on their way out.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(3);
/// Exit statuses of a server that was told twice to end: as if the signal had killed it.
const KILLED_BY: [(SignalKind, u8); 2] = [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)];

#[derive(clap::Args)]
#[command(after_help = "Example: hyperfunc serve --data /srv/hyperfunc --max-running 200")]
pub(super) struct Serve {
    #[command(flatten)]
    file: settings::FileFlag,
    #[command(flatten)]
    settings: RawConfig,
}

impl Serve {
    /// Runs the server until it is told to end, or must.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let config = self.file.read()?.of_server(self.settings)?;
        start_log(&config)?;
        let config = config.fit_open_files(host::raise_open_files());
        let mut signals = Signals::listen()?;
        let listeners = bind(&config)?;
        let _lock = DataLock::take(&config.data)?;
        backup::finish_broken_off(&config.data)?;
        let service = start_service(&config, CompilerThreads::One).await?;

        let addresses = Addresses::of(&config, &listeners)?;
        let api = Api {
            service: service.clone(),
            func_endpoint: addresses.func_endpoint.clone(),
            func_listen: addresses.functions,
            memory_total: host::memory_total(),
            root: None,
        };
        let server = Server::start(api, listeners, config.connections_max);
        addresses.announce(&config.data)?;

        tokio::select! {
            _ = signals.next() => {}
            reason = service.failed() => return Err(untrusted(&reason)),
        }
        let status = tokio::select! {
            () = drain(service.clone(), server, config.drain) => 0,
            status = signals.next() => return Ok(status),
            reason = service.failed() => return Err(untrusted(&reason)),
        };
        // A drain also ends when nothing can be waited for any more.
        tokio::select! {
            biased;
            reason = service.failed() => Err(untrusted(&reason)),
            () = std::future::ready(()) => Ok(status),
        }
    }
}

/// What was promised is on disk or was never said; whoever starts the server again finds out.
fn untrusted(reason: &str) -> anyhow::Error {
    anyhow!("stopped: what is stored cannot be trusted any more: {reason}")
}

pub(super) fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = log_filter(&config.log).map_err(|invalid| exit::with(USAGE, invalid))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| anyhow!("the log: {e}"))
}

fn bind(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let listener = |setting: &str, address: SocketAddr, faces| {
        Listener::bind(address, faces).with_context(|| format!("--{setting} {address}"))
    };
    let mut listeners = match config.func_listen {
        None => vec![listener("listen", config.listen, Faces::Both)?],
        Some(func_listen) => vec![
            listener("listen", config.listen, Faces::Only(Face::Management))?,
            listener("func-listen", func_listen, Faces::Only(Face::Functions))?,
        ],
    };
    if let Some(metrics_listen) = config.metrics_listen {
        listeners.push(listener("metrics-listen", metrics_listen, Faces::Only(Face::Metrics))?);
    }
    Ok(listeners)
}

/// Starts the service on its data directory.
///
/// # Errors
/// When what is there cannot be read, or the host not run it.
pub(super) async fn start_service(config: &Config, compiler: CompilerThreads) -> anyhow::Result<Service> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| anyhow!("no random bytes: {e}"))?;
    let store = config.data.join(SqliteStore::FILE_NAME);
    // A new store would name none of them, and they would be swept.
    let has_modules = config.data.join("modules").read_dir().is_ok_and(|mut modules| modules.next().is_some());
    if has_modules && fs::metadata(&store).map_or(0, |file| file.len()) == 0 {
        bail!("{}: is not there, or empty, and modules are: restore a backup, or name another --data", store.display());
    }
    let files = ImageFiles::open(&config.data, key)?;
    let store = SqliteStore::open(&store)?;
    let logs = config.data.join("logs");
    let logs = Logs::open(&logs, LOG_BYTES_MAX).with_context(|| format!("{}", logs.display()))?;
    let engine = Engine::new(engine::Settings {
        instances_max: config.instances_max,
        memory_budget_bytes: config.memory_bytes,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        compiler,
        clock: Instant::now,
    })?;
    let settings = service::Settings {
        bounds: config.bounds,
        sync_wait: config.sync_wait,
        quota: config.quota,
        image_bytes_max: config.image_bytes_max,
        retention: config.retention,
    };
    let keeping = Keeping { store: Arc::new(store), files, logs };
    Ok(Service::start(settings, keeping, engine).await?)
}

/// Lets what runs end, for a while; then ends the rest.
async fn drain(service: Service, server: Server, within: Duration) {
    service.drain();
    let calls = service.load().running;
    tracing::info!(calls, "ending: waiting for the calls that run; a second signal ends at once");
    let last_answers = match tokio::time::timeout(within, service.idle()).await {
        Ok(()) => LAST_ANSWERS_MAX,
        Err(_elapsed) => {
            let calls = service.load().running;
            tracing::warn!(calls, "calls that did not end in time are cut off; asynchronous ones start anew later");
            service.give_back_calls();
            let _ = tokio::time::timeout(GIVE_BACK_MAX, service.idle()).await;
            // Their connections would be waited for in vain.
            Duration::ZERO
        }
    };
    server.finish(last_answers).await;
}

/// The two signals that end a server.
struct Signals([(Signal, u8); 2]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let [interrupt, terminate] = KILLED_BY;
        Ok(Self([(signal(interrupt.0)?, interrupt.1), (signal(terminate.0)?, terminate.1)]))
    }

    /// Waits for one, and returns the exit status of a process that it kills.
    async fn next(&mut self) -> u8 {
        let [(interrupt, interrupted), (terminate, terminated)] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => *interrupted,
            _ = terminate.recv() => *terminated,
        }
    }
}

/// Where the server can be reached.
struct Addresses {
    management: SocketAddr,
    functions: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    /// Where functions are called, if not where they are managed.
    func_endpoint: Option<String>,
}

impl Addresses {
    fn of(config: &Config, listeners: &[Listener]) -> anyhow::Result<Self> {
        let address =
            |faces| listeners.iter().find(|listener| listener.faces() == faces).map(Listener::address).transpose();
        let functions = address(Faces::Only(Face::Functions))?;
        let metrics = address(Faces::Only(Face::Metrics))?;
        let func_endpoint = config.public_url.clone().or_else(|| functions.map(|address| format!("http://{address}")));
        let management = listeners.first().map(Listener::address).transpose()?.unwrap_or(config.listen);
        Ok(Self { management, functions, metrics, func_endpoint })
    }

    /// Says where the server is, where its data is, and what to do next.
    fn announce(&self, data: &Path) -> anyhow::Result<()> {
        let Self { management, functions, metrics, .. } = self;
        let program = std::env::args().next().unwrap_or_else(|| "hyperfunc".to_owned());
        let elsewhere =
            if management.port() == 8080 { String::new() } else { format!(" --server http://{management}") };
        output::line(&format!("hyperfunc {} listens on http://{management}", env!("CARGO_PKG_VERSION")))?;
        if let Some(functions) = functions {
            output::line(&format!("functions are called on http://{functions}"))?;
        }
        if let Some(metrics) = metrics {
            output::line(&format!("metrics are at http://{metrics}/metrics"))?;
        }
        output::line(&format!("data is in {}", data.display()))?;
        output::line(&format!("next: {program} load{elsewhere} FILE.wasm -t NAME"))?;
        Ok(std::io::stdout().flush()?)
    }
}
