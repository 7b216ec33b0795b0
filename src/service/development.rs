//! A module in development: what its file holds is what its function runs, from one call to the next.
//!
//! Before a call starts, the file's metadata are looked at, which takes a microsecond. If they have changed, what the file
//! holds is loaded as any module is, and that is a deployment: the call runs the new module, and calls that run finish on
//! the old one. What is no module that we run is told of, and the old one stays. Nobody is there to say when a file is
//! written to its end, so it counts only once it has stayed as it is for a while.

use super::images::Received;
use super::local::open_cache;
use super::{Callable, Error, Failure, Service, blocking};
use crate::domain::{
    AccountId, CallRequest, Captured, Change, Definition, Digest, FunctionName, ImageReference, Outcome, Usage, Verdict,
};
use crate::engine::{self, Flavour};
use crate::image::ArtifactCache;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at while nobody calls: it is compiled before the next call comes.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often while it is watched whether it stays as it is.
const LOOK_EVERY_CHANGING: Duration = Duration::from_millis(5);
/// What was not written to for so long is whole: a module can look whole when its last section is missing.
const WHOLE_AFTER: Duration = Duration::from_millis(50);
/// The same of what is no module: somebody may still write it, or is about to put it there.
const BROKEN_AFTER: Duration = Duration::from_millis(200);
/// A file that changes for longer than this is not waited for: calls run what was loaded before.
const CHANGING_MAX: Duration = Duration::from_secs(5);
/// What is compiled sooner than that is not worth a place in the cache: each change would take one.
const COMPILED_SOON: Duration = Duration::from_secs(1);
/// Events that nobody has read yet: further ones are lost.
const EVENTS_MAX: usize = 1024;

/// What happens while a module is developed.
#[derive(Debug)]
pub enum Event {
    /// The next call runs what the file holds now. It took so long to load.
    Replaced(Duration),
    /// The file holds nothing that can run; calls run what was loaded before.
    Broken(NotServed),
    /// The file holds again what was loaded before.
    Mended,
    /// A call has ended.
    Ended(EndedCall),
}

/// A call that has ended, as whoever develops its module wants to see it.
#[derive(Debug)]
pub struct EndedCall {
    /// What was asked for.
    pub asked: Asked,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed, in one line.
    pub message: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// Its stderr.
    pub stderr: Captured,
}

/// What a developer is told of a request. The rest may be large, and events wait to be read.
#[derive(Debug)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// What follows the `?`.
    pub query: String,
}

impl Asked {
    fn of(request: &CallRequest) -> Self {
        let variable = |wanted: &str| {
            let found = request.variables.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        Self { method: variable("REQUEST_METHOD"), query: variable("QUERY_STRING") }
    }
}

/// Why what a file holds is not run.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// It is larger than a module may be, in bytes.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// It is not loaded: not a module that we run, one that does not fit, or our failure.
    #[error(transparent)]
    NotLoaded(#[from] Error),
}

/// The file of one function's module.
pub(super) struct Development {
    file: PathBuf,
    account: AccountId,
    definition: Definition,
    /// The file when it was last loaded, or found to be broken; `None` if it was not there.
    settled: Mutex<Option<Stamp>>,
    /// Held by whoever brings the function up to date.
    served: tokio::sync::Mutex<Served>,
    events: mpsc::Sender<Event>,
    /// What `run` has compiled.
    cache: Option<Arc<ArtifactCache>>,
}

/// What calls run.
struct Served {
    contents: blake3::Hash,
    /// The file holds something else, that cannot run.
    is_broken: bool,
}

/// Tells two states of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What was read of a file, and is ready to be named.
struct Candidate {
    contents: blake3::Hash,
    /// `None` if it is what is served already.
    received: Option<Received>,
}

impl Service {
    /// Makes a function of what a file holds, and keeps the two the same from now on. Once at most in the life of a
    /// service.
    ///
    /// # Errors
    /// Why the file cannot be served, or the function not be made.
    pub async fn develop(
        &self,
        file: &Path,
        name: FunctionName,
        change: Change,
        cache: Option<&Path>,
    ) -> Result<(Arc<Callable>, mpsc::Receiver<Event>), NotServed> {
        let account = AccountId::open_to_this_machine();
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let mut development = Development {
            file: file.to_owned(),
            account: account.clone(),
            definition: Definition::create(change.clone()).map_err(Error::from)?,
            settled: Mutex::new(Stamp::of(file)),
            served: tokio::sync::Mutex::new(Served { contents: blake3::hash(b""), is_broken: false }),
            events,
            cache: cache.and_then(open_cache),
        };
        let Candidate { contents, received } = development.candidate(self, None).await?;
        development.served.get_mut().contents = contents;
        if let Some(received) = received {
            self.load_image(account.clone(), development.image().clone(), received).await?;
        }
        let described = self.create_function(account, name, change).await?;
        // Set once: there is one caller.
        let _ = self.0.development.set(development);
        Ok((described.function, heard))
    }

