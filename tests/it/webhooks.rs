//! Webhooks in the form in which each git host sends them, and what each is answered.
//!
//! The requests follow the documentation of the hosts. A signature is made here with the secret, so
//! that a body can be altered.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use git_volume_reloader::base::secret::Secret;
use git_volume_reloader::base::wake::Wake;
use git_volume_reloader::serve::limits::{MAX_WEBHOOK_BODY, parse_head};
use git_volume_reloader::serve::nudge::NudgeConfig;
use git_volume_reloader::serve::webhooks::body::{Chunks, Room};
use git_volume_reloader::serve::webhooks::{Incoming, recognise};
use ring::hmac;
use tempfile::TempDir;

use crate::serve::{Answer, Service, ask, connect, read_answer};
use crate::support::environment::{report, soak};

const SECRET: &str = "It's a Secret to Everybody";
const COMMIT: &str = "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5";
const BEFORE: &str = "17c497ccc7cca9c2f735aa07e9e3813060ce9a6a";
const MAIN: &str = "refs/heads/main";
const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:git";

/// Who sends a push, by the value of the metric's label.
const PROVIDERS: [&str; 12] = [
    "github",
    "gitlab",
    "gitlab-standard",
    "gitea",
    "forgejo",
    "gogs",
    "bitbucket_cloud",
    "bitbucket_dc",
    "azure_devops",
    "sns",
    "hmac",
    "token",
];

/// A request in the making.
#[derive(Clone, Debug)]
struct Hook {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A server with secrets.
struct Port {
    service: Service,
    secrets: Vec<PathBuf>,
    confirmed: Arc<Mutex<Vec<String>>>,
    _dir: TempDir,
}

impl Port {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secrets: Vec<_> = ["one", "two"].map(|name| dir.path().join(name)).to_vec();
        std::fs::write(&secrets[0], format!("{SECRET}\n")).unwrap();
        std::fs::write(&secrets[1], "another secret").unwrap();
        let confirmed = Arc::new(Mutex::new(Vec::new()));
        let confirm = confirmed.clone();
        let config = NudgeConfig {
            token_file: None,
            secret_files: secrets.clone(),
            sns_topics: vec![TOPIC.to_owned()],
            confirm: Some(Arc::new(move |url| confirm.lock().unwrap().push(url))),
        };
        Self {
            service: Service::with_nudges(config, Wake::new()),
            secrets,
            confirmed,
            _dir: dir,
        }
    }

    fn send(&self, hook: &Hook) -> Answer {
        ask(self.service.server.local_addr(), &hook.wire("/webhook"))
    }

    /// Whether a poll was asked for since the last call, and of which commit.
    fn polled(&self) -> Option<Option<String>> {
        let requests = self.service.wake().take();
        let commit = requests.announced.map(|commit| commit.to_string());
        requests.nudged.then_some(commit)
    }

    fn count(&self, provider: &str, outcome: &str) -> u64 {
        let labels = format!(
            "gvr_nudges_total{{target=\"docs\",provider=\"{provider}\",outcome=\"{outcome}\"}} "
        );
        let page = self.service.get("/metrics").body;
        let line = page.lines().find_map(|line| line.strip_prefix(&labels));
        line.unwrap_or_else(|| panic!("no {labels}"))
            .parse()
            .unwrap()
    }
}

