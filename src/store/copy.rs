//! Copies objects from old packs into new ones unchanged: compressed, and as deltas.
//!
//! Every new pack holds the bases of its deltas. A base is copied before its delta even if nothing
//! else needs it, which takes about as many bytes as storing the delta's object whole. The new pack
//! is indexed like one that was received, so damaged objects are detected. Nothing here removes a
//! pack. Memory use is proportional to the number of objects, not to their size.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use git2::Oid;

use super::indexing::{is_disk_failure, system_error};
use super::pack_writer::PackWriter;
use super::packs::{self, Pack};
use crate::base::budget::{Budget, Interrupted};
use crate::pack::Index;
use crate::pack::entry::{self, DeltaBase, EntryHeader};

/// The objects that go into the new packs, in the order in which they are written.
pub(super) struct CopyPlan<'a> {
    sources: Vec<SourcePack<'a>>,
    steps: Vec<CopyStep>,
    /// The range of steps that makes up each new pack.
    slices: Vec<Range<usize>>,
}

/// Why objects could not be copied.
#[derive(Debug)]
pub(super) enum CopyFailure {
    /// The budget is used up.
    Interrupted(Interrupted),
    /// An old pack cannot be read, or does not match its index.
    Damaged(Box<dyn std::error::Error + Send + Sync>),
    /// A new pack cannot be written, or an old one cannot be opened.
    Disk(io::Error),
}

/// An old pack.
struct SourcePack<'a> {
    file: File,
    index: &'a Index,
    /// Positions in the index, by ascending offset.
    order: Vec<u32>,
    /// By position in the index: 1 + the number of the step that copies the object, or 0.
    placed: Vec<u32>,
}

/// An object in an old pack: the number of the pack, and the position in its index.
#[derive(Clone, Copy)]
struct PackedObject {
    source: u32,
    position: u32,
}

struct CopyStep {
    object: PackedObject,
    /// The step that copies the base, if the object is a delta.
    base: Option<u32>,
}

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

impl<'a> CopyPlan<'a> {
    /// Plans to copy the objects of `packs` that are `needed`, into packs of about `slice` bytes.
    pub(super) fn new(
        directory: &Path,
        packs: &[Pack],
        indexes: &'a [Index],
        needed: impl Fn(Oid) -> bool,
        slice: u64,
        budget: &Budget,
    ) -> Result<Self, CopyFailure> {
        let sources = packs
            .iter()
            .zip(indexes)
            .map(|(pack, index)| {
                let path = directory.join(format!("{}.pack", pack.name));
                let file = File::open(path).map_err(CopyFailure::Disk)?;
                Ok(SourcePack::new(file, index))
            })
            .collect::<Result<_, CopyFailure>>()?;
        let mut plan = Self {
            sources,
            steps: Vec::new(),
            slices: Vec::new(),
        };
        let (mut begin, mut bytes) = (0, 0);
        for source in 0..plan.sources.len() {
            for i in 0..plan.sources[source].order.len() {
                budget.check().map_err(CopyFailure::Interrupted)?;
                let object = PackedObject {
                    source: source as u32,
                    position: plan.sources[source].order[i],
                };
                let id = plan.id(object);
                if !needed(id) || plan.step_of(id).is_some() {
                    continue;
                }
                if bytes >= slice {
                    plan.slices.push(begin..plan.steps.len());
                    (begin, bytes) = (plan.steps.len(), 0);
                }
                bytes += plan.add_with_bases(object, begin)?;
            }
        }
        if begin < plan.steps.len() {
            plan.slices.push(begin..plan.steps.len());
        }
        Ok(plan)
    }

    /// How many objects are copied. A base that is written to several packs counts for each.
    pub(super) fn objects(&self) -> usize {
        self.steps.len()
    }

    /// How many packs are written.
    pub(super) fn slices(&self) -> usize {
        self.slices.len()
    }

