//! What statuses and content types mean to somebody who follows a git repository.

use crate::base::error::{Reason, Stage, SyncError};
use crate::net::http::{Response, StatusCode, header};

use super::failure::Failure;
use super::urls::shown;

/// Which credentials a request was sent with, for the hint after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// There were none.
    Nothing,
    /// Some.
    Credentials,
    /// There were some, but a redirect led to another host.
    Withheld,
}

/// Fails for every status but 200.
pub(super) fn check(response: &Response, sent: Sent, stage: Stage) -> Result<(), Failure> {
    let failure = match response.status {
        StatusCode::OK => return Ok(()),
        status => refusal(status, sent, stage, &shown(&response.url)),
    };
    let Failure { error, unexpected } = failure;
    Err(Failure {
        error: match response.retry_after() {
            Some(delay) => error.with_retry_after(delay),
            None => error,
        },
        unexpected,
    })
}

fn refusal(status: StatusCode, sent: Sent, stage: Stage, shown: &str) -> Failure {
    let error = |reason, what: &str| {
        let what = format!("{shown} {what} (HTTP {})", status.as_u16());
        SyncError::new(stage, reason, what)
    };
    let denied = |what, hint: &str| {
        error(Reason::Auth, what).with_hint(match sent {
            Sent::Nothing => {
                "give credentials: --username and --password-file (or GVR_PASSWORD); \
                 some servers also say this when the repository does not exist"
            }
            Sent::Credentials => hint,
            Sent::Withheld => {
                "the address in --repo redirects here, and credentials are not sent along to \
                 another host: use the new address for --repo"
            }
        })
    };
    match status.as_u16() {
        401 => denied(
            "does not accept these credentials",
            "check --username and --password-file (or GVR_PASSWORD)",
        )
        .into(),
        403 => denied(
            "forbids access",
            "the credentials lack the right to read this repository, or the server limits requests",
        )
        .into(),
        404 | 410 => Failure::unexpected(
            error(Reason::NotFound, "does not exist")
                .with_hint("check --repo; some servers also say this when credentials are missing"),
        ),
        407 => error(Reason::Network, "is behind a proxy that wants credentials")
            .with_hint("put user and password into HTTPS_PROXY (or http_proxy)")
            .into(),
        429 => error(Reason::Server, "asks for fewer requests")
            .with_hint("raise --period")
            .into(),
        500..=599 => error(Reason::Server, "is failing").into(),
        // Only a GET is sent on, so this is the answer to a POST.
        300..=399 => Failure::unexpected(error(Reason::Protocol, "redirected a POST")),
        _ => Failure::unexpected(
            error(Reason::Protocol, "gives an unexpected answer")
                .with_hint("check that --repo is the address of a git repository"),
        ),
    }
}

/// Fails unless the answer is of the type that was asked for.
pub(super) fn check_type(response: &Response, expected: &str, stage: Stage) -> Result<(), Failure> {
    let got = response
        .headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    let kind = got.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let shown = shown(&response.url);
    let wrong = |what: String| SyncError::new(stage, Reason::Protocol, format!("{shown} {what}"));
    let kind: String = kind.chars().take(80).collect();
    Err(Failure::unexpected(
        match kind.to_ascii_lowercase().as_str() {
            "text/html" | "application/xhtml+xml" => wrong(format!(
                "answers with a web page ({kind}) instead of the git protocol"
            ))
            .with_hint("check --repo; a login page or a captive portal answers like this"),
            "text/plain" | "application/octet-stream" => wrong(format!(
                "answers with plain files ({kind}): \"dumb\" HTTP is not supported"
            ))
            .with_hint("serve the repository by git http-backend or a git hosting server"),
            "" => wrong("answers without a content type instead of the git protocol".to_owned()),
            _ => wrong(format!("answers with {kind} instead of the git protocol")),
        },
    ))
}
