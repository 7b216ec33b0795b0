//! Images: load, list, inspect, remove.

use super::{Error, Failure, Service, blocking, now};
use crate::domain::{AccountId, Digest, Image, ImageConfig, ImageReference, ModuleInfo, QuotaKind};
use crate::engine::Flavour;
use crate::failpoint;
use crate::image::Upload;
use crate::store::{self, Displaced, ImageKey};
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Steps of a load that its client may not have read yet.
const PROGRESS_MAX: usize = 16;

/// Loads that may go on at once: each holds a module on disk and, while it is compiled, in memory. Others wait.
pub(super) const LOADS_MAX: usize = 16;

/// A module on its way in; dropped, it leaves nothing behind.
pub struct Incoming {
    upload: Upload,
    place: OwnedSemaphorePermit,
}

impl Incoming {
    /// Adds bytes. Blocks on no more than the page cache.
    ///
    /// # Errors
    /// Our failure.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.upload.write(bytes).map_err(|e| Failure::from(e).into())
    }
}

/// A module that has come in whole.
pub struct Received {
    upload: Upload,
    wasm: Arc<[u8]>,
    info: ModuleInfo,
    place: OwnedSemaphorePermit,
}

impl Received {
    /// What it is.
    pub(super) fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// Its digest.
    pub(super) fn digest(&self) -> Digest {
        self.upload.digest()
    }
}

/// A step of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So much of the module is compiled, in bytes.
    Compiling {
        /// Done.
        current: u64,
        /// To do.
        total: u64,
    },
}

/// A load that goes on whether or not its client stays.
pub struct Loading {
    /// Its steps. Closed when it has ended.
    pub progress: mpsc::Receiver<Progress>,
    ended: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Future for Loading {
    type Output = Result<(), Error>;

    /// Ready at the end, with what [`Service::load_image`] says.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = std::task::ready!(Pin::new(&mut self.ended).poll(context));
        Poll::Ready(ended.unwrap_or_else(|e| Err(Failure::Internal(format!("a load did not end: {e}")).into())))
    }
}

/// What removing an image did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone: `repository:tag`.
    Untagged(String),
    /// The module is gone with its last name.
    Deleted(Digest),
}

/// A module of an account, under all its names there.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The image that was asked for; in a list, the first by name.
    pub image: Arc<Image>,
    /// All images of the account that name the same module, by name.
    pub names: Vec<Arc<Image>>,
}

impl Service {
    /// Begins to take a module in.
    ///
    /// # Errors
    /// [`Error::TooManyLoads`] when there is no place for as long as a synchronous call may wait; our failure.
    pub async fn begin_upload(&self) -> Result<Incoming, Error> {
        let place = Arc::clone(&self.0.loads).acquire_owned();
        let place = tokio::time::timeout(self.0.settings.sync_wait, place).await.map_err(|_| Error::TooManyLoads)?;
        let place = place.map_err(|e| Failure::Internal(e.to_string()))?;
        let files = Arc::clone(&self.0.files);
        Ok(Incoming { upload: blocking(move || files.upload()).await?, place })
    }

    /// Checks a module that has come in whole. Nothing is named yet.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it is not one that we run, [`Error::QuotaFull`], or our failure.
    pub async fn receive(
        &self,
        account: &AccountId,
        reference: &ImageReference,
        incoming: Incoming,
    ) -> Result<Received, Error> {
        let Incoming { mut upload, place } = incoming;
        self.check_quota(account, reference, upload.digest(), upload.len())?;
        let engine = self.0.engine.clone();
        blocking(move || {
            let wasm: Arc<[u8]> = upload.read()?.into();
            let inspected = engine.inspect(&wasm);
            if inspected.is_ok() {
                upload.finish()?;
            }
            Ok::<_, Failure>(inspected.map(|info| Received { upload, wasm, info, place }))
        })
        .await?
        .map_err(Error::Rejected)
    }

    /// Compiles a received module and gives it its name, in place of the module that had it. Goes on to its end in
    /// a task of its own.
    ///
    /// Ends with [`Error::Rejected`] if the module does not compile, [`Error::QuotaFull`], or our failure;
    /// nothing is named then.
    pub fn load_image(&self, account: AccountId, reference: ImageReference, received: Received) -> Loading {
        let (steps, progress) = mpsc::channel(PROGRESS_MAX);
        let service = self.clone();
        let ended = self.0.tasks.spawn(async move {
            let total = received.upload.len();
            // A client that reads slowly misses steps; it never holds the load up.
            let step = |current| {
                let _ = steps.try_send(Progress::Compiling { current, total });
            };
            step(0);
            let loaded = async {
                service.compile(&account, &reference, &received).await?;
                step(total);
                let naming = service.clone();
                service.change(async move { naming.name_module(account, reference, received).await }).await
            };
            // Its client may have left, and learns no more than that the server has failed.
            loaded.await.inspect_err(|error| {
                if let Error::Failure(failure) = error {
                    tracing::error!(%failure, "a load failed");
                }
            })
        });
        Loading { progress, ended }
    }

