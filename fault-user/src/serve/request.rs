//! What clients send: the words of the command line, as JSON.

use std::{path::PathBuf, time::Duration};

use axum::{
    body::HttpBody as _,
    extract::{FromRequest, Request},
    http::StatusCode,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::error::{ApiError, Code};
use crate::{
    net::peers,
    session::{
        SessionError,
        plan::Plan,
        prepare::{self, PrepareError},
    },
    spec::Layer,
    target::{Target, TargetRequest},
};

/// Largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How long a client may take to send one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest `for` and `lease`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A target and its faults: at least one of each.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"pid": [4711], "net": ["drop 5% out"], "lease": "30s"}))]
pub struct Create {
    /// Processes and their descendants.
    pid: Vec<u32>,
    /// Subtrees of cgroup v2.
    #[schema(value_type = Vec<String>)]
    cgroup: Vec<PathBuf>,
    /// Names or ids.
    container: Vec<String>,
    /// Units of systemd.
    unit: Vec<String>,
    /// Names of processes.
    comm: Vec<String>,
    /// Everybody; needs `yes`.
    host: bool,
    /// The whole machine was meant.
    yes: bool,
    /// Without the descendants.
    only: bool,
    /// Specs of packet faults.
    net: Vec<String>,
    /// Specs of block I/O faults.
    disk: Vec<String>,
    /// Specs of faults of file operations.
    file: Vec<String>,
    /// Specs of faults of processes: pauses.
    proc: Vec<String>,
    /// Filters of packets to spare.
    except: Vec<String>,
    /// It ends by itself after that: a duration.
    #[serde(rename = "for")]
    duration: Option<String>,
    /// What decisions depend on; without it, one is chosen.
    seed: Option<u64>,
    /// A duration in which it has to be renewed, or `connection`; without it, none is needed.
    lease: Option<String>,
    /// Whether injections can be listened to.
    pub events: bool,
}

/// Other faults: at least one.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"net": ["drop 20% out"]}))]
pub struct Faults {
    /// Specs of packet faults.
    net: Vec<String>,
    /// Specs of block I/O faults.
    disk: Vec<String>,
    /// Specs of faults of file operations.
    file: Vec<String>,
    /// Specs of faults of processes: pauses.
    proc: Vec<String>,
    /// Filters of packets to spare.
    except: Vec<String>,
    /// What decisions depend on; without it, as before.
    seed: Option<u64>,
}

/// What shall be explained.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"spec": "drop 5%", "layer": "net"}))]
pub struct Explain {
    /// The spec.
    pub spec: String,
    /// `net`, `disk`, `file` or `proc`; without it, whichever has such a spec.
    pub layer: Option<String>,
}

/// How long a session outlives the interest of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Until `for` or DELETE.
    Unlimited,
    /// Until it has not been renewed for so long.
    Time(Duration),
    /// As long as the connection that created it.
    Connection,
}

impl Create {
    /// The lease asked for.
    pub(super) fn lease(&self) -> Result<Lease, ApiError> {
        match self.lease.as_deref() {
            None => Ok(Lease::Unlimited),
            Some("connection") => Ok(Lease::Connection),
            Some(text) => duration("lease", text).map(Lease::Time),
        }
    }

    /// Resolves everything it names. Blocks: names are looked up, engines of containers asked.
    pub(super) fn resolve(&self, keeper: u32) -> Result<(Plan, Target), ApiError> {
        let length = self.duration.as_deref().map(|text| duration("for", text)).transpose()?;
        let faults = Faults {
            net: self.net.clone(),
            disk: self.disk.clone(),
            file: self.file.clone(),
            proc: self.proc.clone(),
            except: self.except.clone(),
            seed: self.seed,
        };
        let plan = faults.plan(self.seed, length)?;
        let requests = self.requests();
        if requests.is_empty() {
            let message =
                "the request names no target: `pid`, `cgroup`, `container`, `unit`, `comm` or `host`";
            return Err(ApiError::bad_request(message));
        }
        let mut target = Target::nobody([keeper]);
        target.descendants = !self.only;
        for request in &requests {
            target.add(request)?;
        }
        target.confirm(self.yes)?;
        let plan = plan.spare(target.lifelines()).map_err(PrepareError::from)?;
        Ok((plan, target))
    }

