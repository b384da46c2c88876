//! Azure DevOps (service hooks, event `git.push`).
//!
//! It sends no header of its own and signs nothing: `Authorization: Basic` holds the secret as the
//! password. Whatever uses basic authentication and is nobody else is taken for Azure DevOps.
//! <https://learn.microsoft.com/en-us/azure/devops/service-hooks/events#code-pushed>

use super::json::{self, Found, Path};
use super::{Event, MAX_PUSHES, Meaning, Push, Reading, Scheme};
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

pub(super) fn recognise(head: &Head) -> Option<Scheme> {
    let password = super::basic(head)?;
    Some(Scheme::new(Provider::AzureDevops, Event::InBody, read).with_secret(Some(password)))
}

fn read(body: &[u8]) -> Reading {
    const PATHS: [Path; 5] = [
        &["id"],
        &["eventType"],
        &["resource", "refUpdates", "*"],
        &["resource", "refUpdates", "*", "name"],
        &["resource", "refUpdates", "*", "newObjectId"],
    ];
    let (mut id, mut event) = (None, None);
    let mut updates: Vec<[Option<String>; 2]> = Vec::new();
    let mut too_many = false;
    let whole = json::read(body, &PATHS, &mut |path, found| match (path, found) {
        (0, Found::Text(text)) => id = Some(super::cut(text)),
        (1, Found::Text(text)) => event = Some(super::cut(text)),
        (2, Found::Object) => match updates.len() < MAX_PUSHES {
            true => updates.push(Default::default()),
            false => too_many = true,
        },
        (3 | 4, Found::Text(text)) if !too_many => {
            if let Some(update) = updates.last_mut() {
                update[path - 3] = Some(super::cut(text));
            }
        }
        _ => {}
    });
    let pushes: Vec<Push> = updates
        .iter()
        .filter_map(|[name, id]| Some(Push::new(name.as_deref()?, id.as_deref())))
        .collect();
    let meaning = match event.as_deref() {
        Some(event) if event != "git.push" => Meaning::Nothing,
        _ if pushes.is_empty() => Meaning::Unknown,
        _ => Meaning::Pushes {
            pushes,
            all: whole && !too_many,
        },
    };
    Reading {
        meaning,
        delivery: id,
    }
}
