//! The sub-directories of a tree object: trees and submodules, each a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use git2::Oid;

use super::directory::Directory;
use super::job::Job;
use super::locking::lock;
use super::paths::{join, printable_path};
use super::task::{DirectoryPlan, Task, TaskOutput, TreeWork, Work};
use crate::base::error::{Stage, SyncError};
use crate::manifest::{Kind, Record, Stat};
use crate::tree::objects::{self, TreeEntry};
use crate::tree::{SubmoduleMode, files, nested};

impl Job<'_> {
    pub(super) fn subtree(
        &self,
        plan: &DirectoryPlan,
        entry: &TreeEntry<'_>,
        path: &[u8],
        output: &mut TaskOutput,
    ) -> Result<(), SyncError> {
        let included = self.includes(plan, path, true);
        if let Some(sparse) = &self.build.options.sparse
            && !included
            && !sparse.may_include_below(path)
        {
            return Ok(());
        }
        self.build.admit(0)?;
        let base = plan.base.as_ref();
        let old = base
            .and_then(|base| base.find(entry.name, true))
            .filter(|record| record.kind == Kind::Directory);
        let work = match (base, old) {
            (Some(base), Some(old)) if base.same_context && old.id == entry.id => Work::Copy {
                base: old.child,
                submodule: false,
                prelinked: false,
            },
            _ => Work::Tree(TreeWork {
                tree: entry.id,
                repository: Some(plan.repository.clone()),
                level: plan.repository.level,
                rules: plan.rules.clone(),
                context: plan.context,
                included,
                base: old.map(|record| record.child),
            }),
        };
        self.queue(&plan.directory, entry, Kind::Directory, path, work, output);
        Ok(())
    }

    /// Adds the record and the task of a sub-directory.
    fn queue(
        &self,
        directory: &Arc<Directory>,
        entry: &TreeEntry<'_>,
        kind: Kind,
        path: &[u8],
        work: Work,
        output: &mut TaskOutput,
    ) {
        let child = self.build.blocks(1);
        output.block.push(&Record {
            name: entry.name,
            kind,
            id: entry.id,
            stat: Stat::default(),
            conversion: &[],
            converted: None,
            child,
        });
        output.tasks.push(Task {
            block: child,
            path: path.to_vec(),
            parent: directory.as_parent(),
            work,
        });
    }

    pub(super) fn gitlink(
        &self,
        plan: &DirectoryPlan,
        entry: &TreeEntry<'_>,
        path: &[u8],
        output: &mut TaskOutput,
    ) -> Result<(), SyncError> {
        if !self.includes(plan, path, false) {
            return Ok(());
        }
        self.build.admit(0)?;
        let repository = &plan.repository;
        let wanted = match self.build.options.submodules {
            SubmoduleMode::Off => false,
            SubmoduleMode::Shallow if repository.level > 0 => false,
            SubmoduleMode::Shallow | SubmoduleMode::Recursive => {
                let known = repository.modules.populates(&path[repository.prefix..]);
                if known.is_none() {
                    lock(&self.build.remarks).note_unpopulated(printable_path(path));
                }
                known == Some(true)
            }
        };
        if !wanted {
            return self.unpopulated(&plan.directory, entry.name, entry.id, output);
        }
        let old = plan
            .base
            .as_ref()
            .and_then(|base| base.find(entry.name, false))
            .filter(|record| record.kind == Kind::Submodule);
        let same_selection = self
            .build
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection);
        let work = match old {
            Some(old) if same_selection && old.id == entry.id => Work::Copy {
                base: old.child,
                submodule: true,
                prelinked: false,
            },
            _ => Work::Tree(TreeWork {
                tree: self.enter_submodule(path, entry.id, repository.level + 1)?,
                repository: None,
                level: repository.level + 1,
                rules: None,
                context: Oid::ZERO_SHA1,
                included: true,
                base: old.map(|record| record.child),
            }),
        };
        self.queue(&plan.directory, entry, Kind::Submodule, path, work, output);
        Ok(())
    }

    /// The tree of a submodule that is written. Too many or too deep ones fail before their commits
    /// are looked up, because the caller has not fetched those and would take the store for damaged.
    fn enter_submodule(&self, path: &[u8], commit: Oid, level: usize) -> Result<Oid, SyncError> {
        nested::check_level(&printable_path(path), level)?;
        let counts = &self.build.counts;
        nested::check_count(counts.submodules.fetch_add(1, Ordering::Relaxed) + 1)?;
        objects::tree_of_commit(&self.odb, commit).map_err(|error| {
            let message = format!(
                "the commit {commit} of submodule {} cannot be read from the store",
                printable_path(path)
            );
            SyncError::new(Stage::Build, error.reason, message).with_source(error)
        })
    }

    /// Creates the empty directory of a submodule that is not populated.
    pub(super) fn unpopulated(
        &self,
        directory: &Directory,
        name: &[u8],
        id: Oid,
        output: &mut TaskOutput,
    ) -> Result<(), SyncError> {
        let at = self.destination(directory)?;
        files::make_directory(at, name, self.build.options.group_write)
            .map_err(|error| self.failed(&join(&directory.path, name), error))?;
        output.block.push(&Record {
            name,
            kind: Kind::Unpopulated,
            id,
            stat: Stat::default(),
            conversion: &[],
            converted: None,
            child: 0,
        });
        Ok(())
    }
}