    /// Writes one of the new packs and syncs it to the disk; returns its name.
    pub(super) fn write(
        &self,
        slice: usize,
        directory: &Path,
        budget: &Budget,
    ) -> Result<String, CopyFailure> {
        let range = self.slices[slice].clone();
        let failed = |cause| match budget.check() {
            Err(interrupted) => CopyFailure::Interrupted(interrupted),
            Ok(()) => not_indexed(cause, directory),
        };
        let count = u32::try_from(range.len()).map_err(damaged)?;
        let mut writer = PackWriter::new(directory, count, budget).map_err(failed)?;
        let mut offsets = Vec::with_capacity(range.len());
        let mut piece = vec![0; PIECE];
        for step in &self.steps[range.clone()] {
            offsets.push(writer.length());
            let base = step.base.map(|base| offsets[base as usize - range.start]);
            self.copy(step.object, base, &mut piece, &mut writer, budget, &failed)?;
        }
        let checksum = writer.finish().map_err(failed)?;
        let name = format!("pack-{checksum}");
        let written = Index::read(directory, &name).map_err(damaged)?;
        let is_complete = written.len() == range.len()
            && self.steps[range]
                .iter()
                .all(|step| written.contains(self.id(step.object)));
        if !is_complete {
            packs::remove(directory, &name).map_err(CopyFailure::Disk)?;
            return Err(damaged(format!("objects are missing in the new {name}")));
        }
        packs::sync(directory, &checksum).map_err(CopyFailure::Disk)?;
        Ok(name)
    }

