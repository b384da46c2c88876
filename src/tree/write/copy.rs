//! Copies a directory that did not change from the base, by its records alone: no object is read.

use std::io;
use std::sync::Arc;

use super::base::BaseRevision;
use super::directory::Directory;
use super::job::Job;
use super::paths::join;
use super::task::{Task, TaskOutput, Work};
use crate::base::error::{Reason, Stage, SyncError};
use crate::manifest::{Block, Kind, Record};
use crate::tree::conversion::Conversion;

impl Job<'_> {
    /// Writes the names in one block of the base; a further block becomes a task of its own.
    pub(super) fn copy(
        &self,
        block: u32,
        directory: &Arc<Directory>,
        base_block: u32,
    ) -> Result<(), SyncError> {
        let base = self.build.base.as_ref().ok_or_else(|| {
            // Cannot happen: only a build with a base creates tasks that copy.
            SyncError::new(Stage::Build, Reason::Other, "there is no base to copy from")
        })?;
        let records = base.block(base_block)?;
        let mut output = TaskOutput {
            block: Block::new(records.context, 0),
            tasks: Vec::new(),
        };
        if records.next != 0 {
            output.block.next = self.build.blocks(1);
            output.tasks.push(Task {
                block: output.block.next,
                path: Vec::new(),
                parent: None,
                work: Work::CopyPart {
                    directory: directory.clone(),
                    base: records.next,
                },
            });
        }
        for record in records.records() {
            let record = record.map_err(|error| base.unreadable(error))?;
            self.proceed()?;
            match record.kind {
                Kind::Directory | Kind::Submodule => {
                    self.copy_subdirectory(directory, &record, &mut output)?;
                }
                Kind::Unpopulated => {
                    self.build.admit(0)?;
                    self.unpopulated(directory, record.name, record.id, &mut output)?;
                }
                Kind::File | Kind::Executable | Kind::Symlink => {
                    self.copy_file(base, directory, &record, &mut output)?;
                }
            }
        }
        self.finish_block(block, output)
    }

    fn copy_subdirectory(
        &self,
        directory: &Arc<Directory>,
        record: &Record<'_>,
        output: &mut TaskOutput,
    ) -> Result<(), SyncError> {
        self.build.admit(0)?;
        let child = self.build.blocks(1);
        output.block.push(&Record { child, ..*record });
        output.tasks.push(Task {
            block: child,
            path: join(&directory.path, record.name),
            parent: directory.as_parent(),
            work: Work::Copy {
                base: record.child,
                submodule: record.kind == Kind::Submodule,
                prelinked: directory.is_prelinked(),
            },
        });
        Ok(())
    }

    fn copy_file(
        &self,
        base: &BaseRevision,
        directory: &Directory,
        record: &Record<'_>,
        output: &mut TaskOutput,
    ) -> Result<(), SyncError> {
        let (stat, converted) = match self.share(directory, record)? {
            Some(stat) => (stat, record.converted),
            None => {
                let conversion = Conversion::from_bytes(record.conversion)
                    .ok_or_else(|| base.unreadable(io::ErrorKind::InvalidData.into()))?;
                let written =
                    self.write(directory, record.name, record.kind, record.id, &conversion)?;
                (written.stat, written.converted)
            }
        };
        output.block.push(&Record {
            stat,
            converted,
            ..*record
        });
        Ok(())
    }
}