impl Hook {
    fn new(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            headers: headers.iter().map(own).collect(),
            body: body.into(),
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    fn head(&self, path: &str, framing: &str) -> Vec<u8> {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: hooks.example.org\r\n{framing}\r\n");
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    fn wire(&self, path: &str) -> Vec<u8> {
        let mut wire = self.head(path, &format!("Content-Length: {}", self.body.len()));
        wire.extend_from_slice(&self.body);
        wire
    }

    fn chunked(&self, size: usize) -> Vec<u8> {
        let mut wire = self.head("/webhook", "Transfer-Encoding: chunked");
        for chunk in self.body.chunks(size) {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        wire
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn hex(key: &str, message: &[u8]) -> String {
    let tag = mac(key.as_bytes(), message);
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn basic(password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("user:{password}"))
    )
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// The body that GitHub, Gitea, Forgejo and Gogs send for a push, much shortened.
fn github_body(reference: &str, commit: &str) -> String {
    let deleted = commit.bytes().all(|b| b == b'0');
    format!(
        r#"{{"ref":"{reference}","before":"{BEFORE}","after":"{commit}",
            "repository":{{"id":35129377,"name":"docs","private":false,"ref":"no"}},
            "pusher":{{"name":"baxter"}},"created":false,"deleted":{deleted},"forced":false,
            "commits":[{{"id":"{commit}","message":"Say \"hello\" \u00e9","added":["a"]}}]}}"#
    )
}

/// A push of `reference` to `commit`, signed with `secret`.
fn push(provider: &str, reference: &str, commit: &str, secret: &str, id: &str) -> Hook {
    let json = ("Content-Type", "application/json");
    let signed = |headers: &[(&str, &str)], body: String, header: &str, prefix: &str| {
        let tag = format!("{prefix}{}", hex(secret, body.as_bytes()));
        Hook::new(headers, body).with(header, tag)
    };
    let name = reference.rsplit('/').next().unwrap();
    let kind = if reference.contains("/tags/") {
        "tag"
    } else {
        "branch"
    };
    let deleted = commit.bytes().all(|b| b == b'0');
    match provider {
        "github" => signed(
            &[json, ("X-GitHub-Event", "push"), ("X-GitHub-Delivery", id)],
            github_body(reference, commit),
            "X-Hub-Signature-256",
            "sha256=",
        ),
        "gitea" => signed(
            &[
                json,
                ("X-Gitea-Event", "push"),
                ("X-Gogs-Event", "push"),
                ("X-GitHub-Event", "push"),
                ("X-Gitea-Delivery", id),
                ("X-GitHub-Delivery", id),
            ],
            github_body(reference, commit),
            "X-Gitea-Signature",
            "",
        ),
        "forgejo" => signed(
            &[
                json,
                ("X-Forgejo-Event", "push"),
                ("X-Gitea-Event", "push"),
                ("X-GitHub-Event", "push"),
                ("X-Forgejo-Delivery", id),
            ],
            github_body(reference, commit),
            "X-Forgejo-Signature",
            "",
        ),
        "gogs" => signed(
            &[json, ("X-Gogs-Event", "push"), ("X-Gogs-Delivery", id)],
            github_body(reference, commit),
            "X-Gogs-Signature",
            "",
        ),
        "gitlab" | "gitlab-standard" => {
            let body = format!(
                r#"{{"object_kind":"push","event_name":"push","before":"{BEFORE}",
                    "after":"{commit}","ref":"{reference}","checkout_sha":"{commit}",
                    "project":{{"id":15,"default_branch":"master"}},"total_commits_count":4}}"#
            );
            let hook = Hook::new(&[json, ("X-Gitlab-Event", "Push Hook")], body);
            if provider == "gitlab" {
                return hook
                    .with("X-Gitlab-Token", secret)
                    .with("X-Gitlab-Event-UUID", id);
            }
            standard(hook, secret, id, now())
        }
        "bitbucket_cloud" => {
            let side = format!(
                r#"{{"type":"{kind}","name":"{name}","target":{{"hash":"{commit}","type":"commit"}}}}"#
            );
            let (new, old) = if deleted { ("null", &*side) } else { (&*side, "null") };
            signed(
                &[
                    json,
                    ("X-Event-Key", "repo:push"),
                    ("X-Hook-UUID", "{hook}"),
                    ("X-Request-UUID", id),
                ],
                format!(
                    r#"{{"push":{{"changes":[{{"old":{old},"new":{new},"closed":{deleted}}}]}},
                        "repository":{{"name":"docs"}},"actor":{{"type":"user"}}}}"#
                ),
                "X-Hub-Signature",
                "sha256=",
            )
        }
        "bitbucket_dc" => {
            let change = if deleted { "DELETE" } else { "UPDATE" };
            signed(
                &[json, ("X-Event-Key", "repo:refs_changed"), ("X-Request-Id", id)],
                format!(
                    r#"{{"eventKey":"repo:refs_changed","actor":{{"name":"admin"}},
                        "repository":{{"slug":"docs"}},"changes":[{{"ref":{{"id":"{reference}",
                        "displayId":"{name}","type":"BRANCH"}},"refId":"{reference}",
                        "fromHash":"{BEFORE}","toHash":"{commit}","type":"{change}"}}]}}"#
                ),
                "X-Hub-Signature",
                "sha256=",
            )
        }
        "azure_devops" => Hook::new(
            &[json],
            format!(
                r#"{{"subscriptionId":"s","notificationId":3,"id":"{id}","eventType":"git.push",
                    "resource":{{"commits":[{{"commitId":"{commit}"}}],"refUpdates":[
                    {{"name":"{reference}","oldObjectId":"{BEFORE}","newObjectId":"{commit}"}}]}}}}"#
            ),
        )
        .with("Authorization", basic(secret)),
        "sns" => {
            let message = format!(
                r#"{{"Records":[{{"awsRegion":"eu-central-1","codecommit":{{"references":[
                    {{"commit":"{commit}","ref":"{reference}","deleted":{deleted}}}]}}}}]}}"#
            );
            let body = serde_json::json!({
                "Type": "Notification", "MessageId": id, "TopicArn": TOPIC, "Message": message,
                "Signature": "EXAMPLE=", "SigningCertURL": "https://evil.example/cert.pem",
            });
            Hook::new(
                &[
                    ("Content-Type", "text/plain; charset=UTF-8"),
                    ("x-amz-sns-message-type", "Notification"),
                    ("x-amz-sns-message-id", id),
                    ("x-amz-sns-topic-arn", TOPIC),
                ],
                body.to_string(),
            )
            .with("Authorization", basic(secret))
        }
        "hmac" => signed(
            &[json],
            github_body(reference, commit),
            "X-Signature",
            "sha256=",
        ),
        "token" => Hook::new(&[json], github_body(reference, commit))
            .with("Authorization", format!("Bearer {secret}")),
        other => panic!("{other}"),
    }
}

