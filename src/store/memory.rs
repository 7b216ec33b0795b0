//! A store in plain collections behind one lock, for tests: what the transitions mean, said as plainly as can be. The
//! suite runs against it too, so that it speaks of the contract and not of SQL.

use super::conformance::{Disk, conformance_tests};
use super::{Answer, Displaced, Enqueued, Error, ImageKey, KnownCall, NewCall, OnAccepted, Retention, Start, Store};
use crate::domain::{
    AccountId, CRASHES_MAX, CallId, CallKey, CallRequest, CallResult, CallState, Function, FunctionName,
    IdempotencyKey, Image, Listed, Place, Quota, QuotaKind, Tally, Timestamp, Verdict, Waiting,
};
use std::collections::{BTreeMap, HashMap};
use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

/// What outlives each store that is opened on it.
#[derive(Default)]
struct Memory(Arc<Mutex<Data>>);

impl Disk for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore(Arc::clone(&self.0)))
    }
}

conformance_tests!(Memory::default());

struct MemoryStore(Arc<Mutex<Data>>);

/// Whose a call or a key is.
type Owner = (AccountId, FunctionName);

#[derive(Default)]
struct Data {
    functions: BTreeMap<Owner, Function>,
    images: Vec<Image>,
    calls: BTreeMap<Place, Call>,
    /// The call that was accepted under a key, and when.
    keys: HashMap<(Owner, IdempotencyKey), (CallId, Timestamp)>,
    last_place: u64,
    ends: u64,
    transitions: u64,
}

struct Call {
    key: CallKey,
    created: Timestamp,
    request: CallRequest,
    starts: u32,
    crashes: u32,
    state: State,
    /// Counts ends: what ended first has the least.
    end: u64,
}

enum State {
    Pending,
    Running,
    Ended(Timestamp, CallResult),
    Gone(Timestamp),
}

impl Call {
    fn owner(&self) -> Owner {
        owner(&self.key)
    }

    fn waits(&self) -> bool {
        matches!(self.state, State::Pending)
    }

    fn runs(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Since when it has ended, and with how many bytes.
    fn result(&self) -> Option<(Timestamp, u64)> {
        match &self.state {
            State::Ended(at, result) => Some((*at, result.kept_bytes())),
            State::Pending | State::Running | State::Gone(_) => None,
        }
    }

    fn gone_since(&self) -> Option<Timestamp> {
        match self.state {
            State::Gone(at) => Some(at),
            State::Pending | State::Running | State::Ended(..) => None,
        }
    }

    fn listed(&self) -> Option<Listed> {
        let (state, message) = match &self.state {
            State::Pending => (CallState::Pending, None),
            State::Running => (CallState::Running, None),
            State::Ended(_, result) => (result.verdict.state(), result.message.clone()),
            State::Gone(_) => return None,
        };
        Some(Listed { call_id: self.key.call_id, created: self.created, state, message })
    }
}

fn owner(key: &CallKey) -> Owner {
    (key.account.clone(), key.function.clone())
}

fn found<T>(found: Option<T>) -> Result<T, Error> {
    found.ok_or(Error::NotFound)
}

/// Functions.
impl Data {
    fn create_function(&mut self, function: &Function, quota: Quota) -> Result<(), Error> {
        let owner = (function.account.clone(), function.name.clone());
        if self.functions.contains_key(&owner) {
            return Err(Error::NameTaken(function.name.clone()));
        }
        let used = self.functions.keys().filter(|(account, _)| *account == function.account).count() as u64;
        if used >= quota.functions {
            return Err(Error::QuotaFull { kind: QuotaKind::Functions, used, limit: quota.functions });
        }
        self.functions.insert(owner, function.clone());
        Ok(())
    }

    fn update_function(&mut self, function: &Function) -> Result<(), Error> {
        let current = found(self.functions.get_mut(&(function.account.clone(), function.name.clone())))?;
        *current = Function { created: current.created, ..function.clone() };
        Ok(())
    }

