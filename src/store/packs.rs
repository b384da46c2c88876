//! The files of `objects/pack`: their names and sizes.
//!
//! Nothing here reads a pack or an index: see [`pack`](crate::pack).

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use ring::digest;

use super::directory::remove_files;
use crate::base::budget::{Budget, Interrupted};

/// The length of the checksum at the end of a pack, in bytes.
const CHECKSUM: usize = 20;

/// Bytes of a pack that are hashed at a time.
const PIECE: usize = 1 << 20;

/// A complete pack with its index.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    /// Name without extension: `pack-<checksum>`.
    pub(super) name: String,
    /// Size of the pack and its index together, in bytes.
    pub(super) bytes: u64,
}

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

/// The size of packs and their indexes, in bytes.
pub(super) fn total(packs: &[Pack]) -> u64 {
    packs.iter().map(|pack| pack.bytes).sum()
}

/// Removes all files that are not part of a complete pack: temporary files, locks, a pack or an index
/// without the other, empty files.
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

/// Syncs a pack and its index to the disk, so that a power cut does not lose a pack that a ref
/// depends on.
pub(super) fn sync(dir: &Path, checksum: &str) -> io::Result<()> {
    for extension in ["pack", "idx"] {
        fs::File::open(dir.join(format!("pack-{checksum}.{extension}")))?.sync_data()?;
    }
    Ok(())
}

/// Whether the checksum at the end of a pack is that of the bytes before it.
pub(super) fn is_whole(path: &Path, budget: &Budget) -> io::Result<Result<bool, Interrupted>> {
    let mut file = fs::File::open(path)?;
    let Some(mut left) = file.metadata()?.len().checked_sub(CHECKSUM as u64) else {
        return Ok(Ok(false));
    };
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        if let Err(cause) = budget.check() {
            return Ok(Err(cause));
        }
        let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.read_exact(&mut piece[..wanted])?;
        hash.update(&piece[..wanted]);
        left -= wanted as u64;
    }
    let mut checksum = [0; CHECKSUM];
    file.read_exact(&mut checksum)?;
    Ok(Ok(hash.finish().as_ref() == checksum))
}

/// Removes a pack. The index goes first, so that no reader finds an index without its pack.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    fs::remove_file(dir.join(format!("{name}.idx")))?;
    fs::remove_file(dir.join(format!("{name}.pack")))
}

/// The size of the pack and of the index, if each is there.
type PairSizes = (Option<u64>, Option<u64>);

/// The sizes of packs and indexes by name. Empty files are left out.
fn pairs(dir: &Path) -> io::Result<HashMap<String, PairSizes>> {
    let mut pairs: HashMap<String, PairSizes> = HashMap::new();
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