    /// The images of an account, by name.
    pub fn images(&self, account: &AccountId) -> Vec<Stored> {
        let mut stored: Vec<Stored> = Vec::new();
        let mut places: HashMap<Digest, usize> = HashMap::new();
        for image in self.0.directory.images(account) {
            let place = *places.entry(image.digest).or_insert_with(|| {
                stored.push(Stored { image: Arc::clone(&image), names: Vec::new() });
                stored.len() - 1
            });
            stored[place].names.push(image);
        }
        stored
    }

    /// One image, by its name, its Id, or the beginning of an Id that no other has.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]
    pub fn inspect_image(&self, account: &AccountId, name: &str) -> Result<Stored, Error> {
        let no_such = || Error::NoSuchImage(name.to_owned());
        let image = self.named(account, name)?.into_iter().next().ok_or_else(no_such)?;
        let mut names = self.0.directory.images(account);
        names.retain(|other| other.digest == image.digest);
        Ok(Stored { image, names })
    }

    /// Takes a name from a module, and removes the module with its last name; an Id stands for all its names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::ImageInUse`] when a function uses it, or an Id has several names,
    /// without `force`; or our failure.
    pub async fn remove_image(&self, account: AccountId, name: String, force: bool) -> Result<Vec<Removed>, Error> {
        let service = self.clone();
        self.change(async move {
            let _changes = service.0.changes.lock().await;
            let images = service.named(&account, &name)?;
            if !force {
                service.check_unused(&account, &name, &images)?;
            }
            let mut removed = Vec::new();
            for image in &images {
                let key = ImageKey::from(image.as_ref());
                service.0.store.remove_image(&key).await.map_err(Failure::from)?;
                failpoint::hit("image_remove.after_commit");
                service.0.directory.remove_image(&key);
                let tag = image.tag.as_ref().map(|tag| format!("{}:{tag}", image.repository));
                let untagged = tag.unwrap_or_else(|| format!("{}@{}", image.repository, image.digest));
                removed.push(Removed::Untagged(untagged));
            }
            let left: HashSet<Digest> = service.0.directory.images(&account).iter().map(|i| i.digest).collect();
            if let Some(image) = images.first().filter(|image| !left.contains(&image.digest)) {
                removed.push(Removed::Deleted(image.digest));
                service.forget_or_leave(image.digest).await;
            }
            Ok(removed)
        })
        .await
    }

    /// The images that a name, an Id or the beginning of one stands for.
    fn named(&self, account: &AccountId, name: &str) -> Result<Vec<Arc<Image>>, Error> {
        if let Ok(reference) = ImageReference::parse(name)
            && let Some(image) = self.0.directory.image(account, &reference)
        {
            return Ok(vec![image]);
        }
        let prefix = name.strip_prefix(Digest::PREFIX).unwrap_or(name);
        let images = self.0.directory.images(account);
        let matching: Vec<_> = images.into_iter().filter(|image| image.digest.hex().starts_with(prefix)).collect();
        let unique = matching.iter().all(|image| image.digest == matching[0].digest);
        if prefix.is_empty() || matching.is_empty() || !unique {
            return Err(Error::NoSuchImage(name.to_owned()));
        }
        Ok(matching)
    }

    fn check_unused(&self, account: &AccountId, name: &str, images: &[Arc<Image>]) -> Result<(), Error> {
        let functions = self.0.directory.functions(account);
        let user = functions
            .iter()
            .find(|function| images.iter().any(|image| image.is_named_by(&function.definition.config.image)));
        if let Some(function) = user {
            let text =
                format!("image {name} is in use by the function {}; force=1 removes it all the same", function.name);
            return Err(Error::ImageInUse(text));
        }
        if images.len() > 1 {
            let text = format!("image {name} has {} names; remove them by name, or use force=1", images.len());
            return Err(Error::ImageInUse(text));
        }
        Ok(())
    }

