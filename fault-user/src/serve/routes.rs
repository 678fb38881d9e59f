//! What can be asked of the service.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::task::spawn_blocking;
use utoipa::{ToSchema, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    api::{self, Faulty, Guarded, Id, Named, Over, Sent, Wrong},
    connection::{Connection, Peer},
    error::{ApiError, Code},
    hub::{Entry, Hub, View},
    metrics,
    owner::{Command, Draft},
    request::{Body, Create, Explain, Faults, Lease},
    stream,
    token::Token,
};
use crate::{
    explained::{Explained, explain},
    kernel::{doctor, probe::Capabilities},
    report::{RuleReport, SessionReport},
    session::End,
    spec::Layer,
};

/// Everything a request may need.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) hub: Arc<Hub>,
    /// Who may ask over a Unix socket.
    pub(super) users: Arc<[u32]>,
    /// What who asks over TCP has to know.
    pub(super) token: Option<Arc<Token>>,
}

/// All sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct Sessions {
    sessions: Vec<View>,
}

/// A session that has other faults now.
#[derive(Serialize, ToSchema)]
pub(super) struct Changed {
    #[serde(flatten)]
    session: View,
    /// What the faults that went had done.
    replaced: Vec<RuleReport>,
}

type Answer<T = Response> = Result<T, ApiError>;

/// All routes, and their description made from the very same list.
fn described() -> (Router<Service>, OpenApi) {
    OpenApiRouter::with_openapi(api::document())
        .routes(routes!(list, create))
        .routes(routes!(show, delete))
        .routes(routes!(change))
        .routes(routes!(renew))
        .routes(routes!(listen))
        .routes(routes!(examine))
        .routes(routes!(say))
        .routes(routes!(measure))
        .routes(routes!(describe))
        .split_for_parts()
}

/// The description of all routes.
pub(super) fn document() -> OpenApi {
    described().1
}

pub(super) fn router(service: Service) -> Router {
    described()
        .0
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(service.clone(), guard))
        .with_state(service)
}

/// Lets only those in who may ask, and keeps the connection while they are answered.
async fn guard(
    State(service): State<Service>,
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Answer {
    let _busy = connection.busy();
    match connection.peer {
        Peer::User(Some(uid)) if service.users.contains(&uid) => Ok(next.run(request).await),
        Peer::User(uid) => {
            let who = uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
            let next = "ask as root, or start the service with --allow-uid";
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                Code::NotAllowed,
                format!("{who} may not use this service"),
                next,
            ))
        }
        Peer::Network if service.token.as_ref().is_some_and(|token| token.is_in(request.headers())) => {
            Ok(next.run(request).await)
        }
        Peer::Network => {
            let next = "send `Authorization: Bearer TOKEN`, with what is in the service's --token-file";
            let message = "over TCP, the service answers only who knows its token";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, Code::NoToken, message, next))
        }
    }
}

async fn nothing(request: Request) -> ApiError {
    let message = format!("there is nothing at {}", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, Code::NoSuchPath, message, "docs/service.md has all paths")
}

async fn not_so(request: Request) -> ApiError {
    let message = format!("{} cannot be asked with {}", request.uri().path(), request.method());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Code::NoSuchMethod,
        message,
        "docs/service.md has all methods",
    )
}

/// Does what blocks, elsewhere.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

/// Arms faults for a target and activates them.
#[utoipa::path(post, path = "/v1/sessions", request_body = Create, responses(
    (status = 201, description = "Active.", body = View, headers(("Location" = String, description = "Its path."))),
    Guarded, Sent, Faulty
))]
async fn create(
    State(service): State<Service>,
    Extension(connection): Extension<Connection>,
    Body(request): Body<Create>,
) -> Answer {
    let permit = service.hub.place()?;
    let (lease, events, keeper) = (request.lease()?, request.events, service.hub.keeper.pid());
    let (plan, target) = blocking(move || request.resolve(keeper)).await?;
    let open = connection.open.clone();
    let draft = Draft { plan, target, lease, open, events, permit };
    let entry = service.hub.create(draft).await?;
    if lease == Lease::Connection {
        connection.lease();
    }
    let location = format!("/v1/sessions/{}", entry.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(entry.view().await?)).into_response())
}

/// Active sessions, and those that have ended and were not deleted yet.
#[utoipa::path(get, path = "/v1/sessions", responses((status = 200, description = "All.", body = Sessions), Guarded))]
async fn list(State(service): State<Service>) -> Answer<Json<Sessions>> {
    let mut sessions = Vec::new();
    for entry in service.hub.all() {
        sessions.push(entry.view().await?);
    }
    Ok(Json(Sessions { sessions }))
}

