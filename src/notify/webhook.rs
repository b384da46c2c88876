//! The hook that sends a request over HTTP.
//!
//! The URL may be a secret (that of a chat's incoming webhook is one), so messages name its host
//! only. A redirect is an answer like any other: headers and body never reach another server. The
//! files with headers, key and template are read for every request, so that they can be replaced
//! while the process runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use url::Url;

use super::hook::{Hook, HookKind, News, Notice, Occasion, Told};
use crate::base::budget::Budget;
use crate::base::durations;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;
use crate::base::secret::Secret;
use crate::base::text::excerpt;
use crate::net::NetConfig;
use crate::net::http::{Client, Method, Redirects, Request};

/// How requests introduce themselves.
const USER_AGENT: &str = concat!("git-volume-reloader/", env!("CARGO_PKG_VERSION"));

/// The largest file of headers, key or template, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The most bytes of an answer that are quoted in an error.
const MAX_ANSWER: usize = 1024;

/// The longest subject, author or message that is sent, in characters.
const MAX_TEXT: usize = 4096;

/// What to send, where, and when.
#[derive(Clone)]
pub struct WebhookSettings {
    /// Where to; its path and query may be secret.
    pub url: Url,
    /// The method.
    pub method: Method,
    /// The status that means success; `None` for any.
    pub success: Option<u16>,
    /// For one request.
    pub timeout: Duration,
    /// The wait after a failure.
    pub backoff: Duration,
    /// A file with secret headers; absolute.
    pub header_file: Option<PathBuf>,
    /// A file with the key that signs the body; absolute.
    pub hmac_file: Option<PathBuf>,
    /// What the body is.
    pub body: WebhookBody,
    /// What is told.
    pub on: Vec<Occasion>,
    /// Proxies and certificate authorities.
    pub net: NetConfig,
}

/// What the body of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookBody {
    /// Nothing, as git-sync sends.
    None,
    /// A JSON object with all that is known.
    Json,
    /// A JSON object with one sentence as `text`: what Slack, Mattermost and their like take.
    Slack,
    /// The content of a file, with names in double braces replaced.
    Template(PathBuf),
}

/// What stays the same in every request.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The name of the target.
    pub target: String,
    /// The repository, without credentials.
    pub repo: String,
    /// The ref as it was configured.
    pub reference: String,
    /// The link that readers follow.
    pub link: String,
}

/// Sends a request for each notice.
pub struct Webhook {
    settings: WebhookSettings,
    sender: Sender,
    client: Client,
    /// The commit that readers see, as far as the hook heard.
    commit: Option<String>,
}

impl Webhook {
    /// A hook that is not connected yet. A loopback address is reached without a proxy.
    pub fn new(settings: WebhookSettings, sender: Sender) -> Self {
        Self {
            client: Client::new(
                settings.net.clone().direct_to_loopback(&settings.url),
                USER_AGENT,
            ),
            settings,
            sender,
            commit: None,
        }
    }

    fn send(&mut self, notice: &Notice, cancelled: &Arc<AtomicBool>) -> Result<Told, SyncError> {
        let settings = &self.settings;
        if let News::Published(shown) = &notice.news {
            self.commit = Some(shown.commit.id.to_string());
        }
        let message = message(&self.sender, notice);
        let (content_type, body) = settings.body.render(&message)?;
        let mut headers: Vec<(String, Secret)> = Vec::new();
        if let Some(content_type) = content_type {
            headers.push(("Content-Type".to_owned(), Secret::received(content_type)));
        }
        if let Some(commit) = hash(&message).or(self.commit.as_deref()) {
            headers.push(("Gitsync-Hash".to_owned(), Secret::received(commit)));
        }
        if let Some(file) = &settings.hmac_file {
            let signature = format!("sha256={}", signature(file, &body)?);
            headers.push((
                "X-Hub-Signature-256".to_owned(),
                Secret::received(signature),
            ));
        }
        if let Some(file) = &settings.header_file {
            headers.extend(headers_of(file)?);
        }
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        let request = Request {
            stage: Stage::Notify,
            method: settings.method.clone(),
            url: &settings.url,
            headers: &headers,
            bound: None,
            // Without a body a POST would be chunked; git-sync sends a length of 0.
            body: (!matches!(settings.method, Method::GET | Method::HEAD)).then_some(&*body),
            redirects: Redirects::Return,
            shown: origin,
        };
        let budget = Budget::new(settings.timeout, settings.timeout, cancelled.clone());
        let response = self
            .client
            .send(&request, &budget)
            .map_err(|failure| slow(failure.error, settings.timeout))?;
        let status = response.status.as_u16();
        if settings.success.is_none_or(|wanted| wanted == status) {
            response.body.finish(&budget);
            return Ok(Told::Yes);
        }
        let answer = response.body.bytes(MAX_ANSWER).unwrap_or_default();
        let answer = excerpt(String::from_utf8_lossy(&answer).trim(), MAX_ANSWER);
        let mut what = format!("{} answered {status}", origin(&settings.url));
        if !answer.is_empty() {
            what = format!("{what}: {answer}");
        }
        Err(SyncError::new(Stage::Notify, Reason::Server, what)
            .with_hint("--webhook-success-status names the status that means success"))
    }
}

