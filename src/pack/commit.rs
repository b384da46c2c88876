//! The content of a commit object: its tree, parents, author, time and message.
//!
//! libgit2 refuses a commit whose author or committer line has no date or one that overflows, while
//! `git clone` and `git log` accept it. This parser accepts what they accept. It does not check
//! signatures and does not interpret the `encoding` header.

use git2::Oid;

use crate::base::commit::Timestamp;

/// The parts of a commit object; texts are bytes, because git does not promise UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitObject<'a> {
    /// The root tree.
    pub(crate) tree: Oid,
    /// The parents, in order.
    pub(crate) parents: Vec<Oid>,
    /// The committer's time; 1970 if it is missing or overflows, as `git log` prints it.
    pub(crate) time: Timestamp,
    /// The message, with its trailing line end.
    pub(crate) message: &'a [u8],
    author: &'a [u8],
}

impl<'a> CommitObject<'a> {
    /// Parses the content of a commit object; `None` if it names no tree or has a malformed parent.
    pub(crate) fn parse(content: &'a [u8]) -> Option<Self> {
        let (line, mut rest) = split_line(content);
        let mut commit = Self {
            tree: oid(line.strip_prefix(b"tree ")?)?,
            parents: Vec::new(),
            time: Timestamp::default(),
            message: b"",
            author: b"",
        };
        while !rest.is_empty() {
            let (line, after) = split_line(rest);
            if line.is_empty() {
                commit.message = after;
                break;
            }
            if let Some(parent) = line.strip_prefix(b"parent ") {
                commit.parents.push(oid(parent)?);
            } else if let Some(author) = line.strip_prefix(b"author ") {
                commit.author = author;
            } else if let Some(committer) = line.strip_prefix(b"committer ") {
                commit.time = time(committer);
            }
            rest = after;
        }
        Some(commit)
    }

    /// The author's name, without the address.
    pub(crate) fn author_name(&self) -> &'a [u8] {
        let end = self.author.iter().position(|byte| *byte == b'<');
        self.author[..end.unwrap_or(self.author.len())].trim_ascii()
    }
}

/// The first line without its line end, and what follows it.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, b""),
    }
}

fn oid(hex: &[u8]) -> Option<Oid> {
    if hex.len() != 40 {
        return None;
    }
    Oid::from_str(std::str::from_utf8(hex).ok()?).ok()
}

/// The time after the address of a committer line: git's `split_ident_line` and
/// `show_ident_date`.
fn time(committer: &[u8]) -> Timestamp {
    let after = committer.iter().rposition(|byte| *byte == b'>');
    let text = committer[after.map_or(0, |at| at + 1)..].trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let seconds = std::str::from_utf8(&text[..digits])
        .ok()
        .and_then(|digits| digits.parse().ok());
    Timestamp::from_seconds(seconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn commit(author: &str, committer: &str) -> String {
        format!(
            "tree {ID}\nparent {ID}\nauthor {author}\ncommitter {committer}\n\
             gpgsig -----BEGIN\n \n author X <x> 1\n\nsubject\n\nauthor Y <y> 2\n"
        )
    }

    #[test]
    fn the_parts_of_a_commit_are_found() {
        let text = commit("A B <a@x> 1 +0000", "C <c@x> 1700000000 +0100");
        let parsed = CommitObject::parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.tree.to_string(), ID);
        assert_eq!(parsed.parents.len(), 1);
        assert_eq!(parsed.author_name(), b"A B");
        assert_eq!(parsed.time.seconds(), 1_700_000_000);
        assert_eq!(parsed.message, b"subject\n\nauthor Y <y> 2\n");
    }

    #[test]
    fn a_missing_or_overflowing_date_is_1970() {
        for date in [
            "",
            " ",
            " +0000",
            " -5 +0000",
            " 99999999999999999999 +0000",
        ] {
            let text = commit("A <a@x>", &format!("C <c@x>{date}"));
            let parsed = CommitObject::parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.time.seconds(), 0, "{date:?}");
            assert_eq!(parsed.author_name(), b"A");
        }
    }

    #[test]
    fn a_commit_without_a_tree_or_with_half_a_parent_is_refused() {
        let whole = commit("A <a@x> 1 +0000", "A <a@x> 1 +0000");
        for wrong in [
            "",
            "tree 0123\n",
            &whole[1..],
            &whole.replace("parent 0", "parent "),
        ] {
            assert_eq!(CommitObject::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
        let tree_alone = format!("tree {ID}");
        assert!(CommitObject::parse(tree_alone.as_bytes()).is_some());
    }
}
