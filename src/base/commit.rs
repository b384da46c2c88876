//! The id of a commit, and the time that it carries.
//!
//! This module does not read objects: a store may or may not hold the commit.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// The full object id of a commit (or of the tag object that names it), in lower-case hexadecimal.
///
/// SHA-1 repositories only: libgit2 does not read SHA-256 repositories in a stable release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(git2::Oid);

/// A text that is not a full object id of 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotACommit;

/// The time of a commit, in seconds since 1970-01-01T00:00:00Z.
///
/// A commit says whatever its committer's clock or `GIT_COMMITTER_DATE` said, so any value may
/// occur. [`Display`](fmt::Display) prints RFC 3339 in UTC with whole seconds; times before 1970
/// and after 9999 are printed as the nearest time in that range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59Z: RFC 3339 has years of four digits.
const LAST_SECOND: u64 = 253_402_300_799;

impl Timestamp {
    /// The time that is `seconds` after 1970-01-01T00:00:00Z, or before it if negative.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// The same time for the standard library; a time that it cannot represent becomes 1970.
    pub fn to_system_time(self) -> SystemTime {
        let distance = Duration::from_secs(self.0.unsigned_abs());
        let time = if self.0 < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = u64::try_from(self.0).unwrap_or(0).min(LAST_SECOND);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fmt::Display::fmt(&humantime::format_rfc3339_seconds(time), f)
    }
}

impl Commit {
    /// The libgit2 form of the id.
    pub fn oid(&self) -> git2::Oid {
        self.0
    }

    /// The first seven digits, as git abbreviates in its own messages.
    pub fn short(&self) -> String {
        self.to_string()[..7].to_owned()
    }
}

impl From<git2::Oid> for Commit {
    fn from(oid: git2::Oid) -> Self {
        Self(oid)
    }
}

impl FromStr for Commit {
    type Err = NotACommit;

    fn from_str(text: &str) -> Result<Self, NotACommit> {
        if text.len() != 40 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotACommit);
        }
        git2::Oid::from_str(text).map(Self).map_err(|_| NotACommit)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for NotACommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a full object id of 40 hexadecimal digits")
    }
}

impl std::error::Error for NotACommit {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forty_hexadecimal_digits_are_a_commit() {
        let id = "0123456789abcdef0123456789ABCDEF01234567";
        assert_eq!(id.parse::<Commit>().unwrap().to_string(), id.to_lowercase());
        for wrong in ["", "0123456", "main", &id[1..], &format!("{id}0")] {
            assert_eq!(wrong.parse::<Commit>(), Err(NotACommit), "{wrong:?}");
        }
    }

    #[test]
    fn every_timestamp_is_printed_as_the_nearest_that_rfc_3339_has() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-1, "1970-01-01T00:00:00Z"),
            (i64::MIN, "1970-01-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn a_timestamp_becomes_the_same_system_time() {
        let later = Duration::from_secs(1_700_000_000);
        let time = Timestamp::from_seconds(1_700_000_000).to_system_time();
        assert_eq!(time, SystemTime::UNIX_EPOCH + later);
        let time = Timestamp::from_seconds(-7).to_system_time();
        assert_eq!(time, SystemTime::UNIX_EPOCH - Duration::from_secs(7));
        // The extremes do not panic, whatever the platform can represent.
        for seconds in [i64::MIN, i64::MAX] {
            Timestamp::from_seconds(seconds).to_system_time();
        }
    }
}