    fn remove_function(&mut self, owner: &Owner) -> Result<(), Error> {
        found(self.functions.remove(owner))?;
        self.calls.retain(|_, call| call.owner() != *owner);
        self.keys.retain(|(of, _), _| of != owner);
        Ok(())
    }
}

/// Images.
impl Data {
    fn put_image(&mut self, image: &Image, displaced: Displaced, quota: Quota) -> Result<(), Error> {
        if image.tag.is_none() {
            return Err(Error::NotFound);
        }
        let mut images = self.images.clone();
        let is_same_name = |other: &Image| {
            (&other.account, &other.repository, &other.tag) == (&image.account, &image.repository, &image.tag)
        };
        let old = images.iter().position(is_same_name).map(|at| images.remove(at));
        if let (Some(old), Displaced::Keep) = (old, displaced)
            && old.digest != image.digest
        {
            let untagged = Image { tag: None, ..old };
            // It may be kept already, since another tag has moved on from it.
            if images.iter().all(|other| ImageKey::from(other) != ImageKey::from(&untagged)) {
                images.push(untagged);
            }
        }
        let of_account = || images.iter().filter(|other| other.account == image.account);
        let refuse = |kind, used, limit| Err(Error::QuotaFull { kind, used, limit });
        let used = of_account().filter(|other| other.tag.is_some()).count() as u64;
        if used >= quota.images {
            return refuse(QuotaKind::Images, used, quota.images);
        }
        let others = of_account().filter(|other| other.digest != image.digest);
        let modules: HashMap<_, _> = others.map(|other| (other.digest, other.size_bytes)).collect();
        let used = modules.values().sum();
        if used + image.size_bytes > quota.image_bytes {
            return refuse(QuotaKind::ImageBytes, used, quota.image_bytes);
        }
        images.push(image.clone());
        images.sort_by_key(|image| (image.account.clone(), image.repository.clone(), image.tag.clone(), image.digest));
        self.images = images;
        Ok(())
    }

    fn remove_image(&mut self, key: &ImageKey) -> Result<(), Error> {
        let at = found(self.images.iter().position(|image| ImageKey::from(image) == *key))?;
        self.images.remove(at);
        Ok(())
    }
}

/// Calls.
impl Data {
    fn place(&self, key: &CallKey) -> Option<Place> {
        self.calls.iter().find(|(_, call)| call.key == *key).map(|(place, _)| *place)
    }

    fn of<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = (Place, &'a Call)> {
        self.calls.iter().filter(move |(_, call)| call.owner() == *owner).map(|(place, call)| (*place, call))
    }

    /// A call that is in such a state.
    fn find(&mut self, key: &CallKey, is_in_state: impl Fn(&Call) -> bool) -> Result<&mut Call, Error> {
        found(self.calls.values_mut().find(|call| call.key == *key && is_in_state(call)))
    }

    fn enqueue(&mut self, call: NewCall, keep: &Retention) -> Result<(Enqueued, Option<Place>), Error> {
        let NewCall { key, function_created, created, idempotency, request } = call;
        let owner = owner(&key);
        self.functions.get(&owner).filter(|function| function.created == function_created).ok_or(Error::NotFound)?;
        let keyed = idempotency.map(|asked| (owner.clone(), asked));
        let known = keyed.as_ref().and_then(|keyed| self.keys.get(keyed)).copied();
        if let Some((call_id, at)) = known
            && at > created.before(keep.key_ttl)
        {
            return Ok((Enqueued::Before(call_id), None));
        }
        if self.calls.values().any(|call| call.key.call_id == key.call_id) {
            return Err(Error::Failed("the call id is taken".to_owned()));
        }
        if let Some(keyed) = keyed {
            let remembered = self.keys.keys().filter(|(of, _)| *of == owner).count() as u64;
            if known.is_none() && remembered >= keep.function_keys {
                return Err(Error::KeysFull(keep.function_keys));
            }
            self.keys.insert(keyed, (key.call_id, created));
        }
        self.last_place += 1;
        let place = Place(self.last_place);
        self.calls.insert(place, Call { key, created, request, starts: 0, crashes: 0, state: State::Pending, end: 0 });
        Ok((Enqueued::Accepted, Some(place)))
    }

    fn claim(&mut self, key: &CallKey) -> Option<Start> {
        let call = self.find(key, Call::waits).ok()?;
        (call.state, call.starts) = (State::Running, call.starts + 1);
        Some(Start { number: call.starts, request: call.request.clone() })
    }

    fn give_back(&mut self, key: &CallKey, start: u32) -> Result<(), Error> {
        self.find(key, |call| call.runs() && call.starts == start)?.state = State::Pending;
        Ok(())
    }

