//! What the store holds, in memory: every read is answered from here.
//!
//! The store is written first and this after it, under one lock for changes (`Service::changes`), so
//! the two agree; at the start it is filled from the store.

use crate::domain::{
    AccountId, CallId, CallKey, Digest, Env, Function, FunctionName, FunctionUuid, Image, ImageReference,
};
use crate::store::{FunctionLog, ImageKey};
use dashmap::DashMap;
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;

/// A function, and what of it a call would otherwise work out anew.
#[derive(Debug)]
pub struct Callable {
    function: Function,
    env: Overrides,
    /// Shared by all versions of the function.
    lives: Lives,
    /// The newest version's `MaxConcurrency`; 0 is none.
    max_concurrency: Arc<AtomicU32>,
    log: FunctionLog,
}

/// The two ends of a function.
#[derive(Debug, Clone, Default)]
struct Lives {
    /// It was removed: no call starts any more.
    removed: CancellationToken,
    /// Its running calls were ended with it.
    cancelled: CancellationToken,
}

impl std::ops::Deref for Callable {
    type Target = Function;

    fn deref(&self) -> &Function {
        &self.function
    }
}

impl Callable {
    /// Prepares a function for its calls, whose events go into `log`.
    pub(super) fn new(function: Function, log: FunctionLog) -> Arc<Self> {
        let max_concurrency = Arc::new(AtomicU32::new(max_concurrency(&function)));
        Self::prepare(function, Lives::default(), max_concurrency, log)
    }

    /// Prepares a function that takes the place of this one.
    pub(super) fn updated(&self, function: Function) -> Arc<Self> {
        Self::prepare(function, self.lives.clone(), Arc::clone(&self.max_concurrency), self.log.clone())
    }

    fn prepare(function: Function, lives: Lives, max_concurrency: Arc<AtomicU32>, log: FunctionLog) -> Arc<Self> {
        let env = Overrides::of(&function.definition.config.env);
        Arc::new(Self { function, env, lives, max_concurrency, log })
    }

    /// Names a call of it.
    pub fn call_key(&self, call_id: CallId) -> CallKey {
        CallKey { account: self.account.clone(), function: self.name.clone(), call_id }
    }

    /// Ready once the function was removed.
    pub async fn removed(&self) {
        self.lives.removed.cancelled().await;
    }

    /// Ready once its running calls are to end.
    pub async fn cancelled(&self) {
        self.lives.cancelled.cancelled().await;
    }

    /// Whether the function was removed.
    pub fn is_removed(&self) -> bool {
        self.lives.removed.is_cancelled()
    }

    /// The function was removed: what waits to call it, whatever version of it, waits no longer.
    pub(super) fn remove(&self) {
        self.lives.removed.cancel();
    }

    /// Ends its running calls.
    pub(super) fn cancel(&self) {
        self.lives.cancelled.cancel();
    }

    /// `MaxConcurrency` as the newest version of the function has it.
    pub(super) fn max_concurrency(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.max_concurrency.load(Ordering::Acquire))
    }

    /// This version of the function is the newest.
    pub(super) fn take_max_concurrency(&self) -> Option<NonZeroU32> {
        self.max_concurrency.store(max_concurrency(&self.function), Ordering::Release);
        self.definition.max_concurrency
    }

    /// What its calls say.
    pub(super) fn log(&self) -> &FunctionLog {
        &self.log
    }

    /// The variables that win over everything derived from a request.
    pub(super) fn env(&self) -> &Overrides {
        &self.env
    }
}

fn max_concurrency(function: &Function) -> u32 {
    function.definition.max_concurrency.map_or(0, NonZeroU32::get)
}

/// `Config.Env` as name and value, in its order; of a name given twice the last.
#[derive(Debug)]
pub(super) struct Overrides {
    pairs: Vec<(String, String)>,
    names: HashSet<String>,
}

impl Overrides {
    pub(super) fn of(env: &Env) -> Self {
        Self::new(env.variables().iter().filter_map(|variable| variable.split_once('=')))
    }

