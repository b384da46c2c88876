//! All sources with their scopes: asks the one that a URL is for, and tells it what came of it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::base::budget::Budget;
use crate::base::error::SyncError;
use crate::base::repo_url::RepoUrl;

use super::scope::{Fit, Scope};
use super::source::{Credential, Request, Source};
use super::url::UserInformation;

/// How long before its expiry a credential is not used any more, because an operation that begins
/// with it may take a while and clocks differ.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// The sources of one target. Clones share them.
#[derive(Clone, Default)]
pub struct Keyring {
    entries: Vec<Arc<Entry>>,
}

struct Entry {
    scope: Scope,
    slot: Mutex<Slot>,
}

struct Slot {
    source: Box<dyn Source>,
    /// The last credential that has an expiry, and the URL that it was for.
    kept: Option<(RepoUrl, Credential)>,
}

impl Keyring {
    /// Adds a source. Of two with the same fit for a URL, the later one is asked.
    pub fn add(&mut self, scope: Scope, source: impl Source + 'static) {
        self.entries.push(Arc::new(Entry {
            scope,
            slot: Mutex::new(Slot {
                source: Box::new(source),
                kept: None,
            }),
        }));
    }

    /// What to show to the server of a URL; None if nothing is meant for it.
    ///
    /// # Errors
    /// When the source that the URL is for cannot give what it should.
    pub fn get(
        &self,
        request: &Request<'_>,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        match self.entry(request.url) {
            Some(entry) => entry.slot().get(request, budget),
            None => match UserInformation::of(request.url) {
                Some(mut source) => source.get(request, budget),
                None => Ok(None),
            },
        }
    }

    /// Tells the source that the server accepted a credential.
    pub fn accepted(&self, request: &Request<'_>, credential: &Credential) {
        if let Some(entry) = self.entry(request.url) {
            entry.slot().source.accepted(request, credential);
        }
    }

    /// Tells the source that the server refused a credential, and asks it again. None unless the
    /// answer differs: sending the same credential again would only cost a request, and may lock
    /// the account.
    ///
    /// # Errors
    /// As [`Keyring::get`].
    pub fn rejected(
        &self,
        request: &Request<'_>,
        credential: &Credential,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        let Some(entry) = self.entry(request.url) else {
            return Ok(None);
        };
        let mut slot = entry.slot();
        slot.kept = None;
        slot.source.rejected(request, credential);
        let fresh = slot.get(request, budget)?;
        Ok(fresh.filter(|fresh| fresh.proof != credential.proof))
    }

    /// The entry that a URL is for; None where at most the URL's own user information is.
    fn entry(&self, url: &RepoUrl) -> Option<&Entry> {
        let fitting = self
            .entries
            .iter()
            .filter_map(|entry| Some((entry.scope.fit(url)?, entry)));
        let (fit, entry) = fitting.max_by_key(|(fit, _)| *fit)?;
        let has_password = matches!(url, RepoUrl::Http(http) if http.password.is_some());
        (fit > Fit::OwnUrl || !has_password).then_some(entry)
    }
}

impl Entry {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn get(
        &mut self,
        request: &Request<'_>,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        let now = SystemTime::now();
        if let Some((url, credential)) = &self.kept
            && url == request.url
            && credential
                .expires
                .is_some_and(|expires| now + EXPIRY_MARGIN < expires)
        {
            return Ok(Some(credential.clone()));
        }
        self.kept = None;
        let fresh = self.source.get(request, budget)?;
        if let Some(credential) = fresh.as_ref().filter(|fresh| fresh.expires.is_some()) {
            self.kept = Some((request.url.clone(), credential.clone()));
        }
        Ok(fresh)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes = self.entries.iter().map(|entry| &entry.scope);
        f.debug_list().entries(scopes).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Password, Proof};
    use super::*;
    use crate::base::error::Stage;
    use crate::base::secret::Secret;

    fn parse(url: &str) -> RepoUrl {
        RepoUrl::parse(url).unwrap()
    }

    fn budget() -> Budget {
        Budget::new(Duration::MAX, Duration::MAX, Arc::default())
    }

    fn ask(keyring: &Keyring, url: &str) -> Option<(String, String)> {
        let url = parse(url);
        let request = Request {
            url: &url,
            stage: Stage::Poll,
            challenge: None,
        };
        let credential = keyring.get(&request, &budget()).unwrap()?;
        let Proof::Password { username, password } = credential.proof else {
            panic!("not a password");
        };
        Some((
            username.unwrap_or_default(),
            password.map_or_else(String::new, |secret| secret.expose().to_owned()),
        ))
    }

    fn of(username: &str) -> Password {
        Password::new(Some(username.to_owned()), Some(Secret::new("p")))
    }

