//! The id of a commit.
//!
//! This module does not read objects: a store may or may not hold the commit.

use std::fmt;
use std::str::FromStr;

/// The full object id of a commit (or of the tag object that names it), in lower-case hexadecimal.
///
/// SHA-1 repositories only: libgit2 does not read SHA-256 repositories in a stable release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(git2::Oid);

/// A text that is not a full object id of 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotACommit;

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
}
