//! The files of `objects/pack`: which are there, and how large they are.
//!
//! Nothing here looks into a pack or an index: see [`pack`](crate::pack).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::remove_files;

/// A complete pack with its index.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    /// Name without extension: `pack-<checksum>`.
    pub(super) name: String,
    /// Pack and index together.
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

/// The bytes of packs and their indexes.
pub(super) fn total(packs: &[Pack]) -> u64 {
    packs.iter().map(|pack| pack.bytes).sum()
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
