//! What the store holds, in memory: every read is answered from here.
//!
//! The store is written first and this after it, under one lock for changes (`Service::changes`), so
//! the two agree; at the start it is filled from the store.

use crate::domain::{AccountId, Digest, Function, FunctionName, FunctionUuid, Image, ImageReference};
use crate::store::ImageKey;
use dashmap::DashMap;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A function, and what of it a call would otherwise work out anew.
#[derive(Debug)]
pub struct Callable {
    function: Function,
    /// `Config.Env` as name and value; of a name given twice the last.
    env: HashMap<String, String>,
    /// Shared by all versions of the function: cancelled when it is removed.
    removed: CancellationToken,
}

impl std::ops::Deref for Callable {
    type Target = Function;

    fn deref(&self) -> &Function {
        &self.function
    }
}

impl Callable {
    /// Prepares a function for its calls.
    pub fn new(function: Function) -> Arc<Self> {
        Self::prepare(function, CancellationToken::new())
    }

    /// Prepares a function that takes the place of this one.
    pub fn updated(&self, function: Function) -> Arc<Self> {
        Self::prepare(function, self.removed.clone())
    }

    fn prepare(function: Function, removed: CancellationToken) -> Arc<Self> {
        let pairs = function.definition.config.env.variables().iter().filter_map(|variable| variable.split_once('='));
        let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Arc::new(Self { function, env, removed })
    }

    /// Ready once the function was removed.
    pub async fn removed(&self) {
        self.removed.cancelled().await;
    }

    /// Whether the function was removed.
    pub fn is_removed(&self) -> bool {
        self.removed.is_cancelled()
    }

    /// Ends all calls of the function, of whatever version.
    pub fn end_calls(&self) {
        self.removed.cancel();
    }

    /// The variables that win over everything derived from a request.
    pub fn env(&self) -> &HashMap<String, String> {
        &self.env
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

    /// Adds an image.
    pub(super) fn put_image(&self, image: Image) {
        let key = (image.account.clone(), image.repository.clone());
        self.images.entry(key).or_default().push(Arc::new(image));
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
