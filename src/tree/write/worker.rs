//! One thread of the tree writer.

use super::build::Build;
use super::job::Job;
use super::task::{Task, Work};
use crate::base::error::{Reason, Stage, SyncError};
use crate::tree::objects::Objects;

/// A worker, with its own handle on the store.
pub(super) struct Worker<'a> {
    build: &'a Build<'a>,
    objects: &'a Objects,
}

/// Counts a task as done when dropped, so that a panic does not leave the other workers waiting.
struct DoneOnDrop<'a>(&'a Build<'a>);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(SyncError::new(
                Stage::Build,
                Reason::Other,
                "a worker of the tree writer panicked",
            ));
        }
        self.0.done();
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(build: &'a Build<'a>, objects: &'a Objects) -> Self {
        Self { build, objects }
    }

    /// Runs tasks until none is left.
    pub(super) fn run(&self) {
        let odb = match self.objects.odb() {
            Ok(odb) => odb,
            Err(error) => return self.build.fail(error),
        };
        let job = Job {
            build: self.build,
            odb,
        };
        while let Some(task) = self.build.take() {
            let _done = DoneOnDrop(self.build);
            if let Err(error) = run(&job, task) {
                self.build.fail(error);
            }
        }
    }
}

fn run(job: &Job<'_>, task: Task) -> Result<(), SyncError> {
    match task.work {
        Work::Tree(work) => job.tree(task.block, task.parent, task.path, work),
        Work::Part(plan, part) => job.part(task.block, &plan, &part),
        Work::Copy {
            base,
            submodule,
            prelinked,
        } => {
            let directory = job.copied_directory(task.parent, task.path, prelinked)?;
            if submodule {
                // A submodule has a directory even if its tree is empty.
                job.destination(&directory)?;
            }
            job.copy(task.block, &directory, base)
        }
        Work::CopyPart { directory, base } => job.copy(task.block, &directory, base),
    }
}