    /// Refuses early what the store would refuse at the end: it decides, but only after the compiler.
    fn check_quota(
        &self,
        account: &AccountId,
        reference: &ImageReference,
        digest: Digest,
        bytes: u64,
    ) -> Result<(), Error> {
        let quota = self.0.settings.quota;
        let images = self.0.directory.images(account);
        let others = images.iter().filter(|image| !image.is_named_by(reference));
        let modules: HashMap<Digest, u64> = others.clone().map(|image| (image.digest, image.size_bytes)).collect();
        let used = others.filter(|image| image.tag.is_some()).count() as u64;
        if used >= quota.images {
            return Err(Error::QuotaFull { kind: QuotaKind::Images, used, limit: quota.images });
        }
        let used = modules.iter().filter(|(other, _)| **other != digest).map(|(_, bytes)| bytes).sum::<u64>();
        if used.saturating_add(bytes) > quota.image_bytes {
            return Err(Error::QuotaFull { kind: QuotaKind::ImageBytes, used, limit: quota.image_bytes });
        }
        Ok(())
    }

    /// Compiles what is not compiled yet, in every flavour that functions of that name want.
    pub(super) async fn compile(
        &self,
        account: &AccountId,
        reference: &ImageReference,
        received: &Received,
    ) -> Result<(), Error> {
        let functions = self.0.directory.functions(account).into_iter().map(|function| function.definition.clone());
        let users = functions.filter(|definition| definition.config.image.tagged() == reference.tagged());
        let wanted = users.map(|definition| Flavour::of(&definition, received.info.memory));
        let flavours: HashSet<Flavour> = wanted.chain([Flavour::unmetered(received.info.memory)]).collect();
        let digest = received.upload.digest();
        for flavour in flavours {
            if self.0.programs.is_compiled(digest, flavour).await {
                continue;
            }
            self.0.programs.compile(digest, Arc::clone(&received.wasm), flavour).await.map_err(|e| match e {
                Failure::Rejected(rejected) => Error::Rejected(rejected),
                failure => failure.into(),
            })?;
        }
        Ok(())
    }

    async fn name_module(
        &self,
        account: AccountId,
        reference: ImageReference,
        received: Received,
    ) -> Result<(), Error> {
        let _changes = self.0.changes.lock().await;
        let Received { upload, info, place: _place, .. } = received;
        let image = Image {
            account,
            repository: reference.repository().to_owned(),
            tag: Some(reference.tag().to_owned()),
            digest: upload.digest(),
            size_bytes: upload.len(),
            created: now(),
            info,
            config: ImageConfig::of_bare_module(&reference),
        };
        let by_tag = ImageReference::parse(&reference.tagged()).map_err(Failure::Internal)?;
        let old = self.0.directory.image(&image.account, &by_tag);
        let old = old.filter(|old| old.digest != image.digest);
        // The file before the row: a row without its file could not be run.
        let files = Arc::clone(&self.0.files);
        blocking(move || files.keep(upload)).await?;

        let displaced = match &old {
            Some(old) if self.is_pinned(old) => Displaced::Keep,
            _ => Displaced::Forget,
        };
        if let Err(e) = self.0.store.put_image(&image, displaced, self.0.settings.quota).await {
            // Of a failed store nobody knows whether it has the row: the next start finds out.
            if !matches!(e, store::Error::Failed(_)) {
                self.forget_or_leave(image.digest).await;
            }
            return Err(match e {
                store::Error::QuotaFull { kind, used, limit } => Error::QuotaFull { kind, used, limit },
                other => Failure::from(other).into(),
            });
        }
        failpoint::hit("image.after_commit");
        let untagged = old.as_ref().filter(|_| displaced == Displaced::Keep);
        self.0.directory.put_image(image, untagged.map(|old| Image { tag: None, ..Image::clone(old) }));
        if let Some(old) = old {
            self.forget_or_leave(old.digest).await;
        }
        Ok(())
    }

    /// Whether a function names this very module by its digest.
    fn is_pinned(&self, image: &Image) -> bool {
        self.0.directory.functions(&image.account).iter().any(|function| {
            let reference = &function.definition.config.image;
            reference.digest().is_some() && image.is_named_by(reference)
        })
    }

    /// Removes a module's files if no image of any account names it. What was asked for has happened by then: files that
    /// cannot be removed now are swept at the next start.
    pub(super) async fn forget_or_leave(&self, digest: Digest) {
        if let Err(error) = self.forget_unnamed(digest).await {
            tracing::warn!(%error, %digest, "a module that nothing names is left for the next start");
        }
    }

    /// Calls that run the module go on.
    async fn forget_unnamed(&self, digest: Digest) -> Result<(), Error> {
        if self.0.directory.named_modules().contains(&digest) {
            return Ok(());
        }
        self.0.programs.forget(digest);
        let files = Arc::clone(&self.0.files);
        Ok(blocking(move || files.remove(digest)).await?)
    }
}
