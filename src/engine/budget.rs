//! The memory that all guests together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter of bytes with a ceiling. What was charged is given back by whoever charged it.
#[derive(Debug)]
pub struct MemoryBudget {
    charged: AtomicU64,
    ceiling: u64,
}

impl MemoryBudget {
    /// An empty budget with that ceiling, in bytes.
    pub fn new(ceiling: u64) -> Self {
        Self { charged: AtomicU64::new(0), ceiling }
    }

    /// The ceiling, in bytes.
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// What is charged now, in bytes.
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// Charges `bytes`, or nothing if they do not fit.
    #[must_use]
    pub(super) fn charge(&self, bytes: u64) -> bool {
        let fits = |charged: u64| charged.checked_add(bytes).filter(|sum| *sum <= self.ceiling);
        // Relaxed: the counter guards nothing but itself.
        self.charged.try_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(super) fn release(&self, bytes: u64) {
        self.charged.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What is not charged now, in bytes.
    pub fn free(&self) -> u64 {
        self.ceiling.saturating_sub(self.charged())
    }

    /// Charges `bytes` for a guest before it starts; `None` if they do not fit.
    pub fn set_aside(self: &Arc<Self>, bytes: u64) -> Option<SetAside> {
        self.charge(bytes).then(|| SetAside { budget: Arc::clone(self), bytes })
    }
}

/// Memory that is kept for one guest, which cannot be refused it then. Dropped, it is free again.
#[derive(Debug)]
pub struct SetAside {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl SetAside {
    /// Takes at most `bytes` out, for good: whoever takes them releases them. Answers how many.
    pub(super) fn take(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min(self.bytes);
        self.bytes -= taken;
        taken
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_is_exact() {
        let budget = MemoryBudget::new(10);
        assert!(budget.charge(10));
        assert!(!budget.charge(1));
        budget.release(4);
        assert!(!budget.charge(5));
        assert!(!budget.charge(u64::MAX));
        assert!(budget.charge(4));
        assert_eq!(budget.charged(), 10);
    }

    #[test]
    fn what_is_set_aside_is_charged_until_it_is_dropped_or_taken() {
        let budget = Arc::new(MemoryBudget::new(10));
        assert!(budget.set_aside(11).is_none());
        let mut aside = budget.set_aside(8).unwrap();
        assert_eq!((budget.charged(), budget.free()), (8, 2));
        assert_eq!((aside.take(5), aside.take(5)), (5, 3));
        drop(aside);
        assert_eq!(budget.charged(), 8);
        drop(budget.set_aside(2));
        assert_eq!(budget.charged(), 8);
    }
}
