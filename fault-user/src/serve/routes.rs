//! What can be asked of the service.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{sync::broadcast::error::RecvError, task::spawn_blocking};

use super::{
    connection::Connection,
    error::ApiError,
    hub::{Entry, Hub},
    metrics,
    owner::{Command, Draft},
    request::{Body, Create, Explain, Faults, Lease},
};
use crate::{
    explained::explain,
    kernel::{doctor, probe::Capabilities},
    session::End,
    spec::Layer,
};

/// Everything a request may need.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) hub: Arc<Hub>,
    /// Who may ask.
    pub(super) users: Arc<[u32]>,
}

type Answer<T = Response> = Result<T, ApiError>;

pub(super) fn router(service: Service) -> Router {
    Router::new()
        .route("/v1/sessions", get(list).post(create))
        .route("/v1/sessions/{id}", get(show).delete(delete))
        .route("/v1/sessions/{id}/faults", put(change))
        .route("/v1/sessions/{id}/lease", post(renew))
        .route("/v1/sessions/{id}/events", get(listen))
        .route("/v1/doctor", get(examine))
        .route("/v1/explain", post(say))
        .route("/metrics", get(measure))
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
    match connection.uid {
        Some(uid) if service.users.contains(&uid) => Ok(next.run(request).await),
        uid => {
            let who = uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
            let next = "ask as root, or start the service with --allow-uid";
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "not_allowed",
                format!("{who} may not use this service"),
                next,
            ))
        }
    }
}

async fn nothing(request: Request) -> ApiError {
    let message = format!("there is nothing at {}", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "no_such_path", message, "docs/service.md has all paths")
}

async fn not_so(request: Request) -> ApiError {
    let message = format!("{} cannot be asked with {}", request.uri().path(), request.method());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        message,
        "docs/service.md has all methods",
    )
}

/// Does what blocks, elsewhere.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
}

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

async fn list(State(service): State<Service>) -> Answer<Json<Value>> {
    let mut views = Vec::new();
    for entry in service.hub.all() {
        views.push(entry.view().await?);
    }
    Ok(Json(json!({"sessions": views})))
}

async fn show(State(service): State<Service>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(service.hub.get(&id)?.view().await?))
}

async fn delete(State(service): State<Service>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let entry = service.hub.get(&id)?;
    entry.end(End::Deleted).await;
    let report = entry.wait().await;
    service.hub.forget(&entry);
    Ok(Json(json!(*report?)))
}

fn gone(entry: &Entry) -> ApiError {
    let next = "GET the session for its report, or create another";
    ApiError::new(
        StatusCode::CONFLICT,
        "healed",
        format!("session {} is not active any more", entry.id),
        next,
    )
}

async fn change(
    State(service): State<Service>,
    Path(id): Path<String>,
    Body(faults): Body<Faults>,
) -> Answer<Json<Value>> {
    let entry = service.hub.get(&id)?;
    let seed = entry.seed();
    let plan = blocking(move || faults.plan(Some(seed), None)).await?;
    let replaced = entry.ask(|answer| Command::Change(Box::new(plan), answer)).await;
    let replaced = replaced.ok_or_else(|| gone(&entry))??;
    let mut view = entry.view().await?;
    view["replaced"] = json!(replaced);
    Ok(Json(view))
}

async fn renew(State(service): State<Service>, Path(id): Path<String>) -> Answer<StatusCode> {
    let entry = service.hub.get(&id)?;
    entry.ask(Command::Renew).await.ok_or_else(|| gone(&entry))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Injections, one line each, until the session ends; then one line that says how many are missing.
async fn listen(
    State(service): State<Service>,
    Extension(connection): Extension<Connection>,
    Path(id): Path<String>,
) -> Answer {
    let entry = service.hub.get(&id)?;
    let Some(listeners) = &entry.listeners else {
        let next = "create the session with \"events\": true";
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "no_events",
            format!("session {id} keeps no events"),
            next,
        ));
    };
    let receiver = listeners.upgrade().ok_or_else(|| gone(&entry))?.subscribe();
    let start = (Some(receiver), entry, None::<u64>, 0u64, connection.busy());
    let lines = stream::unfold(start, |(receiver, entry, next, lost, busy)| async move {
        let mut receiver = receiver?;
        loop {
            match receiver.recv().await {
                Ok(chunk) => {
                    // The first line that is heard is where listening began.
                    let missed = chunk.first - next.unwrap_or(chunk.first);
                    let mut text = Vec::new();
                    if missed > 0 {
                        text.extend(format!("{}\n", json!({"lost": missed})).bytes());
                    }
                    text.extend(&chunk.text);
                    let state = (Some(receiver), entry, Some(chunk.first + chunk.lines), lost + missed, busy);
                    return Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), state));
                }
                // The next chunk shows how many lines that were.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => {
                    let report = entry.wait().await.ok();
                    let kernel =
                        report.map(|report| report.counters.get(fault_common::counters::Counter::EventsLost));
                    let end = format!("{}\n", json!({"end": {"lost": lost, "lost_in_kernel": kernel}}));
                    return Some((Ok(Bytes::from(end)), (None, entry, next, lost, busy)));
                }
            }
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, axum::body::Body::from_stream(lines)).into_response())
}

async fn examine() -> Answer {
    let text = blocking(|| {
        let mut text = Vec::new();
        doctor::write_json(&Capabilities::probe(), &mut text)
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(text)
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], text.await?).into_response())
}

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

async fn measure(State(service): State<Service>) -> Response {
    ([(header::CONTENT_TYPE, metrics::TYPE)], metrics::text(&service.hub).await).into_response()
}
