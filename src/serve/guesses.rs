//! Slows down whoever guesses secrets: after failures to authenticate, the next request of the same
//! source waits before it is looked at, and with many failures from everywhere every stranger waits.
//!
//! Right and wrong guesses wait alike, so that the wait tells nothing. A source is an address, or
//! the /64 network of an IPv6 address. Behind a proxy all senders are one source; they then wait for
//! each other, and what they announce arrives with the next poll at the latest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::base::allowance::Allowance;

/// The wait after the first failure; it doubles with each.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait of one source.
const LONGEST: Duration = Duration::from_secs(5);

/// When the failures of a source are forgotten, after its last.
const FORGET: Duration = Duration::from_secs(600);

/// How long a source that authenticated once does not wait for the failures of others.
const TRUST: Duration = Duration::from_secs(3600);

/// Failures of all sources together: an hour, and at once.
const IN_ALL: (u32, u32) = (3600, 100);

/// Sources that are remembered.
const SOURCES: usize = 1024;

/// What is known of those who sent secrets, right or wrong.
#[derive(Debug)]
pub(super) struct Guesses {
    sources: HashMap<IpAddr, Source>,
    in_all: Allowance,
}

#[derive(Debug)]
struct Source {
    failures: u32,
    /// Before this, its next request is not looked at.
    until: Instant,
    last: Instant,
    succeeded: Option<Instant>,
}

impl Guesses {
    pub(super) fn new() -> Self {
        Self {
            sources: HashMap::new(),
            in_all: Allowance::new(IN_ALL.0, IN_ALL.1),
        }
    }

    /// Whether a request may be looked at now.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> Result<(), Instant> {
        let mut trusted = false;
        if let Some(source) = self.sources.get_mut(&network(address)) {
            if now.saturating_duration_since(source.last) > FORGET {
                source.failures = 0;
            }
            if now < source.until {
                return Err(source.until);
            }
            // Its requests are looked at one after the other, also those that came together.
            source.until = now + delay(source.failures);
            trusted = source
                .succeeded
                .is_some_and(|at| now.saturating_duration_since(at) <= TRUST);
        }
        match self.in_all.next(now) {
            Some(next) if !trusted && next > now => Err(next),
            _ => Ok(()),
        }
    }

    /// A request was not authentic.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) {
        self.in_all.take(now);
        let source = self.source(address, now);
        source.failures = source.failures.saturating_add(1);
        source.until = now + delay(source.failures);
        source.last = now;
    }

    /// A request was authentic. It takes away half of the failures, and not all, because somebody
    /// who guesses may share the address.
    pub(super) fn succeeded(&mut self, address: IpAddr, now: Instant) {
        let source = self.source(address, now);
        source.failures /= 2;
        source.succeeded = Some(now);
    }

    fn source(&mut self, address: IpAddr, now: Instant) -> &mut Source {
        let key = network(address);
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&key) {
            let oldest = self.sources.iter().min_by_key(|(_, source)| source.last);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.sources.remove(&oldest);
            }
        }
        self.sources.entry(key).or_insert(Source {
            failures: 0,
            until: now,
            last: now,
            succeeded: None,
        })
    }
}

fn delay(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST
            .saturating_mul(2_u32.saturating_pow(doublings.min(16)))
            .min(LONGEST),
    }
}

/// The part of an address that one sender cannot choose.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_that_fails_waits_longer_each_time_and_others_do_not() {
        let (bad, good) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut guesses = Guesses::new();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(guesses.admit(bad, now), Ok(()));
            guesses.failed(bad, now);
            let until = guesses.admit(bad, now).unwrap_err();
            waits.push((until - now).as_millis());
            assert_eq!(guesses.admit(good, now), Ok(()));
            now = until;
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let later = now + FORGET + LONGEST + FIRST;
        assert_eq!(guesses.admit(bad, later), Ok(()));
        assert_eq!(guesses.admit(bad, later), Ok(()));
    }

    #[test]
    fn requests_that_waited_together_are_looked_at_one_after_the_other() {
        let bad = address("192.0.2.1");
        let mut guesses = Guesses::new();
        let now = Instant::now();
        for _ in 0..4 {
            guesses.failed(bad, now);
        }
        let then = guesses.admit(bad, now).unwrap_err();
        assert_eq!(guesses.admit(bad, then), Ok(()));
        assert_eq!(guesses.admit(bad, then), Err(then + delay(4)));
        guesses.succeeded(bad, then);
        let then = then + delay(4);
        assert_eq!(guesses.admit(bad, then), Ok(()));
        assert_eq!(guesses.admit(bad, then), Err(then + delay(2)));
    }

    #[test]
    fn many_sources_share_one_allowance_and_a_known_sender_needs_none() {
        let mut guesses = Guesses::new();
        let now = Instant::now();
        let known = address("2001:db8:ffff::1");
        guesses.succeeded(known, now);
        let stranger = |n: u32| IpAddr::from(Ipv6Addr::from(u128::from(n) << 64));
        let admitted = (0..10_000)
            .filter(|n| {
                let admitted = guesses.admit(stranger(*n), now).is_ok();
                if admitted {
                    guesses.failed(stranger(*n), now);
                }
                admitted
            })
            .count();
        assert_eq!(admitted, 100);
        let later = now + Duration::from_secs(1);
        assert!(guesses.admit(stranger(20_000), later).is_ok());
        assert_eq!(guesses.admit(known, now), Ok(()));
        assert!(guesses.sources.len() <= SOURCES);
    }

    #[test]
    fn an_ipv6_source_is_its_network_and_a_mapped_address_is_ipv4() {
        assert_eq!(
            network(address("2001:db8::1:2:3:4")),
            network(address("2001:db8::"))
        );
        assert_eq!(
            network(address("::ffff:192.0.2.1")),
            network(address("192.0.2.1"))
        );
        assert_ne!(network(address("192.0.2.1")), network(address("192.0.2.2")));
    }
}