    fn finish(
        &mut self,
        key: &CallKey,
        start: u32,
        result: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Result<(), Error> {
        let end = self.ends + 1;
        let call = self.find(key, |call| call.runs() && call.starts == start)?;
        (call.state, call.end) = (State::Ended(now, result), end);
        self.ends = end;
        self.rotate(&owner(key), now, keep);
        Ok(())
    }

    /// Lets the oldest go until the rest is within its bounds.
    fn rotate(&mut self, owner: &Owner, now: Timestamp, keep: &Retention) {
        let mut ended: Vec<_> = self
            .of(owner)
            .filter_map(|(place, call)| call.result().map(|(_, bytes)| (call.end, place, bytes)))
            .collect();
        ended.sort();
        let mut bytes: u64 = ended.iter().map(|(_, _, bytes)| bytes).sum();
        let mut results = ended.len() as u64;
        for (_, place, its_bytes) in ended {
            if bytes <= keep.function_bytes && results <= keep.function_calls {
                break;
            }
            (bytes, results) = (bytes - its_bytes, results - 1);
            self.go(place, now);
        }
        let mut gone: Vec<_> =
            self.of(owner).filter_map(|(place, call)| call.gone_since().map(|_| (call.end, place))).collect();
        gone.sort();
        let too_many = (gone.len() as u64).saturating_sub(keep.function_gone);
        for (_, place) in gone.into_iter().take(too_many as usize) {
            self.calls.remove(&place);
        }
    }

    fn go(&mut self, place: Place, now: Timestamp) {
        if let Some(call) = self.calls.get_mut(&place) {
            call.state = State::Gone(now);
        }
    }

    fn expire(&mut self, now: Timestamp, keep: &Retention) {
        let is_old = |call: &Call| call.result().is_some_and(|(at, _)| at <= now.before(keep.result_ttl));
        let old: Vec<Place> = self.calls.iter().filter(|(_, call)| is_old(call)).map(|(place, _)| *place).collect();
        old.into_iter().for_each(|place| self.go(place, now));
        self.calls.retain(|_, call| call.gone_since().is_none_or(|at| at > now.before(keep.gone_ttl)));
        self.keys.retain(|_, (_, at)| *at > now.before(keep.key_ttl));
        for owner in self.functions.keys().cloned().collect::<Vec<_>>() {
            self.rotate(&owner, now, keep);
        }
    }

    fn recover(
        &mut self,
        interrupted: &CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Result<(Vec<Waiting>, Vec<CallKey>), Error> {
        let mut failed = Vec::new();
        for call in self.calls.values_mut().filter(|call| call.runs()) {
            call.crashes += 1;
            if call.crashes < CRASHES_MAX {
                call.state = State::Pending;
            } else {
                failed.push((call.key.clone(), call.starts));
            }
        }
        for (key, start) in &failed {
            self.finish(key, *start, interrupted.clone(), now, keep)?;
        }
        let waiting = self.calls.iter().filter(|(_, call)| call.waits()).map(|(place, call)| Waiting {
            key: call.key.clone(),
            place: *place,
            created: call.created,
            bytes: call.request.bytes(),
        });
        Ok((waiting.collect(), failed.into_iter().map(|(key, _)| key).collect()))
    }

    fn known(&self, key: &CallKey) -> Option<KnownCall> {
        Some(match &self.calls[&self.place(key)?].state {
            State::Pending => KnownCall::Open(CallState::Pending),
            State::Running => KnownCall::Open(CallState::Running),
            State::Ended(at, result) => KnownCall::Ended { at: *at, result: result.clone() },
            State::Gone(_) => KnownCall::Gone,
        })
    }

    /// Removes a call that is in such a state.
    fn drop_call(&mut self, key: &CallKey, is_in_state: impl Fn(&Call) -> bool) -> Result<(), Error> {
        let place = found(self.place(key).filter(|place| is_in_state(&self.calls[place])))?;
        self.calls.remove(&place);
        Ok(())
    }

    fn tally(&self, owner: &Owner) -> Tally {
        let mut tally = Tally::default();
        for (_, call) in self.of(owner) {
            match &call.state {
                State::Pending => tally.pending += 1,
                State::Running => tally.running += 1,
                State::Ended(_, CallResult { verdict: Verdict::Finished, .. }) => tally.finished += 1,
                State::Ended(..) => tally.failed += 1,
                State::Gone(_) => {}
            }
        }
        tally
    }

    fn list(&self, owner: &Owner, after: Option<CallId>, limit: u32) -> Vec<Listed> {
        let first = match after {
            None => Some(Place(0)),
            Some(after) => match self.of(owner).find(|(_, call)| call.key.call_id == after) {
                Some((Place(known), _)) => Some(Place(known + 1)),
                None => self.of(owner).find(|(_, call)| call.key.call_id > after).map(|(place, _)| place),
            },
        };
        let Some(first) = first else { return Vec::new() };
        let listed = self.of(owner).filter(|(place, _)| *place >= first).filter_map(|(_, call)| call.listed());
        listed.take(limit as usize).collect()
    }
}

impl MemoryStore {
    fn read<'a, T: Send + 'a>(&self, read: impl FnOnce(&Data) -> T) -> Answer<'a, T> {
        Box::pin(ready(Ok(read(&self.0.lock().unwrap()))))
    }

    fn write<'a, T: Send + 'a>(&self, write: impl FnOnce(&mut Data) -> Result<T, Error>) -> Answer<'a, T> {
        let mut data = self.0.lock().unwrap();
        let answer = write(&mut data);
        data.transitions += u64::from(answer.is_ok());
        Box::pin(ready(answer))
    }
}

impl Store for MemoryStore {
    fn failed(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(pending())
    }

