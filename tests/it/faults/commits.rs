//! Commits that are made to cost much: in the time of a worker, in memory or on disk.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Row, World, failure, launch, no_failure};
use crate::support::http_server::HttpServer;
use crate::support::readers::generation;
use crate::support::root::Root;
use crate::support::upstream::{Change, Upstream};

section!("Hostile commits", {
    a_pattern_that_backtracks: no_failure(
        "a line of `.gitattributes` has `**/` 40 times, and directories are nested 40 deep",
        |row| published(row, Kind::Pattern),
    ),
    macros_without_end: failure(
        "`.gitattributes` defines 150,000 macros",
        "build", "limit", "defines more than 1000 macros",
        |row| refused(row, Kind::Lines("[attr]m")),
    ),
    lines_without_end: failure(
        "`.gitattributes` has 150,000 lines",
        "build", "limit", "more than 100000 lines of .gitattributes apply",
        |row| refused(row, Kind::Lines("f")),
    ),
    submodules_side_by_side: no_failure("a directory has 2,000 submodules", many_submodules),
    submodules_that_multiply: failure(
        "14 levels of submodules name 10 submodules each, 10^14 in all",
        "build", "limit", "more than 100000 submodules",
        |row| refused(row, Kind::Nested(14, 10)),
    ),
    submodules_that_are_deep: failure(
        "submodules are nested 17 levels deep",
        "build", "limit", "nested more than 16 levels deep",
        |row| refused(row, Kind::Nested(17, 1)),
    ),
    a_file_that_grows: failure(
        "a file is larger than `--max-tree-bytes` only after its line ends are converted",
        "build", "limit", "more than 10000000 bytes",
        grows,
    ),
    a_commit_without_dates: no_failure(
        "the author and the committer of a commit in a local repository have no date",
        without_dates,
    ),
});

/// Deadlines that a slow machine keeps when it does ordinary work; a worker that does not look at
/// the clock would not.
fn patient() -> (HttpServer, World) {
    let flags = [("sync-timeout", "40s"), ("stall-timeout", "20s")];
    World::at(Root::new(), &flags)
}

/// Ends with a commit that lacks what the hostile one brought.
#[track_caller]
fn overcome(mut world: World, row: &Row, hostile: &[impl AsRef<str>]) {
    let removed = hostile
        .iter()
        .map(|path| Change::Delete(path.as_ref().to_owned()));
    let next = world.push_beside(2, removed);
    world.sidecar.wait_for(&world.root, &next);
    world.end(row, &next);
}

/// What a hostile commit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pattern that takes exponential time in a matcher that backtracks.
    Pattern,
    /// 150,000 lines that begin with these letters.
    Lines(&'static str),
    /// So many levels of so many submodules each.
    Nested(usize, usize),
}

impl Kind {
    /// One of them.
    pub fn any(random: &mut fastrand::Rng) -> Self {
        let all = [
            Self::Pattern,
            Self::Lines("[attr]m"),
            Self::Lines("f"),
            Self::Nested(14, 10),
            Self::Nested(17, 1),
        ];
        all[random.usize(..all.len())]
    }

    /// The paths that it brings.
    fn paths(self) -> Vec<String> {
        match self {
            // The one place that readers of generations do not look at.
            Self::Pattern => vec!["noise".to_owned()],
            Self::Lines(_) => vec![".gitattributes".to_owned()],
            Self::Nested(_, width) => (0..width)
                .map(|n| format!("m{n}"))
                .chain([".gitmodules".to_owned()])
                .collect(),
        }
    }
}

/// The changes of a hostile commit, and the reason and text of its refusal; `None` if it is
/// published. `innocent` is a commit of the repository, which is at `upstream.git` of its server.
pub fn hostile(
    upstream: &Upstream,
    innocent: &str,
    kind: Kind,
) -> (Vec<Change>, Option<(&'static str, &'static str)>) {
    match kind {
        Kind::Pattern => {
            let changes = vec![
                Change::file(
                    "noise/.gitattributes",
                    format!("{}x text\n", "**/".repeat(40)),
                ),
                Change::file(format!("noise/{}y", "deep/".repeat(40)), "text\n"),
            ];
            (changes, None)
        }
        Kind::Lines(prefix) => {
            let mut text = String::new();
            for n in 0..150_000 {
                writeln!(text, "{prefix}{n} text").unwrap();
            }
            let refusal = match prefix {
                "f" => "more than 100000 lines of .gitattributes apply",
                _ => "defines more than 1000 macros",
            };
            (
                vec![Change::file(".gitattributes", text)],
                Some(("limit", refusal)),
            )
        }
        Kind::Nested(levels, width) => {
            let refusal = match width {
                1 => "nested more than 16 levels deep",
                _ => "more than 100000 submodules",
            };
            let changes = nested_submodules(upstream, innocent, levels, width);
            (changes, Some(("limit", refusal)))
        }
    }
}

