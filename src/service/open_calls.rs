//! The asynchronous calls that have not ended, in memory: whoever waits for one waits here.

use crate::domain::{AccountId, CallId, CallKey, CallResult, CallState, Function, FunctionName, Timestamp, Waiting};
use dashmap::DashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where an open call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Pending,
    Running,
    /// What there is to know of it is in the store.
    Closed,
}

impl Phase {
    /// The state that a caller is told; `None` of a call that is not open any more.
    pub(super) fn state(self) -> Option<CallState> {
        match self {
            Self::Pending => Some(CallState::Pending),
            Self::Running => Some(CallState::Running),
            Self::Closed => None,
        }
    }
}

/// A call that has not ended.
#[derive(Debug)]
pub(super) struct OpenCall {
    pub(super) waiting: Waiting,
    /// When its function came into being: one that has taken its name since is another.
    function_created: Timestamp,
    /// When this process has learned of it.
    since: Instant,
    phase: watch::Sender<Phase>,
    cancelled: CancellationToken,
    result: OnceLock<CallResult>,
}

impl OpenCall {
    pub(super) fn key(&self) -> &CallKey {
        &self.waiting.key
    }

    /// Whether it is a call of this function.
    pub(super) fn is_of(&self, function: &Function) -> bool {
        let key = self.key();
        (&key.account, &key.function, self.function_created) == (&function.account, &function.name, function.created)
    }

    /// Ready once it is not open any more.
    pub(super) async fn closed(&self) {
        // The other end is in here: it is not dropped meanwhile.
        let _ = self.phase.subscribe().wait_for(|phase| phase.state().is_none()).await;
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// What it left is on disk, and here for those who have waited: one of them may be done with it before the next has
    /// looked.
    pub(super) fn leave(&self, result: CallResult) {
        // A call ends once.
        let _ = self.result.set(result);
    }

    /// What it left, if it has ended.
    pub(super) fn result(&self) -> Option<CallResult> {
        self.result.get().cloned()
    }

    /// It is to end, if it runs.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Ready once it is to end.
    pub(super) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }
}

/// All of them. A cheap clone.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenCalls(Arc<DashMap<CallId, Arc<OpenCall>>>);

impl OpenCalls {
    /// Opens a call that waits.
    pub(super) fn open(&self, waiting: Waiting, function: &Function) -> Arc<OpenCall> {
        let call_id = waiting.key.call_id;
        let phase = watch::Sender::new(Phase::Pending);
        let (since, cancelled, result) = (Instant::now(), CancellationToken::new(), OnceLock::new());
        let function_created = function.created;
        let call = Arc::new(OpenCall { waiting, function_created, since, phase, cancelled, result });
        self.0.insert(call_id, Arc::clone(&call));
        call
    }

    /// A call that is open.
    pub(super) fn get(&self, key: &CallKey) -> Option<Arc<OpenCall>> {
        self.by_id(key.call_id).filter(|call| call.key() == key)
    }

    /// The function that an open call of an account belongs to.
    pub(super) fn function_of(&self, account: &AccountId, call_id: CallId) -> Option<FunctionName> {
        let call = self.by_id(call_id).filter(|call| call.key().account == *account);
        call.map(|call| call.key().function.clone())
    }

    fn by_id(&self, call_id: CallId) -> Option<Arc<OpenCall>> {
        self.0.get(&call_id).map(|call| Arc::clone(&call))
    }

    /// The call has ended, or is not there any more: whoever waits for it asks the store.
    pub(super) fn close(&self, call: &OpenCall) {
        self.0.remove(&call.key().call_id);
        call.set_phase(Phase::Closed);
    }

    /// When this process has learned of the call that has waited longest.
    pub(super) fn oldest_pending(&self) -> Option<Instant> {
        self.0.iter().filter(|call| call.phase() == Phase::Pending).map(|call| call.since).min()
    }
}
