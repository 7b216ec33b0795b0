//! Functions: create, update, list, inspect, remove.

use super::directory::Callable;
use super::{Error, Failure, Service, now, random};
use crate::domain::{
    AccountId, Change, ContainerSize, Definition, Function, FunctionName, FunctionUuid, Image, ImageReference, Invalid,
};
use crate::engine::Flavour;
use crate::failpoint;
use crate::store;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// What to list: a function must match one value of each key that has any; of `labels` all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Names, whole.
    pub names: Vec<String>,
    /// Images; without a tag, `latest`.
    pub images: Vec<ImageReference>,
    /// Sizes.
    pub sizes: Vec<ContainerSize>,
    /// Labels: a key, or a key and its value.
    pub labels: Vec<(String, Option<String>)>,
}

impl Filters {
    fn take(&self, function: &Function) -> bool {
        fn any<T>(values: &[T], matches: impl Fn(&T) -> bool) -> bool {
            values.is_empty() || values.iter().any(matches)
        }
        let Definition { size, config, .. } = &function.definition;
        let same_image = |image: &ImageReference| {
            (image.repository(), image.tag(), image.digest())
                == (config.image.repository(), config.image.tag(), config.image.digest())
        };
        any(&self.names, |name| function.name.as_str() == name)
            && any(&self.images, same_image)
            && any(&self.sizes, |wanted| wanted == size)
            && self.labels.iter().all(|(key, value)| {
                config.labels.get(key).is_some_and(|has| value.as_ref().is_none_or(|wanted| wanted == has))
            })
    }
}

/// What of a definition concerns its image: a function whose image is gone can still be changed in all else.
fn needs(definition: &Definition) -> (&ImageReference, ContainerSize, Option<NonZeroU64>) {
    (&definition.config.image, definition.size, definition.fuel)
}

/// A function, and what its author should know of it.
#[derive(Debug, Clone)]
pub struct Described {
    /// The function.
    pub function: Arc<Callable>,
    /// The fields that have no effect.
    pub warnings: Vec<String>,
}

impl Service {
    /// Defines a function. It can be called when this is ready; dropped, it may still come into being.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NoSuchImage`], [`Error::NameTaken`], [`Error::QuotaFull`], or our failure.
    pub async fn create_function(
        &self,
        account: AccountId,
        name: FunctionName,
        change: Change,
    ) -> Result<Described, Error> {
        let definition = Definition::create(change)?;
        self.prepare(&account, &definition).await?;
        let service = self.clone();
        self.change(async move {
            let _changes = service.0.changes.lock().await;
            // Again: the image may have been removed or replaced since.
            service.fitting_image(&account, &definition)?;
            let uuid = FunctionUuid::from_random(random()?);
            let function = Function { account, name, uuid, created: now(), definition };
            service.0.store.create_function(&function, service.0.settings.quota).await.map_err(|e| match e {
                store::Error::NameTaken(name) => Error::NameTaken(name.to_string()),
                store::Error::QuotaFull { kind, used, limit } => Error::QuotaFull { kind, used, limit },
                other => Failure::from(other).into(),
            })?;
            failpoint::hit("create.after_commit");
            let log = service.0.logs.function(&function.account, &function.name);
            let function = Callable::new(function, log);
            service.0.directory.put_function(Arc::clone(&function));
            Ok(service.describe(function))
        })
        .await
    }

    /// Merges a change into a function; with `refresh` it gets a new address, and the old one is dead at once.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], [`Error::Invalid`], [`Error::NoSuchImage`], or our failure.
    pub async fn update_function(
        &self,
        account: AccountId,
        name: FunctionName,
        change: Change,
        refresh: bool,
    ) -> Result<Described, Error> {
        let before = self.function(&account, &name)?;
        let merged = before.definition.apply(change.clone())?;
        if needs(&merged) != needs(&before.definition) {
            self.prepare(&account, &merged).await?;
        }
        let service = self.clone();
        self.change(async move {
            let _changes = service.0.changes.lock().await;
            // Merged anew: another update may have been faster.
            let current = service.function(&account, &name)?;
            let mut function = Function::clone(&current);
            function.definition = current.definition.apply(change)?;
            if needs(&function.definition) != needs(&current.definition) {
                service.fitting_image(&account, &function.definition)?;
            }
            if refresh {
                function.uuid = FunctionUuid::from_random(random()?);
            }
            service.0.store.update_function(&function).await.map_err(Failure::from)?;
            failpoint::hit("update.after_commit");
            let function = current.updated(function);
            service.0.directory.put_function(Arc::clone(&function));
            service.0.permits.take_max_concurrency(&function);
            Ok(service.describe(function))
        })
        .await
    }