fn nested_submodules(
    upstream: &Upstream,
    innocent: &str,
    levels: usize,
    width: usize,
) -> Vec<Change> {
    let mut text = String::new();
    for n in 0..width {
        writeln!(
            text,
            "[submodule \"{n}\"]\n\tpath = m{n}\n\turl = ../upstream.git"
        )
        .unwrap();
    }
    let modules = upstream.object("blob", text.as_bytes());
    let mut commit = innocent.to_owned();
    for _ in 1..levels {
        let mut listing = format!("100644 blob {modules}\t.gitmodules\n");
        for n in 0..width {
            writeln!(listing, "160000 commit {commit}\tm{n}").unwrap();
        }
        let tree = upstream.tree(&listing);
        commit = upstream.git(&["commit-tree", "-m", "nested", &tree]);
    }
    let mut changes = vec![Change::file(".gitmodules", text)];
    changes.extend((0..width).map(|n| Change::Submodule(format!("m{n}"), commit.clone())));
    changes
}

fn published(row: &Row, kind: Kind) {
    let (_server, mut world) = World::over_http();
    let (changes, _) = hostile(&world.upstream, &world.first, kind);
    let commit = world.push_beside(1, changes);
    world.sidecar.wait_for(&world.root, &commit);
    // Git's own checkout of it would not end.
    overcome(world, row, &kind.paths());
}

fn refused(row: &Row, kind: Kind) {
    let (_server, mut world) = patient();
    let store = world.root.state("store.git");
    let before = fs::metadata(&store).unwrap().ino();
    let (changes, _) = hostile(&world.upstream, &world.first, kind);
    world.push_beside(1, changes);
    world.endure(row);
    // The store is whole, so it is neither deleted nor fetched again.
    assert_eq!(fs::metadata(&store).unwrap().ino(), before);
    overcome(world, row, &kind.paths());
}

fn many_submodules(row: &Row) {
    const COUNT: usize = 2_000;
    let (_server, world) = patient();
    let mut world = world.unwatched();
    let mut modules = String::new();
    let mut changes = Vec::new();
    for n in 0..COUNT {
        writeln!(
            modules,
            "[submodule \"{n}\"]\n\tpath = m/{n}\n\turl = ../upstream.git"
        )
        .unwrap();
        changes.push(Change::Submodule(format!("m/{n}"), world.first.clone()));
    }
    changes.push(Change::file(".gitmodules", modules));
    let commit = world.push_beside(1, changes);
    world.sidecar.wait_for(&world.root, &commit);
    let directories = fs::read_dir(world.root.tree().join("m")).unwrap().count();
    assert_eq!(directories, COUNT);
    overcome(world, row, &[".gitmodules", "m"]);
}

fn grows(row: &Row) {
    let flags = [("max-tree-bytes", "10000000"), ("sync-timeout", "40s")];
    let (_server, mut world) = World::at(Root::new(), &flags);
    let hostile = [
        Change::file(".gitattributes", "lines text eol=crlf\nids ident\n"),
        Change::file("lines", vec![b'\n'; 6_000_000]),
        Change::file("ids", b"$Id$".repeat(10)),
    ];
    world.push_beside(1, hostile);
    world.endure(row);
    let peak = world.sidecar.peak_kib();
    // The blob has 6 MB; the file of 12 MB is never in memory.
    assert!(peak < 64 << 10, "{peak} KiB");
    overcome(world, row, &[".gitattributes", "lines", "ids"]);
}

fn without_dates(row: &Row) {
    let (upstream, root) = (Upstream::empty(), Root::new());
    let repo = upstream.url();
    let launch = launch(&repo, &root).flag("depth", "0");
    let mut world = World::new(upstream, root, launch);
    let usual = world.push(1);
    world.sidecar.wait_for(&world.root, &usual);
    for (n, ident) in [
        (2, "A <a@example.com>"),
        (3, "A <a@example.com> 99999999999999999999 +0000"),
    ] {
        let next = world.upstream.prepare(&[generation(n)]).remove(0);
        let tree = world
            .upstream
            .git(&["rev-parse", &format!("{next}^{{tree}}")]);
        let parent = world.upstream.tip("main");
        let text =
            format!("tree {tree}\nparent {parent}\nauthor {ident}\ncommitter {ident}\n\nx\n");
        let commit = world.upstream.object("commit", text.as_bytes());
        world.upstream.force_push("main", &commit);
        world.sidecar.wait_for(&world.root, &commit);
    }
    let next = world.push(4);
    world.sidecar.wait_for(&world.root, &next);
    world.end(row, &next);
}
