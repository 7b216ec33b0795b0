//! Route to verb to answer: one short function a route.

use super::answer::{self, Answer};
use super::auth::{called_as_this_machine, is_media_type, open_to_this_machine};
use super::body::{self, Ends, Reader, check_framing};
use super::delivery::Deliveries;
use super::error::Error;
use super::query::Query;
use super::route::{self, Address, Face, NoRoute, Path, Route, Wait};
use super::wire;
use super::{Api, Faces, Refused};
use crate::domain::{
    AccountId, CallId, CallKey, CallRequest, FunctionName, FunctionUuid, ImageReference, Invalid, MB, STDIN_BYTES_MAX,
};
use crate::service::logs::{LogEntries, LogQuery};
use crate::service::results::Output;
use crate::service::{self, Callable};
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest path and query together, in bytes.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// The largest JSON body, in bytes.
const JSON_BYTES_MAX: u64 = MB;
/// Calls in one page of a list, at most and unless something else is asked for.
const LIST_CALLS_MAX: u32 = 10_000;
const LIST_CALLS: u32 = 1_000;
/// The longest `Idempotency-Key`, in bytes.
const KEY_BYTES_MAX: usize = 255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const JSON: &str = "application/json";
const WASM: &str = "application/wasm";

/// Answers the requests of one connection. A cheap clone.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) api: Arc<Api>,
    pub(super) faces: Faces,
    pub(super) ends: Ends,
    pub(super) deliveries: Deliveries,
    pub(super) upgrade: Upgrade,
}

/// What a connection carries once it was told that it does not carry HTTP any more. A cheap clone.
#[derive(Clone, Default)]
pub(super) struct Upgrade(Arc<Mutex<Option<LogEntries>>>);

