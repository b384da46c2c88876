//! The generated repository: made once, kept under `target/`, copied for each run.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::git;
use crate::support::upstream;

/// Changes when the content does, so that an older repository is not used.
const VERSION: u32 = 1;
const FILES_A_DIRECTORY: usize = 80;
const DIRECTORIES_A_DIRECTORY: usize = 50;
/// Sizes are even between these: 420 MB in 100,000 files.
const SIZES: std::ops::Range<usize> = 200..8200;

/// A bare repository that a benchmark may push to.
pub struct Repository {
    path: PathBuf,
    files: usize,
    pushed: usize,
}

impl Repository {
    /// A copy of the repository with this many files, as `upstream.git` in a directory.
    pub fn prepare(files: usize, directory: &Path) -> Self {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("bench-{VERSION}-{files}-files.git"));
        let complete = kept.join("complete");
        if !complete.exists() {
            println!("generating {} files in {}", files, kept.display());
            let _ = fs::remove_dir_all(&kept);
            generate(files, &kept);
            fs::write(complete, "").unwrap();
        }
        let path = directory.join("upstream.git");
        git::time(git::plain(&[], "cp").arg("--archive").arg(&kept).arg(&path));
        Self {
            path,
            files,
            pushed: 0,
        }
    }

    /// Changes one file and pushes; returns the commit.
    pub fn push(&mut self) -> String {
        self.pushed += 1;
        // A prime step, so that the changes are spread over the tree.
        let file = name(self.pushed * 7919 % self.files);
        let text = format!("change {}\n", self.pushed);
        let stream = format!(
            "commit refs/heads/main\n\
             committer Upstream <upstream@example.com> {time} +0000\n\
             data {length}\n{text}from refs/heads/main^0\n\
             M 100644 inline {file}\ndata {length}\n{text}\n",
            time = 1_700_000_000 + self.pushed,
            length = text.len(),
        );
        let mut import = upstream::git(&self.path)
            .args(["fast-import", "--quiet"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = import.stdin.take().unwrap();
        input.write_all(stream.as_bytes()).unwrap();
        drop(input);
        assert!(import.wait().unwrap().success());
        self.tip()
    }

    /// The commit of the only branch.
    pub fn tip(&self) -> String {
        let out = upstream::git(&self.path)
            .args(["rev-parse", "refs/heads/main"])
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

fn name(file: usize) -> String {
    let directory = file / FILES_A_DIRECTORY;
    format!(
        "part-{:02}/section-{:02}/page-{file:06}.txt",
        directory / DIRECTORIES_A_DIRECTORY,
        directory % DIRECTORIES_A_DIRECTORY,
    )
}

fn generate(files: usize, path: &Path) {
    fs::create_dir_all(path).unwrap();
    git::time(upstream::git(path).args(["init", "--quiet", "--bare", "."]));
    let mut import = upstream::git(path)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = BufWriter::new(import.stdin.take().unwrap());
    let message = "all files\n";
    write!(
        stream,
        "commit refs/heads/main\n\
         committer Upstream <upstream@example.com> 1700000000 +0000\n\
         data {}\n{message}",
        message.len()
    )
    .unwrap();
    let mut random = fastrand::Rng::with_seed(VERSION.into());
    let words: Vec<String> = (0..2000)
        .map(|_| {
            let length = random.usize(2..11);
            (0..length).map(|_| random.lowercase()).collect()
        })
        .collect();
    let mut content = Vec::new();
    for file in 0..files {
        content.clear();
        let size = random.usize(SIZES);
        if file % 2 == 0 {
            while content.len() < size {
                content.extend_from_slice(words[random.usize(..words.len())].as_bytes());
                content.push(if random.usize(..12) == 0 { b'\n' } else { b' ' });
            }
        } else {
            content.resize(size, 0);
            random.fill(&mut content);
        }
        writeln!(stream, "M 100644 inline {}", name(file)).unwrap();
        writeln!(stream, "data {}", content.len()).unwrap();
        stream.write_all(&content).unwrap();
        stream.write_all(b"\n").unwrap();
    }
    drop(stream.into_inner().unwrap());
    assert!(import.wait().unwrap().success());
    git::time(upstream::git(path).args(["repack", "-a", "-d", "--quiet"]));
}
