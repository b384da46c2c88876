//! The bytes of a manifest: blocks, index, footer.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use git2::Oid;

use super::{HEADER_LIMIT, Header, damaged};

/// Offset of the index, number of its slots, entries, bytes, checksum.
const FOOTER: usize = 8 * 5;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file with the executable bits.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A directory with a block of its own.
    Directory,
    /// The root of a submodule, with a block of its own; the id is a commit.
    Submodule,
    /// A submodule that is not populated: an empty directory.
    Unpopulated,
}

/// What `stat` said of a file or link when it was complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub size: u64,
    /// Modification time, in nanoseconds since 1970.
    pub mtime: i64,
    /// Permission bits.
    pub mode: u16,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name, as git has it: any bytes but NUL and slash.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// The blob, tree or commit that it stands for.
    pub id: Oid,
    /// For files and links; zero otherwise.
    pub stat: Stat,
    /// How the file differs from its blob: empty if it does not. Opaque here.
    pub conversion: &'a [u8],
    /// The block of a directory or submodule; zero otherwise.
    pub child: u32,
}

/// One directory, or a part of a large one.
#[derive(Clone, Debug)]
pub struct Block {
    /// What the directories in this one inherit (attributes): equal contexts and equal trees give
    /// equal files.
    pub context: Oid,
    /// The block that continues this directory; zero if none does.
    pub next: u32,
    bytes: Vec<u8>,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::File,
            2 => Self::Executable,
            3 => Self::Symlink,
            4 => Self::Directory,
            5 => Self::Submodule,
            6 => Self::Unpopulated,
            _ => return None,
        })
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Executable => 2,
            Self::Symlink => 3,
            Self::Directory => 4,
            Self::Submodule => 5,
            Self::Unpopulated => 6,
        }
    }

    /// Whether it has a block of its own.
    pub fn has_block(self) -> bool {
        matches!(self, Self::Directory | Self::Submodule)
    }

    /// Whether it has a recorded size and time.
    pub fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable | Self::Symlink)
    }
}

impl Block {
    /// An empty block.
    pub fn new(context: Oid, next: u32) -> Self {
        Self {
            context,
            next,
            bytes: Vec::new(),
        }
    }

    /// Adds a name: in git's order, if the reader is to find it.
    pub fn push(&mut self, entry: &Entry<'_>) {
        let bytes = &mut self.bytes;
        bytes.push(entry.kind.to_byte());
        // Longer names and conversions never come here: the writer refuses them.
        bytes.push(u8::try_from(entry.name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(entry.name);
        bytes.extend_from_slice(entry.id.as_bytes());
        if entry.kind.has_block() {
            bytes.extend_from_slice(&entry.child.to_le_bytes());
        } else if entry.kind.is_file() {
            bytes.extend_from_slice(&entry.stat.size.to_le_bytes());
            bytes.extend_from_slice(&entry.stat.mtime.to_le_bytes());
            bytes.extend_from_slice(&entry.stat.mode.to_le_bytes());
            bytes.push(u8::try_from(entry.conversion.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(entry.conversion);
        }
    }

    /// The names in the order in which they were added.
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            bytes: &self.bytes,
            at: 0,
        }
    }

    /// The entry that begins at an offset which [`Entries::offset`] gave.
    pub fn entry_at(&self, offset: usize) -> Option<Entry<'_>> {
        Entries {
            bytes: &self.bytes,
            at: offset,
        }
        .read()
    }
}

/// Walks the entries of a block. A damaged entry is an error once and ends the walk.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    /// Where the next entry begins.
    pub fn offset(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn read(&mut self) -> Option<Entry<'a>> {
        let [kind, length] = self.array()?;
        let kind = Kind::from_byte(kind)?;
        let name = self.take(length.into())?;
        let id = Oid::from_bytes(self.take(20)?).ok()?;
        let mut entry = Entry {
            name,
            kind,
            id,
            stat: Stat::default(),
            conversion: &[],
            child: 0,
        };
        if kind.has_block() {
            entry.child = u32::from_le_bytes(self.array()?);
        } else if kind.is_file() {
            entry.stat = Stat {
                size: u64::from_le_bytes(self.array()?),
                mtime: i64::from_le_bytes(self.array()?),
                mode: u16::from_le_bytes(self.array()?),
            };
            let [length] = self.array()?;
            entry.conversion = self.take(length.into())?;
        }
        Some(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = io::Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        Some(self.read().ok_or_else(|| {
            self.at = self.bytes.len();
            damaged("a record in it is damaged")
        }))
    }
}

/// Writes a manifest: blocks in any order, each under a number that its parent knows.
#[derive(Debug)]
pub struct ManifestWriter {
    file: BufWriter<File>,
    offset: u64,
    checksum: Checksum,
    index: Vec<u64>,
}

impl ManifestWriter {
    /// Creates the file, which must not exist, and writes the header. The root directory is to be
    /// block 0.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn create(path: &Path, header: &Header) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 16, file),
            offset: 0,
            checksum: Checksum::default(),
            index: Vec::new(),
        };
        writer.put(header.to_text().as_bytes())?;
        Ok(writer)
    }

    /// Adds the block with a number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, number: u32, block: &Block) -> io::Result<()> {
        let slot = number as usize;
        if self.index.len() <= slot {
            self.index.resize(slot + 1, 0);
        }
        self.index[slot] = self.offset;
        let length = u32::try_from(block.bytes.len())
            .map_err(|_| io::Error::other("a directory of the manifest exceeds 4 GiB"))?;
        self.put(&length.to_le_bytes())?;
        self.put(&block.next.to_le_bytes())?;
        self.put(block.context.as_bytes())?;
        self.put(&block.bytes)
    }

    /// Writes the index and the footer. Not synced.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self, entries: u64, bytes: u64) -> io::Result<()> {
        let at = self.offset;
        let index = std::mem::take(&mut self.index);
        for offset in &index {
            self.put(&offset.to_le_bytes())?;
        }
        for number in [at, index.len() as u64, entries, bytes] {
            self.put(&number.to_le_bytes())?;
        }
        let sum = self.checksum.value().to_le_bytes();
        self.file.write_all(&sum)?;
        self.file.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// A complete manifest, opened for reading. Threads may share it.
