//! What calls left behind: their results, and how they stand.

use super::directory::Callable;
use super::error::{CallError, Failure, NotRun};
use super::journal::Journal;
use super::open_calls::OpenCall;
use super::permits::Busy;
use super::{Service, now};
use crate::domain::{AccountId, CallId, CallKey, CallResult, CallState, Listed, Tally, Timestamp};
use crate::failpoint;
use crate::store::{self, KnownCall};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long another reader waits to learn whether the one before has got all of a result: longer than a peer delays its
/// acknowledgement.
const ARRIVAL_WAIT_MAX: Duration = Duration::from_millis(250);
/// How long to wait before the store is asked again that was read just before memory knew of a change.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// How often it is asked.
const LOOKS_MAX: usize = 100;
/// How long whoever ended a call waits for its end to be on disk.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(5);

/// What there is of a call.
#[derive(Debug)]
pub enum Output {
    /// It waits or runs.
    Open(CallState),
    /// It has ended, and left this.
    Ended(CallResult),
    /// It has ended, and what it left is not kept any more.
    Gone,
    /// There is no such call, or its result was read.
    Unknown,
}

/// How far the answer to a reader of a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Some of it is still to be written.
    Begun,
    /// The network has all of it, or is just being given the rest.
    Written,
    /// The reader has all of it.
    Arrived,
}

/// How far the latest answers to readers of results are.
pub(super) type Readings = dashmap::DashMap<CallId, watch::Receiver<Sending>>;

impl Service {
    /// What there is of a call now; with `wait` of one that is open, once it has ended.
    ///
    /// # Errors
    /// [`Busy::Draining`] for whoever waits when the server is about to end; or we failed.
    pub async fn output(&self, key: &CallKey, wait: bool) -> Result<Output, CallError> {
        let mut looks = 0;
        loop {
            if self.was_read(key).await {
                return Ok(Output::Unknown);
            }
            if let Some(call) = self.0.open_calls.get(key) {
                if wait {
                    tokio::select! {
                        biased;
                        () = call.closed() => {}
                        () = self.0.ending.cancelled() => return Err(CallError::Busy(Busy::Draining)),
                    }
                    match call.result() {
                        Some(result) => return Ok(Output::Ended(result)),
                        None => continue,
                    }
                }
                if let Some(state) = call.phase().state() {
                    return Ok(Output::Open(state));
                }
            }
            let known = self.0.store.call(key).await;
            let known = known.map_err(|error| {
                let (call_id, failure) = (key.call_id, Failure::from(error));
                tracing::error!(%call_id, %failure, "what a call left cannot be read");
                CallError::NotRun { call_id, why: NotRun::Failure(failure) }
            })?;
            return Ok(match known {
                None => Output::Unknown,
                Some(KnownCall::Gone) => Output::Gone,
                Some(KnownCall::Ended { at, .. }) if self.is_expired(at) => Output::Gone,
                Some(KnownCall::Ended { result, .. }) => Output::Ended(result),
                // It is on disk, and memory is about to know of it; or was about to forget it.
                Some(KnownCall::Open(_)) if looks < LOOKS_MAX => {
                    looks += 1;
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    continue;
                }
                Some(KnownCall::Open(state)) => Output::Open(state),
            });
        }
    }

    /// Whether a result that may still be on disk has arrived at a reader; of one that is on its way, once that is known.
    /// As long as some of it is to be written, there are two readers at once, and both get it.
    async fn was_read(&self, key: &CallKey) -> bool {
        let reading = self.0.readings.get(&key.call_id).map(|reading| reading.clone());
        let Some(mut sending) = reading else { return false };
        // Closed, if nobody will know.
        let known = sending.wait_for(|sending| *sending != Sending::Written);
        let known = tokio::time::timeout(ARRIVAL_WAIT_MAX, known).await;
        matches!(known, Ok(Ok(sending)) if *sending == Sending::Arrived)
    }

    fn is_expired(&self, ended: Timestamp) -> bool {
        ended <= now().before(self.0.settings.retention.result_ttl)
    }

    /// The result of a call is about to be sent: the call is forgotten as soon as what this returns is told that it has
    /// arrived. Nothing changes if it is dropped.
    pub fn forget_when_arrived(&self, key: CallKey) -> watch::Sender<Sending> {
        let (sender, sending) = watch::channel(Sending::Begun);
        self.0.readings.insert(key.call_id, sending.clone());
        let (service, mut watched) = (self.clone(), sending.clone());
        self.0.tasks.spawn(async move {
            let has_arrived = tokio::select! {
                arrived = watched.wait_for(|sending| *sending == Sending::Arrived) => arrived.is_ok(),
                () = service.given_up() => false,
            };
            if has_arrived {
                failpoint::hit("get.after_send");
                service.forget(&key).await;
            }
            service.0.readings.remove_if(&key.call_id, |_, latest| latest.same_channel(&sending));
        });
        sender
    }