/// Signs as Standard Webhooks 1.0.0 do.
fn standard(hook: Hook, secret: &str, id: &str, time: u64) -> Hook {
    let message = [format!("{id}.{time}.").as_bytes(), &hook.body].concat();
    let tag = BASE64_STANDARD.encode(mac(secret.as_bytes(), &message));
    hook.with("webhook-id", id)
        .with("webhook-timestamp", time.to_string())
        .with("webhook-signature", format!("v1,{tag}"))
}

fn label(provider: &str) -> &str {
    provider.trim_end_matches("-standard")
}

#[test]
fn a_push_to_our_ref_polls_and_announces_its_commit() {
    for provider in PROVIDERS {
        let port = Port::new();
        let answer = port.send(&push(provider, MAIN, COMMIT, SECRET, "1"));
        assert_eq!(
            (answer.status, &*answer.body),
            (202, "polling now\n"),
            "{provider}"
        );
        assert_eq!(port.polled(), Some(Some(COMMIT.to_owned())), "{provider}");
        assert_eq!(port.count(label(provider), "accepted"), 1, "{provider}");
    }
}

#[test]
fn a_push_to_another_ref_or_of_nothing_polls_nothing() {
    for provider in PROVIDERS {
        let port = Port::new();
        let zeros = "0".repeat(40);
        for (id, reference, commit) in [
            ("1", "refs/heads/other", COMMIT),
            ("2", "refs/heads/x/main", COMMIT),
            ("3", MAIN, &zeros),
        ] {
            // Bitbucket Cloud sends the name without what stands before it.
            if provider == "bitbucket_cloud" && id == "2" {
                continue;
            }
            let answer = port.send(&push(provider, reference, commit, SECRET, id));
            assert_eq!(answer.status, 202, "{provider} {reference}: {answer:?}");
            assert_eq!(port.polled(), None, "{provider} {reference} {commit}");
        }
        assert!(port.count(label(provider), "ignored") >= 2);
    }
}

