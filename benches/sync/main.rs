//! What syncing costs, next to what git costs for the same on the same machine in the same run:
//! `cargo bench --bench sync`.
//!
//! Contenders take turns, a ratio is taken of each pair, and the median of the ratios is shown.
//! Nothing here fails because something is slow; a target is met or missed, and the table says so.
//!
//! Options, after `--`: `--updates N` (200), `--rounds N` (3), `--files N` (100000), `--dir DIR`
//! (memory if there is enough of it), and names of sections: `first update updates poll`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that fails panics with the cause, and one that succeeds prints"
)]

mod first;
mod git;
mod poll;
mod process;
mod report;
mod repository;
mod stages;
#[allow(
    dead_code,
    unused_imports,
    reason = "the tests' servers: the benchmarks use some of them, and run none of their own tests"
)]
#[path = "../../tests/it/support/mod.rs"]
mod support;
mod update;
mod updates;

use std::path::{Path, PathBuf};

use report::Report;
use repository::Repository;
use support::http_server::HttpServer;

/// Where the clients run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cpus {
    All,
    /// One CPU for the client; the server has all.
    One,
}

impl Cpus {
    const BOTH: [Self; 2] = [Self::All, Self::One];

    /// The command to run a client under.
    fn wrapper(self) -> &'static [&'static str] {
        match self {
            Self::All => &[],
            Self::One => &["taskset", "--cpu-list", "0"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::One => ", 1 CPU",
        }
    }
}

/// What the sections stand on.
struct Bench {
    options: Options,
    /// Removed at the end.
    work: tempfile::TempDir,
    repository: Repository,
    server: HttpServer,
    report: Report,
}

struct Options {
    updates: usize,
    rounds: usize,
    files: usize,
    dir: Option<PathBuf>,
    sections: Vec<String>,
}

impl Options {
    const SECTIONS: [&'static str; 4] = ["first", "update", "updates", "poll"];

    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            updates: 200,
            rounds: 3,
            files: 100_000,
            dir: None,
            sections: Vec::new(),
        };
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("an option's value");
            match argument.as_str() {
                "--updates" => options.updates = value().parse().unwrap(),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--files" => options.files = value().parse().unwrap(),
                "--dir" => options.dir = Some(value().into()),
                // What cargo says to every benchmark.
                "--bench" => {}
                section if Self::SECTIONS.contains(&section) => options.sections.push(argument),
                _ => panic!("unknown option or section: {argument}"),
            }
        }
        options
    }

    fn wants(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|name| name == section)
    }

    /// A place in memory takes the disk out of the comparison, and its noise.
    fn place(&self) -> PathBuf {
        const ENOUGH: u64 = 6 << 30;
        if let Some(dir) = &self.dir {
            return dir.clone();
        }
        let memory = Path::new("/dev/shm");
        match rustix::fs::statvfs(memory) {
            Ok(free) if free.f_bavail * free.f_frsize >= ENOUGH => memory.to_owned(),
            _ => PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        }
    }
}

impl Bench {
    fn new(options: Options) -> Self {
        let place = options.place();
        let work = tempfile::Builder::new()
            .prefix("gvr-bench-")
            .tempdir_in(&place)
            .unwrap();
        println!("in {}", work.path().display());
        let repository = Repository::prepare(options.files, work.path());
        let server = HttpServer::start(work.path());
        Self {
            options,
            work,
            repository,
            server,
            report: Report::default(),
        }
    }

    fn url(&self) -> String {
        self.server.url("upstream.git")
    }

    /// A path for one contender; nothing is there.
    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }
}

fn main() {
    let mut bench = Bench::new(Options::parse(std::env::args().skip(1)));
    if bench.options.wants("first") {
        first::run(&mut bench);
    }
    if bench.options.wants("update") {
        update::run(&mut bench);
    }
    if bench.options.wants("updates") {
        updates::run(&mut bench);
    }
    if bench.options.wants("poll") {
        poll::run(&mut bench);
    }
    println!("\n{}", bench.report);
}
