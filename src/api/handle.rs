//! Route to verb to answer: one short function a route.

use super::answer::{self, Answer};
use super::auth::{is_media_type, open_to_this_machine};
use super::body::{self, Ends, Reader, check_framing};
use super::error::Error;
use super::query::Query;
use super::route::{Face, NoRoute, Path, Route};
use super::wire;
use super::{Api, Faces};
use crate::domain::{AccountId, FunctionName, FunctionUuid, ImageReference, Invalid, MB, STDIN_BYTES_MAX};
use crate::service;
use crate::service::calls::CallRequest;
use hyper::body::Incoming;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use std::sync::Arc;

/// The longest path and query together, in bytes.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// The largest JSON body, in bytes.
const JSON_BYTES_MAX: u64 = MB;
const JSON: &str = "application/json";
const WASM: &str = "application/wasm";

/// Answers the requests of one connection. A cheap clone.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) api: Arc<Api>,
    pub(super) faces: Faces,
    pub(super) ends: Ends,
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
        let path = Path::decode(parts.uri.path())?;
        check_framing(parts).map_err(Error::Framing)?;
        match path.face() {
            Some(face) if !self.faces.serve(face) => return Err(NoRoute::Unknown.into()),
            Some(Face::Management) => open_to_this_machine(&parts.headers)?,
            Some(Face::Functions) | None => {}
        }
        Ok(path.route(&parts.method)?)
    }

    async fn dispatch(&self, route: Route<'_>, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        // A call asks the scheduler, which knows it as well.
        if !matches!(route, Route::CallSync { .. }) && self.api.service.draining() {
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
            Route::CallSync { name, uuid } => self.call_sync(&name, &uuid, parts, body).await,
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

    async fn call_sync(&self, name: &str, uuid: &str, parts: &Parts, body: Incoming) -> Result<Answer, Error> {
        let service = &self.api.service;
        let address = FunctionUuid::parse(uuid).and_then(|uuid| service.address(name, uuid));
        let function = address.ok_or(Error::NoSuchAddress)?;
        let reader = Reader::new(body, STDIN_BYTES_MAX as u64)?;
        let room = service.make_room_for_body(reader.bytes_max())?;
        let body = reader.whole().await?;
        drop(room);
        let variables = body::variables(parts, self.ends, name, &body)?;
        let ended = service.call_sync(function, CallRequest { body, variables }).await?;
        Ok(answer::ended(ended, &parts.headers))
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
        Error::Service(service::Error::Failure(failure)) => tracing::error!(%failure, "a request failed"),
        // What it named stays out of the log: a function's address may stand where it should not.
        Error::Service(_) | Error::Invalid(_) => {
            tracing::debug!(status = error.status().as_u16(), "a request was refused");
        }
        other => tracing::debug!(error = %other, "a request was refused"),
    }
}
