//! Finds the wanted ref in a stream of refs.

use crate::base::commit::Commit;
use crate::base::transfer::Advertised;
use crate::remote::upstream::{RefName, Tip};

use super::error::{ProtocolError, quote};

/// Takes refs one by one and keeps only the best match.
#[derive(Debug)]
pub struct RefPicker {
    /// The full names that `--ref` can mean, best first.
    wanted: Vec<String>,
    /// The ref found for each of those names.
    found: Vec<Option<Advertised>>,
    /// The name that the remote's HEAD points to, if it is symbolic.
    head_target: Option<String>,
    any: bool,
}

impl RefPicker {
    /// A picker for the ref that `--ref` names.
    pub fn new(name: &RefName) -> Self {
        let wanted = match name {
            RefName::Head => vec!["HEAD".to_owned()],
            RefName::Full(full) => vec![full.clone()],
            RefName::Short(short) => vec![
                format!("refs/heads/{short}"),
                format!("refs/tags/{short}"),
                format!("refs/{short}"),
            ],
            RefName::Commit(_) => Vec::new(),
        };
        Self {
            found: vec![None; wanted.len()],
            wanted,
            head_target: None,
            any: false,
        }
    }

    /// The full names that `--ref` can mean, best first.
    pub fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// Whether a ref of this name would be kept. Also records that the repository is not empty.
    pub fn looks_for(&mut self, name: &[u8]) -> bool {
        self.any = true;
        self.position(name).is_some()
    }

    /// Takes one ref: its name, its object, and the commit if the object is a tag.
    pub fn take(&mut self, name: &[u8], object: Commit, peeled: Option<Commit>) {
        self.any = true;
        if let Some(at) = self.position(name) {
            self.found[at] = Some(Advertised {
                name: self.wanted[at].clone(),
                object,
                commit: peeled.unwrap_or(object),
            });
        }
    }

    /// Takes the commit behind a tag that was taken before (version 0: `<name>^{}`).
    pub fn take_peeled(&mut self, name: &[u8], commit: Commit) {
        if let Some(at) = self.position(name)
            && let Some(found) = &mut self.found[at]
        {
            found.commit = commit;
        }
    }

    /// Takes the name that the remote's HEAD points to.
    pub fn take_head_target(&mut self, target: &[u8]) {
        self.head_target = std::str::from_utf8(target)
            .ok()
            .filter(|target| target.starts_with("refs/"))
            .map(str::to_owned);
    }

    /// The answer, after the last ref.
    pub fn tip(&mut self) -> Tip {
        match self.found.iter_mut().find_map(Option::take) {
            Some(mut best) => {
                if best.name == "HEAD"
                    && let Some(target) = self.head_target.take()
                {
                    best.name = target;
                }
                Tip::At(best)
            }
            None => Tip::Missing { empty: !self.any },
        }
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.wanted.iter().position(|w| w.as_bytes() == name)
    }
}

/// The answer to a poll if `--ref` is a commit id, which needs no remote.
pub fn pinned(name: &RefName) -> Option<Tip> {
    match name {
        RefName::Commit(commit) => Some(Tip::At(Advertised {
            name: commit.to_string(),
            object: *commit,
            commit: *commit,
        })),
        _ => None,
    }
}

/// An object id in an answer.
pub(super) fn object_id(text: &[u8]) -> Result<Commit, ProtocolError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| not_an_id(text))
}

/// Checks an object id in an answer without converting it.
pub(super) fn check_object_id(text: &[u8]) -> Result<(), ProtocolError> {
    match text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit) {
        true => Ok(()),
        false => Err(not_an_id(text)),
    }
}

fn not_an_id(text: &[u8]) -> ProtocolError {
    if text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit) {
        return ProtocolError::ObjectFormat("sha256".to_owned());
    }
    ProtocolError::malformed(format!("expected an object id, got \"{}\"", quote(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Commit {
        digit.to_string().repeat(40).parse().unwrap()
    }

    #[test]
    fn a_branch_wins_over_a_tag_and_a_longer_name_does_not_match() {
        let mut picker = RefPicker::new(&RefName::Short("v1".to_owned()));
        picker.take(b"refs/tags/v1", id('1'), Some(id('2')));
        picker.take(b"refs/heads/v1", id('3'), None);
        picker.take(b"refs/heads/v1.1", id('4'), None);
        let Tip::At(at) = picker.tip() else {
            panic!("missing");
        };
        assert_eq!(
            (at.name.as_str(), at.object, at.commit),
            ("refs/heads/v1", id('3'), id('3'))
        );
    }

    #[test]
    fn a_symbolic_head_is_reported_by_its_branch_and_a_detached_one_as_head() {
        for (target, name) in [(Some("refs/heads/main"), "refs/heads/main"), (None, "HEAD")] {
            let mut picker = RefPicker::new(&RefName::Head);
            picker.take(b"HEAD", id('1'), None);
            if let Some(target) = target {
                picker.take_head_target(target.as_bytes());
            }
            assert!(matches!(picker.tip(), Tip::At(at) if at.name == name));
        }
    }

    #[test]
    fn only_a_repository_without_any_ref_is_empty() {
        let mut picker = RefPicker::new(&RefName::Short("gone".to_owned()));
        assert_eq!(picker.tip(), Tip::Missing { empty: true });
        picker.take(b"HEAD", id('1'), None);
        assert_eq!(picker.tip(), Tip::Missing { empty: false });
    }
}
