//! GitLab.
//!
//! `X-Gitlab-Token` holds the secret itself. A signing token makes GitLab sign as Standard Webhooks
//! do: `webhook-signature` holds `v1,<base64>` (several, separated by spaces, while a token is
//! rotated) over `<webhook-id>.<webhook-timestamp>.<body>`. Either is enough.
//! <https://docs.gitlab.com/user/project/integrations/webhooks/>,
//! <https://github.com/standard-webhooks/standard-webhooks>

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Event, MAX_SIGNATURES, Proof, Reading, Scheme, Signed, github};
use crate::base::secret::Secret;
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

pub(super) fn recognise(head: &Head) -> Option<Scheme> {
    let event = match head.header("x-gitlab-event")? {
        // A system hook is about anything; its body tells.
        "Push Hook" | "Tag Push Hook" | "System Hook" => Event::InBody,
        _ => Event::Other,
    };
    let mut scheme = Scheme::new(Provider::Gitlab, event, read)
        .with_secret(head.header("x-gitlab-token").map(Secret::received))
        .delivered_as(
            head,
            &["webhook-id", "idempotency-key", "x-gitlab-event-uuid"],
        );
    if let Some(signatures) = head.header("webhook-signature") {
        let id = head.header("webhook-id").unwrap_or_default();
        let time = head.header("webhook-timestamp").unwrap_or_default();
        let tags = signatures
            .split_ascii_whitespace()
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|encoded| BASE64_STANDARD.decode(encoded).ok()?.try_into().ok());
        scheme.proofs.extend(
            tags.take(MAX_SIGNATURES)
                .map(|tag| Proof::Mac(Signed::Standard, tag)),
        );
        scheme.prefix = format!("{id}.{time}.");
        // Without a time the signature is as old as can be.
        scheme.signed_at = Some(time.parse().unwrap_or(0));
    }
    Some(scheme)
}

fn read(body: &[u8]) -> Reading {
    github::read(body)
}
