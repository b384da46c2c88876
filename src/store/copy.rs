//! Copying objects from old packs into new ones as they are: compressed, and as deltas.
//!
//! A pack that is written here is complete in itself: the base of a delta is copied along, before
//! it, even when nothing else needs it (it takes about the room that the object would take whole).
//! The new pack is indexed as one that arrives is, so that what was damaged is found. Nothing here
//! removes a pack, and memory is needed for the list of objects alone.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use git2::{ErrorClass, Oid};

use super::indexing::system_error;
use super::output::Output;
use super::packs::{self, Pack};
use crate::base::budget::{Budget, Interrupted};
use crate::pack::Index;
use crate::pack::entry::{self, Base};

/// What goes into the new packs, and in which order.
pub(super) struct Plan<'a> {
    sources: Vec<Source<'a>>,
    steps: Vec<Step>,
    /// The steps of each new pack.
    slices: Vec<Range<usize>>,
}

/// Why objects could not be copied.
#[derive(Debug)]
pub(super) enum Failure {
    /// The budget is used up.
    Interrupted(Interrupted),
    /// An old pack cannot be read, or is not what its index says.
    Damaged(Box<dyn std::error::Error + Send + Sync>),
    /// The disk does not take a new pack, or does not let an old one be opened.
    Disk(io::Error),
}

/// An old pack.
struct Source<'a> {
    file: File,
    index: &'a Index,
    /// Positions in the index, by ascending offset.
    order: Vec<u32>,
    /// By position in the index: one more than the step that copies the object; 0 for none.
    placed: Vec<u32>,
}

/// An object in an old pack.
#[derive(Clone, Copy)]
struct Place {
    source: u32,
    position: u32,
}

struct Step {
    place: Place,
    /// The step that copies the base.
    base: Option<u32>,
}

/// What is read at a time.
const PIECE: usize = 64 << 10;

impl<'a> Plan<'a> {
    /// Plans to copy the objects of `packs` that are `needed`, into packs of about `slice` bytes.
    pub(super) fn new(
        directory: &Path,
        packs: &[Pack],
        indexes: &'a [Index],
        needed: impl Fn(Oid) -> bool,
        slice: u64,
        budget: &Budget,
    ) -> Result<Self, Failure> {
        let sources = packs
            .iter()
            .zip(indexes)
            .map(|(pack, index)| {
                let path = directory.join(format!("{}.pack", pack.name));
                Ok(Source::new(File::open(path).map_err(Failure::Disk)?, index))
            })
            .collect::<Result<_, Failure>>()?;
        let mut plan = Self {
            sources,
            steps: Vec::new(),
            slices: Vec::new(),
        };
        let (mut begin, mut bytes) = (0, 0);
        for source in 0..plan.sources.len() {
            for i in 0..plan.sources[source].order.len() {
                budget.check().map_err(Failure::Interrupted)?;
                let place = Place {
                    source: source as u32,
                    position: plan.sources[source].order[i],
                };
                let id = plan.id(place);
                if !needed(id) || plan.step_of(id).is_some() {
                    continue;
                }
                if bytes >= slice {
                    plan.slices.push(begin..plan.steps.len());
                    (begin, bytes) = (plan.steps.len(), 0);
                }
                bytes += plan.place(place, begin)?;
            }
        }
        if begin < plan.steps.len() {
            plan.slices.push(begin..plan.steps.len());
        }
        Ok(plan)
    }

    /// How many objects are copied; a base that several packs need counts for each.
    pub(super) fn objects(&self) -> usize {
        self.steps.len()
    }

    /// How many packs are written.
    pub(super) fn slices(&self) -> usize {
        self.slices.len()
    }

    /// Writes one of the new packs, and returns its name once it is complete and on disk.
    pub(super) fn write(
        &self,
        slice: usize,
        directory: &Path,
        budget: &Budget,
    ) -> Result<String, Failure> {
        let range = self.slices[slice].clone();
        let failed = |cause| match budget.check() {
            Err(interrupted) => Failure::Interrupted(interrupted),
            Ok(()) => refused(cause),
        };
        let count = u32::try_from(range.len()).map_err(damaged)?;
        let mut output = Output::new(directory, count, budget).map_err(failed)?;
        let mut offsets = Vec::with_capacity(range.len());
        let mut piece = vec![0; PIECE];
        for step in &self.steps[range.clone()] {
            offsets.push(output.length());
            let base = step.base.map(|base| offsets[base as usize - range.start]);
            self.copy(step.place, base, &mut piece, &mut output, budget)?;
        }
        let sum = output.finish().map_err(failed)?;
        let name = format!("pack-{sum}");
        let written = Index::read(directory, &name).map_err(damaged)?;
        let whole = written.len() == range.len()
            && self.steps[range]
                .iter()
                .all(|step| written.contains(self.id(step.place)));
        if !whole {
            packs::remove(directory, &name).map_err(Failure::Disk)?;
            return Err(damaged(format!("objects are missing in the new {name}")));
        }
        packs::sync(directory, &sum).map_err(Failure::Disk)?;
        Ok(name)
    }

