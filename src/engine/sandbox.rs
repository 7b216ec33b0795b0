//! One call: a store, a WASI context and an instance that nothing has used before or will use after.

use super::ending::{NotInstantiated, ending};
use super::limiter::Limiter;
use super::stdio::{Sink, Stdin, Written, lock};
use super::turns::{InTurn, Turn};
use super::{Clock, Error, Linked, MemoryBudget, SetAside};
use crate::domain::{Ending, Limits, Outcome, Usage};
use bytes::Bytes;
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wasmtime::UpdateDeadline;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, WasiView as _};

/// The most random bytes that one host call gives, on a thread that serves others as well.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// The most resources, such as open streams, that one guest may hold which has no files. With files it is wasmtime's
/// own limit, a million, that counts, and this process's of open files.
const RESOURCES_MAX: usize = 512;
/// Ticks until a guest first looks up. Not 0: it would stop before its first instruction.
const TICKS_PER_TURN: u64 = 1;

/// What a guest is given.
#[derive(Debug, Default)]
pub struct Invocation {
    /// argv.
    pub args: Vec<String>,
    /// The whole environment: nothing of the host's is added.
    pub env: Vec<(Cow<'static, str>, String)>,
    /// stdin, stdout and stderr.
    pub stdio: Stdio,
    /// Directories of the host that it may read and write: none, but for whoever runs a module of their own.
    pub dirs: Vec<SharedDir>,
    /// Memory that is kept for it.
    pub aside: Option<SetAside>,
}

/// Where a guest reads from and writes to.
#[derive(Debug)]
pub enum Stdio {
    /// In memory, and bounded: what the guest has written is in the [`Outcome`].
    Captured {
        /// stdin.
        stdin: Bytes,
        /// stdout and stderr become one stream and report as a terminal.
        tty: bool,
    },
    /// The streams of this process, as they come and without a bound. The [`Outcome`] has nothing of them. A host call
    /// that waits holds the guest's thread.
    Inherited,
}

impl Default for Stdio {
    fn default() -> Self {
        Self::Captured { stdin: Bytes::new(), tty: false }
    }
}

/// A directory that a guest finds under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedDir {
    /// Where it is.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
}

/// What a store holds for the host functions.
pub(super) struct Sandbox {
    wasi: WasiP1Ctx,
    limiter: Limiter,
}

impl Sandbox {
    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

pub(super) async fn run(
    program: &Linked,
    mut invocation: Invocation,
    limits: &Limits,
    budget: &Arc<MemoryBudget>,
    turn: Arc<Turn>,
    clock: Clock,
    to_end: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    let began = clock();
    let mut written = None;
    let wasi = wasi(&mut invocation, limits, &mut written)?;
    let limiter = Limiter::new(limits.memory_bytes, Arc::clone(budget), invocation.aside, turn.weight().clone());
    let mut store = wasmtime::Store::new(program.pre.module().engine(), Sandbox { wasi, limiter });
    store.limiter_async(|sandbox| &mut sandbox.limiter);
    if let Some(fuel) = limits.fuel {
        store.set_fuel(fuel.get()).map_err(|e| Error::Sandbox(format!("{e:#}")))?;
    }
    // Before instantiation: a start function can loop as well.
    let mut ticks = 0;
    let ticking = Arc::clone(&turn);
    store.set_epoch_deadline(TICKS_PER_TURN);
    store.epoch_deadline_callback(move |_| {
        ticks += 1;
        Ok(UpdateDeadline::YieldCustom(TICKS_PER_TURN, Box::pin(Arc::clone(&ticking).give_way(ticks))))
    });

    // At each tick the guest comes back to this timer, which also bounds a wait in a host call.
    let mut instantiated = None;
    let ended = {
        let on_instantiated = || instantiated = Some(clock());
        let guest = std::pin::pin!(start(program, &mut store, on_instantiated));
        tokio::select! {
            biased;
            ended = tokio::time::timeout(limits.timeout, InTurn::new(guest, turn)) => Some(ended),
            () = to_end => None,
        }
    };

    let refused = store.data().limiter.refused();
    let ending = match ended {
        Some(Ok(Ok(result))) => ending(result, refused)?,
        Some(Ok(Err(panic))) => return Err(Error::Panicked(panic_text(panic.as_ref()))),
        Some(Err(_elapsed)) => Ending::TimedOut,
        None => Ending::Cancelled,
    };
    let fuel = limits.fuel.map(|all| all.get() - store.get_fuel().unwrap_or(0).min(all.get()));
    let memory_peak_bytes = store.data().limiter.peak();
    drop(store);
    let written = written.map(|written| std::mem::take(&mut *lock(&written))).unwrap_or_default();
    let instantiation = instantiated.map_or(Duration::ZERO, |instantiated| instantiated.duration_since(began));
    let usage = Usage { duration: clock().duration_since(began), instantiation, memory_peak_bytes, fuel };
    let (stdout, stderr) = written.into_parts();
    Ok(Outcome { ending, stdout, stderr, usage })
}

/// What the guest sees of the world. `written` becomes what it writes to, if that is kept.
fn wasi(
    invocation: &mut Invocation,
    limits: &Limits,
    written: &mut Option<Arc<Mutex<Written>>>,
) -> Result<WasiP1Ctx, Error> {
    let mut builder = WasiCtxBuilder::new();
    builder.args(&invocation.args).envs(&invocation.env);
    match std::mem::take(&mut invocation.stdio) {
        Stdio::Captured { stdin, tty } => {
            // A guest that sleeps must not hold a thread.
            builder.allow_blocking_current_thread(false).max_random_size(RANDOM_BYTES_MAX);
            let (stdout, stderr, sink) = Sink::pair(limits.stdout_bytes, tty);
            builder.stdin(Stdin::new(stdin)).stdout(stdout).stderr(stderr);
            *written = Some(sink);
        }
        Stdio::Inherited => {
            // Its thread waits anyway when a stream does, and work with files costs half as much so.
            builder.allow_blocking_current_thread(true).inherit_stdio();
        }
    }
    for SharedDir { host, guest } in &invocation.dirs {
        builder
            .preopened_dir(host, guest, FsPerms::ReadWrite)
            .map_err(|e| Error::Sandbox(format!("{}: {e:#}", host.display())))?;
    }
    let mut wasi = builder.build_p1();
    if invocation.dirs.is_empty() {
        wasi.ctx().table.set_max_capacity(RESOURCES_MAX);
    }
    Ok(wasi)
}

async fn start(
    program: &Linked,
    store: &mut wasmtime::Store<Sandbox>,
    on_instantiated: impl FnOnce(),
) -> wasmtime::Result<()> {
    let instance = program.pre.instantiate_async(&mut *store).await.map_err(|e| e.context(NotInstantiated))?;
    on_instantiated();
    let start = instance
        .get_module_export(&mut *store, &program.start)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("no start function").context(NotInstantiated))?;
    start.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
