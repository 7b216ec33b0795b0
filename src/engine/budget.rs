//! The memory that all guests together may hold.

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
}
