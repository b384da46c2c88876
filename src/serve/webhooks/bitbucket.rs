//! Bitbucket Cloud and Bitbucket Data Center.
//!
//! Both sign the body: `X-Hub-Signature: sha256=<hex>`.
//! <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/>,
//! <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html>

use super::json::{self, Found, Path};
use super::{Event, MAX_PUSHES, Meaning, Push, Reading, Scheme, Signed};
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

pub(super) fn recognise(head: &Head) -> Option<Scheme> {
    let key = head.header("x-event-key")?;
    let (provider, event, read): (_, _, fn(&[u8]) -> Reading) = match key {
        "repo:push" => (Provider::BitbucketCloud, Event::InBody, read_cloud),
        "repo:refs_changed" => (Provider::BitbucketDc, Event::InBody, read_data_center),
        "diagnostics:ping" => (Provider::BitbucketDc, Event::Ping, read_data_center),
        _ if head.header("x-hook-uuid").is_some() => {
            (Provider::BitbucketCloud, Event::Other, read_cloud)
        }
        _ => (Provider::BitbucketDc, Event::Other, read_data_center),
    };
    Some(
        Scheme::new(provider, event, read)
            .signed_by(head, "x-hub-signature", "sha256=", Signed::Raw)
            .delivered_as(head, &["x-request-uuid", "x-request-id"]),
    )
}

/// `push.changes[]`: `new` is null where a ref was deleted, and `old` then names it.
fn read_cloud(body: &[u8]) -> Reading {
    const PATHS: [Path; 6] = [
        &["push", "changes", "*"],
        &["push", "changes", "*", "new", "type"],
        &["push", "changes", "*", "new", "name"],
        &["push", "changes", "*", "new", "target", "hash"],
        &["push", "changes", "*", "old", "type"],
        &["push", "changes", "*", "old", "name"],
    ];
    #[derive(Default)]
    struct Change {
        kind: String,
        name: Option<String>,
        hash: Option<String>,
        old_kind: String,
        old_name: Option<String>,
    }
    let mut changes: Vec<Change> = Vec::new();
    let mut too_many = false;
    let whole = json::read(body, &PATHS, &mut |path, found| {
        if (path, &found) == (0, &Found::Object) {
            match changes.len() < MAX_PUSHES {
                true => changes.push(Change::default()),
                false => too_many = true,
            }
        }
        let (Found::Text(text), Some(change), false) = (found, changes.last_mut(), too_many) else {
            return;
        };
        let text = super::cut(text);
        match path {
            1 => change.kind = text,
            2 => change.name = Some(text),
            3 => change.hash = Some(text),
            4 => change.old_kind = text,
            5 => change.old_name = Some(text),
            _ => {}
        }
    });
    let full = |kind: &str, name: &str| match kind {
        "tag" => format!("refs/tags/{name}"),
        _ => format!("refs/heads/{name}"),
    };
    let pushes: Vec<Push> = changes
        .iter()
        .filter_map(|change| match (&change.name, &change.old_name) {
            (Some(name), _) => Some(Push::new(&full(&change.kind, name), change.hash.as_deref())),
            (None, Some(old)) => Some(Push {
                deleted: true,
                ..Push::new(&full(&change.old_kind, old), None)
            }),
            (None, None) => None,
        })
        .collect();
    meaning(pushes, whole && !too_many)
}

/// `changes[]` with `ref.id`, `toHash` and `type`.
fn read_data_center(body: &[u8]) -> Reading {
    const PATHS: [Path; 4] = [
        &["changes", "*"],
        &["changes", "*", "ref", "id"],
        &["changes", "*", "toHash"],
        &["changes", "*", "type"],
    ];
    let mut changes: Vec<[Option<String>; 3]> = Vec::new();
    let mut too_many = false;
    let whole = json::read(body, &PATHS, &mut |path, found| match found {
        Found::Object if path == 0 => match changes.len() < MAX_PUSHES {
            true => changes.push(Default::default()),
            false => too_many = true,
        },
        Found::Text(text) if path > 0 && !too_many => {
            if let Some(change) = changes.last_mut() {
                change[path - 1] = Some(super::cut(text));
            }
        }
        _ => {}
    });
    let pushes = changes
        .iter()
        .filter_map(|[name, hash, kind]| {
            let mut push = Push::new(name.as_deref()?, hash.as_deref());
            push.deleted |= kind.as_deref() == Some("DELETE");
            Some(push)
        })
        .collect();
    meaning(pushes, whole && !too_many)
}

fn meaning(pushes: Vec<Push>, all: bool) -> Reading {
    match pushes.is_empty() {
        true => Meaning::Unknown.into(),
        false => Meaning::Pushes { pushes, all }.into(),
    }
}
