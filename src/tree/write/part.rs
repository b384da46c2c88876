//! Writes a directory from its tree object: reads it, divides it into parts, writes each part.

use std::ops::Range;
use std::sync::Arc;

use git2::Oid;

use super::directory::Directory;
use super::job::Job;
use super::paths::printable_path;
use super::task::{DirectoryPlan, Part, RepositoryContext, Task, TaskOutput, TreeWork, Work};
use crate::base::error::{Reason, Stage, SyncError};
use crate::manifest::{Block, Kind};
use crate::tree::attributes::Rules;
use crate::tree::objects::{self, EntryMode, TreeEntry, hostile};
use crate::tree::submodules::{Modules, modules};
use crate::tree::{Effort, SubmoduleMode, hash, names};

/// The entries of a directory that one task writes.
const PART: usize = 512;

impl Job<'_> {
    pub(super) fn tree(
        &self,
        block: u32,
        parent: Option<Arc<Directory>>,
        path: Vec<u8>,
        work: TreeWork,
    ) -> Result<(), SyncError> {
        let directory = self.directory(parent, path, work.base.is_some())?;
        let tree = objects::tree(&self.odb, work.tree)?;
        let mut context = work.context;
        let repository = match work.repository {
            Some(repository) => repository,
            None => {
                let repository = self.enter_repository(&directory, &tree, work.level)?;
                if let Some(id) = repository.modules.id {
                    context = mix(context, "modules", id);
                }
                Arc::new(repository)
            }
        };
        let mut rules = work.rules;
        if let Some(entry) = objects::find(&tree, b".gitattributes")?
            && !matches!(entry.mode, EntryMode::Tree | EntryMode::Commit)
            && let Some(text) = objects::control_file(&self.odb, ".gitattributes", entry.id)?
        {
            context = mix(context, "attributes", entry.id);
            let path = directory.path.get(repository.prefix..).unwrap_or_default();
            let proceed = || self.proceed();
            let mut effort = Effort::new(u64::MAX, &proceed);
            rules = Some(Arc::new(Rules::new(rules, path, &text, &mut effort)?));
        }
        let base = match (&self.build.base, work.base) {
            (Some(base), Some(number)) => Some(base.directory(number, context)?),
            _ => None,
        };
        let plan = Arc::new(DirectoryPlan {
            directory,
            tree,
            repository,
            rules,
            context,
            included: work.included,
            base,
        });
        self.write_parts(block, &plan)
    }

    /// Reads what the directories of a repository have in common; `tree` is its root.
    fn enter_repository(
        &self,
        directory: &Directory,
        tree: &[u8],
        level: usize,
    ) -> Result<RepositoryContext, SyncError> {
        // The top directory of a repository exists even if its tree is empty.
        self.destination(directory)?;
        let modules = match self.build.options.submodules {
            SubmoduleMode::Off => Modules::default(),
            _ => modules(&self.odb, tree)?,
        };
        Ok(RepositoryContext {
            modules,
            prefix: match directory.path.len() {
                0 => 0,
                length => length + 1,
            },
            level,
        })
    }

    /// Writes the first part of a directory, and queues the others.
    fn write_parts(&self, block: u32, plan: &Arc<DirectoryPlan>) -> Result<(), SyncError> {
        let mut parts = divide(&plan.tree)?;
        let rest = u32::try_from(parts.len() - 1).unwrap_or(u32::MAX);
        let first = parts.remove(0);
        let numbers = match rest {
            0 => 0,
            count => self.build.blocks(count),
        };
        let mut tasks = Vec::new();
        for (number, bytes) in (numbers..).zip(parts) {
            let next = if number + 1 < numbers + rest {
                number + 1
            } else {
                0
            };
            tasks.push(Task {
                block: number,
                path: Vec::new(),
                parent: None,
                work: Work::Part(plan.clone(), Part { bytes, next }),
            });
        }
        self.build.push(tasks);
        let part = Part {
            bytes: first,
            next: numbers,
        };
        self.part(block, plan, &part)
    }

    /// Writes the entries of one part.
    pub(super) fn part(
        &self,
        block: u32,
        plan: &DirectoryPlan,
        part: &Part,
    ) -> Result<(), SyncError> {
        let mut output = TaskOutput {
            block: Block::new(plan.context, part.next),
            tasks: Vec::new(),
        };
        let mut path = plan.directory.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        let prefix = path.len();
        let tree = &plan.tree[..part.bytes.end];
        let mut at = part.bytes.start;
        while let Some(entry) = objects::next_entry(tree, &mut at) {
            let entry = entry?;
            self.proceed()?;
            path.truncate(prefix);
            path.extend_from_slice(entry.name);
            self.check_name(&path, &entry)?;
            match entry.mode {
                EntryMode::Tree => self.subtree(plan, &entry, &path, &mut output)?,
                EntryMode::Commit => self.gitlink(plan, &entry, &path, &mut output)?,
                EntryMode::File => self.file(plan, &entry, Kind::File, &path, &mut output)?,
                EntryMode::Executable => {
                    self.file(plan, &entry, Kind::Executable, &path, &mut output)?;
                }
                EntryMode::Symlink => self.file(plan, &entry, Kind::Symlink, &path, &mut output)?,
            }
        }
        self.finish_block(block, output)
    }

    fn check_name(&self, path: &[u8], entry: &TreeEntry<'_>) -> Result<(), SyncError> {
        if let Some(why) = names::refused(entry.name, entry.mode == EntryMode::Symlink) {
            return Err(hostile(format!(
                "refusing to write {}: {why}",
                printable_path(path)
            )));
        }
        if entry.name.len() > names::NAME_LIMIT || path.len() > names::PATH_LIMIT {
            let start = printable_path(&path[..path.len().min(80)]);
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("the path that begins with {start} is longer than Linux can open"),
            )
            .with_hint("git cannot check it out either; exclude it with --sparse-checkout-file"));
        }
        Ok(())
    }

    /// Whether the sparse patterns include a path.
    pub(super) fn includes(&self, plan: &DirectoryPlan, path: &[u8], directory: bool) -> bool {
        match &self.build.options.sparse {
            Some(sparse) if plan.repository.level == 0 => {
                sparse.includes(path, directory, plan.included)
            }
            _ => true,
        }
    }
}

/// Divides a tree object into ranges of [`PART`] entries; there is at least one.
fn divide(tree: &[u8]) -> Result<Vec<Range<usize>>, SyncError> {
    let mut parts = Vec::new();
    let (mut start, mut at, mut count) = (0, 0, 0);
    while let Some(entry) = objects::next_entry(tree, &mut at) {
        entry?;
        count += 1;
        if count % PART == 0 && at < tree.len() {
            parts.push(start..at);
            start = at;
        }
    }
    parts.push(start..tree.len());
    Ok(parts)
}

/// The context of a directory in which `what`, with the object `id`, was added to `context`.
fn mix(context: Oid, what: &str, id: Oid) -> Oid {
    hash(&[context.as_bytes(), what.as_bytes(), id.as_bytes()].concat())
}
