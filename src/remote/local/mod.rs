//! A repository on this machine: `file://` URLs and plain paths, read by libgit2 without any
//! transport.
//!
//! The repository is opened for every operation, so that it may be repacked or replaced between two
//! of them. This module never writes to it, runs no hook or filter of it, and follows no remote of
//! it. The pack has whole objects, because computing deltas would take longer than copying the bytes
//! that they save.

mod history;

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::{ErrorCode, ObjectType, Odb, Oid, Reference, Repository, RepositoryOpenFlags, Tree};
use ring::digest;

use crate::base::budget::{Budget, Interrupted};
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::transfer::{Advertised, Fetched, PackSink};
use crate::pack::{LARGE, Peeled, Whole, entry, peel};

use history::{Chosen, links, whole_history, within_depth};

use super::errors::{no_commit, object_format};
use super::upstream::{FetchRequest, RefName, Remote, Tip};

/// A repository by its path: bare, a work tree, or a linked work tree; shallow ones too.
#[derive(Clone, Debug)]
pub struct LocalRemote {
    path: PathBuf,
}

impl LocalRemote {
    /// A remote at `path`; nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn open(&self, stage: Stage) -> Result<Repository, SyncError> {
        // Like git, accepts "x" for "x.git".
        let mut suffixed = OsString::from(&self.path);
        suffixed.push(".git");
        let suffixed = PathBuf::from(suffixed);
        if !self.path.exists() && !suffixed.exists() {
            return Err(SyncError::new(
                stage,
                Reason::NotFound,
                format!("the repository {} does not exist", self.path.display()),
            )
            .with_hint("check --repo, and that the path is mounted here"));
        }
        let open = |path: &Path| {
            Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, &[] as &[&OsStr])
        };
        open(&self.path)
            .or_else(|error| open(&suffixed).map_err(|_| error))
            .map_err(|cause| match cause.code() {
                ErrorCode::NotFound => SyncError::new(
                    stage,
                    Reason::NotFound,
                    format!("{} is not a git repository", self.path.display()),
                )
                .with_hint("check --repo: it must name a repository, or its work tree")
                .with_source(cause),
                // libgit2's message about `extensions.objectFormat`; git has two formats.
                _ if cause.message().contains("objectformat")
                    || cause.message().contains("object format") =>
                {
                    object_format(stage, &self.path.display(), "sha256").with_source(cause)
                }
                _ => self.failed(stage, "open", cause),
            })
    }

    fn failed(&self, stage: Stage, action: &str, cause: git2::Error) -> SyncError {
        SyncError::new(
            stage,
            Reason::Other,
            format!("cannot {action} the repository {}", self.path.display()),
        )
        .with_source(cause)
    }

    fn advertise(
        &self,
        repository: &Repository,
        reference: &Reference<'_>,
    ) -> Result<Tip, SyncError> {
        let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
        let Some(object) = reference.target() else {
            return Ok(Tip::Missing { empty: false });
        };
        let peeled = repository
            .odb()
            .and_then(|odb| peel(&odb, object))
            .map_err(|cause| {
                SyncError::new(
                    Stage::Poll,
                    Reason::RefMissing,
                    format!("{name} in {} leads to no commit", self.path.display()),
                )
                .with_source(cause)
            })?;
        if peeled.kind != ObjectType::Commit {
            let what = format!("{name} of {}", self.path.display());
            return Err(no_commit(Stage::Poll, &what, peeled.kind.str()));
        }
        Ok(Tip::At(Advertised {
            name,
            object: object.into(),
            commit: peeled.id.into(),
        }))
    }
}