    fn requests(&self) -> Vec<TargetRequest> {
        let pids = self.pid.iter().copied().map(TargetRequest::Pid);
        let cgroups = self.cgroup.iter().cloned().map(TargetRequest::Cgroup);
        let containers = self.container.iter().cloned().map(TargetRequest::Container);
        let units = self.unit.iter().cloned().map(TargetRequest::Unit);
        let names = self.comm.iter().cloned().map(TargetRequest::Comm);
        let host = self.host.then_some(TargetRequest::Host);
        pids.chain(cgroups).chain(containers).chain(units).chain(names).chain(host).collect()
    }
}

impl Faults {
    /// Compiles them: those of packets first, then those of disks, of files, of processes. `seed` counts unless one is given. Blocks: names are looked up, so that the
    /// owner of the session finds them known.
    pub(super) fn plan(&self, seed: Option<u64>, length: Option<Duration>) -> Result<Plan, ApiError> {
        let of = |layer: Layer, specs: &[String]| -> Vec<_> {
            specs.iter().map(|spec| (layer, spec.clone())).collect()
        };
        let faults = [
            of(Layer::Net, &self.net),
            of(Layer::Disk, &self.disk),
            of(Layer::File, &self.file),
            of(Layer::Proc, &self.proc),
        ]
        .concat();
        if faults.is_empty() {
            return Err(ApiError::bad_request(
                "the request has no fault: give `net`, `disk`, `file` or `proc`",
            ));
        }
        let plan = prepare::plan(&faults, &self.except, self.seed.or(seed), length)?;
        for (_, filter) in plan.net_filters() {
            for endpoint in &filter.to {
                peers::resolve(&endpoint.value.peer)
                    .map_err(|error| ApiError::from(&SessionError::from(error)))?;
            }
        }
        Ok(plan)
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, ApiError> {
    let wrong = |why: String| ApiError::bad_request(format!("{field}: {text:?} is no duration: {why}"));
    let duration = humantime::parse_duration(text).map_err(|error| wrong(error.to_string()))?;
    if duration.is_zero() || duration > LONGEST {
        return Err(wrong("it must be longer than zero and at most 365d".to_owned()));
    }
    Ok(duration)
}

/// The body of a request, read within limits of time and size.
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = request.into_body();
        let large = || {
            let message = format!("the body is larger than {MAX_BODY} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, message, "send less")
        };
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(large());
        }
        let read = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await.map_err(|_| {
            let message = format!("the body did not arrive within {} s", PATIENCE.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, Code::TooSlow, message, "send it at once")
        })?;
        let bytes = match read {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(large()),
            Err(error) => return Err(ApiError::bad_request(format!("reading the body failed: {error}"))),
        };
        parse(&bytes).map(Self)
    }
}

/// Reads JSON; an error names the field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, why) = (error.path().to_string(), error.inner().to_string());
        ApiError::bad_request(if path == "." { why } else { format!("{path}: {why}") })
    })?;
    reader.end().map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        parse::<Create>(text.as_bytes()).expect_err(text).message
    }

    #[test]
    fn a_wrong_field_is_named() {
        assert!(wrong(r#"{"pid": [1], "nte": ["drop"]}"#).contains("unknown field `nte`"));
        assert!(wrong(r#"{"pid": [1, "x"]}"#).starts_with("pid[1]: invalid type"));
        assert!(wrong(r#"{"pid": [-1]}"#).starts_with("pid[0]: "));
        assert!(wrong(r#"{} {}"#).contains("trailing"));
    }

    #[test]
    fn durations_have_limits() {
        for text in ["0s", "366d", "", "soon", "99999999999999999y"] {
            assert_eq!(duration("for", text).expect_err(text).status, StatusCode::BAD_REQUEST);
        }
        assert_eq!(duration("for", "1m 30s").expect("a duration"), Duration::from_secs(90));
    }

    #[test]
    fn leases_are_of_three_kinds() {
        let lease = |text: &str| parse::<Create>(text.as_bytes()).and_then(|create| create.lease());
        assert_eq!(lease("{}").expect("none"), Lease::Unlimited);
        assert_eq!(lease(r#"{"lease":"connection"}"#).expect("one"), Lease::Connection);
        assert_eq!(lease(r#"{"lease":"10s"}"#).expect("one"), Lease::Time(Duration::from_secs(10)));
        assert!(lease(r#"{"lease":"forever"}"#).is_err());
    }

    #[test]
    fn a_wrong_spec_comes_with_the_nearest_right_one() {
        let faults = Faults { net: vec!["dorp 5%".to_owned()], ..Faults::default() };
        let error = faults.plan(None, None).expect_err("a wrong verb");
        assert_eq!((error.status, error.code), (StatusCode::UNPROCESSABLE_ENTITY, Code::BadSpec));
        assert!(error.next.contains("did you mean `drop`?"), "{}", error.next);
    }
}
