//! The parallel tree writer: a stack of directories, and workers that take tasks from it.
//!
//! A directory is one task, or several if it is large; its sub-directories become tasks of their
//! own. The stack is last in, first out, so the number of waiting tasks is bounded by the depth of
//! the tree times the number of sub-directories per task. A directory is created with its first
//! file: as in git, an empty tree has no directory.

mod base;
mod build;
mod content;
mod copy;
mod directory;
mod file;
mod job;
mod locking;
mod part;
mod paths;
mod remarks;
mod sharing;
mod spare;
mod subdirectory;
mod task;
mod worker;

use super::objects::{self, Objects};
use super::{BuildRequest, Built};
use crate::base::budget::Budget;
use crate::base::error::SyncError;

use build::Build;
pub use spare::Spare;
use worker::Worker;

/// Builds the tree of a request.
pub(super) fn run(request: &BuildRequest<'_>, budget: &Budget) -> Result<Built, SyncError> {
    let first = Objects::open(request.store)?;
    let root = {
        let odb = first.odb()?;
        objects::tree_of_commit(&odb, request.commit.oid())?
    };
    let build = Build::prepare(request, budget, root)?;
    build.push(vec![build.root_task(root)]);
    let jobs = match request.options.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            let worker = || match Objects::open(request.store) {
                Ok(objects) => Worker::new(&build, &objects).run(),
                Err(error) => build.fail(error),
            };
            // A pod may limit the number of threads. The build then has fewer workers, and at least
            // this thread.
            if std::thread::Builder::new()
                .name("tree".to_owned())
                .spawn_scoped(scope, worker)
                .is_err()
            {
                break;
            }
        }
        Worker::new(&build, &first).run();
    });
    build.finish()
}
