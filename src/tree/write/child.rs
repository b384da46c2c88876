//! The directories in a directory: sub-trees and submodules, each a task of its own.

use std::sync::Arc;

use git2::Oid;

use super::directory::Directory;
use super::task::{Plan, Task, TreeWork, Work};
use super::worker::{Job, join, shown};
use crate::base::error::{Stage, SyncError};
use crate::manifest::{Block, Entry, Kind, Stat};
use crate::tree::objects::{self, TreeEntry};
use crate::tree::{SubmoduleMode, files};

impl Job<'_> {
    pub(super) fn subtree(
        &self,
        plan: &Plan,
        entry: &TreeEntry<'_>,
        path: &[u8],
        done: &mut Block,
        tasks: &mut Vec<Task>,
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
        let twin = base
            .and_then(|base| base.find(entry.name, true))
            .filter(|twin| twin.kind == Kind::Directory);
        let work = match (base, twin) {
            (Some(base), Some(twin)) if base.same_context && twin.id == entry.id => Work::Copy {
                base: twin.child,
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
                base: twin.map(|twin| twin.child),
            }),
        };
        self.descend(
            &plan.directory,
            entry,
            Kind::Directory,
            path,
            work,
            done,
            tasks,
        );
        Ok(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the record and the task of one entry, made together"
    )]
    fn descend(
        &self,
        directory: &Arc<Directory>,
        entry: &TreeEntry<'_>,
        kind: Kind,
        path: &[u8],
        work: Work,
        done: &mut Block,
        tasks: &mut Vec<Task>,
    ) {
        let child = self.build.blocks(1);
        done.push(&Entry {
            name: entry.name,
            kind,
            id: entry.id,
            stat: Stat::default(),
            conversion: &[],
            child,
        });
        tasks.push(Task {
            block: child,
            path: path.to_vec(),
            parent: directory.as_parent(),
            work,
        });
    }

    pub(super) fn gitlink(
        &self,
        plan: &Plan,
        entry: &TreeEntry<'_>,
        path: &[u8],
        done: &mut Block,
        tasks: &mut Vec<Task>,
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
                    self.build.note_unpopulated(shown(path));
                }
                known == Some(true)
            }
        };
        if !wanted {
            return self.unpopulated(&plan.directory, entry.name, entry.id, done);
        }
        let twin = plan
            .base
            .as_ref()
            .and_then(|base| base.find(entry.name, false))
            .filter(|twin| twin.kind == Kind::Submodule);
        let same_selection = self
            .build
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection);
        let work = match twin {
            Some(twin) if same_selection && twin.id == entry.id => Work::Copy {
                base: twin.child,
                submodule: true,
                prelinked: false,
            },
            _ => Work::Tree(TreeWork {
                tree: self.submodule_tree(path, entry.id)?,
                repository: None,
                level: repository.level + 1,
                rules: None,
                context: Oid::ZERO_SHA1,
                included: true,
                base: twin.map(|twin| twin.child),
            }),
        };
        self.descend(
            &plan.directory,
            entry,
            Kind::Submodule,
            path,
            work,
            done,
            tasks,
        );
        Ok(())
    }

    fn submodule_tree(&self, path: &[u8], commit: Oid) -> Result<Oid, SyncError> {
        objects::tree_of_commit(&self.odb, commit).map_err(|error| {
            let message = format!(
                "the commit {commit} of submodule {} cannot be read from the store",
                shown(path)
            );
            SyncError::new(Stage::Build, error.reason, message).with_source(error)
        })
    }

    pub(super) fn unpopulated(
        &self,
        directory: &Directory,
        name: &[u8],
        id: Oid,
        done: &mut Block,
    ) -> Result<(), SyncError> {
        let at = self.destination(directory)?;
        files::make_directory(at, name, self.build.options.group_write)
            .map_err(|error| self.failed(&join(&directory.path, name), error))?;
        done.push(&Entry {
            name,
            kind: Kind::Unpopulated,
            id,
            stat: Stat::default(),
            conversion: &[],
            child: 0,
        });
        Ok(())
    }
}
