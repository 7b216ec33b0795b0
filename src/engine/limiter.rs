//! What one instance may hold: all its memories and tables together.
//!
//! wasmtime's own `StoreLimits` counts each memory by itself, so a module with several could hold
//! several times its size.

use super::ending::Stop;
use super::flavour::TABLE_ELEMENTS_MAX;
use super::weight::Weight;
use super::{MemoryBudget, SetAside};
use std::sync::Arc;

/// What a table element is charged, in bytes: a pointer.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Sums what an instance holds, charges it to the machine's budget, and remembers a refusal.
#[derive(Debug)]
pub(super) struct Limiter {
    budget: Arc<MemoryBudget>,
    /// What was charged before the guest started, as far as it is not held yet.
    aside: Option<SetAside>,
    cap: u64,
    held: u64,
    peak: u64,
    /// What the growth that is being tried was charged.
    trying: u64,
    refused: bool,
    weight: Weight,
}

impl Limiter {
    pub(super) fn new(cap: u64, budget: Arc<MemoryBudget>, aside: Option<SetAside>, weight: Weight) -> Self {
        Self { budget, aside, cap, held: 0, peak: 0, trying: 0, refused: false, weight }
    }

    /// Whether a growth past the cap was refused.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    /// The most that was held.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// Begins to look at a growth. Past the module's own maximum wasmtime refuses by itself: that is no limit of ours.
    fn is_past_own(&mut self, maximum: Option<usize>, desired: usize) -> bool {
        self.trying = 0;
        maximum.is_some_and(|maximum| desired > maximum)
    }

    fn grow(&mut self, current: usize, desired: usize) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if self.held.saturating_add(more) > self.cap {
            self.refused = true;
            return Ok(false);
        }
        let charged = self.aside.as_mut().map_or(0, |aside| aside.take(more));
        if !self.budget.charge(more - charged) {
            self.budget.release(charged);
            return Err(Stop::MemoryBudget.into());
        }
        self.held += more;
        self.peak = self.peak.max(self.held);
        self.trying = more;
        Ok(true)
    }

    /// The growth that was charged last has failed: the guest holds nothing of it.
    fn give_back(&mut self) {
        let failed = std::mem::take(&mut self.trying);
        self.held -= failed;
        self.budget.release(failed);
    }
}

// Asynchronous only so that a guest that becomes heavy stops there.
#[wasmtime_wasi::async_trait]
impl wasmtime::ResourceLimiterAsync for Limiter {
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if self.is_past_own(maximum, desired) {
            return Ok(false);
        }
        let grows = self.grow(current, desired)?;
        self.weight.grow_to(self.held).await;
        Ok(grows)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.give_back();
        Ok(())
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.give_back();
        Ok(())
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if self.is_past_own(maximum, desired) {
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = true;
            return Ok(false);
        }
        self.grow(current * TABLE_ELEMENT_BYTES, desired * TABLE_ELEMENT_BYTES)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.release(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::super::weight::HEAVY_BYTES;
    use super::*;
    use wasmtime::ResourceLimiterAsync as _;

    #[tokio::test]
    async fn memories_and_tables_are_summed_and_the_cap_is_exact() {
        let budget = Arc::new(MemoryBudget::new(1 << 20));
        let mut limiter = Limiter::new(128 << 10, Arc::clone(&budget), None, Weight::default());
        assert!(limiter.memory_growing(0, 64 << 10, None).await.unwrap());
        assert!(limiter.table_growing(0, 8 << 10, None).await.unwrap());
        assert!(!limiter.refused());
        assert!(!limiter.table_growing(8 << 10, (8 << 10) + 1, None).await.unwrap());
        assert!(limiter.refused());
        assert_eq!((limiter.peak(), budget.charged()), (128 << 10, 128 << 10));
        drop(limiter);
        assert_eq!(budget.charged(), 0);
    }

    #[tokio::test]
    async fn a_growth_that_fails_is_given_back_once() {
        let budget = Arc::new(MemoryBudget::new(1000));
        let mut limiter = Limiter::new(1000, Arc::clone(&budget), None, Weight::default());
        assert!(limiter.memory_growing(0, 100, None).await.unwrap());
        assert!(limiter.memory_growing(100, 400, None).await.unwrap());
        for _ in 0..2 {
            limiter.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
            assert_eq!(budget.charged(), 100);
        }
        // Refused before it was charged.
        assert!(!limiter.table_growing(0, 10, Some(5)).await.unwrap());
        limiter.table_grow_failed(wasmtime::Error::msg("too many")).unwrap();
        assert_eq!((budget.charged(), limiter.peak()), (100, 400));
    }

    #[tokio::test]
    async fn a_growth_past_the_budget_stops_the_guest() {
        let mut limiter = Limiter::new(u64::MAX, Arc::new(MemoryBudget::new(100)), None, Weight::default());
        let error = limiter.memory_growing(0, 101, None).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Stop::MemoryBudget)));
    }

    #[tokio::test]
    async fn a_guest_is_not_refused_what_is_set_aside_for_it() {
        let budget = Arc::new(MemoryBudget::new(100));
        let aside = budget.set_aside(60);
        assert!(budget.charge(30));
        let mut limiter = Limiter::new(u64::MAX, Arc::clone(&budget), aside, Weight::default());
        assert!(limiter.memory_growing(0, 50, None).await.unwrap());
        assert_eq!(budget.charged(), 90);
        assert!(limiter.memory_growing(50, 70, None).await.unwrap());
        assert_eq!(budget.charged(), 100);
        assert!(limiter.memory_growing(70, 71, None).await.is_err());
        drop(limiter);
        assert_eq!(budget.charged(), 30);
    }

    #[tokio::test]
    async fn the_modules_own_maximum_is_no_refusal_of_ours() {
        let mut limiter = Limiter::new(10, Arc::new(MemoryBudget::new(100)), None, Weight::default());
        assert!(!limiter.memory_growing(0, 11, Some(5)).await.unwrap());
        assert!(!limiter.refused());
    }

    #[tokio::test]
    async fn a_guest_that_becomes_heavy_stops_there_once() {
        let weight = Weight::default();
        let mut limiter = Limiter::new(u64::MAX, Arc::new(MemoryBudget::new(u64::MAX)), None, weight.clone());
        let heavy = usize::try_from(HEAVY_BYTES).unwrap();
        assert!(limiter.memory_growing(0, heavy - 1, None).await.unwrap());
        assert!(!weight.is_heavy());
        let mut growing = limiter.memory_growing(heavy - 1, heavy, None);
        tokio::select! {
            biased;
            _ = &mut growing => panic!("it did not stop"),
            () = std::future::ready(()) => assert!(weight.is_heavy()),
        }
        assert!(growing.await.unwrap());
    }
}
