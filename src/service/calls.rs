//! Calls of functions.

use super::directory::{Callable, Overrides};
use super::error::{CallError, Failure, NotRun};
use super::journal::Journal;
use super::permits::{Busy, Permit};
use super::phases::Phases;
use super::runner::Execution;
use super::{Service, now};
use crate::domain::{
    CallId, CallRequest, CallResult, Called, Ending, FunctionUuid, IdempotencyKey, Image, Outcome, Record, Short,
    Usage, Variable, Waiting,
};
use crate::engine::{Flavour, Invocation, Program, SetAside, Stdio};
use crate::failpoint;
use crate::store::{self, Enqueued, NewCall};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// The bodies of all calls that may be on their way in together: 1 GB, in KB. Those that wait to start are counted by
/// the scheduler.
pub(super) const BODIES_KB_MAX: usize = 1 << 20;

/// A call that ran to an end.
#[derive(Debug)]
pub struct Ended {
    /// Its id.
    pub call_id: CallId,
    /// What it left.
    pub result: CallResult,
    /// What took how long.
    pub phases: Phases,
}

/// One start that has ended.
pub(super) struct Ran {
    pub(super) result: CallResult,
    /// When its guest was about to begin.
    loaded: Instant,
    usage: Usage,
}

/// One start of a call that may run now.
pub(super) struct Attempt {
    pub(super) call_id: CallId,
    /// The number of the start, from 1.
    pub(super) number: u32,
    pub(super) permit: Permit,
    /// The function as it is at this start.
    pub(super) function: Arc<Callable>,
    pub(super) request: CallRequest,
    /// Memory that is kept for it.
    pub(super) aside: Option<SetAside>,
    /// Ends this call alone.
    pub(super) cancelled: CancellationToken,
}

impl Service {
    /// The function with that address. To a stranger all that is wrong with an address looks the same.
    pub fn address(&self, name: &str, uuid: FunctionUuid) -> Option<Arc<Callable>> {
        self.0.directory.address(name, uuid)
    }

    /// Makes room for a body of at most so many bytes while it comes in.
    ///
    /// # Errors
    /// [`Busy::PendingFull`] when too much comes in already.
    pub fn make_room_for_body(&self, bytes_max: u64) -> Result<SemaphorePermit<'_>, CallError> {
        let kb = u32::try_from(bytes_max.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        self.0.bodies.try_acquire_many(kb).map_err(|_| CallError::Busy(Busy::PendingFull))
    }

    /// Calls a function and waits for its end.
    ///
    /// Dropped while the call waits to start, the call is forgotten. Dropped while it runs, the call runs to its end
    /// in a task of its own.
    ///
    /// # Errors
    /// Why the call has no result. After [`CallError::Busy`] it never ran.
    pub async fn call_sync(&self, function: Arc<Callable>, request: CallRequest) -> Result<Ended, CallError> {
        let accepted = Instant::now();
        let bytes = request.bytes();
        // What was updated while the body came, or while the call waited, counts: what a call is, is fixed at its start.
        let function = self.as_it_is(&function)?;
        let call_id = CallId::new(Uuid::now_v7());
        let mut journal = None;
        let waits = || {
            let mut waiting = Journal::called(&function, call_id, &request);
            waiting.if_abandoned("the client has left");
            waiting.waits();
            journal = Some(waiting);
        };
        let too_long = async { tokio::time::sleep(self.0.settings.sync_wait).await };
        let permit = self.0.permits.acquire(&function, bytes, too_long, waits).await;
        let permit = permit.map_err(|busy| {
            if let Some(mut journal) = journal.take() {
                journal.ended(Some(busy.to_string()), None);
            }
            CallError::Busy(busy)
        })?;
        let permitted = Instant::now();
        let mut journal = journal.unwrap_or_else(|| Journal::called(&function, call_id, &request));
        let function = if permit.waited() { self.as_it_is(&function)? } else { function };
        let cancelled = CancellationToken::new();
        let attempt = Attempt { call_id, number: 1, permit, function, request, aside: None, cancelled };
        let service = self.clone();
        let run = async move {
            let ran = service.run_once(attempt, &mut journal).await;
            if let Err(why @ NotRun::NoMemory) = &ran {
                service.0.metrics.not_run();
                journal.ended(Some(why.message(call_id)), None);
            }
            let Ran { result, loaded, usage } = ran.map_err(|why| CallError::NotRun { call_id, why })?;
            let phases = Phases::of([accepted, permitted, loaded, Instant::now()], &usage);
            Ok(Ended { call_id, result, phases })
        };
        Detached { running: Some(Box::pin(run)), tasks: &self.0.tasks }.await
    }

