//! Who may ask for a poll over HTTP (`POST /nudge`, `POST /webhook`), and how often one follows.
//!
//! Polling stays the source of truth: a request says only that a poll is worth while, for which
//! target (`?target=NAME`; all without), and perhaps which commit to expect.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Served;
use super::guesses::Guesses;
use super::limits::Head;
use super::routes::{Door, Reply};
use super::webhooks::body::Room;
use super::webhooks::replay::Replays;
use super::webhooks::{self, Incoming, Meaning, Push, Received, sns};
use crate::base::commit::Commit;
use crate::base::files;
use crate::base::secret::Secret;
use crate::observe::metrics::{NudgeOutcome, Provider};
use crate::remote::RefName;

/// At most one poll in this time comes from nudges.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The longest secret file that is read, in bytes.
const MAX_SECRET: u64 = 4096;

/// Who may nudge.
#[derive(Clone, Default)]
pub struct NudgeConfig {
    /// The file with a bearer token for `/nudge`.
    pub token_file: Option<PathBuf>,
    /// Files with secrets for everything, all of them valid. They are read again for every request,
    /// so that they can be rotated.
    pub secret_files: Vec<PathBuf>,
    /// ARNs of the AWS SNS topics whose subscriptions are confirmed and whose messages count.
    pub sns_topics: Vec<String>,
    /// Takes the URL that confirms a subscription, and gets it on a thread of its own.
    pub confirm: Option<Arc<dyn Fn(String) + Send + Sync>>,
}

/// Lets authentic nudges through, one in [`INTERVAL`] for each target.
#[derive(Debug)]
pub(super) struct Gate {
    config: NudgeConfig,
    targets: Vec<Nudged>,
    replays: Replays,
    guesses: Guesses,
    room: Room,
    /// Whether the log has been told that a secret file is unusable. It is told once, because
    /// anybody may send requests.
    complained: bool,
}

/// A target that can be nudged.
#[derive(Debug)]
struct Nudged {
    target: Served,
    throttle: Throttle,
}

/// A request whose head was good.
#[derive(Debug)]
pub(super) struct Nudge {
    incoming: Incoming,
    door: Door,
    /// The place of the target that it names, in the order of the configuration; all if `None`.
    target: Option<usize>,
}

/// Admits one nudge now, and those that come too soon after it together later.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    pending: bool,
    /// The commit that the last of those that wait named.
    announced: Option<Commit>,
}

impl Gate {
    pub(super) fn new(config: NudgeConfig, targets: &[Served]) -> Self {
        let targets = targets.iter().map(|target| Nudged {
            target: target.clone(),
            throttle: Throttle::default(),
        });
        Self {
            config,
            targets: targets.collect(),
            replays: Replays::default(),
            guesses: Guesses::new(),
            room: Room::default(),
            complained: false,
        }
    }

