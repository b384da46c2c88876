//! What statuses, headers and broken connections mean to an operator.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use ureq::Body;
use ureq::http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use ureq::http::{Response, StatusCode};
use url::Url;

use crate::base::error::{Reason, Stage, SyncError};

use super::client::Question;
use super::transport::{Stop, Unreachable};

/// The address without its query, which may hold a token.
pub(super) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    let text = shown.as_str();
    [super::INFO_REFS, super::UPLOAD_PACK]
        .iter()
        .find_map(|end| text.strip_suffix(end))
        .unwrap_or(text)
        .to_owned()
}

/// Fails for every status but 200.
pub(super) fn check(status: StatusCode, stage: Stage, url: &Url) -> Result<(), SyncError> {
    let shown = shown(url);
    let error = |reason, what: &str| {
        SyncError::new(
            stage,
            reason,
            format!("{shown} {what} (HTTP {})", status.as_u16()),
        )
    };
    Err(match status.as_u16() {
        200 => return Ok(()),
        401 => error(Reason::Auth, "does not accept these credentials")
            .with_hint("check --username and --password-file (or GVR_PASSWORD)"),
        403 => error(Reason::Auth, "forbids access").with_hint(
            "the credentials lack the right to read this repository, or the server limits requests",
        ),
        404 | 410 => error(Reason::NotFound, "does not exist")
            .with_hint("check --repo; some servers also say this when credentials are missing"),
        407 => error(Reason::Network, "is behind a proxy that wants credentials")
            .with_hint("put user and password into HTTPS_PROXY (or HTTP_PROXY)"),
        429 => error(Reason::Server, "asks for fewer requests").with_hint("raise --period"),
        500..=599 => error(Reason::Server, "is failing"),
        _ => error(Reason::Protocol, "gives an unexpected answer")
            .with_hint("check that --repo is the address of a git repository"),
    })
}

/// Adds what the headers of a refusal say.
pub(super) fn explain(
    error: SyncError,
    headers: &HeaderMap,
    question: Question<'_>,
    credentials_sent: bool,
) -> SyncError {
    let error = match (error.reason, question.authorization) {
        (Reason::Auth, None) => error.with_hint(
            "give credentials: --username and --password-file (or GVR_PASSWORD); \
             some servers also say this when the repository does not exist",
        ),
        (Reason::Auth, Some(_)) if !credentials_sent => error.with_hint(
            "the address in --repo redirects here, and credentials are not sent along to \
             another host: use the new address for --repo",
        ),
        _ => error,
    };
    match headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, SystemTime::now()))
    {
        Some(delay) => error.with_retry_after(delay),
        None => error,
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(now).unwrap_or_default())
        }
    }
}

/// Fails unless the answer is of the type that was asked for.
pub(super) fn check_type(
    response: &Response<Body>,
    expected: &str,
    stage: Stage,
    url: &Url,
) -> Result<(), SyncError> {
    let got = response
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    let kind = got.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let shown = shown(url);
    let wrong = |what: String| SyncError::new(stage, Reason::Protocol, format!("{shown} {what}"));
    let kind: String = kind.chars().take(80).collect();
    Err(match kind.to_ascii_lowercase().as_str() {
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
    })
}

/// What a call or a read that came to nothing means.
pub(super) fn failure(
    stage: Stage,
    url: &Url,
    error: ureq::Error,
    stop: Option<Stop>,
) -> SyncError {
    let shown = shown(url);
    match stop {
        Some(Stop::Interrupted(cause)) => {
            return SyncError::interrupted(stage, &format!("talking to {shown}"), cause);
        }
        Some(Stop::Stalled(limit)) => {
            return SyncError::new(
                stage,
                Reason::Timeout,
                format!(
                    "{shown} sent nothing for {}",
                    humantime::format_duration(round(limit))
                ),
            )
            .with_hint("raise --stall-timeout if the remote is merely slow");
        }
        None => {}
    }
    if let Some(error) = tls_cause(&error) {
        return tls_failure(stage, url, error.clone());
    }
    let network = |what: String| SyncError::new(stage, Reason::Network, what);
    match error {
        ureq::Error::Other(cause) => match cause.downcast::<Unreachable>() {
            Ok(unreachable) => {
                let reason = match unreachable.timed_out() {
                    true => Reason::Timeout,
                    false => Reason::Network,
                };
                SyncError::new(stage, reason, unreachable.to_string())
                    .with_source(unreachable.into_cause())
            }
            Err(cause) => network(format!("cannot talk to {shown}")).with_source(cause),
        },
        ureq::Error::Io(cause) => network(match cause.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("{shown} closed the connection before its answer was complete")
            }
            _ => format!("the connection to {shown} broke"),
        })
        .with_source(cause),
        ureq::Error::ConnectProxyFailed(what) => {
            network(format!("the proxy on the way to {shown} refused: {what}"))
                .with_hint("check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
        }
        ureq::Error::LargeResponseHeader(..) => SyncError::new(
            stage,
            Reason::Limit,
            format!("{shown} sends a head that is too large"),
        ),
        ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::Decompress(..) => {
            SyncError::new(
                stage,
                Reason::Protocol,
                format!("{shown} does not speak HTTP as it should"),
            )
            .with_source(error)
            .with_hint("check the scheme and the port in --repo")
        }
        other => network(format!("cannot talk to {shown}")).with_source(other),
    }
}

/// The error of rustls, however it is wrapped.
fn tls_cause(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn tls_failure(stage: Stage, url: &Url, error: rustls::Error) -> SyncError {
    let host = url.host_str().unwrap_or_default();
    let (what, hint) = match &error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                format!("the certificate of {host} has expired"),
                Some("renew it on the server; if it is valid, correct this node's clock"),
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                format!("the certificate of {host} is not valid yet"),
                Some("correct this node's clock, or the certificate"),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    format!("the certificate of the server is not for the name {host}"),
                    Some("use the name in the certificate for --repo, or correct the certificate"),
                )
            }
            // A bad signature: an authority of that name is known, with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                format!(
                    "the certificate of {host} is signed by an authority that is not known here"
                ),
                Some("name a PEM file with that authority's certificate in SSL_CERT_FILE"),
            ),
            _ => (
                format!("the certificate of {host} is not acceptable"),
                Some("if the server signs for itself, name its certificate in SSL_CERT_FILE"),
            ),
        },
        rustls::Error::InvalidMessage(_) => (
            format!("{host} does not speak TLS on this port"),
            Some("check the scheme and the port in --repo"),
        ),
        _ => (format!("TLS with {host} failed"), None),
    };
    let error = SyncError::new(stage, Reason::Tls, what).with_source(error);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// To a tenth of a second, for people.
fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis() / 100 * 100).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn an_address_is_shown_without_its_query_and_service() {
        let url = Url::parse("https://h/r.git/info/refs?token=tok3n&service=x").unwrap();
        assert_eq!(shown(&url), "https://h/r.git");
    }
}
