//! The files of `objects/pack`: which are there, what they hold, and how large each object is.
//!
//! Reads version 2 indexes (gitformat-pack); nothing here looks into a pack.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::remove_files;

/// A complete pack with its index.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    /// Name without extension: `pack-<checksum>`.
    pub(super) name: String,
    /// Pack and index together.
    pub(super) bytes: u64,
}

/// The objects of a pack, by ascending id.
pub(super) struct Index {
    ids: Vec<u8>,
    offsets: Vec<u64>,
    end: u64,
}

const ID: usize = 20;
const IDS: usize = 8 + 256 * 4;
/// Checksums at the end of an index; a pack ends with one.
const TRAILER: usize = 20;

/// The complete packs of a directory, smallest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Pack>> {
    let mut packs: Vec<Pack> = pairs(dir)?
        .into_iter()
        .filter_map(|(name, (pack, index))| {
            let bytes = pack? + index?;
            Some(Pack { name, bytes })
        })
        .collect();
    packs.sort_by(|a, b| (a.bytes, &a.name).cmp(&(b.bytes, &b.name)));
    Ok(packs)
}

/// Removes whatever is not a complete pack: temporary files, locks, halves, empty files.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    let pairs = pairs(dir)?;
    remove_files(dir, |path, _| {
        let whole = path.extension().is_some_and(|e| e == "pack" || e == "idx")
            && path
                .file_stem()
                .and_then(|stem| pairs.get(stem.to_str()?))
                .is_some_and(|(pack, index)| pack.is_some() && index.is_some());
        !whole
    })
}

/// Makes sure that a power cut does not take a pack that something refers to.
pub(super) fn sync(dir: &Path, checksum: &str) -> io::Result<()> {
    for extension in ["pack", "idx"] {
        fs::File::open(dir.join(format!("pack-{checksum}.{extension}")))?.sync_data()?;
    }
    Ok(())
}

/// Removes a pack: the index first, so that no reader finds an index without its pack.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    fs::remove_file(dir.join(format!("{name}.idx")))?;
    fs::remove_file(dir.join(format!("{name}.pack")))
}

impl Index {
    pub(super) fn read(dir: &Path, name: &str) -> io::Result<Self> {
        let path: PathBuf = dir.join(format!("{name}.idx"));
        let bytes = fs::read(&path)?;
        let end = fs::metadata(path.with_extension("pack"))?.len();
        Self::parse(&bytes, end.saturating_sub(TRAILER as u64)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not a pack index of version 2", path.display()),
            )
        })
    }

    fn parse(bytes: &[u8], end: u64) -> Option<Self> {
        if bytes.get(..8)? != [0xff, b't', b'O', b'c', 0, 0, 0, 2] {
            return None;
        }
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let count = word(IDS - 4)? as usize;
        let ids = bytes.get(IDS..IDS + count * ID)?.to_vec();
        // A checksum of four bytes an object lies between ids and offsets.
        let short = IDS + count * (ID + 4);
        let long = short + count * 4;
        let offsets = (0..count)
            .map(|i| {
                let offset = word(short + i * 4)?;
                if offset & 0x8000_0000 == 0 {
                    return Some(u64::from(offset));
                }
                let at = long + (offset & 0x7fff_ffff) as usize * 8;
                Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
            })
            .collect::<Option<Vec<u64>>>()?;
        Some(Self { ids, offsets, end })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Oid> + '_ {
        // Twenty bytes are an id.
        self.ids
            .chunks_exact(ID)
            .filter_map(|id| Oid::from_bytes(id).ok())
    }

    /// Number of objects.
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The id at a position, below [`Index::len`].
    pub(super) fn id(&self, position: usize) -> Oid {
        // Twenty bytes are an id.
        Oid::from_bytes(self.id_bytes(position)).unwrap_or(Oid::ZERO_SHA1)
    }

    /// Where the pack has the object at a position, below [`Index::len`].
    pub(super) fn offset(&self, position: usize) -> u64 {
        self.offsets[position]
    }

    /// Where the objects in the pack end.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn contains(&self, id: Oid) -> bool {
        self.position(id).is_some()
    }

    /// The position of an object.
    pub(super) fn position(&self, id: Oid) -> Option<usize> {
        let (mut low, mut high) = (0, self.offsets.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.id_bytes(middle).cmp(id.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn id_bytes(&self, position: usize) -> &[u8] {
        &self.ids[position * ID..(position + 1) * ID]
    }

    /// Bytes that each object takes in the pack, in the order of [`Index::ids`].
    pub(super) fn sizes(&self) -> Vec<u64> {
        let mut order: Vec<usize> = (0..self.offsets.len()).collect();
        order.sort_unstable_by_key(|i| self.offsets[*i]);
        let mut sizes = vec![0; order.len()];
        let mut next = self.end;
        for i in order.into_iter().rev() {
            sizes[i] = next.saturating_sub(self.offsets[i]);
            next = self.offsets[i];
        }
        sizes
    }
}

type Halves = (Option<u64>, Option<u64>);

/// The sizes of pack and index by name; empty files do not count.
fn pairs(dir: &Path) -> io::Result<HashMap<String, Halves>> {
    let mut pairs: HashMap<String, Halves> = HashMap::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(pairs),
        Err(cause) => return Err(cause),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let (Some(stem), Some(extension)) = (
            path.file_stem().and_then(|stem| stem.to_str()),
            path.extension().and_then(|extension| extension.to_str()),
        ) else {
            continue;
        };
        let is_pack = stem
            .strip_prefix("pack-")
            .is_some_and(|sum| sum.len() == 40 && sum.bytes().all(|b| b.is_ascii_hexdigit()));
        let metadata = entry.metadata()?;
        if !is_pack || !metadata.is_file() || metadata.len() == 0 {
            continue;
        }
        let pair = pairs.entry(stem.to_owned()).or_default();
        match extension {
            "pack" => pair.0 = Some(metadata.len()),
            "idx" => pair.1 = Some(metadata.len()),
            _ => {}
        }
    }
    Ok(pairs)
}
