//! Whoever holds a secret: a bearer token, or `X-Signature: sha256=<hex>` over the body as Flux's
//! `generic-hmac` wants it.
//!
//! The body may say which ref was pushed, in GitHub's words (`ref`, `after`). It need not say
//! anything.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic-hmac>

use super::{Event, Proof, Scheme, Signed, github};
use crate::observe::metrics::Provider;
use crate::serve::limits::Head;

pub(super) fn recognise(head: &Head, event: Event) -> Scheme {
    let scheme = Scheme::new(Provider::Unknown, event, github::read)
        .signed_by(head, "x-signature", "sha256=", Signed::Raw)
        .with_secret(super::bearer(head));
    let provider = match scheme.proofs.first() {
        Some(Proof::Mac(..)) => Provider::Hmac,
        Some(Proof::Secret(_)) => Provider::Token,
        None => Provider::Unknown,
    };
    Scheme { provider, ..scheme }
}
