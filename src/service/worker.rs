//! Runs asynchronous calls: takes those whose turn has come, begins a start of each in the store, and ends it there.

use super::calls::{Attempt, unless_it_panics};
use super::error::{Failure, NotRun};
use super::journal::Journal;
use super::open_calls::{OpenCall, Phase};
use super::permits::Granted;
use super::{Service, Shared, now};
use crate::domain::CallResult;
use crate::failpoint;
use crate::store::{self, Start};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// Calls that are claimed together: they share a commit, and each may bring a megabyte.
const CLAIM_CALLS_MAX: usize = 64;
/// How long to wait before the store is asked again that has no room, at first and at most.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// How a start ended.
enum StartEnd {
    /// So has its call.
    Ended(CallResult),
    /// The machine's memory had no room for it.
    NoMemory,
    /// The server ends.
    Drained,
}

impl Service {
    /// Claims calls in the order in which they were granted, and begins to run each, until nobody can grant any more.
    pub(super) async fn work(service: Weak<Shared>, mut grants: mpsc::Receiver<Granted>) {
        let mut granted = Vec::with_capacity(CLAIM_CALLS_MAX);
        while grants.recv_many(&mut granted, CLAIM_CALLS_MAX).await > 0 {
            let Some(service) = service.upgrade().map(Service) else { return };
            // They are on disk, and wait there for the next server.
            if service.draining() {
                granted.clear();
                continue;
            }
            let keys: Vec<_> = granted.iter().map(|granted| granted.call.key().clone()).collect();
            let claimed = service.until_there_is_room(|| service.0.store.claim(keys.clone())).await;
            let starts = match claimed {
                Ok(starts) => starts,
                // Nobody would grant them again.
                Err(error) => {
                    service.distrust(format!("calls could not be started: {error}"));
                    granted.clear();
                    continue;
                }
            };
            failpoint::hit("claim.after_commit");
            for (granted, start) in granted.drain(..).zip(starts) {
                match start {
                    Some(start) => {
                        granted.call.set_phase(Phase::Running);
                        let service = service.clone();
                        let tasks = service.0.tasks.clone();
                        tasks.spawn(async move {
                            // The guest's own part is guarded in there: this was about where the call stands.
                            if unless_it_panics(service.run_start(granted, start)).await.is_none() {
                                service.distrust("the end of a call broke off in a panic, told on stderr");
                            }
                        });
                    }
                    // Its function was removed.
                    None => service.0.open_calls.close(&granted.call),
                }
            }
        }
    }

    /// Runs one start of a call, and ends it in the store.
    async fn run_start(&self, granted: Granted, start: Start) {
        let Granted { call, permit, aside } = granted;
        let key = call.key().clone();
        let Some(function) = self.function_of_open(&call) else {
            self.0.open_calls.close(&call);
            return;
        };
        let mut journal = Journal::going_on(&function, key.call_id);
        let Start { number, request } = start;
        let attempt = Attempt {
            call_id: key.call_id,
            number,
            permit,
            function: Arc::clone(&function),
            request,
            aside,
            cancelled: call.cancelled().clone(),
        };
        let running = self.run_once(attempt, &mut journal);
        let end = tokio::select! {
            biased;
            ended = running => match ended {
                Ok(ran) => StartEnd::Ended(ran.result),
                Err(NotRun::NoMemory) => StartEnd::NoMemory,
                Err(why) => StartEnd::Ended(CallResult::failed(why.message(key.call_id))),
            },
            () = self.0.giving_back.cancelled() => StartEnd::Drained,
        };
        match end {
            StartEnd::Ended(result) => self.finish(&call, number, result).await,
            StartEnd::NoMemory => {
                let needed = function.definition.size.memory_bytes().min(self.0.engine.memory_budget().ceiling());
                if self.give_back(&call, number).await {
                    journal.waits();
                    call.set_phase(Phase::Pending);
                    self.0.permits.put_back(call, &function, Some(needed));
                }
            }
            StartEnd::Drained => {
                if self.give_back(&call, number).await {
                    journal.waits();
                }
            }
        }
    }

    /// The result stays in memory as long as the disk has no room for it.
    async fn finish(&self, call: &OpenCall, start: u32, result: CallResult) {
        let keep = &self.0.settings.retention;
        let at = now();
        let finish = || self.0.store.finish(call.key(), start, result.clone(), at, keep);
        let finished = self.until_there_is_room(finish).await;
        if finished.is_ok() {
            failpoint::hit("finish.after_commit");
            call.leave(result);
        }
        if self.end_is_known(call, start, finished) {
            self.0.open_calls.close(call);
        }
    }

    /// `false` if the call does not wait now.
    async fn give_back(&self, call: &OpenCall, start: u32) -> bool {
        let given_back = self.until_there_is_room(|| self.0.store.give_back(call.key(), start)).await;
        let waits = given_back.is_ok();
        if waits {
            failpoint::hit("give_back.after_commit");
        }
        if self.end_is_known(call, start, given_back) && !waits {
            self.0.open_calls.close(call);
        }
        waits
    }

    /// Asks the store again and again while its disk is full, or another program keeps it locked.
    pub(super) async fn until_there_is_room<'a, T>(
        &self,
        ask: impl Fn() -> store::Answer<'a, T>,
    ) -> Result<T, store::Error> {
        let mut back_off = BACK_OFF[0];
        loop {
            match ask().await {
                Err(error @ (store::Error::DiskFull | store::Error::Locked)) => {
                    tracing::warn!(%error, "calls cannot go on");
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF[1]);
                }
                answer => return answer,
            }
        }
    }

    /// Whether the store has said where the call stands now; if not, the server ends.
    fn end_is_known(&self, call: &OpenCall, start: u32, ended: Result<(), store::Error>) -> bool {
        let (call_id, function) = (call.key().call_id, &call.key().function);
        match ended {
            Ok(()) => true,
            // It was removed with its function.
            Err(store::Error::NotFound) => {
                tracing::debug!(%call_id, %function, start, "the end of a start that is not known any more");
                true
            }
            Err(error) => {
                let failure = Failure::from(error);
                tracing::error!(%call_id, %function, start, %failure, "a start could not be ended");
                self.distrust(format!("start {start} of call {call_id} could not be ended: {failure}"));
                false
            }
        }
    }
}