    /// Accepts a call: it is on disk when this is ready, and runs when its turn comes. Dropped, it may be accepted all
    /// the same. The same `key` within a day means the same call.
    ///
    /// # Errors
    /// Why it is not accepted: it never runs then.
    pub async fn call_async(
        &self,
        function: Arc<Callable>,
        request: CallRequest,
        key: Option<&[u8]>,
    ) -> Result<CallId, CallError> {
        let function = self.as_it_is(&function)?;
        let bytes = request.bytes();
        let key = key.map(|key| IdempotencyKey(Sha256::digest(key).into()));
        let reservation = match (self.0.permits.reserve(&function, bytes), key) {
            (Ok(reservation), _) => reservation,
            // A call that was accepted before needs no room.
            (Err(busy @ Busy::PendingFull), Some(key)) => {
                return self.accepted_before(&function, key).await.ok_or(CallError::Busy(busy));
            }
            (Err(busy), _) => return Err(CallError::Busy(busy)),
        };
        let (call_id, created) = (CallId::new(Uuid::now_v7()), now());
        let called = Called { at: created, stdin: Short::of(&request.body) };
        let new = NewCall {
            key: function.call_key(call_id),
            function_created: function.created,
            created,
            idempotency: key,
            request,
        };
        let (open_calls, key) = (self.0.open_calls.clone(), new.key.clone());
        let on_accepted = move |place| {
            failpoint::hit("accept.after_commit");
            let (called, pending) = (Some(called), Some(created));
            let record = Record { called, pending, place: Some(place), ..Record::new(call_id) };
            function.log().push(record);
            let call = open_calls.open(Waiting { key, place, created, bytes }, &function);
            reservation.wait(call, &function);
        };
        match self.0.store.enqueue(new, &self.0.settings.retention, Box::new(on_accepted)).await {
            Ok(Enqueued::Accepted) => Ok(call_id),
            Ok(Enqueued::Before(before)) => Ok(before),
            Err(store::Error::NotFound) => Err(CallError::Busy(Busy::Removed)),
            Err(store::Error::KeysFull(_)) => Err(CallError::Busy(Busy::KeysFull)),
            Err(error) => {
                let failure = Failure::from(error);
                tracing::error!(%call_id, %failure, "a call was not accepted");
                Err(CallError::NotRun { call_id, why: NotRun::Failure(failure) })
            }
        }
    }

    /// The call that was accepted under this key. What cannot be found out was not.
    async fn accepted_before(&self, function: &Callable, key: IdempotencyKey) -> Option<CallId> {
        let since = now().before(self.0.settings.retention.key_ttl);
        self.0.store.call_of_key(&function.account, &function.name, key, since).await.ok().flatten()
    }

    /// The version of a function that is there now.
    fn as_it_is(&self, function: &Callable) -> Result<Arc<Callable>, CallError> {
        let current = self.0.directory.function(&function.account, &function.name);
        // In this order: what has taken the place of a removed function is another one.
        let current = current.filter(|_| !function.is_removed());
        current.ok_or(CallError::Busy(Busy::Removed))
    }

    /// Runs a start to the end of its call; one that was short of memory may be tried again.
    ///
    /// # Errors
    /// Why there is no result.
    pub(super) async fn run_once(&self, attempt: Attempt, journal: &mut Journal) -> Result<Ran, NotRun> {
        let (call_id, function) = (attempt.call_id, Arc::clone(&attempt.function));
        let was_kept_memory = attempt.aside.is_some();
        let asked = self.asked(&attempt.request);
        let panicked = || Err(NotRun::Failure(Failure::Internal("a panic, told on stderr".to_owned())));
        let ended = unless_it_panics(self.execute(attempt, journal)).await.unwrap_or_else(panicked);
        match &ended {
            Ok((_, outcome)) => tracing::debug!(
                %call_id,
                function = %function.name,
                ending = ?outcome.ending,
                duration_us = outcome.usage.duration.as_micros(),
                memory_peak = outcome.usage.memory_peak_bytes,
                "call ended"
            ),
            Err(NotRun::Failure(failure)) => {
                tracing::error!(%call_id, function = %function.name, %failure, "call failed");
            }
            Err(error) => tracing::debug!(%call_id, function = %function.name, %error, "call not run"),
        }
        match ended {
            // More than that there will never be.
            Ok((_, outcome)) if outcome.ending == Ending::MemoryBudget && !was_kept_memory => Err(NotRun::NoMemory),
            Ok((loaded, outcome)) => {
                let definition = &function.definition;
                let message = outcome.message(definition.size, definition.timeout);
                self.0.metrics.ended(&outcome);
                self.tell_developer(asked, &outcome, message.as_deref());
                journal.ended(message.clone(), Some(&outcome));
                let usage = outcome.usage;
                Ok(Ran { result: CallResult::of(outcome, message, definition.content_type()), loaded, usage })
            }
            Err(why) => {
                self.0.metrics.not_run();
                journal.ended(Some(why.message(call_id)), None);
                Err(why)
            }
        }
    }