#[test]
fn what_is_not_authentic_is_401_and_polls_nothing() {
    for provider in PROVIDERS {
        let good = push(provider, MAIN, COMMIT, SECRET, "1");
        let mut altered = good.clone();
        altered.body.push(b' ');
        let unsigned = [
            "X-Hub-Signature-256",
            "X-Hub-Signature",
            "X-Gitea-Signature",
            "X-Forgejo-Signature",
            "X-Gogs-Signature",
            "X-Signature",
            "X-Gitlab-Token",
            "webhook-signature",
            "Authorization",
        ]
        .into_iter()
        .fold(good.clone(), Hook::without);
        let empty = unsigned
            .clone()
            .with("X-Hub-Signature-256", "sha256=")
            .with("X-Gitea-Signature", "");
        let mut cases = vec![push(provider, MAIN, COMMIT, "wrong", "1"), unsigned, empty];
        // Secrets that are sent as they are do not cover the body.
        if !["gitlab", "azure_devops", "sns", "token"].contains(&provider) {
            cases.push(altered);
        }
        for case in cases {
            let port = Port::new();
            let answer = port.send(&case);
            assert_eq!(answer.status, 401, "{case:?}");
            assert_eq!(port.polled(), None, "{case:?}");
            // What it was said to be does not matter, only that it counts.
            let page = port.service.get("/metrics").body;
            assert!(page.contains("outcome=\"refused\"} 1\n"), "{case:?}");
        }
    }
}

#[test]
fn a_replay_is_200_and_polls_nothing() {
    for provider in PROVIDERS {
        if ["hmac", "token"].contains(&provider) {
            // They have no delivery id.
            continue;
        }
        let port = Port::new();
        let hook = push(provider, MAIN, COMMIT, SECRET, "f00");
        assert_eq!(port.send(&hook).status, 202, "{provider}");
        assert!(port.polled().is_some());
        assert_eq!(port.send(&hook).status, 200, "{provider}");
        assert_eq!(port.polled(), None, "{provider}");
        assert_eq!(port.count(label(provider), "replayed"), 1);
    }
}

#[test]
fn a_signature_older_than_five_minutes_is_a_replay() {
    let hook = || {
        push("gitlab-standard", MAIN, COMMIT, SECRET, "1")
            .without("webhook-id")
            .without("webhook-timestamp")
            .without("webhook-signature")
    };
    for (id, age, status) in [("1", 290, 202), ("2", 310, 200), ("3", 1_000_000, 200)] {
        let port = Port::new();
        let answer = port.send(&standard(hook(), SECRET, id, now() - age));
        assert_eq!(answer.status, status, "{age}");
        assert_eq!(port.polled().is_some(), status == 202, "{age}");
    }
    let port = Port::new();
    let hook = standard(hook(), SECRET, "4", now()).without("webhook-timestamp");
    assert_eq!(port.send(&hook).status, 401, "the time is signed as well");
}

#[test]
fn a_ping_and_what_nobody_understands_poll_and_other_events_do_not() {
    let event = |name: &str, body: &str| {
        Hook::new(&[("X-GitHub-Event", name)], body).with(
            "X-Hub-Signature-256",
            format!("sha256={}", hex(SECRET, body.as_bytes())),
        )
    };
    for (hook, polls) in [
        (
            event("ping", "{\"zen\":\"Keep it logically awesome.\"}"),
            true,
        ),
        (event("push", "\x00\u{1}garbage"), true),
        (event("push", ""), true),
        (event("push", "{\"ref\":7}"), true),
        (event("issues", &github_body(MAIN, COMMIT)), false),
    ] {
        let port = Port::new();
        assert_eq!(port.send(&hook).status, 202, "{hook:?}");
        assert_eq!(port.polled(), polls.then_some(None), "{hook:?}");
    }
}

