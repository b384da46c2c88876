//! What one worker does with one directory, or a part of one.

use std::cmp::Ordering as Order;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use git2::{Odb, Oid};
use rustix::io::Errno;

use super::directory::Directory;
use super::{Build, lock};
use crate::error::{Reason, Stage, SyncError, printable};
use crate::manifest::{Block, Entry, Kind, Stat};
use crate::tree::attributes::{Conversion, Rules};
use crate::tree::objects::{self, EntryMode, Objects, TreeEntry, hostile};
use crate::tree::submodules::{Modules, modules};
use crate::tree::{SubmoduleMode, files, hash, names};

/// Entries of a directory that one task writes.
const PART: usize = 512;

/// A directory to be made.
pub(super) struct Task {
    /// The number of its block in the manifest.
    block: u32,
    path: Vec<u8>,
    parent: Option<Arc<Directory>>,
    work: Work,
}

enum Work {
    Tree(TreeWork),
    Part(Arc<Plan>, Part),
    /// As the base has it, from the base's block.
    Copy {
        base: u32,
        submodule: bool,
    },
    /// The rest of a large directory of the base.
    CopyPart {
        directory: Arc<Directory>,
        base: u32,
    },
}

struct TreeWork {
    tree: Oid,
    /// `None` at the top of a repository.
    repository: Option<Arc<Repository>>,
    /// How many repositories are around this one.
    level: usize,
    rules: Option<Arc<Rules>>,
    context: Oid,
    included: bool,
    base: Option<u32>,
}

/// The repository, of several where there are submodules, that a directory belongs to.
pub(super) struct Repository {
    pub(super) modules: Modules,
    /// Length of the path of its top with a slash.
    pub(super) prefix: usize,
    pub(super) level: usize,
}

/// A directory whose tree is in memory.
pub(super) struct Plan {
    pub(super) directory: Arc<Directory>,
    pub(super) tree: Vec<u8>,
    pub(super) repository: Arc<Repository>,
    pub(super) rules: Option<Arc<Rules>>,
    /// What the directories in this one inherit.
    pub(super) context: Oid,
    pub(super) included: bool,
    pub(super) base: Option<BaseDirectory>,
}

struct Part {
    bytes: Range<usize>,
    /// The block of the next part; zero for the last.
    next: u32,
}

pub(super) struct BaseDirectory {
    blocks: Vec<Block>,
    /// Block and offset of each entry, in git's order.
    index: Vec<(u32, u32)>,
    /// Whether equal sub-trees are equal in all that readers see.
    same_context: bool,
}

impl BaseDirectory {
    fn entry(&self, position: usize) -> Option<Entry<'_>> {
        let (block, offset) = self.index.get(position)?;
        self.blocks.get(*block as usize)?.entry_at(*offset as usize)
    }

    pub(super) fn find(&self, name: &[u8], tree: bool) -> Option<Entry<'_>> {
        let position = self.index.binary_search_by(|(block, offset)| {
            self.blocks
                .get(*block as usize)
                .and_then(|block| block.entry_at(*offset as usize))
                .map_or(Order::Less, |entry| {
                    git_order(entry.name, entry.kind == Kind::Directory, name, tree)
                })
        });
        self.entry(position.ok()?)
    }
}

/// The order of names in a tree object: a directory sorts as if its name ended with a slash.
fn git_order(a: &[u8], a_tree: bool, b: &[u8], b_tree: bool) -> Order {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let next = |name: &[u8], tree: bool| match name.get(common) {
            Some(byte) => Some(*byte),
            None => tree.then_some(b'/'),
        };
        next(a, a_tree).cmp(&next(b, b_tree))
    })
}

impl Build<'_> {
    /// The task that begins it all.
    pub(super) fn root_task(&self, tree: Oid) -> Result<Task, SyncError> {
        let unchanged = self
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection && base.manifest.header.tree == tree);
        let work = if unchanged {
            Work::Copy {
                base: 0,
                submodule: false,
            }
        } else {
            Work::Tree(TreeWork {
                tree,
                repository: None,
                level: 0,
                rules: None,
                context: Oid::ZERO_SHA1,
                included: self.options.sparse.is_none(),
                base: self.base.as_ref().map(|_| 0),
            })
        };
        Ok(Task {
            block: 0,
            path: Vec::new(),
            parent: None,
            work,
        })
    }
}