    fn functions(&self) -> Answer<'_, Vec<Function>> {
        self.read(|data| data.functions.values().cloned().collect())
    }

    fn images(&self) -> Answer<'_, Vec<Image>> {
        self.read(|data| data.images.clone())
    }

    fn create_function<'a>(&'a self, function: &'a Function, quota: Quota) -> Answer<'a, ()> {
        self.write(|data| data.create_function(function, quota))
    }

    fn update_function<'a>(&'a self, function: &'a Function) -> Answer<'a, ()> {
        self.write(|data| data.update_function(function))
    }

    fn remove_function<'a>(&'a self, account: &'a AccountId, name: &'a FunctionName) -> Answer<'a, ()> {
        self.write(|data| data.remove_function(&(account.clone(), name.clone())))
    }

    fn put_image<'a>(&'a self, image: &'a Image, displaced: Displaced, quota: Quota) -> Answer<'a, ()> {
        self.write(|data| data.put_image(image, displaced, quota))
    }

    fn remove_image<'a>(&'a self, key: &'a ImageKey) -> Answer<'a, ()> {
        self.write(|data| data.remove_image(key))
    }

    fn enqueue(&self, call: NewCall, keep: &Retention, on_accepted: OnAccepted) -> Answer<'_, Enqueued> {
        self.write(|data| {
            let (enqueued, place) = data.enqueue(call, keep)?;
            // Under the lock: in the order of places.
            if let Some(place) = place {
                on_accepted(place);
            }
            Ok(enqueued)
        })
    }

    fn call_of_key<'a>(
        &'a self,
        account: &'a AccountId,
        function: &'a FunctionName,
        key: IdempotencyKey,
        since: Timestamp,
    ) -> Answer<'a, Option<CallId>> {
        let keyed = ((account.clone(), function.clone()), key);
        self.read(|data| data.keys.get(&keyed).filter(|(_, at)| *at > since).map(|(call_id, _)| *call_id))
    }

    fn claim(&self, calls: Vec<CallKey>) -> Answer<'_, Vec<Option<Start>>> {
        self.write(|data| Ok(calls.iter().map(|call| data.claim(call)).collect()))
    }

    fn give_back<'a>(&'a self, call: &'a CallKey, start: u32) -> Answer<'a, ()> {
        self.write(|data| data.give_back(call, start))
    }

    fn finish<'a>(
        &'a self,
        call: &'a CallKey,
        start: u32,
        result: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Answer<'a, ()> {
        self.write(|data| data.finish(call, start, result, now, keep))
    }

    fn recover<'a>(
        &'a self,
        interrupted: CallResult,
        now: Timestamp,
        keep: &Retention,
    ) -> Answer<'a, (Vec<Waiting>, Vec<CallKey>)> {
        self.write(|data| data.recover(&interrupted, now, keep))
    }

    fn call<'a>(&'a self, call: &'a CallKey) -> Answer<'a, Option<KnownCall>> {
        self.read(|data| data.known(call))
    }

    fn function_of_call<'a>(&'a self, account: &'a AccountId, call_id: CallId) -> Answer<'a, Option<FunctionName>> {
        let is_meant = |call: &&Call| (&call.key.account, call.key.call_id) == (account, call_id);
        self.read(|data| data.calls.values().find(is_meant).map(|call| call.key.function.clone()))
    }

    fn drop_pending<'a>(&'a self, call: &'a CallKey) -> Answer<'a, ()> {
        self.write(|data| data.drop_call(call, Call::waits))
    }

    fn drop_result<'a>(&'a self, call: &'a CallKey) -> Answer<'a, ()> {
        self.write(|data| data.drop_call(call, |call| call.result().is_some()))
    }

    fn tally<'a>(&'a self, account: &'a AccountId, function: &'a FunctionName) -> Answer<'a, Tally> {
        self.read(|data| data.tally(&(account.clone(), function.clone())))
    }

    fn list_calls<'a>(
        &'a self,
        account: &'a AccountId,
        function: &'a FunctionName,
        after: Option<CallId>,
        limit: u32,
    ) -> Answer<'a, Vec<Listed>> {
        self.read(|data| data.list(&(account.clone(), function.clone()), after, limit))
    }

    fn expire(&self, now: Timestamp, keep: &Retention) -> Answer<'_, bool> {
        self.write(|data| {
            data.expire(now, keep);
            Ok(false)
        })
    }

    fn syncs(&self) -> u64 {
        self.0.lock().unwrap().transitions
    }
}