#[test]
fn a_form_is_signed_as_it_is_by_github_and_by_its_document_by_gitea() {
    let document = github_body(MAIN, COMMIT);
    let encoded: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &document)
        .finish();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let github = Hook::new(&[form, ("X-GitHub-Event", "push")], encoded.clone()).with(
        "X-Hub-Signature-256",
        format!("sha256={}", hex(SECRET, encoded.as_bytes())),
    );
    let gitea = Hook::new(&[form, ("X-Gitea-Event", "push")], encoded.clone())
        .with("X-Gitea-Signature", hex(SECRET, document.as_bytes()));
    for hook in [github, gitea] {
        let port = Port::new();
        assert_eq!(port.send(&hook).status, 202, "{hook:?}");
        assert_eq!(port.polled(), Some(Some(COMMIT.to_owned())));
    }
    // GitHub never signs the document alone.
    let wrong = Hook::new(&[form, ("X-GitHub-Event", "push")], encoded).with(
        "X-Hub-Signature-256",
        format!("sha256={}", hex(SECRET, document.as_bytes())),
    );
    assert_eq!(Port::new().send(&wrong).status, 401);
}

#[test]
fn one_good_signature_among_several_is_enough_and_every_secret_is_valid() {
    let bad = format!("sha256={}", "0".repeat(64));
    let two = push("github", MAIN, COMMIT, SECRET, "1").with("X-Hub-Signature-256", bad.clone());
    let port = Port::new();
    assert_eq!(port.send(&two).status, 202);
    let good = push("gitlab-standard", MAIN, COMMIT, SECRET, "2");
    let signature = good.headers.last().unwrap().1.clone();
    let tag = BASE64_STANDARD.encode([0; 32]);
    let rotating = good
        .without("webhook-signature")
        .with("webhook-signature", format!("v1,{tag} v1a,x {signature}"));
    assert_eq!(port.send(&rotating).status, 202);
    assert_eq!(
        port.send(&push("github", MAIN, COMMIT, "another secret", "3"))
            .status,
        202
    );
    std::fs::write(&port.secrets[1], "rotated").unwrap();
    assert_eq!(
        port.send(&push("github", MAIN, COMMIT, "rotated", "4"))
            .status,
        202
    );
    assert_eq!(
        port.send(&push("github", MAIN, COMMIT, "another secret", "5"))
            .status,
        401
    );
    // A secret that cannot be read is no secret, and the others stay valid.
    std::fs::remove_file(&port.secrets[1]).unwrap();
    assert_eq!(
        port.send(&push("github", MAIN, COMMIT, SECRET, "6")).status,
        202
    );
}

#[test]
fn chunks_of_any_size_are_one_body_and_a_truncated_one_is_none() {
    let hook = push("github", MAIN, COMMIT, SECRET, "1");
    for size in [1, 7, 100_000] {
        let port = Port::new();
        let address = port.service.server.local_addr();
        assert_eq!(ask(address, &hook.chunked(size)).status, 202, "{size}");
        assert_eq!(port.polled(), Some(Some(COMMIT.to_owned())));
    }
    let port = Port::new();
    for wire in [hook.chunked(9), hook.wire("/webhook")] {
        let mut client = connect(port.service.server.local_addr());
        client.write_all(&wire[..wire.len() - 5]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "there is no answer");
    }
    assert_eq!(port.polled(), None);
    let mut broken = hook.head("/webhook", "Transfer-Encoding: chunked");
    broken.extend_from_slice(b"zz\r\n");
    assert_eq!(ask(port.service.server.local_addr(), &broken).status, 400);
}