    /// Copies one object; `base` is where the new pack has that of a delta.
    fn copy(
        &self,
        place: Place,
        base: Option<u64>,
        piece: &mut [u8],
        output: &mut Output,
        budget: &Budget,
    ) -> Result<(), Failure> {
        let source = &self.sources[place.source as usize];
        let Range { start, end } = source.extent(place.position);
        let mut at = start;
        while at < end {
            budget.check().map_err(Failure::Interrupted)?;
            let length = (end - at).min(piece.len() as u64) as usize;
            let read = &mut piece[..length];
            source.file.read_exact_at(read, at).map_err(damaged)?;
            let mut data = &*read;
            if let Some(base) = base
                && at == start
            {
                let head = source.head(place.position)?;
                let old = data.get(..head.start).unwrap_or_default();
                let distance = output.length() - base;
                output
                    .write(&entry::rebased(old, distance))
                    .map_err(refused)?;
                data = data.get(head.length..).unwrap_or_default();
            }
            output.write(data).map_err(|cause| match budget.check() {
                Err(interrupted) => Failure::Interrupted(interrupted),
                Ok(()) => refused(cause),
            })?;
            at += length as u64;
        }
        Ok(())
    }

    /// Plans an object, and before it what it is a delta of, for the pack whose first step is
    /// `begin`. Returns their size in bytes.
    fn place(&mut self, place: Place, begin: usize) -> Result<u64, Failure> {
        let mut chain = vec![self.best(place)?];
        let limit = self.sources[place.source as usize].order.len();
        while let Some(base) = self.base(chain[chain.len() - 1])? {
            let id = self.id(base);
            if self.step_of(id).is_some_and(|step| step as usize >= begin) {
                break;
            }
            if chain.len() > limit {
                return Err(damaged("a delta builds on itself"));
            }
            chain.push(self.best(base)?);
        }
        let mut bytes = 0;
        while let Some(place) = chain.pop() {
            let base = match self.base(place)? {
                Some(base) => self.step_of(self.id(base)),
                None => None,
            };
            let number = u32::try_from(self.steps.len() + 1).map_err(damaged)?;
            let source = &mut self.sources[place.source as usize];
            let Range { start, end } = source.extent(place.position);
            bytes += end - start;
            let id = source.index.id(place.position as usize);
            for source in &mut self.sources {
                if let Some(position) = source.index.position(id) {
                    source.placed[position] = number;
                }
            }
            self.steps.push(Step { place, base });
        }
        Ok(bytes)
    }

    /// Of all copies of an object one that is whole, or else this one: chains of deltas must not
    /// become longer by being copied again and again.
    fn best(&self, place: Place) -> Result<Place, Failure> {
        if self.base(place)?.is_none() {
            return Ok(place);
        }
        let id = self.id(place);
        for (number, source) in self.sources.iter().enumerate() {
            if let Some(position) = source.index.position(id) {
                let copy = Place {
                    source: number as u32,
                    position: position as u32,
                };
                if self.base(copy)?.is_none() {
                    return Ok(copy);
                }
            }
        }
        Ok(place)
    }

    /// Where the pack of a delta has the base.
    fn base(&self, place: Place) -> Result<Option<Place>, Failure> {
        let source = &self.sources[place.source as usize];
        let position = match source.head(place.position)?.base {
            Base::None => return Ok(None),
            Base::Before(distance) => {
                let offset = source.index.offset(place.position as usize);
                offset
                    .checked_sub(distance)
                    .and_then(|offset| source.at(offset))
            }
            Base::Id(id) => source.index.position(id).map(|position| position as u32),
        };
        let position = position.ok_or_else(|| damaged("the base of a delta is not in its pack"))?;
        Ok(Some(Place {
            source: place.source,
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

    fn id(&self, place: Place) -> Oid {
        let source = &self.sources[place.source as usize];
        source.index.id(place.position as usize)
    }
}

impl<'a> Source<'a> {
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

    /// The object that begins at an offset.
    fn at(&self, offset: u64) -> Option<u32> {
        let of = |position: &u32| self.index.offset(*position as usize);
        let i = self.order.binary_search_by_key(&offset, of).ok()?;
        Some(self.order[i])
    }

    /// The bytes of the pack that an object takes.
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

    fn head(&self, position: u32) -> Result<entry::Head, Failure> {
        let Range { start, end } = self.extent(position);
        let mut bytes = [0; entry::LONGEST];
        let length = (end - start).min(bytes.len() as u64) as usize;
        let bytes = &mut bytes[..length];
        self.file.read_exact_at(bytes, start).map_err(damaged)?;
        entry::parse(bytes).ok_or_else(|| damaged("an object in a pack has a malformed head"))
    }
}

fn damaged(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::Damaged(cause.into())
}

fn refused(cause: git2::Error) -> Failure {
    if cause.class() == ErrorClass::Os {
        Failure::Disk(system_error(cause))
    } else {
        damaged(cause)
    }
}