impl Upgrade {
    fn set(&self, entries: LogEntries) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(entries);
    }

    pub(super) fn take(&self) -> Option<LogEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Handler {
    pub(super) async fn answer(self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let route = self.route(&parts);
        let result = match route {
            Ok(route) => self.dispatch(route, &parts, body).await,
            Err(error) => Err(error),
        };
        let mut answer = result.unwrap_or_else(|error| {
            log(&error);
            self.tell_developer(&error, &parts);
            error.answer(&parts.headers)
        });
        if self.faces == Faces::Both {
            // What a guest wrote, or a module brought, must not act as a page of the management API beside it.
            let headers = answer.headers_mut();
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        answer
    }

    /// What is asked for, if whoever asks may.
    fn route<'a>(&self, parts: &'a Parts) -> Result<Route<'a>, Error> {
        let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target > TARGET_BYTES_MAX {
            return Err(Error::TargetTooLong(TARGET_BYTES_MAX));
        }
        let is_root = self.api.root.is_some() && parts.uri.path() == "/";
        let path = if is_root { None } else { Some(Path::decode(parts.uri.path())?) };
        check_framing(parts).map_err(Error::Framing)?;
        let Some(path) = path else {
            // No address is needed there. A foreign page whose DNS was rebound could read what only this machine may.
            if self.ends.local.ip().is_loopback() {
                called_as_this_machine(&parts.headers)?;
            }
            return Ok(route::root(&parts.method)?);
        };
        match path.face() {
            Some(face) if !self.faces.serve(face) => return Err(self.no_route().into()),
            Some(Face::Management) => open_to_this_machine(&parts.headers)?,
            Some(Face::Functions | Face::Metrics) | None => {}
        }
        Ok(path.route(&parts.method)?)
    }

    fn no_route(&self) -> NoRoute {
        if self.api.root.is_some() { NoRoute::BesideRoot } else { NoRoute::Unknown }
    }

    async fn dispatch(&self, route: Route<'_>, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        // A call asks the scheduler, which knows it as well; whoever measures wants to see how the server ends.
        if !matches!(route, Route::CallRoot | Route::CallSync(_) | Route::CallAsync(_) | Route::Metrics)
            && self.api.service.draining()
        {
            return Err(Error::Draining);
        }
        match route {
            Route::Ping => Ok(answer::pong()),
            Route::Version => Ok(answer::json(StatusCode::OK, &wire::version())),
            Route::Info => Ok(self.info()),
            Route::ListFunctions => self.list_functions(parts),
            Route::CreateFunction => self.create_function(parts, body).await,
            Route::InspectFunction(name) => self.inspect_function(&name),
            Route::UpdateFunction(name) => self.update_function(&name, parts, body).await,
            Route::RemoveFunction(name) => self.remove_function(&name, parts).await,
            Route::ListImages => self.list_images(parts),
            Route::LoadImage => self.load_image(parts, body).await,
            Route::InspectImage(name) => self.inspect_image(&name),
            Route::RemoveImage(name) => self.remove_image(name, parts).await,
            Route::FunctionOfCall(call_id) => self.function_of_call(&call_id).await,
            Route::CallRoot => match &self.api.root {
                Some(root) => self.call_sync(Arc::clone(&root.function), parts, body).await,
                None => Err(NoRoute::Unknown.into()),
            },
            Route::CallSync(address) => self.call_sync(self.function(&address)?, parts, body).await,
            Route::CallAsync(address) => self.call_async(self.function(&address)?, parts, body).await,
            Route::Output(address, call_id, wait) => self.output(&address, &call_id, wait, parts).await,
            Route::Stderr(address, call_id) => self.stderr(&address, &call_id).await,
            Route::Discard(address, call_id) => self.discard(&address, &call_id).await,
            Route::Logs(address) => self.logs(&address, parts).await,
            Route::Status(address) => self.status(&address, parts).await,
            Route::Metrics => Ok(answer::metrics(self.api.service.metrics())),
        }
    }

    fn info(&self) -> Answer {
        let info = wire::Info {
            counts: self.api.service.counts(&account()),
            settings: self.api.service.settings(),
            func_endpoint: self.api.func_endpoint.as_deref(),
            func_listen: self.api.func_listen,
            memory_total: self.api.memory_total,
        };
        answer::json(StatusCode::OK, &wire::info(&info))
    }

    fn list_functions(&self, parts: &Parts) -> Result<Answer, Error> {
        let filters = wire::function_filters(&Query::of(parts).text("filters").unwrap_or_default())?;
        let functions = self.api.service.functions(&account(), &filters);
        let listed: Vec<_> = functions.iter().map(|function| wire::func(function, &[])).collect();
        Ok(answer::json(StatusCode::OK, &listed))
    }

    async fn create_function(&self, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        let wire::Create { name, change } = wire::from_json(&json_body(parts, body).await?)?;
        let created = self.api.service.create_function(account(), name, change).await?;
        Ok(answer::json(StatusCode::CREATED, &wire::func(&created.function, &created.warnings)))
    }

    fn inspect_function(&self, name: &str) -> Result<Answer, Error> {
        let described = self.api.service.inspect_function(&account(), &function_name(name)?)?;
        Ok(answer::json(StatusCode::OK, &wire::func(&described.function, &described.warnings)))
    }

    async fn update_function(&self, name: &str, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        let name = function_name(name)?;
        let update: wire::Update = wire::from_json(&json_body(parts, body).await?)?;
        if update.name.is_some_and(|written| written != name.as_str()) {
            return Err(
                Invalid::new("Name", format!("a function keeps its name: leave it out, or write {name}")).into()
            );
        }
        let updated = self.api.service.update_function(account(), name, update.change, update.refresh).await?;
        Ok(answer::json(StatusCode::OK, &wire::func(&updated.function, &updated.warnings)))
    }

    async fn remove_function(&self, name: &str, parts: &Parts) -> Result<Answer, Error> {
        let force = Query::of(parts).flag("force")?;
        self.api.service.remove_function(account(), function_name(name)?, force).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    fn list_images(&self, parts: &Parts) -> Result<Answer, Error> {
        let query = Query::of(parts);
        let filters = wire::image_filters(query.text("filter").as_deref(), query.text("filters").as_deref())?;
        let images = self.api.service.images(&account());
        let listed: Vec<_> = images.iter().filter(|image| filters.take(image)).map(wire::listed).collect();
        Ok(answer::json(StatusCode::OK, &listed))
    }

    async fn load_image(&self, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        let query = Query::of(parts);
        let quiet = query.flag("quiet")?;
        let name = query.text("name").unwrap_or_default();
        let reference = ImageReference::parse(&name).map_err(|problem| Invalid::new("name", problem))?;
        if reference.digest().is_some() {
            return Err(Invalid::new("name", "a digest is computed, not given").into());
        }
        if !is_media_type(&parts.headers, WASM) {
            return Err(Error::MediaType(WASM));
        }
        let service = &self.api.service;
        let mut reader = Reader::new(body, service.settings().image_bytes_max)?;
        let mut upload = service.begin_upload().await?;
        while let Some(piece) = reader.next().await? {
            upload.write(&piece)?;
        }
        let received = service.receive(&account(), &reference, upload).await?;
        let tagged = reference.tagged();
        let loading = service.load_image(account(), reference, received);
        if quiet {
            loading.await?;
            return Ok(answer::loaded(&tagged));
        }
        Ok(answer::loading(tagged, loading))
    }

    fn inspect_image(&self, name: &str) -> Result<Answer, Error> {
        let image = self.api.service.inspect_image(&account(), name)?;
        Ok(answer::json(StatusCode::OK, &wire::inspected(&image)))
    }

    async fn remove_image(&self, name: String, parts: &Parts) -> Result<Answer, Error> {
        let force = Query::of(parts).flag("force")?;
        let removed = self.api.service.remove_image(account(), name, force).await?;
        Ok(answer::json(StatusCode::OK, &wire::removed(&removed)))
    }

    async fn function_of_call(&self, call_id: &str) -> Result<Answer, Error> {
        let call_id = CallId::parse(call_id).ok_or(Error::NoSuchCall)?;
        let function = self.api.service.function_of_call(&account(), call_id).await?.ok_or(Error::NoSuchCall)?;
        let described = self.api.service.inspect_function(&account(), &function.name)?;
        Ok(answer::json(StatusCode::OK, &wire::func(&described.function, &described.warnings)))
    }

    /// The function that has this address. To a stranger all that is wrong with one looks the same.
    fn function(&self, address: &Address<'_>) -> Result<Arc<Callable>, Error> {
        let uuid = FunctionUuid::parse(&address.uuid);
        uuid.and_then(|uuid| self.api.service.address(&address.name, uuid)).ok_or(Error::NoSuchAddress)
    }

    fn call_key(&self, address: &Address<'_>, call_id: &str) -> Result<CallKey, Error> {
        let function = self.function(address)?;
        let call_id = CallId::parse(call_id).ok_or(Error::NoSuchCall)?;
        Ok(function.call_key(call_id))
    }

    /// Takes in what a call brings.
    async fn call_request(&self, function: &Callable, parts: &Parts, body: Incoming) -> Result<CallRequest, Error> {
        let reader = Reader::new(body, STDIN_BYTES_MAX as u64)?;
        let room = self.api.service.make_room_for_body(reader.bytes_max())?;
        let body = reader.whole().await?;
        drop(room);
        let variables = body::variables(parts, self.ends, function.name.as_str(), &body)?;
        Ok(CallRequest { body, variables })
    }

    async fn call_sync(&self, function: Arc<Callable>, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        let request = self.call_request(&function, parts, body).await?;
        let ended = self.api.service.call_sync(function, request).await?;
        let mut answer = answer::result(ended.call_id, ended.result, &parts.headers);
        answer::time(&mut answer, &ended.phases);
        Ok(answer)
    }

    async fn call_async(&self, function: Arc<Callable>, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        let key = parts.headers.get(&IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
        if key.is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(Invalid::new("Idempotency-Key", format!("must have 1 to {KEY_BYTES_MAX} bytes")).into());
        }
        let request = self.call_request(&function, parts, body).await?;
        let call_id = self.api.service.call_async(function, request, key).await?;
        Ok(answer::json(StatusCode::OK, &wire::accepted(call_id)))
    }

    async fn output(&self, address: &Address<'_>, call_id: &str, wait: Wait, parts: &Parts) -> Result<Answer, Error> {
        let key = self.call_key(address, call_id)?;
        let keep = Query::of(parts).flag("keep")?;
        let result = match self.api.service.output(&key, wait == Wait::UntilEnded).await? {
            Output::Open(state) => return Ok(answer::open(state)),
            Output::Gone => return Err(Error::Gone),
            Output::Unknown => return Err(Error::NoSuchCall),
            Output::Ended(result) => result,
        };
        let answer = answer::result(key.call_id, result, &parts.headers);
        if keep {
            return Ok(answer);
        }
        let service = self.api.service.clone();
        let on_begun = move || service.forget_when_arrived(key);
        Ok(answer::delivered(answer, self.deliveries.prepare(on_begun)))
    }

    async fn stderr(&self, address: &Address<'_>, call_id: &str) -> Result<Answer, Error> {
        let key = self.call_key(address, call_id)?;
        match self.api.service.output(&key, false).await? {
            Output::Open(state) => Ok(answer::open(state)),
            Output::Gone => Err(Error::Gone),
            Output::Unknown => Err(Error::NoSuchCall),
            Output::Ended(result) => Ok(answer::guest_bytes(result.stderr)),
        }
    }

    async fn discard(&self, address: &Address<'_>, call_id: &str) -> Result<Answer, Error> {
        let key = self.call_key(address, call_id)?;
        let was_there = self.api.service.discard(&key).await?;
        if was_there { Ok(answer::empty(StatusCode::NO_CONTENT)) } else { Err(Error::NoSuchCall) }
    }

    async fn logs(&self, address: &Address<'_>, parts: &Parts) -> Result<Answer, Error> {
        let function = self.function(address)?;
        let query = Query::of(parts);
        let query = LogQuery { call_id: query.call_id("callid")?, tail: query.tail()?, follow: query.flag("follow")? };
        let entries = self.api.service.log(&function, query).await?;
        if body::asks_for_raw_tcp(&parts.headers) {
            self.upgrade.set(entries);
            return Ok(answer::upgraded());
        }
        Ok(answer::log(entries))
    }

    fn tell_developer(&self, error: &Error, parts: &Parts) {
        if let Some(root) = &self.api.root {
            let (status, why) = (error.status().as_u16(), &error.text());
            (root.on_refused)(&Refused { method: parts.method.as_str(), path: parts.uri.path(), status, why });
        }
    }

    async fn status(&self, address: &Address<'_>, parts: &Parts) -> Result<Answer, Error> {
        let function = self.function(address)?;
        let query = Query::of(parts);
        let limit = query.number("limit", 1..=LIST_CALLS_MAX)?.unwrap_or(LIST_CALLS);
        let (after, lists) = (query.call_id("after")?, query.flag("list")?);
        let service = &self.api.service;
        let tally = service.tally(&function).await?;
        let list = if lists { Some(service.list_calls(&function, after, limit).await?) } else { None };
        Ok(answer::json(StatusCode::OK, &wire::status(tally, list)))
    }
}

/// Whoever may manage, manages this account.
fn account() -> AccountId {
    AccountId::open_to_this_machine()
}

/// A function's name as a path carries it: what cannot be one is not there.
fn function_name(name: &str) -> Result<FunctionName, Error> {
    FunctionName::new(name).map_err(|_| service::Error::NoSuchFunction(name.escape_debug().to_string()).into())
}

async fn json_body(parts: &Parts, body: Incoming) -> Result<bytes::Bytes, Error> {
    let body = Reader::new(body, JSON_BYTES_MAX)?.whole().await?;
    if body.is_empty() || is_media_type(&parts.headers, JSON) { Ok(body) } else { Err(Error::MediaType(JSON)) }
}

/// A fault of ours is told in the log, and there alone. What concerns a call, the call has logged.
fn log(error: &Error) {
    match error {
        Error::Service(service::Error::Failure(failure)) | Error::Failure(failure) => {
            tracing::error!(%failure, "a request failed");
        }
        // What it named stays out of the log: a function's address may stand where it should not.
        Error::Service(_) | Error::Invalid(_) => {
            tracing::debug!(status = error.status().as_u16(), "a request was refused");
        }
        other => tracing::debug!(error = %other, "a request was refused"),
    }
}
