//! The links that ever led into this root: a tree that one of them still leads to is not removed.
//!
//! `.gvr/links` has a line for each: the number of the revision that it led to when another link was
//! last in use, or `-`, and the path, relative to the root if it is inside. Bytes that are not
//! printable ASCII are percent-encoded. A link outside of the root may be on a volume that this
//! process does not mount: its recorded revision stays until `--forget-link`. A link inside the root
//! that somebody deleted is forgotten by itself.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::scan::RevisionDir;
use super::{REVISIONS, Volume, number};
use crate::base::files;

/// The name of the file.
const LINKS: &str = "links";

/// The longest file that is read, in bytes.
const MAX_LENGTH: u64 = 1 << 20;

/// A link that was in use once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RegisteredLink {
    /// Relative to the root if it is inside.
    path: PathBuf,
    /// The revision that it leads to, for when it cannot be read.
    leads_to: Option<u64>,
}

impl Volume {
    /// Registers the link of this process, drops those that are to be forgotten, and records where
    /// the others lead.
    pub(super) fn register_link(&self, forgotten: &[PathBuf]) -> io::Result<()> {
        let registered = self.registered()?;
        let own = self.key(&self.link);
        let forgotten: Vec<_> = forgotten.iter().map(|path| self.key(path)).collect();
        let dirs = self.scan()?;
        let at_link = self.inode_at_link();
        let newest = || {
            let complete = |dir: &&RevisionDir| self.complete_revision(dir, at_link).is_some();
            self.last_live(dirs.iter().filter(complete).map(|dir| dir.n))
        };
        let mut links = vec![RegisteredLink {
            path: own.clone(),
            leads_to: None,
        }];
        for link in &registered {
            if link.path == own || forgotten.contains(&link.path) {
                continue;
            }
            let here = self.root.join(&link.path);
            let leads_to = match self.leads_to(&here, &dirs) {
                None if here.starts_with(&self.root) => continue,
                None => link.leads_to.or_else(newest),
                found => found,
            };
            links.push(RegisteredLink {
                path: link.path.clone(),
                leads_to,
            });
        }
        links.sort_by(|a, b| a.path.cmp(&b.path));
        if links != registered {
            self.write_small_synced(LINKS, &text(&links))?;
        }
        Ok(())
    }

    /// The revisions that other links than this process's lead to.
    pub(super) fn linked_elsewhere(&self, dirs: &[RevisionDir]) -> io::Result<Vec<u64>> {
        let own = self.key(&self.link);
        Ok(self
            .registered()?
            .iter()
            .filter(|link| link.path != own)
            .filter_map(|link| {
                self.leads_to(&self.root.join(&link.path), dirs)
                    .or(link.leads_to)
            })
            .collect())
    }

    fn registered(&self) -> io::Result<Vec<RegisteredLink>> {
        match files::read(&self.gvr.join(LINKS), MAX_LENGTH) {
            Ok(content) => Ok(parse(&content)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(cause) => Err(cause),
        }
    }

    /// The revision that a link leads to, if it can be read and leads to one of this root.
    fn leads_to(&self, link: &Path, dirs: &[RevisionDir]) -> Option<u64> {
        let metadata = link.symlink_metadata().ok()?;
        if metadata.is_dir() {
            let is_here = |dir: &&RevisionDir| {
                let record = dir.exchange.as_ref();
                record.is_some_and(|record| record.inode == metadata.ino())
            };
            return dirs.iter().find(is_here).map(|dir| dir.n);
        }
        let tree = link.canonicalize().ok()?;
        let below = tree.strip_prefix(self.gvr.join(REVISIONS)).ok()?;
        number(below.components().next()?.as_os_str().to_str()?)
    }

    /// The path by which a link is registered.
    fn key(&self, link: &Path) -> PathBuf {
        let place = match (link.parent(), link.file_name()) {
            (Some(parent), Some(name)) => parent
                .canonicalize()
                .map_or_else(|_| link.to_owned(), |parent| parent.join(name)),
            _ => link.to_owned(),
        };
        place
            .strip_prefix(&self.root)
            .map_or_else(|_| place.clone(), Path::to_owned)
    }
}

fn text(links: &[RegisteredLink]) -> String {
    let mut text = String::new();
    for link in links {
        match link.leads_to {
            Some(n) => {
                // Writing to a string does not fail.
                let _ = write!(text, "{n} ");
            }
            None => text.push_str("- "),
        }
        for byte in link.path.as_os_str().as_bytes() {
            match byte {
                b'%' | 0..=b' ' | 0x7f.. => {
                    let _ = write!(text, "%{byte:02x}");
                }
                _ => text.push(char::from(*byte)),
            }
        }
        text.push('\n');
    }
    text
}

/// Lines that cannot be read are left out: a power cut may have taken them.
fn parse(content: &[u8]) -> Vec<RegisteredLink> {
    content
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let (n, path) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            let leads_to = match n {
                "-" => None,
                n => Some(n.parse().ok()?),
            };
            Some(RegisteredLink {
                path: decode(path).filter(|path| !path.as_os_str().is_empty())?,
                leads_to,
            })
        })
        .collect()
}

fn decode(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_survives_the_file() {
        let links = [
            (b"current".as_slice(), None),
            (b"/srv/a b\n%41\xff", Some(42)),
        ]
        .map(|(path, leads_to)| RegisteredLink {
            path: OsString::from_vec(path.to_vec()).into(),
            leads_to,
        });
        assert_eq!(parse(text(&links).as_bytes()), links);
    }

    #[test]
    fn a_damaged_line_is_left_out() {
        let found = parse(b"- a\n\0\0\0\nx b\n7 c\n- %4\n- \n");
        let paths: Vec<_> = found.iter().map(|link| link.path.as_path()).collect();
        assert_eq!(paths, [Path::new("a"), Path::new("c")]);
    }
}