    fn repository(url: &str) -> Scope {
        match parse(url) {
            RepoUrl::Http(http) => Scope::Repository(http),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_other_hosts_get_nothing() {
        let mut keyring = Keyring::default();
        keyring.add(repository("https://h/own"), of("own"));
        for prefix in ["https://h/team", "https://h/", "https://other/team"] {
            keyring.add(Scope::Below(parse(prefix)), of(prefix));
        }
        for (url, username) in [
            ("https://h/own", Some("own")),
            ("https://h/x", Some("https://h/")),
            ("https://h/team/x", Some("https://h/team")),
            ("https://h/teams", Some("https://h/")),
            ("https://other/team/x", Some("https://other/team")),
            ("https://other/x", None),
            ("https://h:444/team", None),
            ("http://h/team", None),
            ("https://h.evil/team", None),
        ] {
            let got = ask(&keyring, url).map(|(username, _)| username);
            assert_eq!(got.as_deref(), username, "{url}");
        }
    }

    #[test]
    fn the_credentials_of_the_repository_go_to_its_scheme_host_and_port_only() {
        let mut keyring = Keyring::default();
        keyring.add(repository("https://h/own"), of("own"));
        for (url, username) in [
            ("https://h/sub", Some("own")),
            ("https://h:443/sub", Some("own")),
            ("https://h:444/sub", None),
            ("http://h/sub", None),
            ("https://other/own", None),
        ] {
            let got = ask(&keyring, url).map(|(username, _)| username);
            assert_eq!(got.as_deref(), username, "{url}");
        }
    }

    #[test]
    fn what_stands_in_a_url_is_used_where_nothing_is_configured_for_it() {
        let pair = |username: &str, password: &str| Some((username.into(), password.into()));
        let own = parse("https://me:mine@h/r");
        let mut keyring = Keyring::default();
        let RepoUrl::Http(http) = own.clone() else {
            panic!("not HTTP");
        };
        keyring.add(
            Scope::RepositoryUrl(http),
            UserInformation::of(&own).unwrap(),
        );
        assert_eq!(ask(&keyring, "https://me:mine@h/r"), pair("me", "mine"));
        assert_eq!(ask(&keyring, "https://h/sub"), pair("me", "mine"));
        assert_eq!(ask(&keyring, "https://u:p@h/sub"), pair("u", "p"));
        assert_eq!(ask(&keyring, "https://u:p@other/x"), pair("u", "p"));
        assert_eq!(ask(&keyring, "https://other/x"), None);
        // A prefix without credentials of its own says that none go there, except the URL's own.
        keyring.add(
            Scope::Below(parse("https://h/public")),
            Password::new(None, None),
        );
        assert_eq!(ask(&keyring, "https://h/public/x"), None);
        // What is configured goes before what stands in the URL.
        keyring.add(Scope::Below(parse("https://other/")), of("c"));
        assert_eq!(ask(&keyring, "https://u:x@other/x"), pair("c", "p"));
    }

    /// Gives another password each time, valid for so long.
    struct Minting {
        asked: Arc<AtomicUsize>,
        lifetime: Option<Duration>,
    }

    impl Source for Minting {
        fn get(&mut self, _: &Request<'_>, _: &Budget) -> Result<Option<Credential>, SyncError> {
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(Some(Credential {
                proof: Proof::Password {
                    username: None,
                    password: Some(Secret::new(number.to_string())),
                },
                expires: self.lifetime.map(|lifetime| SystemTime::now() + lifetime),
            }))
        }
    }

    #[test]
    fn a_credential_is_kept_until_shortly_before_its_expiry_or_until_it_is_rejected() {
        let hour = Duration::from_secs(3600);
        for (lifetime, asked) in [(Some(hour), 1), (Some(EXPIRY_MARGIN / 2), 3), (None, 3)] {
            let counter = Arc::new(AtomicUsize::new(0));
            let mut keyring = Keyring::default();
            keyring.add(
                Scope::Below(parse("https://h/")),
                Minting {
                    asked: counter.clone(),
                    lifetime,
                },
            );
            for _ in 0..3 {
                ask(&keyring, "https://h/x");
            }
            assert_eq!(counter.load(Ordering::Relaxed), asked, "{lifetime:?}");
            let url = parse("https://h/x");
            let request = Request {
                url: &url,
                stage: Stage::Poll,
                challenge: None,
            };
            let old = keyring.get(&request, &budget()).unwrap().unwrap();
            let fresh = keyring.rejected(&request, &old, &budget()).unwrap();
            assert!(fresh.is_some_and(|fresh| fresh != old));
        }
    }

    #[test]
    fn a_rejected_credential_that_did_not_change_is_not_given_again() {
        let mut keyring = Keyring::default();
        keyring.add(Scope::Below(parse("https://h/")), of("u"));
        for url in ["https://h/x", "https://u:p@other/x"] {
            let url = parse(url);
            let request = Request {
                url: &url,
                stage: Stage::Poll,
                challenge: Some("Basic realm=\"git\""),
            };
            let given = keyring.get(&request, &budget()).unwrap().unwrap();
            assert_eq!(keyring.rejected(&request, &given, &budget()).unwrap(), None);
        }
    }
}