#[test]
fn a_body_of_25_mib_is_read_for_its_ref_and_one_byte_more_is_413() {
    let mut body = github_body(MAIN, COMMIT).into_bytes();
    let padding = usize::try_from(MAX_WEBHOOK_BODY).unwrap() - body.len();
    body.extend(std::iter::repeat_n(b' ', padding));
    let signature = format!("sha256={}", hex(SECRET, &body));
    let hook =
        Hook::new(&[("X-GitHub-Event", "push")], body).with("X-Hub-Signature-256", signature);
    let port = Port::new();
    assert_eq!(port.send(&hook).status, 202);
    assert_eq!(port.polled(), Some(Some(COMMIT.to_owned())));
    let address = port.service.server.local_addr();
    assert_eq!(ask(address, &hook.chunked(1 << 20)).status, 202);
    let over = hook.head(
        "/webhook",
        &format!("Content-Length: {}", MAX_WEBHOOK_BODY + 1),
    );
    assert_eq!(ask(address, &over).status, 413);
    let mut large = hook.clone();
    large.body.push(b' ');
    let mut client = connect(address);
    // The server may answer and close before all is sent.
    let _ = client.write_all(&large.chunked(1 << 20));
    let mut answer = Vec::new();
    if client.read_to_end(&mut answer).is_ok() {
        assert!(answer.starts_with(b"HTTP/1.0 413 "));
    }
    assert!(port.polled().is_none_or(|commit| commit.is_some()));
}

#[test]
fn only_a_configured_topic_is_confirmed_and_counts() {
    let subscription = |topic: &str, secret: &str| {
        let body = serde_json::json!({
            "Type": "SubscriptionConfirmation", "MessageId": topic, "Token": "2336412f37fb687f",
            "TopicArn": topic, "SubscribeURL": "https://evil.example/?confirm",
        });
        Hook::new(
            &[
                ("x-amz-sns-message-type", "SubscriptionConfirmation"),
                ("x-amz-sns-message-id", topic),
            ],
            body.to_string(),
        )
        .with("Authorization", basic(secret))
    };
    let port = Port::new();
    let other = "arn:aws:sns:eu-central-1:999999999999:git";
    assert_eq!(port.send(&subscription(other, SECRET)).status, 202);
    assert!(port.confirmed.lock().unwrap().is_empty());
    let refused = port.send(&subscription(TOPIC, "wrong"));
    assert_eq!(refused.status, 401);
    // SNS sends its password only after this.
    assert!(refused.headers["www-authenticate"].starts_with("Basic"));
    assert_eq!(port.send(&subscription(TOPIC, SECRET)).status, 202);
    let confirmed = port.confirmed.lock().unwrap().clone();
    assert_eq!(
        confirmed,
        [format!(
            "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&\
             TopicArn={TOPIC}&Token=2336412f37fb687f"
        )]
    );
    let mut foreign = push("sns", MAIN, COMMIT, SECRET, "9");
    foreign.body = String::from_utf8(foreign.body)
        .unwrap()
        .replace(TOPIC, other)
        .into_bytes();
    assert_eq!(port.send(&foreign).status, 202);
    assert_eq!(port.polled(), None);
}

#[test]
fn other_methods_are_405_and_without_secrets_there_is_no_route() {
    let port = Port::new();
    let request = |method: &str| format!("{method} /webhook HTTP/1.1\r\nHost: x\r\n\r\n");
    for method in ["GET", "PUT", "DELETE"] {
        let answer = port.service.ask(&request(method));
        assert_eq!((answer.status, &*answer.headers["allow"]), (405, "POST"));
    }
    let service = Service::start(None, None);
    assert_eq!(service.ask(&request("POST")).status, 404);
}

#[test]
fn a_name_that_is_not_allowed_reads_nothing_and_may_still_send_webhooks() {
    let port = Port::new();
    for path in ["/status", "/metrics", "/livez"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(port.service.ask(&request).status, 421, "{path}");
    }
    assert_eq!(
        port.send(&push("github", MAIN, COMMIT, SECRET, "1")).status,
        202
    );
}