    /// Whether a request of this source may be looked at now.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn admit(&mut self, source: IpAddr) -> Result<(), Instant> {
        self.guesses.admit(source, Instant::now())
    }

    /// A request has to wait; its sender is not known yet.
    pub(super) fn delayed(&self) {
        self.count(None, Provider::Unknown, NudgeOutcome::Delayed);
    }

    /// Begins to receive a request, or says how it is refused.
    pub(super) fn begin(
        &mut self,
        door: Door,
        head: &Head,
        source: IpAddr,
    ) -> Result<Nudge, Reply> {
        let scheme = match door {
            Door::Nudge => webhooks::recognise_nudge(head),
            Door::Webhook => webhooks::recognise(head),
        };
        let provider = scheme.provider();
        let secrets = self.secrets(door);
        let form_encoded = head.header("content-type").is_some_and(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        let form_encoded = form_encoded && door == Door::Webhook;
        let Some(incoming) = Incoming::begin(scheme, &secrets, form_encoded, &self.room) else {
            return Err(self.refused(door, provider, source));
        };
        let target = match named_target(&head.query) {
            None => None,
            Some(name) => Some(
                self.targets
                    .iter()
                    .position(|nudged| nudged.target.status.target() == name)
                    .ok_or_else(|| Reply::text(404, "no target has this name"))?,
            ),
        };
        Ok(Nudge {
            incoming,
            door,
            target,
        })
    }

    /// Passes a complete request on, now or when the time has come, if it is authentic and about
    /// something.
    pub(super) fn finish(&mut self, nudge: Nudge, source: IpAddr) -> Reply {
        let Nudge {
            incoming,
            door,
            target,
        } = nudge;
        let provider = incoming.provider();
        let Some(received) = incoming.finish(seconds_since_epoch()) else {
            return self.refused(door, provider, source);
        };
        self.guesses.succeeded(source, Instant::now());
        let Received {
            provider,
            untimely,
            delivery,
            meaning,
        } = received;
        let is_new = delivery.is_none_or(|id| self.replays.is_new(provider.as_str(), &id));
        if untimely || !is_new {
            self.count(target, provider, NudgeOutcome::Replayed);
            return Reply::text(200, "seen before: nothing to do");
        }
        let meaning = self.of_a_known_topic(meaning);
        let mut reply = "nothing to do";
        for (index, nudged) in self.targets.iter_mut().enumerate() {
            if target.is_some_and(|target| target != index) {
                continue;
            }
            let outcome = match concerns(&meaning, &nudged.target) {
                None => NudgeOutcome::Ignored,
                Some(announced) => nudged.pass(announced, Instant::now()),
            };
            nudged.target.metrics.nudge(provider, outcome);
            reply = match outcome {
                NudgeOutcome::Accepted => "polling now",
                NudgeOutcome::Coalesced => "polling within a second",
                NudgeOutcome::Held => "too many nudges: the next poll serves this one",
                _ => reply,
            };
        }
        Reply::text(202, reply)
    }

    /// When [`Gate::release`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.targets.iter().filter_map(|t| t.throttle.due()).min()
    }

    /// Passes on what came too soon, if the time has come.
    pub(super) fn release(&mut self, now: Instant) {
        for nudged in &mut self.targets {
            if let Some(announced) = nudged.throttle.release(now)
                && nudged.target.wake.allow_poll()
            {
                nudged.target.wake.announce(announced);
            }
        }
    }

    fn refused(&mut self, door: Door, provider: Provider, source: IpAddr) -> Reply {
        self.guesses.failed(source, Instant::now());
        self.count(None, provider, NudgeOutcome::Refused);
        refusal(door)
    }

    fn count(&self, target: Option<usize>, provider: Provider, outcome: NudgeOutcome) {
        for (index, nudged) in self.targets.iter().enumerate() {
            if target.is_none_or(|target| target == index) {
                nudged.target.metrics.nudge(provider, outcome);
            }
        }
    }

    /// The secrets that are valid now; none where a file cannot be read.
    fn secrets(&mut self, door: Door) -> Vec<Secret> {
        let token_file = self.config.token_file.iter();
        let files = token_file
            .filter(|_| door == Door::Nudge)
            .chain(&self.config.secret_files);
        let mut secrets = Vec::new();
        let mut failed = None;
        for file in files {
            match read_secret(file) {
                Ok(secret) => secrets.push(secret),
                Err(error) => failed = Some((file, error)),
            }
        }
        if let Some((file, error)) = &failed
            && !self.complained
        {
            let path = file.display();
            tracing::warn!("cannot read the secret for nudges in {path}: {error}");
        }
        self.complained = failed.is_some();
        secrets
    }

    /// What a message of AWS SNS says, if its topic is configured. Confirms a subscription.
    fn of_a_known_topic(&self, meaning: Meaning) -> Meaning {
        let known = |topic: &String| self.config.sns_topics.contains(topic);
        match meaning {
            Meaning::Notification { topic, meaning } if known(&topic) => *meaning,
            Meaning::Subscribe { topic, token } if known(&topic) => {
                if let Some(url) = sns::confirmation(&topic, &token)
                    && let Some(confirm) = &self.config.confirm
                {
                    tracing::info!(topic, "confirming the subscription to an SNS topic");
                    confirm(url);
                }
                Meaning::Nothing
            }
            Meaning::Notification { .. } | Meaning::Subscribe { .. } => Meaning::Nothing,
            other => other,
        }
    }
}

impl Nudge {
    /// Takes the next bytes of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.incoming.push(bytes);
    }
}

impl Nudged {
    /// Wakes the target now, later, or not at all.
    fn pass(&mut self, announced: Option<Commit>, now: Instant) -> NudgeOutcome {
        if !self.throttle.admit(now, announced) {
            return NudgeOutcome::Coalesced;
        }
        if !self.target.wake.allow_poll() {
            return NudgeOutcome::Held;
        }
        self.target.wake.announce(announced);
        NudgeOutcome::Accepted
    }
}

impl Throttle {
    fn admit(&mut self, now: Instant, announced: Option<Commit>) -> bool {
        let admitted = !self.pending && self.last.is_none_or(|last| now >= last + INTERVAL);
        if admitted {
            self.last = Some(now);
        } else {
            self.pending = true;
            self.announced = announced.or(self.announced);
        }
        admitted
    }

    fn due(&self) -> Option<Instant> {
        let last = self.last.filter(|_| self.pending)?;
        Some(last + INTERVAL)
    }

    /// What to announce, if something waits and its time has come.
    fn release(&mut self, now: Instant) -> Option<Option<Commit>> {
        self.due().filter(|due| now >= *due)?;
        self.pending = false;
        self.last = Some(now);
        Some(self.announced.take())
    }
}