    /// Looks at the file that is developed, for ever: what has changed is loaded before somebody calls it.
    pub async fn watch_development(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(development) = self.0.development.get()
                && !development.is_settled(Stamp::of(&development.file))
            {
                development.catch_up(self).await;
            }
        }
    }

    /// Ready once the function that is developed is what its file holds, or this call of it is to end.
    pub(super) async fn catch_up(&self, function: &Callable, cancelled: &CancellationToken) {
        if let Some(development) = self.0.development.get()
            && !development.is_settled(Stamp::of(&development.file))
        {
            let caught_up = async {
                tokio::select! {
                    () = development.catch_up(self) => {}
                    () = function.cancelled() => {}
                    () = cancelled.cancelled() => {}
                }
            };
            // Boxed: every call's future would have room for it.
            Box::pin(caught_up).await;
        }
    }

    /// What a developer will be told of a request, if there is one.
    pub(super) fn asked(&self, request: &CallRequest) -> Option<Asked> {
        self.0.development.get().map(|_| Asked::of(request))
    }

    /// A call has ended: whoever develops it hears of it.
    pub(super) fn tell_developer(&self, asked: Option<Asked>, outcome: &Outcome, message: Option<&str>) {
        if let (Some(development), Some(asked)) = (self.0.development.get(), asked) {
            development.tell(Event::Ended(EndedCall {
                asked,
                verdict: outcome.ending.into(),
                message: message.map(str::to_owned),
                usage: outcome.usage,
                stderr: outcome.stderr.clone(),
            }));
        }
    }
}

impl Development {
    fn image(&self) -> &ImageReference {
        &self.definition.config.image
    }

