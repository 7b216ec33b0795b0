//! What waits for its turn and for memory: the oldest that fits into what is free.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// Where something stands: first by its need, then by its order, so that those with one need stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The bytes of memory that have to be free. Most need none.
    pub(super) need: u64,
    /// The lower, the earlier.
    pub(super) order: u64,
}

/// Values by need and order.
///
/// Every operation takes a logarithmic time for each different need, not for each value: needs are the sizes of
/// functions, and those are few.
#[derive(Debug)]
pub(super) struct ByNeed<T>(BTreeMap<Key, T>);

impl<T> ByNeed<T> {
    pub(super) fn insert(&mut self, key: Key, value: T) {
        self.0.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.0.remove(&key)
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.0.get(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it, in no order that matters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// The first of each need, the least need first.
    pub(super) fn heads(&self) -> impl Iterator<Item = Key> {
        let first = self.0.first_key_value().map(|(key, _)| *key);
        std::iter::successors(first, |head| {
            let last_of_its_need = Key { need: head.need, order: u64::MAX };
            self.0.range((Excluded(last_of_its_need), Unbounded)).next().map(|(key, _)| *key)
        })
    }

    /// The first of one need.
    pub(super) fn head(&self, need: u64) -> Option<Key> {
        let of_need = Key { need, order: 0 }..=Key { need, order: u64::MAX };
        self.0.range(of_need).next().map(|(key, _)| *key)
    }

    /// The least need of all.
    pub(super) fn least_need(&self) -> Option<u64> {
        self.0.first_key_value().map(|(key, _)| key.need)
    }

    /// The first of all that need no more than `free`.
    pub(super) fn first_fitting(&self, free: u64) -> Option<Key> {
        self.heads().take_while(|head| head.need <= free).min_by_key(|head| head.order)
    }

    /// What stands at an order, whatever it needs.
    pub(super) fn find(&self, order: u64) -> Option<Key> {
        self.heads().map(|head| Key { order, ..head }).find(|key| self.0.contains_key(key))
    }
}

impl<T> Default for ByNeed<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_everything_finds(
            keys in prop::collection::btree_map(0..40u64, 0..6u64, 0..30),
            free in 0..7u64,
            edge in any::<bool>(),
        ) {
            // Also where an order or a need is the greatest that there is.
            let up = |x: u64, max: u64| if edge && x == max { u64::MAX } else { x };
            let keys: Vec<Key> =
                keys.iter().map(|(order, need)| Key { need: up(*need, 5), order: up(*order, 39) }).collect();
            let mut all = ByNeed::default();
            keys.iter().for_each(|key| all.insert(*key, ()));
            let fitting = keys.iter().filter(|key| key.need <= free).min_by_key(|key| key.order).copied();
            prop_assert_eq!(all.first_fitting(free), fitting);
            prop_assert_eq!(all.least_need(), keys.iter().map(|key| key.need).min());
            for key in &keys {
                prop_assert_eq!(all.find(key.order), Some(*key));
                let head = keys.iter().filter(|other| other.need == key.need).min().copied();
                prop_assert_eq!(all.head(key.need), head);
                prop_assert!(all.heads().any(|found| Some(found) == head));
            }
            prop_assert_eq!(all.find(1000), None);
        }
    }
}