impl Hook for Webhook {
    fn kind(&self) -> HookKind {
        HookKind::Webhook
    }

    fn tells(&self, occasion: Occasion) -> bool {
        self.settings.on.contains(&occasion)
    }

    fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    fn backoff(&self) -> Duration {
        self.settings.backoff
    }

    fn tell(&mut self, notice: &Notice, cancelled: &Arc<AtomicBool>) -> Result<Told, SyncError> {
        self.send(notice, cancelled)
    }
}

impl WebhookBody {
    /// The content type and the body.
    fn render(&self, message: &Value) -> Result<(Option<&'static str>, Vec<u8>), SyncError> {
        const JSON: &str = "application/json";
        Ok(match self {
            Self::None => (None, Vec::new()),
            Self::Json => (Some(JSON), message.to_string().into_bytes()),
            Self::Slack => {
                let text = json!({ "text": sentence(message) });
                (Some(JSON), text.to_string().into_bytes())
            }
            Self::Template(file) => {
                let template = read(file, "the template of the webhook")?;
                let is_json = file
                    .extension()
                    .is_some_and(|extension| extension == "json");
                let content_type = if is_json {
                    JSON
                } else {
                    "text/plain; charset=utf-8"
                };
                (
                    Some(content_type),
                    fill(&template, message, is_json).into_bytes(),
                )
            }
        })
    }
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings")
            .field("url", &origin(&self.url))
            .field("on", &self.on)
            .finish_non_exhaustive()
    }
}

/// All that is known of a notice. Flat, so that a template can name each value.
fn message(sender: &Sender, notice: &Notice) -> Value {
    let mut message = json!({
        "event": notice.news.occasion().as_str(),
        "target": sender.target,
        "repo": sender.repo,
        "ref": sender.reference,
        "link": sender.link,
        "at": humantime::format_rfc3339_seconds(notice.at).to_string(),
    });
    let more = match &notice.news {
        News::Published(shown) => json!({
            "commit": shown.commit.id.to_string(),
            "previous": shown.previous.map(|commit| commit.to_string()),
            "subject": excerpt(&shown.commit.subject, MAX_TEXT),
            "author": excerpt(&shown.commit.author, MAX_TEXT),
            "tree": shown.path.to_string_lossy(),
            "files_written": shown.files.map(|(written, _)| written),
            "files_shared": shown.files.map(|(_, shared)| shared),
        }),
        News::Failed(failure) => json!({
            "stage": failure.stage.as_str(),
            "reason": failure.reason.as_str(),
            "message": excerpt(&failure.message, MAX_TEXT),
            "hint": failure.hint,
            "failures": failure.consecutive,
        }),
        News::Recovered { failures } => json!({ "failures": failures }),
        News::Rejected(rejection) => json!({
            "commit": rejection.commit.to_string(),
            "message": excerpt(&rejection.reason, MAX_TEXT),
        }),
        News::Stale { age } => json!({ "message": format!(
            "the last success was {} ago",
            durations::shown_roughly(*age)
        ) }),
    };
    if let (Value::Object(message), Value::Object(more)) = (&mut message, more) {
        message.extend(more);
    }
    message
}

/// The message for people, on one line.
fn sentence(message: &Value) -> String {
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let target = text("target");
    let short = text("commit").get(..12).unwrap_or_default();
    match text("event") {
        "published" => format!(
            "{target}: published {short} “{}” by {}",
            text("subject"),
            text("author")
        ),
        "failed" => format!(
            "{target}: syncing fails at {} ({}): {}",
            text("stage"),
            text("reason"),
            text("message")
        ),
        "recovered" => format!(
            "{target}: syncing again after {} failures",
            message["failures"]
        ),
        "rejected" => format!("{target}: rejected {short}: {}", text("message")),
        _ => format!("{target}: {}", text("message")),
    }
}