    fn is_settled(&self, stamp: Option<Stamp>) -> bool {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) == stamp
    }

    fn tell(&self, event: Event) {
        // A terminal that nobody reads holds no call up.
        let _ = self.events.try_send(event);
    }

    async fn catch_up(&self, service: &Service) {
        // Before the lock: who has it leaves when its own time is over, and those behind it do not add theirs. A compiler
        // is waited for.
        let began = Instant::now();
        let mut served = self.served.lock().await;
        while began.elapsed() < CHANGING_MAX {
            let (stamp, seen) = (Stamp::of(&self.file), Instant::now());
            // Perhaps by whoever had the lock before.
            if self.is_settled(stamp) {
                return;
            }
            let candidate = self.candidate(service, Some(served.contents)).await;
            let settled_after = if candidate.is_ok() { WHOLE_AFTER } else { BROKEN_AFTER };
            if !self.stays(stamp, seen + settled_after).await || !self.still_holds(service, &candidate).await {
                discard(service, candidate).await;
                continue;
            }
            let served_now = match candidate {
                Ok(candidate) => self.serve(service, &mut served, candidate, seen).await,
                Err(why) => Err(why),
            };
            *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
            match served_now {
                Ok(None) => {}
                Ok(Some(event)) => self.tell(event),
                Err(why) => {
                    served.is_broken = true;
                    self.tell(Event::Broken(why));
                }
            }
            return;
        }
    }

    /// Names what was read: the next call runs it.
    async fn serve(
        &self,
        service: &Service,
        served: &mut Served,
        candidate: Candidate,
        seen: Instant,
    ) -> Result<Option<Event>, NotServed> {
        let Candidate { contents, received } = candidate;
        let was_broken = served.is_broken;
        let Some(received) = received else {
            served.is_broken = false;
            return Ok(was_broken.then_some(Event::Mended));
        };
        service.load_image(self.account.clone(), self.image().clone(), received).await?;
        *served = Served { contents, is_broken: false };
        Ok(Some(Event::Replaced(seen.elapsed())))
    }

    /// What the file holds, compiled, but not named.
    async fn candidate(&self, service: &Service, served: Option<blake3::Hash>) -> Result<Candidate, NotServed> {
        let bytes = self.read(service).await?;
        let contents = blake3::hash(&bytes);
        if served == Some(contents) {
            return Ok(Candidate { contents, received: None });
        }
        let wasm = engine::module_bytes(&bytes).map_err(Error::Rejected)?;
        let mut incoming = service.begin_upload().await?;
        incoming.write(&wasm)?;
        let received = service.receive(&self.account, self.image(), incoming).await?;
        self.definition.check_fits(received.info()).map_err(Error::from)?;
        let wasm: Arc<[u8]> = Arc::from(&*wasm);
        let memory = received.info().memory;
        // The usual one is compiled of every module, whoever runs it.
        for flavour in HashSet::from([Flavour::of(&self.definition, memory), Flavour::unmetered(memory)]) {
            self.compile(service, contents, received.digest(), &wasm, flavour).await?;
        }
        Ok(Candidate { contents, received: Some(received) })
    }

    /// Compiles it, unless a run of this user's has done so: an interpreter takes seconds. What took long is kept for the
    /// next one.
    async fn compile(
        &self,
        service: &Service,
        contents: blake3::Hash,
        digest: Digest,
        wasm: &Arc<[u8]>,
        flavour: Flavour,
    ) -> Result<(), Error> {
        let (module, name) = (Digest::new(*contents.as_bytes()), flavour.name());
        let files = Arc::clone(&service.0.files);
        if let Some(cache) = self.cache.clone() {
            let files = Arc::clone(&files);
            let recall = move || match cache.read(module, name, SystemTime::now()) {
                Some(artifact) => files.keep_artifact(digest, name, &artifact),
                None => Ok(()),
            };
            blocking(recall).await?;
        }
        if service.0.programs.is_compiled(digest, flavour).await {
            return Ok(());
        }
        let began = Instant::now();
        service.0.programs.compile(digest, Arc::clone(wasm), flavour).await.map_err(|e| match e {
            Failure::Rejected(rejected) => Error::Rejected(rejected),
            failure => failure.into(),
        })?;
        if let Some(cache) = self.cache.clone()
            && began.elapsed() > COMPILED_SOON
        {
            let remember = move || match files.artifact(digest, name) {
                Some(artifact) => cache.keep(module, name, &artifact, SystemTime::now()),
                None => Ok(()),
            };
            // It is compiled again the next time.
            let _ = blocking(remember).await;
        }
        Ok(())
    }

    async fn read(&self, service: &Service) -> Result<Vec<u8>, NotServed> {
        let metadata = tokio::fs::metadata(&self.file).await?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file").into());
        }
        let bytes_max = service.settings().image_bytes_max;
        if metadata.len() > bytes_max {
            return Err(NotServed::TooLarge(bytes_max));
        }
        Ok(tokio::fs::read(&self.file).await?)
    }

    /// Whether a file that looks as it did holds what it did: stamps have a grain, and what is mapped is written unseen.
    async fn still_holds(&self, service: &Service, candidate: &Result<Candidate, NotServed>) -> bool {
        let Ok(Candidate { contents, .. }) = candidate else { return true };
        self.read(service).await.is_ok_and(|bytes| blake3::hash(&bytes) == *contents)
    }

    /// Whether the file stays as it is until then.
    async fn stays(&self, stamp: Option<Stamp>, until: Instant) -> bool {
        loop {
            if Stamp::of(&self.file) != stamp {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
            sleep(LOOK_EVERY_CHANGING).await;
        }
    }
}

/// Nothing names what was compiled too early.
async fn discard(service: &Service, candidate: Result<Candidate, NotServed>) {
    if let Ok(Candidate { received: Some(received), .. }) = candidate {
        let digest = received.digest();
        drop(received);
        service.forget_or_leave(digest).await;
    }
}
