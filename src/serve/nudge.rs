//! `POST /nudge`: who may ask for a poll now, and how often one follows.
//!
//! Polling stays the source of truth: a request says only that a poll is worth while, and for which
//! target (`?target=NAME`; all without). Its body is counted against the limit and dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::hmac;

use super::Served;
use super::limits::Head;
use super::routes::Reply;
use crate::base::files;
use crate::base::secret::Secret;
use crate::observe::metrics::{NudgeOutcome, Provider};

/// At most one poll in this time comes from nudges.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The longest token file that is read, in bytes.
const MAX_TOKEN: u64 = 4096;

/// Who may nudge.
#[derive(Clone, Debug)]
pub struct NudgeConfig {
    /// The file with the bearer token; read again for every request, so that it can be rotated.
    pub token_file: PathBuf,
}

/// Lets authenticated nudges through, one in [`INTERVAL`] for each target.
#[derive(Debug)]
pub(super) struct Gate {
    config: NudgeConfig,
    targets: Vec<Nudged>,
    /// Whether the log has been told that the token file is unusable. It is told once, because
    /// anybody may send requests.
    complained: bool,
}

/// A target that can be nudged.
#[derive(Debug)]
struct Nudged {
    target: Served,
    throttle: Throttle,
}

/// An authenticated nudge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nudge {
    provider: Provider,
    /// The place of the target that it names, in the order of the configuration; all if `None`.
    target: Option<usize>,
}

/// Admits one nudge now, and those that come too soon after it together later.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    pending: bool,
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
            complained: false,
        }
    }

    /// What this request may nudge, or how it is refused.
    pub(super) fn authenticate(&mut self, head: &Head) -> Result<Nudge, Reply> {
        let expected = match read_token(&self.config.token_file) {
            Ok(token) => {
                self.complained = false;
                token
            }
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    let path = self.config.token_file.display();
                    tracing::warn!("cannot read the nudge token in {path}: {error}");
                }
                return Err(Reply::text(503, "the token file cannot be read"));
            }
        };
        let provider = Provider::Token;
        let sent = head.authorization.as_ref().and_then(bearer);
        if !sent.is_some_and(|sent| same(sent, expected.expose())) {
            for nudged in &self.targets {
                nudged.target.metrics.nudge(provider, NudgeOutcome::Refused);
            }
            return Err(Reply::text(401, "a valid bearer token is needed")
                .with("WWW-Authenticate", "Bearer realm=\"nudge\""));
        }
        let target = match named_target(&head.query) {
            None => None,
            Some(name) => Some(
                self.targets
                    .iter()
                    .position(|nudged| nudged.target.status.target() == name)
                    .ok_or_else(|| Reply::text(404, "no target has this name"))?,
            ),
        };
        Ok(Nudge { provider, target })
    }

    /// Passes an authenticated nudge on, now or when the time has come.
    pub(super) fn accept(&mut self, nudge: Nudge) -> Reply {
        let now = Instant::now();
        let mut all_now = true;
        for (index, nudged) in self.targets.iter_mut().enumerate() {
            if nudge.target.is_some_and(|target| target != index) {
                continue;
            }
            let admitted = nudged.throttle.admit(now);
            all_now &= admitted;
            let Served { metrics, wake, .. } = &nudged.target;
            if admitted {
                metrics.nudge(nudge.provider, NudgeOutcome::Accepted);
                wake.nudge();
            } else {
                metrics.nudge(nudge.provider, NudgeOutcome::Coalesced);
            }
        }
        Reply::text(
            202,
            match all_now {
                true => "polling now",
                false => "polling within a second",
            },
        )
    }

    /// When [`Gate::release`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.targets.iter().filter_map(|t| t.throttle.due()).min()
    }

    /// Passes on what came too soon, if the time has come.
    pub(super) fn release(&mut self, now: Instant) {
        for nudged in &mut self.targets {
            if nudged.throttle.release(now) {
                nudged.target.wake.nudge();
            }
        }
    }
}

impl Throttle {
    fn admit(&mut self, now: Instant) -> bool {
        let admitted = !self.pending && self.last.is_none_or(|last| now >= last + INTERVAL);
        if admitted {
            self.last = Some(now);
        } else {
            self.pending = true;
        }
        admitted
    }

    fn due(&self) -> Option<Instant> {
        let last = self.last.filter(|_| self.pending)?;
        Some(last + INTERVAL)
    }

    fn release(&mut self, now: Instant) -> bool {
        let released = self.due().is_some_and(|due| now >= due);
        if released {
            self.pending = false;
            self.last = Some(now);
        }
        released
    }
}

/// The target that the query names, decoded.
fn named_target(query: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "target")
        .map(|(_, name)| name.into_owned())
}

/// The token, without the newline that editors leave.
fn read_token(path: &Path) -> io::Result<Secret> {
    let content = files::read(path, MAX_TOKEN)?;
    let text = String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8"))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(Secret::new(token))
}

/// The token of `Authorization: Bearer <token>` (RFC 6750, section 2.1).
fn bearer(authorization: &Secret) -> Option<&str> {
    let (scheme, token) = authorization.expose().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Constant-time comparison: compares HMACs of the two tokens, so the time does not depend on where
/// they differ.
fn same(one: &str, other: &str) -> bool {
    let key = |token: &str| hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let tag = hmac::sign(&key(other), b"nudge");
    hmac::verify(&key(one), b"nudge", tag.as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_within_a_second_is_one_poll_right_after_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut throttle = Throttle::default();
        assert!(throttle.admit(at(0)));
        assert_eq!(throttle.due(), None);
        assert!(!throttle.admit(at(10)));
        assert!(!throttle.admit(at(900)));
        assert_eq!(throttle.due(), Some(at(1000)));
        assert!(!throttle.release(at(999)));
        // Late to release: the one that comes then joins those that wait.
        assert!(!throttle.admit(at(1001)));
        assert!(throttle.release(at(1002)));
        assert!(!throttle.release(at(1003)));
        assert!(!throttle.admit(at(1500)));
        assert!(throttle.release(at(2002)));
        assert!(throttle.admit(at(3002)));
    }

    #[test]
    fn only_the_whole_token_is_the_same() {
        assert!(same("s3cret", "s3cret"));
        for other in ["", "s3cre", "s3cret ", "S3cret", "s3crets"] {
            assert!(!same(other, "s3cret"), "{other}");
        }
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(&Secret::new("bEARER  t")), Some("t"));
        for other in ["t", "Basic t", "Bearer"] {
            assert_eq!(bearer(&Secret::new(other)), None, "{other}");
        }
    }

    #[test]
    fn an_unusable_token_file_is_an_error_and_no_empty_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(read_token(&path).is_err());
        assert!(read_token(dir.path()).is_err());
        for unusable in [" \n".to_owned(), "x".repeat(5000)] {
            std::fs::write(&path, unusable).unwrap();
            assert!(read_token(&path).is_err());
        }
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(read_token(&path).unwrap().expose(), "s3cret");
    }
}
