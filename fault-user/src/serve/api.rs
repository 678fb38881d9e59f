//! What the description of the service (OpenAPI 3.1) says beyond the types and the routes it is derived from.

use std::collections::BTreeMap;

use utoipa::{
    IntoParams, IntoResponses, OpenApi, ToSchema as _,
    openapi::{self, ContentBuilder, RefOr, Response, ResponseBuilder, Responses, schema::Ref},
};

use super::error::Refusal;

/// What every description begins with.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "fault",
        description = "Partial failure for chosen processes: sessions of faults, over HTTP. The language of specs is that of the command line."
    ),
    components(schemas(Refusal))
)]
struct Document;

/// The beginning of the description.
pub(super) fn document() -> openapi::OpenApi {
    Document::openapi()
}

/// The id in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Id {
    /// Of a session.
    #[expect(dead_code, reason = "handlers take it out of the path as a string")]
    id: String,
}

/// Refusals of every request.
pub(super) enum Guarded {}
/// Refusals of requests that name a session.
pub(super) enum Named {}
/// Refusals of requests with a body.
pub(super) enum Sent {}
/// Refusals of specs.
pub(super) enum Wrong {}
/// Refusals of faults and targets.
pub(super) enum Faulty {}
/// Refusals of sessions that are over, or not made for that.
pub(super) enum Over {}

impl IntoResponses for Guarded {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[
            (401, "`no_token`: over TCP, without the token."),
            (403, "`not_allowed`: another user than those who may ask."),
            (500, "`internal`: something of the service's went wrong."),
        ])
    }
}

impl IntoResponses for Named {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[(404, "`no_such_session`.")])
    }
}

impl IntoResponses for Sent {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[
            (400, "`bad_request`: not JSON, or a field that is unknown, wrong or missing."),
            (408, "`too_slow`: the body did not arrive within ten seconds."),
            (413, "`too_large`: the body has more than 64 KiB."),
        ])
    }
}

impl IntoResponses for Wrong {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[(422, "`bad_spec`, `bad_plan`.")])
    }
}

impl IntoResponses for Faulty {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[
            (409, "`too_large`: the target is; `healed`: the session is over."),
            (422, "`bad_spec`, `bad_plan`, `bad_target`, `refused`: a spec, target, interface or host name."),
            (501, "`unsupported`: this kernel cannot; `not_permitted`: the service may not."),
            (503, "`too_many_sessions`, `busy`, `closing`: not now."),
        ])
    }
}

impl IntoResponses for Over {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refusals(&[(409, "`healed`, `no_lease`, `no_events`, `too_large`.")])
    }
}

fn refusals(all: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let refusal = || ContentBuilder::new().schema(Some(Ref::from_schema_name(Refusal::name()))).build();
    let one = |&(status, meaning): &(u16, &str)| {
        let response = ResponseBuilder::new().description(meaning).content("application/json", refusal());
        (status.to_string(), response.build())
    };
    Responses::from_iter(all.iter().map(one)).into()
}