    /// Ready when the server ends and has waited long enough for those who read: their results stay.
    async fn given_up(&self) {
        self.0.ending.cancelled().await;
        tokio::time::sleep(ARRIVAL_WAIT_MAX).await;
    }

    async fn forget(&self, key: &CallKey) {
        match self.0.store.drop_result(key).await {
            // Another reader was faster.
            Ok(()) | Err(store::Error::NotFound) => {}
            Err(error) => {
                let (call_id, failure) = (key.call_id, Failure::from(error));
                tracing::warn!(%call_id, %failure, "a result that was read stays");
            }
        }
    }

    /// Discards a result, drops a call that waits, or ends one that runs. `false` if there is no such call.
    ///
    /// # Errors
    /// When we failed.
    pub async fn discard(&self, key: &CallKey) -> Result<bool, Failure> {
        if let Some(call) = self.0.open_calls.get(key) {
            if self.0.permits.withdraw(&call) {
                return self.drop_waiting(call).await;
            }
            call.cancel();
            let _ = tokio::time::timeout(CANCEL_WAIT_MAX, call.closed()).await;
            return Ok(true);
        }
        if self.was_read(key).await {
            return Ok(false);
        }
        match self.0.store.drop_result(key).await {
            Ok(()) => Ok(true),
            Err(store::Error::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a call that was taken out of the queue in memory from the one on disk.
    async fn drop_waiting(&self, call: Arc<OpenCall>) -> Result<bool, Failure> {
        let service = self.clone();
        // To its end, even if whoever asked leaves.
        self.change(async move {
            match service.0.store.drop_pending(call.key()).await {
                Ok(()) => {
                    service.tell_dropped(&call);
                    service.0.open_calls.close(&call);
                    Ok(true)
                }
                Err(store::Error::NotFound) => {
                    service.0.open_calls.close(&call);
                    Ok(false)
                }
                Err(error) => {
                    // It waits on, unless its function is gone.
                    if let Some(function) = service.function_of_open(&call) {
                        service.0.permits.put_back(call, &function, None);
                    }
                    Err(Failure::from(error))
                }
            }
        })
        .await
    }

    /// A call that was dropped has failed, for whoever reads the log.
    fn tell_dropped(&self, call: &OpenCall) {
        if let Some(function) = self.function_of_open(call) {
            Journal::going_on(&function, call.key().call_id).ended(Some("cancelled".to_owned()), None);
        }
    }

    /// The function of an open call as it is now, unless it was removed.
    pub(super) fn function_of_open(&self, call: &OpenCall) -> Option<Arc<Callable>> {
        let key = call.key();
        self.0.directory.function(&key.account, &key.function).filter(|function| call.is_of(function))
    }

    /// The function that a call belongs to, as long as the call is known.
    ///
    /// # Errors
    /// When we failed.
    pub async fn function_of_call(
        &self,
        account: &AccountId,
        call_id: CallId,
    ) -> Result<Option<Arc<Callable>>, Failure> {
        let name = match self.0.open_calls.function_of(account, call_id) {
            Some(name) => Some(name),
            None => self.0.store.function_of_call(account, call_id).await?,
        };
        Ok(name.and_then(|name| self.0.directory.function(account, &name)))
    }

    /// How many calls of a function are known; synchronous ones count while they last.
    ///
    /// # Errors
    /// When we failed.
    pub async fn tally(&self, function: &Callable) -> Result<Tally, Failure> {
        let load = self.0.permits.sync_load(&function.account, &function.name);
        let tally = self.0.store.tally(&function.account, &function.name).await?;
        let (pending, running) = (tally.pending + load.pending as u64, tally.running + load.running as u64);
        Ok(Tally { pending, running, ..tally })
    }

    /// The asynchronous calls of a function that are known, oldest first, at most `limit`, behind `after`.
    ///
    /// # Errors
    /// When we failed.
    pub async fn list_calls(
        &self,
        function: &Callable,
        after: Option<CallId>,
        limit: u32,
    ) -> Result<Vec<Listed>, Failure> {
        Ok(self.0.store.list_calls(&function.account, &function.name, after, limit).await?)
    }
}