/// The template with `{{name}}` replaced by what the message has under the name; nothing where it has
/// nothing. In JSON, values are escaped as the inside of a string.
fn fill(template: &str, message: &Value, is_json: bool) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            filled.push_str("{{");
            rest = after;
            continue;
        };
        let value = match &message[name.trim()] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if is_json {
            let quoted = Value::String(value).to_string();
            filled.push_str(&quoted[1..quoted.len() - 1]);
        } else {
            filled.push_str(&value);
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

fn hash(message: &Value) -> Option<&str> {
    message["commit"].as_str()
}

/// HMAC-SHA256 of the body, in hexadecimal, with the content of the file as the key.
fn signature(file: &Path, body: &[u8]) -> Result<String, SyncError> {
    let key = Secret::new(read(file, "the key of the webhook")?.trim_end());
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    let tag = hmac::sign(&key, body);
    Ok(tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// The lines `Name: value` of a file; empty lines and those that begin with `#` are skipped.
fn headers_of(file: &Path) -> Result<Vec<(String, Secret)>, SyncError> {
    let text = read(file, "the headers of the webhook")?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| is_header_name(name))
                .ok_or_else(|| {
                    let what = format!("a line of {} is not `Name: value`", file.display());
                    SyncError::new(Stage::Notify, Reason::Other, what)
                })?;
            Ok((name.to_owned(), Secret::new(value.trim())))
        })
        .collect()
}

/// A token of RFC 9110, section 5.6.2.
fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

fn read(file: &Path, what: &str) -> Result<String, SyncError> {
    let content = files::read(file, MAX_FILE)
        .map_err(|cause| SyncError::disk(Stage::Notify, &format!("read {what} in"), file, cause))?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Scheme, host and port: the path of a chat's URL is a password.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// A time-out of the hook is no question of the sync's deadlines.
fn slow(error: SyncError, limit: Duration) -> SyncError {
    match error.reason {
        Reason::Timeout => {
            let what = format!("the request did not end within {}", durations::shown(limit));
            SyncError::new(Stage::Notify, Reason::Timeout, what)
                .with_hint("raise --webhook-timeout if the server is merely slow")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::notify::event::Rejection;

    fn message() -> Value {
        let sender = Sender {
            target: "docs".to_owned(),
            ..Sender::default()
        };
        let notice = Notice {
            news: News::Rejected(Rejection {
                commit: "a".repeat(40).parse().unwrap(),
                reason: "say \"no\"\n".to_owned(),
                is_new: true,
            }),
            at: SystemTime::UNIX_EPOCH,
        };
        super::message(&sender, &notice)
    }

    #[test]
    fn a_template_is_filled_and_escaped_for_json_only() {
        let template = r#"{"x":"{{ event }} {{message}} {{nothing}}{{"}"#;
        let filled = fill(template, &message(), true);
        let json: Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(json["x"], "rejected say \"no\"\\n {{");
        assert_eq!(fill("{{message}}", &message(), false), "say \"no\"\\n");
    }

    #[test]
    fn a_chat_gets_one_sentence() {
        let (content_type, body) = WebhookBody::Slack.render(&message()).unwrap();
        assert_eq!(content_type, Some("application/json"));
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["text"], "docs: rejected aaaaaaaaaaaa: say \"no\"\\n");
    }

    #[test]
    fn a_signature_is_that_of_github() {
        // The example of GitHub's documentation, "Validating webhook deliveries".
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "It's a Secret to Everybody\n").unwrap();
        assert_eq!(
            signature(&file, b"Hello, World!").unwrap(),
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn headers_are_lines_of_names_and_values() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("headers");
        std::fs::write(&file, "# comment\n\nAuthorization: Bearer a:b\n").unwrap();
        let headers = headers_of(&file).unwrap();
        assert_eq!(headers[0].0, "Authorization");
        assert_eq!(headers[0].1.expose(), "Bearer a:b");
        std::fs::write(&file, "no header: 1\n").unwrap();
        assert!(headers_of(&file).is_err());
    }

    #[test]
    fn messages_do_not_show_the_path_of_the_url() {
        let url = Url::parse("https://hooks.example:8443/services/T0/B0/secret?k=v").unwrap();
        assert_eq!(origin(&url), "https://hooks.example:8443");
    }
}