#[test]
fn guesses_of_one_source_are_few_and_do_not_delay_probes() {
    let port = Port::new();
    let address = port.service.server.local_addr();
    let until = Instant::now() + Duration::from_secs(4);
    let guessers: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut guesses = 0;
                while Instant::now() < until {
                    let hook = push("github", MAIN, COMMIT, "guess", "1");
                    let status = ask(address, &hook.wire("/webhook")).status;
                    assert!([401, 429].contains(&status), "{status}");
                    guesses += u32::from(status == 401);
                }
                guesses
            })
        })
        .collect();
    while Instant::now() < until {
        let began = Instant::now();
        assert_eq!(port.service.get("/livez").status, 200);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    let guesses: u32 = guessers.into_iter().map(|g| g.join().unwrap()).sum();
    report(&format!("{guesses} guesses were looked at"));
    // The wait doubles from 50 ms to 5 s.
    assert!((3..=24).contains(&guesses), "{guesses}");
    let delayed = port.count("unknown", "delayed");
    assert!(delayed > 0);
    // The right secret is still accepted, after a wait.
    assert_eq!(
        port.send(&push("github", MAIN, COMMIT, SECRET, "2")).status,
        202
    );
}

#[test]
fn random_requests_are_read_without_harm_and_only_the_authentic_count() {
    let mut random = fastrand::Rng::with_seed(11);
    let secrets = [Secret::received(SECRET)];
    let room = Room::default();
    let (mut authentic, mut rounds) = (0, 0);
    let rounds_in_all = if soak() { 1_000_000 } else { 4000 };
    for _ in 0..rounds_in_all {
        let provider = PROVIDERS[random.usize(..PROVIDERS.len())];
        let mut hook = push(provider, MAIN, COMMIT, SECRET, "1");
        let intact = random.bool();
        let wire = match random.bool() {
            true => hook.wire("/webhook"),
            false => hook.chunked(random.usize(1..600)),
        };
        let mut wire = wire;
        if !intact {
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..wire.len().max(1));
                if at >= wire.len() {
                    break;
                }
                match random.u8(..3) {
                    0 => wire[at] = random.u8(..),
                    1 => drop(wire.remove(at)),
                    _ => wire.truncate(at.max(1)),
                }
            }
        }
        rounds += 1;
        let Ok(Some((head, length))) = parse_head(&wire) else {
            assert!(!intact);
            continue;
        };
        let form = random.u8(..8) == 0;
        let Some(mut incoming) = Incoming::begin(recognise(&head), &secrets, form, &room) else {
            assert!(!intact);
            continue;
        };
        hook.body = wire[length..].to_vec();
        let mut chunks = Chunks::new();
        let is_chunked = wire.windows(7).any(|w| w == b"chunked");
        for piece in hook.body.chunks(random.usize(1..2000)) {
            if !is_chunked {
                incoming.push(piece);
            } else if chunks
                .feed(piece, &mut |content| incoming.push(content))
                .is_err()
            {
                break;
            }
        }
        let received = incoming.finish(now());
        assert!(received.is_some() || !intact, "{provider}");
        authentic += usize::from(received.is_some());
    }
    report(&format!("{rounds} requests, {authentic} of them authentic"));
    assert!(authentic * 3 > rounds, "most intact requests are authentic");
    // All that was kept was given back.
    assert_eq!(read_nothing(&room), 0);
}

/// Bytes that are kept in a room now, as its Debug form tells.
fn read_nothing(room: &Room) -> usize {
    let text = format!("{room:?}");
    text.trim_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap()
}

#[test]
fn a_webhook_that_is_not_sent_in_time_is_408() {
    let port = Port::new();
    let wire = push("github", MAIN, COMMIT, SECRET, "1").wire("/webhook");
    let mut client = connect(port.service.server.local_addr());
    client.write_all(&wire[..wire.len() - 1]).unwrap();
    assert_eq!(read_answer(&mut client).status, 408);
    assert_eq!(port.polled(), None);
}
