//! What each path answers. The whole list is [`ROUTES`]; all else is 404.
//!
//! This module does not read requests or write answers to sockets, and `POST /nudge` and `POST /webhook`
//! beyond their places in the list are the business of [`nudge`](super::nudge).

use serde::Serialize;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

use super::limits::{Framing, Head, MAX_BODY, MAX_WEBHOOK_BODY, Method, Refusal};
use super::{Routes, Served, Shared};
use crate::base::text::printable;
use crate::observe::metrics;
use crate::observe::status::{Health, Snapshot};

/// Every path that is served, with the methods it takes and what it is for.
pub const ROUTES: [(&str, &str, &str); 6] = [
    (
        "/livez",
        "GET, HEAD",
        "200 while the sync loop runs, 503 when it is stuck",
    ),
    (
        "/readyz",
        "GET, HEAD",
        "200 once a tree is published, and with --max-staleness while it is fresh; else 503",
    ),
    ("/metrics", "GET, HEAD", "OpenMetrics for Prometheus"),
    ("/status", "GET, HEAD", "the state of every target, as JSON"),
    (
        NUDGE,
        "POST",
        "poll now; needs a bearer token or a signature, and is 404 while no secret is configured; ?target=NAME names one target",
    ),
    (
        WEBHOOK,
        "POST",
        "poll now if a git host says that the ref was pushed; needs its signature or secret, and is 404 while none is configured; ?target=NAME names one target",
    ),
];

/// The paths that take a body.
const NUDGE: &str = "/nudge";
const WEBHOOK: &str = "/webhook";

const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    status: u16,
    content_type: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// What to do about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Send this.
    Answer(Reply),
    /// Ask the gate for nudges.
    Nudge(Door),
}

/// Where a request to poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// `/nudge`
    Nudge,
    /// `/webhook`
    Webhook,
}

/// The document at `/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    targets: Vec<Snapshot>,
}

/// Finds the answer to a request.
pub(super) fn route(head: &Head, shared: &Shared) -> Route {
    let known = ROUTES.iter().find(|(path, ..)| *path == head.path);
    let served = |door: Option<Door>| match (shared.routes, door) {
        (Routes::Observe, Some(_)) | (Routes::Nudge, None) => false,
        (_, None) => true,
        (_, Some(Door::Nudge)) => shared.nudge.is_some(),
        (_, Some(Door::Webhook)) => {
            let config = shared.nudge.as_ref();
            config.is_some_and(|config| !config.secret_files.is_empty())
        }
    };
    let door = door(&head.path);
    // Nudges prove who sends them, whatever name the sender has for this host.
    if door.is_none() && !shared.hosts.allow(head.header("host")) {
        return Route::Answer(Refusal::WrongHost.into());
    }
    // Only webhooks come in chunks.
    if head.body == Framing::Chunked && door != Some(Door::Webhook) {
        return Route::Answer(Refusal::LengthRequired.into());
    }
    let Some((path, allowed, _)) = known.filter(|_| served(door)) else {
        return Route::Answer(Reply::not_found());
    };
    let takes = match head.method {
        Method::Get | Method::Head => door.is_none(),
        Method::Post => door.is_some(),
        Method::Other => false,
    };
    if !takes {
        return Route::Answer(Reply::text(405, "method not allowed").with("Allow", allowed));
    }
    if let Some(door) = door {
        return Route::Nudge(door);
    }
    Route::Answer(match *path {
        "/livez" => probe(shared, |health| {
            (!health.live).then_some("the sync loop is stuck")
        }),
        "/readyz" => probe(shared, |health| match health {
            _ if health.ready => None,
            _ if health.stale => {
                Some("the last successful poll is longer ago than --max-staleness")
            }
            _ => Some("nothing is published yet"),
        }),
        "/metrics" => scrape(shared),
        "/status" => status(shared),
        _ => Reply::not_found(),
    })
}

impl Door {
    /// Bytes of body that may come.
    pub(super) fn limit(self) -> u64 {
        match self {
            Self::Nudge => MAX_BODY,
            Self::Webhook => MAX_WEBHOOK_BODY,
        }
    }
}

fn door(path: &str) -> Option<Door> {
    match path {
        NUDGE => Some(Door::Nudge),
        WEBHOOK => Some(Door::Webhook),
        _ => None,
    }
}

impl Reply {
    /// A line of text.
    pub(super) fn text(status: u16, line: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            header: None,
            body: format!("{line}\n").into_bytes(),
        }
    }

    /// The answer for a path that is not served.
    pub(super) fn not_found() -> Self {
        Self::text(404, "not found")
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The answer as it goes over the wire; `head_only` for HEAD.
    ///
    /// As HTTP/1.0, which says that the connection ends with the answer: tiny_http prints no
    /// `Connection` header.
    pub(super) fn into_bytes(self, head_only: bool) -> Vec<u8> {
        let headers = [
            ("Server", "git-volume-reloader"),
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
        ];
        let headers = headers.into_iter().chain(self.header);
        let response = Response::new(
            StatusCode(self.status),
            headers
                .filter_map(|(name, value)| Header::from_bytes(name, value).ok())
                .collect(),
            self.body.as_slice(),
            Some(self.body.len()),
            None,
        );
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        // Writing to memory cannot fail.
        let _ = response.raw_print(&mut bytes, HTTPVersion(1, 0), &[], head_only, None);
        bytes
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let reply = Self::text(refusal.status(), &refusal.to_string());
        match refusal {
            Refusal::TooManyFailures => reply.with("Retry-After", "60"),
            _ => reply,
        }
    }
}

/// 200 if every target is well, else 503 with what is wrong. `wrong` judges one target.
fn probe(shared: &Shared, wrong: impl Fn(Health) -> Option<&'static str>) -> Reply {
    let several = shared.targets.len() > 1;
    let wrong: Vec<String> = shared
        .targets
        .iter()
        .filter_map(|target| {
            let why = wrong(target.status.health())?;
            Some(match several {
                true => format!("{}: {why}", printable(target.status.target())),
                false => why.to_owned(),
            })
        })
        .collect();
    if wrong.is_empty() {
        Reply::text(200, "ok")
    } else {
        Reply::text(503, &wrong.join("; "))
    }
}

fn scrape(shared: &Shared) -> Reply {
    for target in &shared.targets {
        let health = target.status.health();
        target.metrics.health(health.ready, health.stale);
    }
    match metrics::encode(&shared.registry) {
        Ok(page) => Reply {
            status: 200,
            content_type: metrics::CONTENT_TYPE,
            header: None,
            body: page.into_bytes(),
        },
        Err(_) => Reply::text(500, "a metric cannot be formatted"),
    }
}

fn status(shared: &Shared) -> Reply {
    let document = status_document(&shared.targets, None).ok();
    // Not by way of a `Value`, which would sort the keys.
    match document.and_then(|document| serde_json::to_vec_pretty(&document).ok()) {
        Some(mut body) => {
            body.push(b'\n');
            Reply {
                status: 200,
                content_type: "application/json",
                header: None,
                body,
            }
        }
        None => Reply::text(500, "the status cannot be formatted"),
    }
}

/// The document at `/status`: of every target, or of the one with this name.
///
/// # Errors
/// When no target has this name; for people.
pub fn status_document(targets: &[Served], name: Option<&str>) -> Result<Status, String> {
    let status = Status {
        targets: targets
            .iter()
            .filter(|target| name.is_none_or(|name| target.status.target() == name))
            .map(|target| target.status.snapshot())
            .collect(),
    };
    if status.targets.is_empty() && name.is_some() {
        return Err("no target has this name".to_owned());
    }
    Ok(status)
}