/// A worker, with its own view of the store.
pub(super) struct Worker<'a> {
    build: &'a Build<'a>,
    objects: &'a Objects,
}

/// Marks a task as done however it ends: a panic must not leave the others waiting.
struct Done<'a>(&'a Build<'a>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(SyncError::new(
                Stage::Build,
                Reason::Other,
                "a worker of the tree writer failed",
            ));
        }
        self.0.done();
    }
}

impl<'a> Worker<'a> {
    pub fn new(build: &'a Build<'a>, objects: &'a Objects) -> Self {
        Self { build, objects }
    }

    /// Works until nothing is left.
    pub fn run(&self) {
        let odb = match self.objects.odb() {
            Ok(odb) => odb,
            Err(error) => return self.build.fail(error),
        };
        let job = Job {
            build: self.build,
            odb,
        };
        while let Some(task) = self.build.take() {
            let _done = Done(self.build);
            if let Err(error) = job.run(task) {
                self.build.fail(error);
            }
        }
    }
}

/// One worker at work.
pub(super) struct Job<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) odb: Odb<'a>,
}

impl Job<'_> {
    fn run(&self, task: Task) -> Result<(), SyncError> {
        match task.work {
            Work::Tree(work) => self.tree(task.block, task.parent, task.path, work),
            Work::Part(plan, part) => self.part(task.block, &plan, &part),
            Work::Copy { base, submodule } => {
                let directory = self.directory(task.parent, task.path, true)?;
                if submodule {
                    self.destination(&directory)?;
                }
                self.copy(task.block, &directory, base)
            }
            Work::CopyPart { directory, base } => self.copy(task.block, &directory, base),
        }
    }

    fn tree(
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
                // A submodule has its directory even if nothing is in it.
                self.destination(&directory)?;
                let modules = match self.build.options.submodules {
                    SubmoduleMode::Off => Modules::default(),
                    _ => modules(&self.odb, &tree)?,
                };
                if let Some(id) = modules.id {
                    context = mix(context, "modules", id);
                }
                Arc::new(Repository {
                    modules,
                    prefix: match directory.path.len() {
                        0 => 0,
                        length => length + 1,
                    },
                    level: work.level,
                })
            }
        };
        let mut rules = work.rules;
        if let Some(entry) = objects::find(&tree, b".gitattributes")?
            && !matches!(entry.mode, EntryMode::Tree | EntryMode::Commit)
            && let Some(text) = objects::control_file(&self.odb, entry.id)?
        {
            context = mix(context, "attributes", entry.id);
            let path = directory.path.get(repository.prefix..).unwrap_or_default();
            rules = Some(Arc::new(Rules::new(rules, path, &text)));
        }
        let base = match work.base {
            Some(number) => Some(self.base_directory(number, context)?),
            None => None,
        };
        let plan = Arc::new(Plan {
            directory,
            tree,
            repository,
            rules,
            context,
            included: work.included,
            base,
        });
        let mut parts = self.parts(&plan.tree)?;
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
        self.part(block, &plan, &part)
    }

    /// Where to cut a tree object; never empty.
    fn parts(&self, tree: &[u8]) -> Result<Vec<Range<usize>>, SyncError> {
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

    fn base_directory(&self, number: u32, context: Oid) -> Result<BaseDirectory, SyncError> {
        let mut blocks = Vec::new();
        let mut index = Vec::new();
        let mut next = number;
        loop {
            let block = self.base_block(next)?;
            let which = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
            let mut entries = block.entries();
            loop {
                let offset = u32::try_from(entries.offset()).unwrap_or(u32::MAX);
                match entries.next() {
                    Some(entry) => entry.map_err(|error| self.base_error(error))?,
                    None => break,
                };
                index.push((which, offset));
            }
            next = block.next;
            blocks.push(block);
            if next == 0 {
                break;
            }
        }
        let same_context = self
            .build
            .base
            .as_ref()
            .is_some_and(|base| base.same_selection)
            && blocks[0].context == context;
        Ok(BaseDirectory {
            blocks,
            index,
            same_context,
        })
    }

    fn base_block(&self, number: u32) -> Result<Block, SyncError> {
        match &self.build.base {
            Some(base) => base
                .manifest
                .block(number)
                .map_err(|error| self.base_error(error)),
            None => Err(self.base_error(std::io::ErrorKind::NotFound.into())),
        }
    }

    fn base_error(&self, error: std::io::Error) -> SyncError {
        let path = self
            .build
            .request
            .base
            .map_or(Path::new(""), |base| base.manifest);
        SyncError::disk(Stage::Build, "read the manifest", path, error)
    }

    fn part(&self, block: u32, plan: &Plan, part: &Part) -> Result<(), SyncError> {
        let mut done = Block::new(plan.context, part.next);
        let mut tasks = Vec::new();
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
                EntryMode::Tree => self.subtree(plan, &entry, &path, &mut done, &mut tasks)?,
                EntryMode::Commit => self.gitlink(plan, &entry, &path, &mut done, &mut tasks)?,
                EntryMode::File => self.file(plan, &entry, Kind::File, &path, &mut done)?,
                EntryMode::Executable => {
                    self.file(plan, &entry, Kind::Executable, &path, &mut done)?;
                }
                EntryMode::Symlink => self.file(plan, &entry, Kind::Symlink, &path, &mut done)?,
            }
        }
        self.finish_block(block, &done, tasks)
    }

    fn finish_block(&self, number: u32, block: &Block, tasks: Vec<Task>) -> Result<(), SyncError> {
        lock(&self.build.manifest)
            .add(number, block)
            .map_err(|error| {
                SyncError::disk(Stage::Build, "write", self.build.request.manifest, error)
            })?;
        self.build.push(tasks);
        Ok(())
    }

    pub(super) fn proceed(&self) -> Result<(), SyncError> {
        if self.build.stop.load(Ordering::Relaxed) {
            // Another worker's error is the one that is reported.
            return Err(SyncError::new(Stage::Build, Reason::Cancelled, "stopped"));
        }
        self.build.proceed()
    }

    fn check_name(&self, path: &[u8], entry: &TreeEntry<'_>) -> Result<(), SyncError> {
        if let Some(why) = names::refused(entry.name, entry.mode == EntryMode::Symlink) {
            return Err(hostile(format!("refusing to write {}: {why}", shown(path))));
        }
        if entry.name.len() > names::NAME_LIMIT || path.len() > names::PATH_LIMIT {
            let start = shown(&path[..path.len().min(80)]);
            return Err(SyncError::new(
                Stage::Build,
                Reason::Limit,
                format!("the path that begins with {start} is longer than Linux can open"),
            )
            .with_hint("git cannot check it out either; exclude it by --sparse-checkout-file"));
        }
        Ok(())
    }

    /// Whether the sparse patterns take in a path.
    pub(super) fn includes(&self, plan: &Plan, path: &[u8], directory: bool) -> bool {
        match &self.build.options.sparse {
            Some(sparse) if plan.repository.level == 0 => {
                sparse.includes(path, directory, plan.included)
            }
            _ => true,
        }
    }

    fn subtree(
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

    fn gitlink(
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

    fn unpopulated(
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

    /// A directory that did not change: its records say all, and no object is read.
    fn copy(&self, block: u32, directory: &Arc<Directory>, base: u32) -> Result<(), SyncError> {
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

    fn directory(
        &self,
        parent: Option<Arc<Directory>>,
        path: Vec<u8>,
        with_base: bool,
    ) -> Result<Arc<Directory>, SyncError> {
        let shown = path.clone();
        Directory::new(&self.build.roots, parent, path, with_base)
            .map(Arc::new)
            .map_err(|error| self.failed(&shown, error))
    }

    pub(super) fn destination<'d>(
        &self,
        directory: &'d Directory,
    ) -> Result<std::os::fd::BorrowedFd<'d>, SyncError> {
        directory
            .destination()
            .map_err(|error| self.failed(&directory.path, error))
    }

    pub(super) fn failed(&self, path: &[u8], error: Errno) -> SyncError {
        match error {
            // The destination was empty, so the tree itself holds the name twice.
            Errno::EXIST | Errno::LOOP | Errno::NOTDIR => hostile(format!(
                "{} or a directory above it stands in the tree twice",
                shown(path)
            )),
            error => {
                let full = self.build.request.destination.join(as_path(path));
                SyncError::disk(Stage::Build, "write", &full, error.into())
            }
        }
    }
}

fn mix(context: Oid, what: &str, id: Oid) -> Oid {
    hash(&[context.as_bytes(), what.as_bytes(), id.as_bytes()].concat())
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

pub(super) fn as_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path))
}

pub(super) fn shown(path: &[u8]) -> String {
    printable(&String::from_utf8_lossy(path))
}
