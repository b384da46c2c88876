//! Peeling: what an annotated tag, or a tag of a tag, leads to.
//!
//! libgit2 peels only to commits that it can parse, and refuses some that `git clone` accepts. Here
//! the commit is not parsed.

use git2::{Error, ErrorClass, ErrorCode, ObjectType, Odb, Oid};

/// The end of a chain of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peeled {
    /// The object that is no tag.
    pub(crate) id: Oid,
    /// Its type.
    pub(crate) kind: ObjectType,
    /// The tag objects on the way, the outermost first.
    pub(crate) tags: Vec<Oid>,
}

/// Follows tags from an object, which need not be one. Blobs are not read.
pub(crate) fn peel(odb: &Odb<'_>, object: Oid) -> Result<Peeled, Error> {
    let mut id = object;
    let mut tags = Vec::new();
    loop {
        let (_, kind) = odb.read_header(id)?;
        if kind != ObjectType::Tag {
            return Ok(Peeled { id, kind, tags });
        }
        let tag = odb.read(id)?;
        let target = target(tag.data()).ok_or_else(|| {
            Error::new(
                ErrorCode::Invalid,
                ErrorClass::Tag,
                format!("tag {id} is malformed"),
            )
        })?;
        tags.push(id);
        id = target;
    }
}

/// The object that the content of a tag names in its first line.
fn target(tag: &[u8]) -> Option<Oid> {
    let hex = tag.strip_prefix(b"object ")?.get(..40)?;
    Oid::from_str(std::str::from_utf8(hex).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_tags_is_followed_to_a_commit_that_is_not_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init_bare(dir.path()).unwrap();
        let odb = repository.odb().unwrap();
        let commit = odb
            .write(ObjectType::Commit, b"tree of no kind\n\nno author")
            .unwrap();
        let tag = |of: Oid, kind: &str| {
            let text = format!("object {of}\ntype {kind}\ntag t\n\ntext\n");
            odb.write(ObjectType::Tag, text.as_bytes()).unwrap()
        };
        let inner = tag(commit, "commit");
        let outer = tag(inner, "tag");
        let peeled = peel(&odb, outer).unwrap();
        assert_eq!(peeled.id, commit);
        assert_eq!(peeled.kind, ObjectType::Commit);
        assert_eq!(peeled.tags, [outer, inner]);
        let bad = odb.write(ObjectType::Tag, b"object 12\n").unwrap();
        assert!(peel(&odb, bad).is_err());
    }
}
