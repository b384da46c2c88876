//! GitHub, and what others send in its form.
//!
//! `X-Hub-Signature-256: sha256=<hex>` signs the body as it is on the wire, also where the document
//! is a form field. The older `X-Hub-Signature` with SHA-1 is not looked at.
//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>

use super::json::{self, Found, Path};
use super::{Event, Meaning, Push, Reading, Scheme, Signed};
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

pub(super) fn recognise(head: &Head) -> Option<Scheme> {
    let event = head.header("x-github-event")?;
    Some(
        Scheme::new(Provider::Github, kind(event), read)
            .signed_by(head, "x-hub-signature-256", "sha256=", Signed::Raw)
            .delivered_as(head, &["x-github-delivery"]),
    )
}

/// The kind of an event, as GitHub, Gitea, Forgejo and Gogs name it. Their events `create` and
/// `delete` come beside a push.
pub(super) fn kind(event: &str) -> Event {
    match event {
        "push" => Event::InBody,
        "ping" => Event::Ping,
        _ => Event::Other,
    }
}

/// Reads the one ref of a push. GitHub, GitLab, Gitea, Forgejo and Gogs agree on these keys.
pub(super) fn read(body: &[u8]) -> Reading {
    const PATHS: [Path; 3] = [&["ref"], &["after"], &["deleted"]];
    let (mut name, mut after, mut deleted) = (None, None, false);
    json::read(body, &PATHS, &mut |path, found| match (path, found) {
        (0, Found::Text(text)) => name = Some(super::cut(text)),
        (1, Found::Text(text)) => after = Some(super::cut(text)),
        (2, Found::Flag(flag)) => deleted = flag,
        _ => {}
    });
    let meaning = match name {
        None => Meaning::Unknown,
        Some(name) => {
            let mut push = Push::new(&name, after.as_deref());
            push.deleted |= deleted;
            Meaning::Pushes {
                pushes: vec![push],
                all: true,
            }
        }
    };
    meaning.into()
}