    fn new<'a>(pairs: impl DoubleEndedIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut names = HashSet::new();
        let last_ones = pairs.rev().filter(|(name, _)| names.insert((*name).to_owned()));
        let mut pairs: Vec<_> = last_ones.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.reverse();
        Self { pairs, names }
    }

    /// Whether a variable has its value from here.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// All of them.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// All functions and images of all accounts.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_uuid: DashMap<FunctionUuid, Arc<Callable>>,
    by_name: DashMap<(AccountId, FunctionName), Arc<Callable>>,
    /// The images of each repository of an account.
    images: DashMap<(AccountId, String), Vec<Arc<Image>>>,
}

impl Directory {
    /// The function with that address: `uuid`, and `name` with it.
    pub(super) fn address(&self, name: &str, uuid: FunctionUuid) -> Option<Arc<Callable>> {
        self.by_uuid.get(&uuid).filter(|function| function.name.as_str() == name).map(|found| Arc::clone(&found))
    }

    /// All functions there are.
    pub(super) fn names(&self) -> HashSet<(AccountId, FunctionName)> {
        self.by_name.iter().map(|entry| entry.key().clone()).collect()
    }

    /// The function of that name.
    pub(super) fn function(&self, account: &AccountId, name: &FunctionName) -> Option<Arc<Callable>> {
        self.by_name.get(&(account.clone(), name.clone())).map(|found| Arc::clone(&found))
    }

    /// The functions of an account, by name.
    pub(super) fn functions(&self, account: &AccountId) -> Vec<Arc<Callable>> {
        let of_account = self.by_name.iter().filter(|entry| entry.key().0 == *account);
        let mut functions: Vec<_> = of_account.map(|entry| Arc::clone(entry.value())).collect();
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        functions
    }

    /// Adds a function, or puts it in the place of the one of its name: the old address is dead then.
    pub(super) fn put_function(&self, function: Arc<Callable>) {
        let key = (function.account.clone(), function.name.clone());
        let uuid = function.uuid;
        self.by_uuid.insert(uuid, Arc::clone(&function));
        if let Some(old) = self.by_name.insert(key, function)
            && old.uuid != uuid
        {
            self.by_uuid.remove(&old.uuid);
        }
    }

    /// Forgets a function.
    pub(super) fn remove_function(&self, account: &AccountId, name: &FunctionName) {
        if let Some((_, old)) = self.by_name.remove(&(account.clone(), name.clone())) {
            self.by_uuid.remove(&old.uuid);
        }
    }

    /// The image that a reference means.
    pub(super) fn image(&self, account: &AccountId, reference: &ImageReference) -> Option<Arc<Image>> {
        let images = self.images.get(&(account.clone(), reference.repository().to_owned()))?;
        images.iter().find(|image| image.is_named_by(reference)).map(Arc::clone)
    }

    /// The images of an account, by repository and tag.
    pub(super) fn images(&self, account: &AccountId) -> Vec<Arc<Image>> {
        let of_account = self.images.iter().filter(|entry| entry.key().0 == *account);
        let mut images: Vec<_> = of_account.flat_map(|entry| entry.value().clone()).collect();
        images.sort_by(|a, b| (&a.repository, &a.tag, a.digest).cmp(&(&b.repository, &b.tag, b.digest)));
        images
    }

    /// The modules that any image of any account names.
    pub(super) fn named_modules(&self) -> HashSet<Digest> {
        self.images
            .iter()
            .flat_map(|entry| entry.value().iter().map(|image| image.digest).collect::<Vec<_>>())
            .collect()
    }

    /// Adds an image, in place of the one that had its tag, and keeps `untagged`, which has lost it. No reader sees the
    /// tag without an image.
    pub(super) fn put_image(&self, image: Image, untagged: Option<Image>) {
        let key = (image.account.clone(), image.repository.clone());
        let mut images = self.images.entry(key).or_default();
        for new in untagged.into_iter().chain([image]) {
            images.retain(|old| old.tag != new.tag || (new.tag.is_none() && old.digest != new.digest));
            images.push(Arc::new(new));
        }
    }

    /// Forgets an image.
    pub(super) fn remove_image(&self, key: &ImageKey) {
        let place = (key.account.clone(), key.repository.clone());
        if let Some(mut images) = self.images.get_mut(&place) {
            images.retain(|image| ImageKey::from(image.as_ref()) != *key);
        }
        self.images.remove_if(&place, |_, images| images.is_empty());
    }
}