    /// Runs a guest; tells when it was about to begin as well.
    async fn execute(&self, attempt: Attempt, journal: &mut Journal) -> Result<(Instant, Outcome), NotRun> {
        let Attempt { call_id, number, permit, function, request, aside, cancelled } = attempt;
        self.catch_up(&function, &cancelled).await;
        let (image, program) = self.program(&function).await?;
        let definition = &function.definition;
        let invocation = Invocation {
            args: definition.argv(&image).map(str::to_owned).collect(),
            env: environment(&function, &image, request.variables, call_id, number),
            stdio: Stdio::Captured { stdin: request.body, tty: definition.config.tty },
            dirs: Vec::new(),
            aside,
        };
        journal.runs(image.digest);
        failpoint::hit("call.runs");
        let execution = Execution { permit, function, program, invocation, cancelled };
        let loaded = Instant::now();
        Ok((loaded, self.0.runner.run(execution, journal).await.map_err(NotRun::Failure)?))
    }

    /// The module that a function means now, loaded. Loading another under its image's name is a deployment.
    async fn program(&self, function: &Callable) -> Result<(Arc<Image>, Program), NotRun> {
        let definition = &function.definition;
        let name = &definition.config.image;
        loop {
            let image = self.0.directory.image(&function.account, name);
            let image = image.ok_or_else(|| NotRun::NoSuchImage(name.to_string()))?;
            definition.check_fits(&image.info).map_err(NotRun::DoesNotFit)?;
            let flavour = Flavour::of(definition, image.info.memory);
            let now = || self.0.directory.image(&function.account, name);
            match self.0.programs.get(image.digest, flavour).await {
                Ok(program) => return Ok((image, program)),
                // Another module has taken its place, and this one is gone.
                Err(_) if now().is_none_or(|now| now.digest != image.digest) => {}
                Err(failure) => return Err(NotRun::Failure(failure)),
            }
        }
    }
}

/// What `work` answers; `None` if it panicked: a fault of ours that no other call may notice, and after which this one has
/// ended all the same.
pub(super) async fn unless_it_panics<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let caught = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_told_already) => Poll::Ready(None),
    });
    caught.await
}

/// The guest's environment, weakest first: the image's, what the request says, what we say, the function's own.
/// A name that the function gives itself appears once, with the function's value.
fn environment(
    function: &Callable,
    image: &Image,
    request: Vec<Variable>,
    call_id: CallId,
    attempt: u32,
) -> Vec<Variable> {
    let own = function.env();
    let of_image = image.config.env.iter().filter_map(|variable| {
        let (name, value) = variable.split_once('=')?;
        let said_again = request.iter().any(|(stronger, _)| stronger == name);
        (!said_again).then(|| (Cow::Owned(name.to_owned()), value.to_owned()))
    });
    let mut environment: Vec<Variable> =
        Vec::with_capacity(request.len() + own.pairs().len() + image.config.env.len() + 4);
    environment.extend(of_image);
    environment.extend(function.definition.working_dir(image).map(|dir| (Cow::Borrowed("PWD"), dir.to_owned())));
    environment.extend(request);
    put_stronger(&mut environment, function.name.as_str(), call_id, attempt, own);
    environment
}

/// Adds what is stronger than a request: what we say of the call, and the function's own.
pub(super) fn put_stronger(
    environment: &mut Vec<Variable>,
    function: &str,
    call_id: CallId,
    attempt: u32,
    own: &Overrides,
) {
    environment.push((Cow::Borrowed("HYPER_FUNC_NAME"), function.to_owned()));
    environment.push((Cow::Borrowed("HYPER_CALL_ID"), call_id.to_string()));
    environment.push((Cow::Borrowed("HYPER_ATTEMPT"), attempt.to_string()));
    if !own.pairs().is_empty() {
        environment.retain(|(name, _)| !own.contains(name));
        environment.extend(own.pairs().iter().map(|(name, value)| (Cow::Owned(name.clone()), value.clone())));
    }
}

/// A future that goes on in a task of its own when whoever waits for it leaves: no hop between tasks in the
/// usual case, no killed guest in the other.
struct Detached<'a, F: Future<Output: Send> + Send + 'static> {
    running: Option<Pin<Box<F>>>,
    tasks: &'a TaskTracker,
}

impl<F: Future<Output: Send> + Send + 'static> Future for Detached<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let polled = running.as_mut().poll(context);
        if polled.is_ready() {
            self.running = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Detached<'_, F> {
    fn drop(&mut self) {
        // Without a runtime the process is about to end, and so is the guest.
        if let (Some(running), Ok(runtime)) = (self.running.take(), tokio::runtime::Handle::try_current()) {
            self.tasks.spawn_on(running, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_call_alone() {
        assert_eq!(unless_it_panics(async { 1 }).await, Some(1));
        let late = async {
            tokio::task::yield_now().await;
            panic!("a bug of ours");
        };
        assert_eq!(unless_it_panics::<()>(late).await, None);
    }
}