impl Remote for LocalRemote {
    fn tip(&mut self, name: &RefName, budget: &Budget) -> Result<Tip, SyncError> {
        budget
            .check()
            .map_err(|cause| SyncError::interrupted(Stage::Poll, "the poll", cause))?;
        let candidates = match name {
            RefName::Commit(commit) => {
                return Ok(Tip::At(Advertised {
                    name: commit.to_string(),
                    object: *commit,
                    commit: *commit,
                }));
            }
            RefName::Head => vec!["HEAD".to_owned()],
            RefName::Full(full) => vec![full.clone()],
            RefName::Short(short) => ["refs/heads", "refs/tags", "refs"]
                .map(|room| format!("{room}/{short}"))
                .to_vec(),
        };
        let repository = self.open(Stage::Poll)?;
        for candidate in candidates {
            // Resolving follows HEAD to the branch, whose name is reported.
            let found = repository
                .find_reference(&candidate)
                .and_then(|reference| reference.resolve());
            match found {
                Ok(reference) => return self.advertise(&repository, &reference),
                Err(cause)
                    if matches!(cause.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => {}
                Err(cause) => return Err(self.failed(Stage::Poll, "read a ref of", cause)),
            }
        }
        let empty = repository
            .references()
            .is_ok_and(|mut references| references.next().is_none());
        Ok(Tip::Missing { empty })
    }

    fn tags(&mut self, budget: &Budget) -> Result<Vec<Advertised>, SyncError> {
        budget
            .check()
            .map_err(|cause| SyncError::interrupted(Stage::Fetch, "listing the tags", cause))?;
        let repository = self.open(Stage::Fetch)?;
        let failed = |cause| self.failed(Stage::Fetch, "read the tags of", cause);
        let mut tags = Vec::new();
        for reference in repository.references_glob("refs/tags/*").map_err(failed)? {
            let reference = reference.map_err(failed)?;
            // No commit can be described by a tag of a tree or a file.
            if let Ok(Tip::At(tag)) = self.advertise(&repository, &reference) {
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    fn fetch(
        &mut self,
        request: &FetchRequest<'_>,
        pack: &mut dyn PackSink,
        budget: &Budget,
    ) -> Result<Fetched, SyncError> {
        let repository = self.open(Stage::Fetch)?;
        let missing = |cause: git2::Error| {
            SyncError::new(
                Stage::Fetch,
                Reason::RefMissing,
                format!("{} does not have {}", self.path.display(), request.want),
            )
            .with_source(cause)
        };
        let odb = repository
            .odb()
            .map_err(|cause| self.failed(Stage::Fetch, "open", cause))?;
        let want = peel(&odb, request.want.oid()).map_err(missing)?;
        if want.kind != ObjectType::Commit {
            let id = request.want.to_string();
            return Err(no_commit(Stage::Fetch, &id, want.kind.str()));
        }
        let failed = |cause: git2::Error| match budget.check() {
            Err(cause) => SyncError::interrupted(Stage::Fetch, "the fetch", cause),
            Ok(()) => self.failed(Stage::Fetch, "read", cause),
        };
        let source_boundary = shallow_boundary(&repository);
        let chosen = if request.depth > 0 {
            within_depth(&odb, want.id, request, &source_boundary, budget)
        } else {
            whole_history(&odb, want.id, request, &source_boundary, budget)
        }
        .map_err(failed)?;

        let mut selection = Selection {
            repository: &repository,
            odb: &odb,
            objects: Vec::new(),
            seen: HashSet::new(),
            budget,
        };
        selection.add_tag(&want);
        for tag in request.also {
            selection.add_tag(&peel(&odb, tag.oid()).map_err(missing)?);
        }
        selection
            .add_commits(&chosen, request.haves)
            .map_err(failed)?;
        selection.add_tags().map_err(failed)?;
        let bytes = selection.send(pack)?;

        let boundary: HashSet<Commit> = chosen.boundary.iter().copied().collect();
        let included: HashSet<Oid> = chosen.commits.iter().copied().collect();
        let unshallow = request
            .shallow
            .iter()
            .filter(|commit| included.contains(&commit.oid()) && !boundary.contains(commit));
        Ok(Fetched {
            bytes,
            unshallow: unshallow.copied().collect(),
            shallow: chosen.boundary,
        })
    }
}

/// The commits whose parents the repository does not have, because it is shallow itself.
fn shallow_boundary(repository: &Repository) -> HashSet<Oid> {
    let text = std::fs::read_to_string(repository.commondir().join("shallow")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.parse::<Commit>().ok())
        .map(|commit| commit.oid())
        .collect()
}

/// Much faster than zlib's default level of 6, and the packs are only a little larger. (Level 1 of
/// zlib-ng uses fixed Huffman codes, which compress text badly.)
const LEVEL: Compression = Compression::new(3);

/// Bytes in memory of an object that is streamed.
const PIECE: usize = 256 << 10;

/// The objects that go into the pack.
struct Selection<'r> {
    repository: &'r Repository,
    odb: &'r Odb<'r>,
    objects: Vec<Oid>,
    seen: HashSet<Oid>,
    budget: &'r Budget,
}

impl<'r> Selection<'r> {
    /// Adds commits with their trees, except objects that a parent's tree, or the tree of a commit
    /// that the store has, holds at the same path.
    fn add_commits(&mut self, chosen: &Chosen, haves: &[Commit]) -> Result<(), git2::Error> {
        let held: HashSet<Oid> = haves.iter().map(Commit::oid).collect();
        let mut roots: HashMap<Oid, Oid> = HashMap::new();
        for have in haves {
            if let Ok(commit) = links(self.odb, have.oid(), self.budget) {
                roots.insert(have.oid(), commit.tree);
            }
        }
        let held_roots: Vec<Oid> = roots.values().copied().collect();
        for id in &chosen.commits {
            if held.contains(id) {
                continue;
            }
            let commit = links(self.odb, *id, self.budget)?;
            self.objects.push(*id);
            let mut bases: Vec<Oid> = commit
                .parents
                .iter()
                .filter_map(|parent| roots.get(parent).copied())
                .collect();
            if bases.is_empty() {
                bases.clone_from(&held_roots);
            }
            roots.insert(*id, commit.tree);
            self.add_tree(commit.tree, &bases)?;
        }
        Ok(())
    }

    /// Adds the tag objects of a chain.
    fn add_tag(&mut self, peeled: &Peeled) {
        let new = peeled.tags.iter().filter(|tag| self.seen.insert(**tag));
        self.objects.extend(new);
    }

    /// Adds the tag objects of commits that are sent, as `include-tag` does.
    fn add_tags(&mut self) -> Result<(), git2::Error> {
        let sent: HashSet<Oid> = self.objects.iter().copied().collect();
        for reference in self.repository.references_glob("refs/tags/*")? {
            let peeled = reference?
                .target()
                .filter(|id| !sent.contains(id))
                .and_then(|id| peel(self.odb, id).ok());
            if let Some(peeled) = peeled.filter(|peeled| sent.contains(&peeled.id)) {
                self.add_tag(&peeled);
            }
        }
        Ok(())
    }

    fn add_tree(&mut self, root: Oid, bases: &[Oid]) -> Result<(), git2::Error> {
        let mut waiting = vec![(root, bases.to_vec())];
        while let Some((id, bases)) = waiting.pop() {
            if bases.contains(&id) || !self.seen.insert(id) {
                continue;
            }
            if self.budget.check().is_err() {
                return Err(git2::Error::from_str("interrupted"));
            }
            self.objects.push(id);
            // If the repository no longer has a base, no object is left out because of it.
            let bases: Vec<Tree<'r>> = bases
                .iter()
                .filter_map(|base| self.repository.find_tree(*base).ok())
                .collect();
            for entry in self.repository.find_tree(id)?.iter() {
                let held = bases
                    .iter()
                    .filter_map(|base| base.get_name_bytes(entry.name_bytes()))
                    .map(|held| (held.id(), held.kind()));
                match entry.kind() {
                    Some(ObjectType::Tree) => {
                        let held = held
                            .filter(|(_, kind)| *kind == Some(ObjectType::Tree))
                            .map(|(id, _)| id)
                            .collect();
                        waiting.push((entry.id(), held));
                    }
                    Some(ObjectType::Blob) => {
                        let is_held = held.into_iter().any(|(id, _)| id == entry.id());
                        if !is_held && self.seen.insert(entry.id()) {
                            self.objects.push(entry.id());
                        }
                    }
                    // A submodule's commit is in another repository.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Writes the pack (gitformat-pack, version 2); returns its size in bytes.
    fn send(self, pack: &mut dyn PackSink) -> Result<u64, SyncError> {
        let odb = self.odb;
        let packs = self.repository.commondir().join("objects/pack");
        let mut sum = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        let mut bytes = 0;
        let mut write = |chunk: &[u8]| {
            sum.update(chunk);
            bytes += chunk.len() as u64;
            pack.write(chunk)
        };
        let count = u32::try_from(self.objects.len())
            .map_err(|_| unsent(git2::Error::from_str("more objects than a pack can hold")))?;
        let mut header = *b"PACK\0\0\0\x02\0\0\0\0";
        header[8..].copy_from_slice(&count.to_be_bytes());
        write(&header)?;
        for id in self.objects {
            self.budget.check().map_err(interrupted)?;
            let (size, kind) = odb.read_header(id).map_err(unsent)?;
            let mut encoder = ZlibEncoder::new(entry::whole(kind, size as u64), LEVEL);
            // Falls back to libgit2 for objects that cannot be streamed; its error is reported.
            if size > LARGE
                && let Ok(Some(mut content)) = Whole::find(&packs, id)
                && content.size() == size as u64
            {
                let mut piece = vec![0; PIECE];
                loop {
                    self.budget.check().map_err(interrupted)?;
                    match content.read(&mut piece).map_err(unsent)? {
                        0 => break,
                        length => encoder.write_all(&piece[..length]).map_err(unsent)?,
                    }
                    write(&std::mem::take(encoder.get_mut()))?;
                }
            } else {
                let object = odb.read(id).map_err(unsent)?;
                encoder.write_all(object.data()).map_err(unsent)?;
            }
            write(&encoder.finish().map_err(unsent)?)?;
        }
        let sum = sum.finish();
        pack.write(sum.as_ref())?;
        Ok(bytes + sum.as_ref().len() as u64)
    }
}

fn interrupted(cause: Interrupted) -> SyncError {
    SyncError::interrupted(Stage::Fetch, "reading the repository", cause)
}

fn unsent(cause: impl Error + Send + Sync + 'static) -> SyncError {
    SyncError::new(
        Stage::Fetch,
        Reason::Other,
        "cannot read the objects of the repository",
    )
    .with_source(cause)
}