#[derive(Debug)]
pub struct Manifest {
    /// What the revision is a revision of.
    pub header: Header,
    /// Files, links, directories and submodules in the tree.
    pub entries: u64,
    /// The sizes of all files and links together.
    pub bytes: u64,
    file: File,
    index: Vec<u64>,
}

impl Manifest {
    /// Opens the manifest at `path` and proves its checksum.
    ///
    /// # Errors
    /// When the file cannot be read; `InvalidData` when it is not a complete manifest.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let body = length
            .checked_sub(8)
            .filter(|body| *body >= FOOTER as u64 - 8)
            .ok_or_else(|| damaged("it is too short"))?;
        let mut checksum = Checksum::default();
        let mut buffer = vec![0; 1 << 16];
        let mut rest = (&mut file).take(body);
        loop {
            let read = rest.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            checksum.update(&buffer[..read]);
        }
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, length - FOOTER as u64)?;
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&footer[at * 8..at * 8 + 8]);
            u64::from_le_bytes(word)
        };
        if number(4) != checksum.value() {
            return Err(damaged("its checksum does not match"));
        }
        let (at, slots) = (number(0), number(1));
        if slots.checked_mul(8).and_then(|size| size.checked_add(at))
            != Some(length - FOOTER as u64)
        {
            return Err(damaged("its index is damaged"));
        }
        let mut index = vec![0; usize::try_from(slots * 8).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut index, at)?;
        let index = index
            .chunks_exact(8)
            .map(|slot| {
                let mut word = [0; 8];
                word.copy_from_slice(slot);
                u64::from_le_bytes(word)
            })
            .collect();
        file.seek(SeekFrom::Start(0))?;
        let mut text = Vec::new();
        (&mut file).take(HEADER_LIMIT).read_to_end(&mut text)?;
        let (header, _) = Header::parse(&text)?;
        Ok(Self {
            header,
            entries: number(2),
            bytes: number(3),
            file,
            index,
        })
    }

    /// Reads one block. The root directory is block 0.
    ///
    /// # Errors
    /// When it cannot be read; `InvalidData` when there is no such block.
    pub fn block(&self, number: u32) -> io::Result<Block> {
        let offset = match self.index.get(number as usize) {
            Some(0) | None => return Err(damaged("it lacks a directory")),
            Some(offset) => *offset,
        };
        let mut head = [0; 28];
        self.file.read_exact_at(&mut head, offset)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut bytes = vec![0; word(0) as usize];
        self.file.read_exact_at(&mut bytes, offset + 28)?;
        Ok(Block {
            context: Oid::from_bytes(&head[8..])
                .map_err(|_| damaged("a directory of it is damaged"))?,
            next: word(4),
            bytes,
        })
    }
}

/// Against accidents, not against attackers: eight bytes a step.
#[derive(Debug, Default)]
struct Checksum {
    state: u64,
    length: u64,
    tail: [u8; 8],
    filled: usize,
}

impl Checksum {
    fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.filled > 0 {
            let taken = bytes.len().min(8 - self.filled);
            self.tail[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 8 {
                return;
            }
            self.step(u64::from_le_bytes(self.tail));
        }
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut fixed = [0; 8];
            fixed.copy_from_slice(word);
            self.step(u64::from_le_bytes(fixed));
        }
        let rest = words.remainder();
        self.tail[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn step(&mut self, word: u64) {
        self.state = (self.state ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    fn value(&self) -> u64 {
        let mut last = Self {
            tail: self.tail,
            ..Self::default()
        };
        last.state = self.state;
        last.tail[self.filled..].fill(0);
        last.step(u64::from_le_bytes(last.tail));
        last.step(self.length ^ 0x6776_725f_6d61_6e69);
        last.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_does_not_depend_on_how_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut whole = Checksum::default();
        whole.update(&bytes);
        for cut in 0..20 {
            let mut parts = Checksum::default();
            for part in bytes.chunks(cut + 1) {
                parts.update(part);
            }
            assert_eq!(parts.value(), whole.value(), "{cut}");
        }
        let mut shorter = Checksum::default();
        shorter.update(&bytes[..255]);
        assert_ne!(shorter.value(), whole.value());
    }
}
