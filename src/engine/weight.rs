//! How much a guest can hold a thread up.
//!
//! Nothing cuts one bulk memory instruction, and how long it takes grows with the memory that there is: a copy of 512 MB
//! takes a third of a second. So a guest that has much memory, not one that may have it, runs on threads of its own kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// From how much memory on a guest is heavy, in bytes. One instruction over less takes some milliseconds.
pub(super) const HEAVY_BYTES: u64 = 16 << 20;

/// Whether a guest is heavy: told by the engine as it grows, and looked at by whoever polls it.
#[derive(Debug, Clone, Default)]
pub struct Weight(Arc<AtomicBool>);

impl Weight {
    /// Whether the guest has become heavy. It stays so.
    pub fn is_heavy(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A guest is about to hold so many bytes. If that makes it heavy, it stops here once, so that it can be moved before
    /// it uses them.
    pub(super) async fn grow_to(&self, bytes: u64) {
        if bytes >= HEAVY_BYTES && !self.0.swap(true, Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }
}
