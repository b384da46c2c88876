//! Submodules in a tree.

use git_volume_reloader::tree::submodules;

use super::*;

/// A superproject whose submodules' objects lie in its own store, as after a recursive fetch.
pub(super) fn put_submodules(bench: &Bench) -> Commit {
    let origin = &bench.origin;
    origin.put("inner.txt", "inner\n");
    let inner = origin.commit();
    origin.remove("inner.txt");
    origin
        .put(
            ".gitmodules",
            "[submodule \"inner\"]\n\tpath = nested/inner\n\turl = ../inner\n",
        )
        .put("middle.txt", "middle\n")
        .put_id("160000", "nested/inner", &inner.to_string());
    let middle = origin.commit();
    for path in [".gitmodules", "middle.txt", "nested/inner"] {
        origin.remove(path);
    }
    origin
        .put(
            ".gitmodules",
            "[submodule \"middle\"]\n\tpath = libs/middle\n\turl = ../middle.git\n\
             [submodule \"off\"]\n\tpath = libs/off\n\turl = ../off\n\tupdate = none\n",
        )
        .put(".gitattributes", "*.txt eol=crlf\n")
        .put("top.txt", "top\n")
        .put_id("160000", "libs/middle", &middle.to_string())
        .put_id("160000", "libs/off", &middle.to_string())
        .put_id("160000", "stray", &inner.to_string());
    origin.commit()
}

#[test]
fn submodules_are_listed_level_by_level() {
    let bench = Bench::new();
    let commit = put_submodules(&bench);
    let url = RepoUrl::parse("https://host/org/top.git").unwrap();
    let options = TreeOptions::default();
    let top = submodules::list(&bench.origin.store(), commit, &options, &url, &budget()).unwrap();
    assert_eq!(top.len(), 1);
    assert_eq!(top[0].path, Path::new("libs/middle"));
    assert_eq!(top[0].url.to_string(), "https://host/org/middle.git");
    let next = submodules::list(
        &bench.origin.store(),
        top[0].commit,
        &options,
        &top[0].url,
        &budget(),
    )
    .unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].path, Path::new("nested/inner"));
    assert_eq!(next[0].url.to_string(), "https://host/org/inner");
    let off = TreeOptions {
        submodules: SubmoduleMode::Off,
        ..TreeOptions::default()
    };
    assert!(
        submodules::list(&bench.origin.store(), commit, &off, &url, &budget())
            .unwrap()
            .is_empty()
    );
    let elsewhere = TreeOptions {
        sparse: Some(Sparse::from_paths(["top.txt"])),
        ..TreeOptions::default()
    };
    assert!(
        submodules::list(&bench.origin.store(), commit, &elsewhere, &url, &budget())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_flat_directory_of_60_000_submodules_is_listed_in_one_pass() {
    use std::fmt::Write as _;
    const COUNT: usize = 60_000;
    let bench = Bench::new();
    bench.origin.put("file", "x\n");
    let inner = bench.origin.commit();
    let mut modules = String::new();
    for n in 0..COUNT {
        writeln!(modules, "[submodule \"{n}\"]\npath = m/{n}\nurl = ../x").unwrap();
        bench
            .origin
            .put_id("160000", format!("m/{n}"), &inner.to_string());
    }
    bench.origin.put(".gitmodules", modules);
    let commit = bench.origin.commit();
    let url = RepoUrl::parse("https://host/org/top.git").unwrap();
    // A copy of the tree per entry would take minutes; the budget has 60 s.
    let options = TreeOptions::default();
    let listed = submodules::list(&bench.origin.store(), commit, &options, &url, &budget());
    assert_eq!(listed.unwrap().len(), COUNT);
}

#[test]
fn submodules_are_written_where_they_belong() {
    let mut bench = Bench::new();
    let commit = put_submodules(&bench);
    let (tree, built) = bench.build(commit, &TreeOptions::default());
    let read = |path: &str| fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!(read("top.txt"), "top\r\n");
    // Attributes begin anew in a submodule.
    assert_eq!(read("libs/middle/middle.txt"), "middle\n");
    assert_eq!(read("libs/middle/nested/inner/inner.txt"), "inner\n");
    for empty in ["libs/off", "stray"] {
        assert!(
            fs::read_dir(tree.join(empty)).unwrap().next().is_none(),
            "{empty}"
        );
    }
    assert_eq!(built.unpopulated, ["stray"]);
    bench.origin.put("top.txt", "changed\n");
    let second = bench.origin.commit();
    let (after, built) = bench.build(second, &TreeOptions::default());
    assert_eq!(built.files_written, 1);
    assert_eq!(
        inode(tree.join("libs/middle/middle.txt")),
        inode(after.join("libs/middle/middle.txt"))
    );
    let shallow = TreeOptions {
        submodules: SubmoduleMode::Shallow,
        ..TreeOptions::default()
    };
    let (tree, _) = bench.build(second, &shallow);
    assert!(tree.join("libs/middle/middle.txt").exists());
    let inner = tree.join("libs/middle/nested/inner");
    assert!(fs::read_dir(inner).unwrap().next().is_none());
    let off = TreeOptions {
        submodules: SubmoduleMode::Off,
        ..TreeOptions::default()
    };
    let gits = bench.gits(second);
    let (tree, _) = bench.build(second, &off);
    assert_same(&snapshot(&tree), &gits);
}

#[test]
fn a_submodule_that_is_entered_later_is_populated_then() {
    let mut bench = Bench::new();
    put_submodules(&bench);
    bench.origin.put(".gitmodules", "");
    let first = bench.origin.commit();
    let (tree, _) = bench.build(first, &TreeOptions::default());
    assert!(
        fs::read_dir(tree.join("libs/middle"))
            .unwrap()
            .next()
            .is_none()
    );
    let second = put_submodules(&bench);
    let (tree, _) = bench.build(second, &TreeOptions::default());
    assert!(tree.join("libs/middle/middle.txt").exists());
}

#[test]
fn a_submodule_without_its_commit_names_itself() {
    let mut bench = Bench::new();
    bench
        .origin
        .put(
            ".gitmodules",
            "[submodule \"x\"]\n\tpath = libs/x\n\turl = ../x\n",
        )
        .put_id(
            "160000",
            "libs/x",
            "0123456789012345678901234567890123456789",
        );
    let commit = bench.origin.commit();
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store);
    assert!(error.to_string().contains("libs/x"), "{error}");
}