impl fmt::Debug for NudgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NudgeConfig")
            .field("token_file", &self.token_file)
            .field("secret_files", &self.secret_files)
            .field("sns_topics", &self.sns_topics)
            .finish_non_exhaustive()
    }
}

/// The answer to what is not authentic.
fn refusal(door: Door) -> Reply {
    match door {
        Door::Nudge => Reply::text(401, "a valid bearer token or signature is needed")
            .with("WWW-Authenticate", "Bearer realm=\"nudge\""),
        // AWS SNS sends its password only when it is asked for it.
        Door::Webhook => Reply::text(401, "a valid signature or secret is needed")
            .with("WWW-Authenticate", "Basic realm=\"webhook\""),
    }
}

/// Whether what happened is worth a poll of the target, and then which commit it announces.
fn concerns(meaning: &Meaning, target: &Served) -> Option<Option<Commit>> {
    match meaning {
        Meaning::Ping | Meaning::Unknown => Some(None),
        Meaning::Pushes { pushes, all } => {
            let polled = target.status.polled_ref();
            let ours = |push: &&Push| names(&target.reference, polled.as_deref(), &push.name);
            match pushes.iter().rev().find(ours) {
                // A ref that is gone has no commit to publish.
                Some(push) => (!push.deleted).then_some(push.commit),
                None => (!all).then_some(None),
            }
        }
        Meaning::Nothing | Meaning::Subscribe { .. } | Meaning::Notification { .. } => None,
    }
}

/// Whether a full ref name is what is followed. `polled` is the full name of the ref that the last
/// poll found.
fn names(followed: &RefName, polled: Option<&str>, name: &str) -> bool {
    match followed {
        // Before the first poll nobody knows the default branch.
        RefName::Head => polled.is_none_or(|polled| polled == name || polled == "HEAD"),
        RefName::Full(full) => full == name,
        RefName::Short(short) => {
            let prefixes = ["refs/heads/", "refs/tags/", "refs/"];
            prefixes
                .iter()
                .any(|prefix| name.strip_prefix(prefix) == Some(short))
        }
        RefName::Commit(_) => false,
    }
}

/// The target that the query names, decoded.
fn named_target(query: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "target")
        .map(|(_, name)| name.into_owned())
}

/// The secret, without the newline that editors leave.
fn read_secret(path: &Path) -> io::Result<Secret> {
    let content = files::read(path, MAX_SECRET)?;
    let text = String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8"))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(Secret::new(secret))
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_within_a_second_is_one_poll_right_after_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let commit = |digit: &str| Some(digit.repeat(40).parse().unwrap());
        let mut throttle = Throttle::default();
        assert!(throttle.admit(at(0), commit("a")));
        assert_eq!(throttle.due(), None);
        assert!(!throttle.admit(at(10), commit("b")));
        assert!(!throttle.admit(at(900), commit("c")));
        assert_eq!(throttle.due(), Some(at(1000)));
        assert_eq!(throttle.release(at(999)), None);
        // Late to release: the one that comes then joins those that wait.
        assert!(!throttle.admit(at(1001), None));
        assert_eq!(throttle.release(at(1002)), Some(commit("c")));
        assert_eq!(throttle.release(at(1003)), None);
        assert!(!throttle.admit(at(1500), None));
        assert_eq!(throttle.release(at(2002)), Some(None));
        assert!(throttle.admit(at(3002), None));
    }

    #[test]
    fn only_a_push_to_what_is_followed_concerns_a_target() {
        let short = RefName::Short("main".to_owned());
        assert!(names(&short, None, "refs/heads/main"));
        assert!(names(&short, None, "refs/tags/main"));
        for other in ["refs/heads/mai", "refs/heads/x/main", "main", "refs/heads/"] {
            assert!(!names(&short, None, other), "{other}");
        }
        let full = RefName::Full("refs/heads/main".to_owned());
        assert!(names(&full, None, "refs/heads/main"));
        assert!(!names(&full, None, "refs/tags/main"));
        assert!(names(&RefName::Head, None, "refs/heads/any"));
        let polled = Some("refs/heads/main");
        assert!(names(&RefName::Head, polled, "refs/heads/main"));
        assert!(!names(&RefName::Head, polled, "refs/heads/any"));
        let pinned = RefName::Commit("a".repeat(40).parse().unwrap());
        assert!(!names(&pinned, None, "refs/heads/main"));
    }

    #[test]
    fn an_unusable_secret_file_is_an_error_and_no_empty_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(read_secret(&path).is_err());
        assert!(read_secret(dir.path()).is_err());
        for unusable in [" \n".to_owned(), "x".repeat(5000)] {
            std::fs::write(&path, unusable).unwrap();
            assert!(read_secret(&path).is_err());
        }
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), "s3cret");
    }
}