/// One session, with its counters.
#[utoipa::path(get, path = "/v1/sessions/{id}", params(Id), responses(
    (status = 200, description = "It.", body = View), Guarded, Named
))]
async fn show(State(service): State<Service>, Path(id): Path<String>) -> Answer<Json<View>> {
    Ok(Json(service.hub.get(&id)?.view().await?))
}

/// Heals a session and forgets it.
#[utoipa::path(delete, path = "/v1/sessions/{id}", params(Id), responses(
    (status = 200, description = "Its report.", body = SessionReport), Guarded, Named
))]
async fn delete(State(service): State<Service>, Path(id): Path<String>) -> Answer<Json<SessionReport>> {
    let entry = service.hub.get(&id)?;
    entry.end(End::Deleted).await;
    let report = entry.wait().await;
    service.hub.forget(&entry);
    Ok(Json(SessionReport::clone(&*report?)))
}

fn gone(entry: &Entry) -> ApiError {
    let next = "GET the session for its report, or create another";
    ApiError::new(
        StatusCode::CONFLICT,
        Code::Healed,
        format!("session {} is not active any more", entry.id),
        next,
    )
}

/// Puts other faults into force. When they are refused, the old ones stay.
#[utoipa::path(put, path = "/v1/sessions/{id}/faults", params(Id), request_body = Faults, responses(
    (status = 200, description = "The session.", body = Changed), Guarded, Named, Sent, Faulty, Over
))]
async fn change(
    State(service): State<Service>,
    Path(id): Path<String>,
    Body(faults): Body<Faults>,
) -> Answer<Json<Changed>> {
    let entry = service.hub.get(&id)?;
    let seed = entry.seed();
    let plan = blocking(move || faults.plan(Some(seed), None)).await?;
    let replaced = entry.ask(|answer| Command::Change(Box::new(plan), answer)).await;
    let replaced = replaced.ok_or_else(|| gone(&entry))??;
    Ok(Json(Changed { session: entry.view().await?, replaced }))
}

/// The lease runs anew.
#[utoipa::path(post, path = "/v1/sessions/{id}/lease", params(Id), responses(
    (status = 204, description = "It does."), Guarded, Named, Over
))]
async fn renew(State(service): State<Service>, Path(id): Path<String>) -> Answer<StatusCode> {
    let entry = service.hub.get(&id)?;
    entry.ask(Command::Renew).await.ok_or_else(|| gone(&entry))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Injections, one line each, until the session ends; then one line that says how many are missing.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", params(Id), responses(
    (status = 200, description = "Lines of JSON, or server-sent events when the client accepts those.", content(
        (String = stream::LINES), (String = stream::SERVER_SENT)
    )),
    Guarded, Named, Over
))]
async fn listen(
    State(service): State<Service>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    let entry = service.hub.get(&id)?;
    let Some(listeners) = &entry.listeners else {
        let next = "create the session with \"events\": true";
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            Code::NoEvents,
            format!("session {id} keeps no events"),
            next,
        ));
    };
    let receiver = listeners.upgrade().ok_or_else(|| gone(&entry))?.subscribe();
    let listen = if stream::is_server_sent(&headers) { stream::server_sent } else { stream::lines };
    Ok(listen(receiver, entry, connection.busy()))
}

/// What this kernel can do, what it cannot, and what to change.
#[utoipa::path(get, path = "/v1/doctor", responses(
    (status = 200, description = "As `fault doctor --json`.", body = doctor::Report<'static>), Guarded
))]
async fn examine() -> Answer {
    let text = blocking(|| {
        let mut text = Vec::new();
        doctor::write_json(&Capabilities::probe(), &mut text)
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(text)
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], text.await?).into_response())
}

/// What a spec will do, in plain words.
#[utoipa::path(post, path = "/v1/explain", request_body = Explain, responses(
    (status = 200, description = "For each layer that has such a spec.", body = Vec<Explained>), Guarded, Sent, Wrong
))]
async fn say(Body(request): Body<Explain>) -> Answer {
    let layer = request.layer.as_deref().map(layer).transpose()?;
    let explained = blocking(move || Ok(explain(&request.spec, layer)?)).await?;
    Ok(Json(explained).into_response())
}

fn layer(name: &str) -> Answer<Layer> {
    let found = Layer::ALL.iter().find(|layer| layer.name() == name).copied();
    found.ok_or_else(|| {
        let names: Vec<_> = Layer::ALL.iter().map(|layer| layer.name()).collect();
        ApiError::bad_request(format!("layer: there is no {name:?}, only {}", names.join(", ")))
    })
}

/// Counters of active sessions.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "OpenMetrics.", body = String, content_type = "application/openmetrics-text"), Guarded
))]
async fn measure(State(service): State<Service>) -> Response {
    ([(header::CONTENT_TYPE, metrics::TYPE)], metrics::text(&service.hub).await).into_response()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", responses(
    (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value), Guarded
))]
async fn describe() -> Json<OpenApi> {
    Json(document())
}
