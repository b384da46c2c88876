//! Gitea, Forgejo and Gogs.
//!
//! Each also sends the headers of those it descends from, down to GitHub's; so they are looked for
//! before GitHub, the youngest first. A signature is bare hexadecimal in their own headers. Where the
//! document is a form field, they sign the document and not the form. An empty header means that
//! the webhook has no secret. A webhook of theirs can also send `Authorization: Bearer`.
//! <https://forgejo.org/docs/latest/user/webhooks/>, <https://docs.gitea.com/usage/webhooks>

use super::github;
use super::{Scheme, Signed};
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

/// Who, and the headers with the event, the delivery and the signature.
const FAMILY: [(Provider, [&str; 3]); 3] = [
    (
        Provider::Forgejo,
        [
            "x-forgejo-event",
            "x-forgejo-delivery",
            "x-forgejo-signature",
        ],
    ),
    (
        Provider::Gitea,
        ["x-gitea-event", "x-gitea-delivery", "x-gitea-signature"],
    ),
    (
        Provider::Gogs,
        ["x-gogs-event", "x-gogs-delivery", "x-gogs-signature"],
    ),
];

pub(super) fn recognise(head: &Head) -> Option<Scheme> {
    FAMILY
        .iter()
        .find_map(|(provider, [event, delivery, signature])| {
            let event = head.header(event)?;
            let scheme = Scheme::new(*provider, github::kind(event), github::read);
            let scheme = [(*signature, ""), ("x-hub-signature-256", "sha256=")]
                .into_iter()
                .fold(scheme, |scheme, (header, prefix)| {
                    scheme
                        .signed_by(head, header, prefix, Signed::Raw)
                        .signed_by(head, header, prefix, Signed::Document)
                });
            Some(
                scheme
                    .with_secret(super::bearer(head))
                    .delivered_as(head, &[delivery]),
            )
        })
}