    /// Copies one object. For a delta, `base` is the offset of its base in the new pack. `failed`
    /// translates an error of the writer.
    fn copy(
        &self,
        object: PackedObject,
        base: Option<u64>,
        piece: &mut [u8],
        writer: &mut PackWriter,
        budget: &Budget,
        failed: &dyn Fn(git2::Error) -> CopyFailure,
    ) -> Result<(), CopyFailure> {
        let source = &self.sources[object.source as usize];
        let Range { start, end } = source.extent(object.position);
        let mut at = start;
        while at < end {
            budget.check().map_err(CopyFailure::Interrupted)?;
            let length = (end - at).min(piece.len() as u64) as usize;
            let read = &mut piece[..length];
            source.file.read_exact_at(read, at).map_err(damaged)?;
            let mut data = &*read;
            if let Some(base) = base
                && at == start
            {
                let header = source.header(object.position)?;
                let old = data.get(..header.start).unwrap_or_default();
                let distance = writer.length() - base;
                writer
                    .write(&entry::rebased(old, distance))
                    .map_err(failed)?;
                data = data.get(header.length..).unwrap_or_default();
            }
            writer.write(data).map_err(failed)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Adds steps for an object, preceded by its chain of bases, to the pack whose first step is
    /// `begin`. Returns their size in bytes.
    fn add_with_bases(&mut self, object: PackedObject, begin: usize) -> Result<u64, CopyFailure> {
        let mut chain = vec![self.best_copy(object)?];
        let limit = self.sources[object.source as usize].order.len();
        while let Some(base) = self.base(chain[chain.len() - 1])? {
            let id = self.id(base);
            if self.step_of(id).is_some_and(|step| step as usize >= begin) {
                break;
            }
            if chain.len() > limit {
                return Err(damaged("a delta builds on itself"));
            }
            chain.push(self.best_copy(base)?);
        }
        let mut bytes = 0;
        while let Some(object) = chain.pop() {
            let base = match self.base(object)? {
                Some(base) => self.step_of(self.id(base)),
                None => None,
            };
            let number = u32::try_from(self.steps.len() + 1).map_err(damaged)?;
            let source = &mut self.sources[object.source as usize];
            let Range { start, end } = source.extent(object.position);
            bytes += end - start;
            let id = source.index.id(object.position as usize);
            for source in &mut self.sources {
                if let Some(position) = source.index.position(id) {
                    source.placed[position] = number;
                }
            }
            self.steps.push(CopyStep { object, base });
        }
        Ok(bytes)
    }

    /// A copy of the object that is not a delta, if any pack has one, or else this copy. Otherwise
    /// repeated rewrites would lengthen the chains of deltas.
    fn best_copy(&self, object: PackedObject) -> Result<PackedObject, CopyFailure> {
        if self.base(object)?.is_none() {
            return Ok(object);
        }
        let id = self.id(object);
        for (number, source) in self.sources.iter().enumerate() {
            if let Some(position) = source.index.position(id) {
                let copy = PackedObject {
                    source: number as u32,
                    position: position as u32,
                };
                if self.base(copy)?.is_none() {
                    return Ok(copy);
                }
            }
        }
        Ok(object)
    }

    /// The base of a delta, which is in the same pack; `None` for a whole object.
    fn base(&self, object: PackedObject) -> Result<Option<PackedObject>, CopyFailure> {
        let source = &self.sources[object.source as usize];
        let position = match source.header(object.position)?.base {
            DeltaBase::None => return Ok(None),
            DeltaBase::Before(distance) => {
                let offset = source.index.offset(object.position as usize);
                offset
                    .checked_sub(distance)
                    .and_then(|offset| source.at(offset))
            }
            DeltaBase::Id(id) => source.index.position(id).map(|position| position as u32),
        };
        let position = position.ok_or_else(|| damaged("the base of a delta is not in its pack"))?;
        Ok(Some(PackedObject {
            source: object.source,
            position,
        }))
    }

    /// The latest step that copies an object.
    fn step_of(&self, id: Oid) -> Option<u32> {
        self.sources.iter().find_map(|source| {
            let position = source.index.position(id)?;
            source.placed[position].checked_sub(1)
        })
    }

    fn id(&self, object: PackedObject) -> Oid {
        let source = &self.sources[object.source as usize];
        source.index.id(object.position as usize)
    }
}

impl<'a> SourcePack<'a> {
    fn new(file: File, index: &'a Index) -> Self {
        let mut order: Vec<u32> = (0..index.len() as u32).collect();
        order.sort_unstable_by_key(|position| index.offset(*position as usize));
        Self {
            file,
            index,
            placed: vec![0; order.len()],
            order,
        }
    }

    /// The position in the index of the object that begins at an offset.
    fn at(&self, offset: u64) -> Option<u32> {
        let of = |position: &u32| self.index.offset(*position as usize);
        let i = self.order.binary_search_by_key(&offset, of).ok()?;
        Some(self.order[i])
    }

    /// The range of bytes in the pack that an object takes.
    fn extent(&self, position: u32) -> Range<u64> {
        let start = self.index.offset(position as usize);
        let next = self
            .order
            .partition_point(|other| self.index.offset(*other as usize) <= start);
        let end = match self.order.get(next) {
            Some(next) => self.index.offset(*next as usize),
            None => self.index.end(),
        };
        start..end.max(start)
    }

    fn header(&self, position: u32) -> Result<EntryHeader, CopyFailure> {
        let Range { start, end } = self.extent(position);
        let mut bytes = [0; entry::LONGEST];
        let length = (end - start).min(bytes.len() as u64) as usize;
        let bytes = &mut bytes[..length];
        self.file.read_exact_at(bytes, start).map_err(damaged)?;
        entry::parse(bytes).ok_or_else(|| damaged("an object in a pack has a malformed header"))
    }
}

fn damaged(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CopyFailure {
    CopyFailure::Damaged(cause.into())
}

/// The failure that an error of the indexer stands for.
fn not_indexed(cause: git2::Error, directory: &Path) -> CopyFailure {
    if is_disk_failure(&cause) {
        CopyFailure::Disk(system_error(cause, directory))
    } else {
        damaged(cause)
    }
}
