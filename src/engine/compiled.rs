//! Functions that were compiled before: a module in development has most of them in common with the one before it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The most that all functions take together, in bytes. Past it none is kept, and the next module fills it anew.
const BYTES_MAX: usize = 256 << 20;

/// Compiled functions, by the hash of what they were compiled of.
#[derive(Debug, Default)]
pub(super) struct CompiledFunctions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    functions: HashMap<Box<[u8]>, Arc<[u8]>>,
    bytes: usize,
}

impl wasmtime::CacheStore for CompiledFunctions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).functions.get(key).cloned();
        found.map(|function| Cow::Owned(function.to_vec()))
    }

    fn insert(&self, key: &[u8], function: Vec<u8>) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + function.len() > BYTES_MAX {
            *kept = Kept::default();
        }
        kept.bytes += function.len();
        let replaced = kept.functions.insert(key.into(), function.into());
        kept.bytes -= replaced.map_or(0, |replaced| replaced.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::CacheStore as _;

    #[test]
    fn functions_are_kept_within_a_bound() {
        let store = CompiledFunctions::default();
        assert!(store.insert(b"a", b"one".to_vec()) && store.insert(b"a", b"two".to_vec()));
        assert_eq!((store.get(b"a").as_deref(), store.0.lock().unwrap().bytes), (Some(&b"two"[..]), 3));
        assert!(store.insert(b"b", vec![0; BYTES_MAX - 3]) && store.get(b"a").is_some());
        assert!(store.insert(b"c", vec![0]) && store.get(b"c").is_some());
        assert_eq!((store.get(b"a"), store.get(b"b"), store.0.lock().unwrap().bytes), (None, None, 1));
    }
}
