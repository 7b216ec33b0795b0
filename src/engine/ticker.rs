//! The thread that makes guests stop and look up: it advances the epoch of every engine.

use super::Error;
use super::flavour::{Flavour, Flavoured};
use super::turns::Turns;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a guest runs before it gives way.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Ticks until it is dropped; then its thread has ended.
pub(super) struct Ticker {
    ticks: Arc<AtomicU64>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(
        flavours: Arc<[OnceLock<Flavoured>; Flavour::ALL.len()]>,
        turns: [Arc<Turns>; 2],
    ) -> Result<Self, Error> {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ticks);
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("epoch".into())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    counted.fetch_add(1, Ordering::Relaxed);
                    flavours.iter().filter_map(OnceLock::get).for_each(|made| made.engine.increment_epoch());
                    turns.iter().for_each(|turns| turns.tick());
                }
            })
            .map_err(|e| Error::Start(format!("thread: {e}")))?;
        Ok(Self { ticks, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
