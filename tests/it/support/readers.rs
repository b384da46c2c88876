//! Readers of the volume: they open the link once, read everything behind it, and check that it
//! is one whole commit and none older than what they saw before.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::upstream::Change;

/// What a reader leaves to the others between two reads.
const REST: Duration = Duration::from_millis(20);

/// Threads that read until they are told to stop.
pub struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    whole: AtomicU64,
    torn: Mutex<Vec<String>>,
}

/// What the readers saw.
#[derive(Debug)]
pub struct Seen {
    /// Trees that were read and found whole.
    pub whole: u64,
    /// Trees that were not one whole commit, or older than one seen before.
    pub torn: Vec<String>,
}

/// The changes that make the tree of generation `n` out of that of `n - 1`: every file says `n`,
/// and the set of names differs too.
pub fn generation(n: u64) -> Vec<Change> {
    let names = names(n);
    let mut changes = Vec::new();
    if n > 0 {
        let before = self::names(n - 1);
        changes.extend(before.difference(&names).cloned().map(Change::Delete));
    }
    let mut list = format!("{n}\n");
    for name in &names {
        writeln!(list, "{name}").unwrap();
        changes.push(Change::file(name.as_str(), content(n, name)));
    }
    changes.push(Change::file("LIST", list));
    changes
}

impl Readers {
    /// Starts `n` readers of a link that is already there.
    pub fn start(n: usize, link: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..n)
            .map(|_| {
                let (link, shared) = (link.to_owned(), Arc::clone(&shared));
                std::thread::spawn(move || shared.read_until_stopped(&link))
            })
            .collect();
        Self { shared, threads }
    }

    /// What they saw so far.
    pub fn seen(&self) -> Seen {
        Seen {
            whole: self.shared.whole.load(Ordering::SeqCst),
            torn: self.shared.torn.lock().unwrap().clone(),
        }
    }

    /// Ends the readers and says what they saw.
    pub fn finish(mut self) -> Seen {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.seen()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn read_until_stopped(&self, link: &Path) {
        let mut newest = 0;
        while !self.stop.load(Ordering::SeqCst) {
            // Readers that never rest would leave a small machine no time to publish.
            std::thread::sleep(REST);
            let told = match read_tree(link) {
                Ok(n) if n >= newest => {
                    newest = n;
                    self.whole.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Ok(n) => format!("generation {n} after {newest}"),
                Err(what) => what,
            };
            self.torn.lock().unwrap().push(told);
        }
    }
}

/// The generation of the tree behind a link, read once through; or what is wrong with it.
pub fn read_tree(link: &Path) -> Result<u64, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tree: OwnedFd =
        openat(CWD, link, flags, Mode::empty()).map_err(|error| format!("open: {error}"))?;
    // The directory that was opened, wherever the link leads by now.
    let top = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    let read = |name: &str| {
        fs::read_to_string(top.join(name)).map_err(|error| format!("read {name}: {error}"))
    };
    let list = read("LIST")?;
    let mut lines = list.lines();
    let n: u64 = lines
        .next()
        .and_then(|line| line.parse().ok())
        .ok_or_else(|| format!("LIST begins with {:?}", list.lines().next()))?;
    let listed: BTreeSet<String> = lines.map(str::to_owned).collect();
    if listed != names(n) {
        return Err(format!("generation {n}: LIST is incomplete: {list:?}"));
    }
    for name in &listed {
        if read(name)? != content(n, name) {
            return Err(format!("generation {n}: {name} is not of it"));
        }
    }
    let mut found = BTreeSet::new();
    for directory in ["", "a", "a/b"] {
        let entries = fs::read_dir(top.join(directory)).map_err(|error| error.to_string())?;
        for entry in entries {
            let entry = entry.map_err(|error| error.to_string())?;
            if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
                let name = Path::new(directory).join(entry.file_name());
                found.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    found.remove("LIST");
    if found != listed {
        return Err(format!(
            "generation {n}: it holds {found:?}, not {listed:?}"
        ));
    }
    Ok(n)
}

fn names(n: u64) -> BTreeSet<String> {
    (0..16)
        .map(|i| {
            let directory = ["", "a/", "a/b/"][i % 3];
            // A quarter of the names change with each generation.
            let suffix = if i % 4 == 0 { n % 5 } else { 0 };
            format!("{directory}file-{i:02}-{suffix}")
        })
        .collect()
}

fn content(n: u64, name: &str) -> String {
    format!("{n} {name}\n").repeat(20 + (n % 30) as usize)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::support::upstream::Upstream;
    use crate::support::wait::{PATIENCE, wait_until};

    #[test]
    fn a_whole_tree_is_read_and_a_torn_one_is_told() {
        let upstream = Upstream::empty();
        let first = upstream.commit_changes("main", &generation(0));
        let second = upstream.commit_changes("main", &generation(1));
        let (old, new) = (upstream.checkout(&first), upstream.checkout(&second));
        assert_eq!(read_tree(old.path()), Ok(0));
        assert_eq!(read_tree(new.path()), Ok(1));
        fs::copy(old.path().join("file-03-0"), new.path().join("file-03-0")).unwrap();
        let told = read_tree(new.path()).unwrap_err();
        assert!(told.contains("file-03-0"), "{told}");
        fs::write(old.path().join("surplus"), "").unwrap();
        assert!(read_tree(old.path()).unwrap_err().contains("surplus"));
    }

    #[test]
    fn a_step_back_is_told() {
        let upstream = Upstream::empty();
        let first = upstream.commit_changes("main", &generation(0));
        let second = upstream.commit_changes("main", &generation(1));
        let (old, new) = (upstream.checkout(&first), upstream.checkout(&second));
        let dir = tempfile::tempdir().unwrap();
        let (link, next) = (dir.path().join("link"), dir.path().join("next"));
        symlink(new.path(), &link).unwrap();
        let readers = Readers::start(1, &link);
        wait_until(PATIENCE, "a first read", || readers.seen().whole > 0);
        symlink(old.path(), &next).unwrap();
        fs::rename(&next, &link).unwrap();
        wait_until(PATIENCE, "the step back", || {
            !readers.seen().torn.is_empty()
        });
        let mut seen = readers.finish();
        seen.torn.dedup();
        assert_eq!(seen.torn, ["generation 0 after 1"]);
    }
}
