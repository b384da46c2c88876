//! A directory taken over from the base.

use std::sync::Arc;

use super::directory::Directory;
use super::task::{Task, Work};
use super::worker::{Job, join};
use crate::base::error::SyncError;
use crate::manifest::{Block, Entry, Kind};
use crate::tree::attributes::Conversion;

impl Job<'_> {
    /// A directory that did not change: its records say all, and no object is read.
    pub(super) fn copy(
        &self,
        block: u32,
        directory: &Arc<Directory>,
        base: u32,
    ) -> Result<(), SyncError> {
        let twins = self.base_block(base)?;
        let mut tasks = Vec::new();
        let next = match twins.next {
            0 => 0,
            rest => {
                let next = self.build.blocks(1);
                tasks.push(Task {
                    block: next,
                    path: Vec::new(),
                    parent: None,
                    work: Work::CopyPart {
                        directory: directory.clone(),
                        base: rest,
                    },
                });
                next
            }
        };
        let mut done = Block::new(twins.context, next);
        for twin in twins.entries() {
            let twin = twin.map_err(|error| self.base_error(error))?;
            self.proceed()?;
            match twin.kind {
                Kind::Directory | Kind::Submodule => {
                    self.build.admit(0)?;
                    let child = self.build.blocks(1);
                    done.push(&Entry { child, ..twin });
                    tasks.push(Task {
                        block: child,
                        path: join(&directory.path, twin.name),
                        parent: directory.as_parent(),
                        work: Work::Copy {
                            base: twin.child,
                            submodule: twin.kind == Kind::Submodule,
                            prelinked: directory.is_prelinked(),
                        },
                    });
                }
                Kind::Unpopulated => {
                    self.build.admit(0)?;
                    self.unpopulated(directory, twin.name, twin.id, &mut done)?;
                }
                Kind::File | Kind::Executable | Kind::Symlink => {
                    let stat = match self.share(directory, &twin)? {
                        Some(stat) => stat,
                        None => {
                            let conversion =
                                Conversion::from_bytes(twin.conversion).ok_or_else(|| {
                                    self.base_error(std::io::ErrorKind::InvalidData.into())
                                })?;
                            self.write(directory, twin.name, twin.kind, twin.id, &conversion)?
                        }
                    };
                    done.push(&Entry { stat, ..twin });
                }
            }
        }
        self.finish_block(block, &done, tasks)
    }
}