    /// Removes a function with its waiting calls, its results and its log; with `force` its running calls are ended too.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`], [`Error::FunctionBusy`], or our failure.
    pub async fn remove_function(&self, account: AccountId, name: FunctionName, force: bool) -> Result<(), Error> {
        let service = self.clone();
        self.change(async move {
            let changes = service.0.changes.lock().await;
            let function = service.function(&account, &name)?;
            if !force && service.0.permits.running_of(&account, &name) > 0 {
                return Err(Error::FunctionBusy(name.to_string()));
            }
            service.0.store.remove_function(&account, &name).await.map_err(Failure::from)?;
            failpoint::hit("remove.after_commit");
            service.0.directory.remove_function(&account, &name);
            function.remove();
            for call in service.0.permits.withdraw_all(&account, &name) {
                service.0.open_calls.close(&call);
            }
            service.remove_log(&account, &name).await;
            drop(changes);
            if force {
                function.cancel();
                service.wait_for_end_of_calls(&account, &name).await;
            }
            Ok(())
        })
        .await
    }

    /// Logs are not promised: that one cannot be removed keeps nobody from removing its function.
    async fn remove_log(&self, account: &AccountId, name: &FunctionName) {
        let (logs, key) = (Arc::clone(&self.0.logs), (account.clone(), name.clone()));
        let removed = tokio::task::spawn_blocking(move || logs.remove(&key.0, &key.1)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(function = %name, %error, "the log of a function that is gone stays");
        }
    }

    /// The functions of an account that the filters take, by name.
    pub fn functions(&self, account: &AccountId, filters: &Filters) -> Vec<Arc<Callable>> {
        let mut functions = self.0.directory.functions(account);
        functions.retain(|function| filters.take(function));
        functions
    }

    /// One function.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`]
    pub fn inspect_function(&self, account: &AccountId, name: &FunctionName) -> Result<Described, Error> {
        self.function(account, name).map(|function| self.describe(function))
    }

    fn function(&self, account: &AccountId, name: &FunctionName) -> Result<Arc<Callable>, Error> {
        self.0.directory.function(account, name).ok_or_else(|| Error::NoSuchFunction(name.to_string()))
    }

    fn describe(&self, function: Arc<Callable>) -> Described {
        let image = self.0.directory.image(&function.account, &function.definition.config.image);
        Described { warnings: function.definition.warnings(image.as_deref()), function }
    }

    /// Running calls that were ended stop at their next check; one bulk memory instruction may take longer than this.
    async fn wait_for_end_of_calls(&self, account: &AccountId, name: &FunctionName) {
        const WAIT_MAX: Duration = Duration::from_secs(1);
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        let ended = async {
            while self.0.permits.running_of(account, name) > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(WAIT_MAX, ended).await;
    }

    /// The image that a definition names, if its module can start in the size.
    fn fitting_image(&self, account: &AccountId, definition: &Definition) -> Result<Arc<Image>, Error> {
        let name = &definition.config.image;
        let image = self.0.directory.image(account, name);
        let image = image.ok_or_else(|| Invalid::new("Config.Image", format!("no such image: {name}")))?;
        definition.check_fits(&image.info)?;
        Ok(image)
    }

    /// Checks a definition against its image, and compiles the image if nobody has asked for this flavour yet.
    async fn prepare(&self, account: &AccountId, definition: &Definition) -> Result<(), Error> {
        let image = self.fitting_image(account, definition)?;
        let flavour = Flavour::of(definition, image.info.memory);
        if flavour != Flavour::unmetered(image.info.memory) {
            self.0.programs.get(image.digest, flavour).await.map_err(|failure| match &failure {
                Failure::Loading(cause) if let Failure::Rejected(rejected) = cause.as_ref() => {
                    Error::Rejected(rejected.clone())
                }
                _ => failure.into(),
            })?;
        }
        Ok(())
    }
}
