//! Calls of functions.

use super::Service;
use super::directory::Callable;
use super::error::{CallError, NotRun};
use super::permits::{Busy, Permit};
use super::runner::Execution;
use crate::domain::{CallId, FunctionUuid, Image, Outcome};
use crate::engine::{Flavour, Invocation, Program};
use bytes::Bytes;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::SemaphorePermit;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// The bodies of all calls that may be on their way in together: 1 GB, in KB. Those that wait to start are counted by
/// the scheduler.
pub(super) const BODIES_KB_MAX: usize = 1 << 20;

/// A variable of a guest's environment that comes from its request.
pub type Variable = (Cow<'static, str>, String);

/// What a call brings.
#[derive(Debug, Clone, Default)]
pub struct CallRequest {
    /// stdin.
    pub body: Bytes,
    /// What the request says of itself: RFC 3875, `docs/api.md` section 4.
    pub variables: Vec<Variable>,
}

/// A call that ran to an end.
#[derive(Debug)]
pub struct Ended {
    /// Its id.
    pub call_id: CallId,
    /// The function as it was when the call started.
    pub function: Arc<Callable>,
    /// What it left.
    pub outcome: Outcome,
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
    /// Why the call has no outcome. After [`CallError::Busy`] it never ran.
    pub async fn call_sync(&self, function: Arc<Callable>, request: CallRequest) -> Result<Ended, CallError> {
        let bytes = request.body.len() as u64;
        // What was updated while the body came, or while the call waited, counts: what a call is, is fixed at its start.
        let function = self.as_it_is(&function)?;
        let permit = self.0.permits.acquire(&function, bytes, self.0.settings.sync_wait).await;
        let permit = permit.map_err(CallError::Busy)?;
        let function = if permit.waited() { self.as_it_is(&function)? } else { function };
        let service = self.clone();
        let run = async move { service.run_permitted(permit, function, request).await };
        Detached { running: Some(Box::pin(run)), tasks: &self.0.tasks }.await
    }

    /// The version of a function that is there now.
    fn as_it_is(&self, function: &Callable) -> Result<Arc<Callable>, CallError> {
        let current = self.0.directory.function(&function.account, &function.name);
        // In this order: what has taken the place of a removed function is another one.
        let current = current.filter(|_| !function.is_removed());
        current.ok_or(CallError::Busy(Busy::Removed))
    }

    async fn run_permitted(
        &self,
        permit: Permit,
        function: Arc<Callable>,
        request: CallRequest,
    ) -> Result<Ended, CallError> {
        let call_id = CallId::new(Uuid::now_v7());
        let result = self.execute(permit, &function, request, call_id).await;
        match &result {
            Ok(outcome) => tracing::debug!(
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
        match result {
            Ok(outcome) => Ok(Ended { call_id, function, outcome }),
            Err(why) => Err(CallError::NotRun { call_id, why }),
        }
    }

    async fn execute(
        &self,
        permit: Permit,
        function: &Arc<Callable>,
        request: CallRequest,
        call_id: CallId,
    ) -> Result<Outcome, NotRun> {
        let (image, program) = self.program(function).await?;
        let definition = &function.definition;
        let invocation = Invocation {
            args: definition.argv(&image).map(str::to_owned).collect(),
            env: environment(function, &image, request.variables, call_id),
            stdin: request.body,
            tty: definition.config.tty,
        };
        let execution = Execution { permit, function: Arc::clone(function), program, invocation };
        self.0.runner.run(execution).await.map_err(NotRun::Failure)
    }

    /// The module that a function means now, loaded. Loading another under its image's name is a deployment.
    async fn program(&self, function: &Callable) -> Result<(Arc<Image>, Program), NotRun> {
        let definition = &function.definition;
        let name = &definition.config.image;
        loop {
            let image = self.0.directory.image(&function.account, name);
            let image = image.ok_or_else(|| NotRun::NoSuchImage(name.to_string()))?;
            definition.check_fits(&image).map_err(NotRun::DoesNotFit)?;
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

/// The guest's environment, weakest first: the image's, what the request says, what we say, the function's own.
/// A name that the function gives itself appears once, with the function's value.
fn environment(function: &Callable, image: &Image, request: Vec<Variable>, call_id: CallId) -> Vec<Variable> {
    /// The number of this start: a synchronous call has only one.
    const FIRST_ATTEMPT: &str = "1";
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
    environment.push((Cow::Borrowed("HYPER_FUNC_NAME"), function.name.to_string()));
    environment.push((Cow::Borrowed("HYPER_CALL_ID"), call_id.to_string()));
    environment.push((Cow::Borrowed("HYPER_ATTEMPT"), FIRST_ATTEMPT.to_owned()));
    if !own.pairs().is_empty() {
        environment.retain(|(name, _)| !own.contains(name));
        environment.extend(own.pairs().iter().map(|(name, value)| (Cow::Owned(name.clone()), value.clone())));
    }
    environment
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
