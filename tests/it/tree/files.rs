//! Files, links and directories of one commit, as git checks them out.

use super::sparse::put_sparse_sample;
use super::*;

#[test]
fn modes_links_and_plain_files_are_as_git_writes_them() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("a/b/c.txt", "text\n")
        .put("empty", "")
        .put_mode("100755", "bin/run", "#!/bin/sh\n")
        .put_mode("120000", "to-file", "a/b/c.txt")
        .put_mode("120000", "a/dangling", "../nowhere")
        .put_mode("120000", "absolute", "/etc/passwd");
    let commit = bench.origin.commit();
    let (tree, built) = bench.same_as_git(commit);
    assert_eq!(built.files_written, 6);
    assert_eq!(built.entries, 9);
    let header = Header::read(&tree.parent().unwrap().join("manifest")).unwrap();
    assert_eq!(header.commit, commit);
    assert_eq!(header.fingerprint, TreeOptions::default().fingerprint());
}

#[test]
fn any_name_that_git_can_hold_is_written() {
    let mut bench = Bench::new();
    let long = [b'n'; 250];
    bench
        .origin
        .put(b"latin-\xe9\xff", "not UTF-8")
        .put("line\nbreak/tab\t", "x")
        .put("Case", "upper")
        .put("case", "lower")
        .put(long, "long")
        .put("back\\slash", "x")
        .put(" leading and trailing ", "x")
        .put("-dash", "x")
        .put("...", "x")
        .put(".gitignore", "*\n");
    let commit = bench.origin.commit();
    bench.same_as_git(commit);
}

#[test]
fn paths_of_four_thousand_bytes_are_written_and_longer_ones_refused() {
    let mut bench = Bench::new();
    let mut tree = bench
        .origin
        .raw_tree(&[("100644", b"leaf", &bench.origin.blob(b"deep"))]);
    for _ in 0..1995 {
        tree = bench.origin.raw_tree(&[("40000", b"d", &tree)]);
    }
    let commit = bench.origin.commit_tree(&tree);
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!((built.files_written, built.entries), (1, 1996));
    let (_, built) = bench.build(commit, &TreeOptions::default());
    assert_eq!((built.files_shared, built.entries), (1, 1996));
    for _ in 0..60 {
        tree = bench.origin.raw_tree(&[("40000", b"d", &tree)]);
    }
    let commit = bench.origin.commit_tree(&tree);
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Limit, "{error}");
}

#[test]
fn a_deep_tree_with_work_at_every_level_does_not_run_out_of_descriptors() {
    let mut bench = Bench::new();
    let leaf = bench.origin.blob(b"x");
    let other = bench.origin.raw_tree(&[("100644", b"f", &leaf)]);
    let mut tree = other.clone();
    for _ in 0..800 {
        tree = bench
            .origin
            .raw_tree(&[("40000", b"a", &tree), ("40000", b"z", &other)]);
    }
    let commit = bench.origin.commit_tree(&tree);
    for _ in 0..2 {
        let (tree, _) = bench.build(commit, &TreeOptions::default());
        assert!(tree.join("a/a/a/z/f").exists());
    }
}

#[test]
fn files_directories_and_links_may_take_each_others_place() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("swap/inner", "file in a directory")
        .put("other", "a file")
        .put_mode("120000", "link", "other")
        .put("stay", "same");
    let first = bench.origin.commit();
    bench.same_as_git(first);
    for path in ["swap", "other", "link"] {
        bench.origin.remove(path);
    }
    bench
        .origin
        .put_mode("120000", "swap", "stay")
        .put("other/inner", "a directory now")
        .put("link", "a file now");
    let second = bench.origin.commit();
    let (_, built) = bench.same_as_git(second);
    assert_eq!(built.files_shared, 1);
    bench.same_as_git(first);
}

#[test]
fn an_empty_tree_leaves_nothing() {
    let mut bench = Bench::new();
    let empty = bench.origin.raw_tree(&[]);
    let commit = bench.origin.commit_tree(&empty);
    bench.same_as_git(commit);
    let nested = bench.origin.raw_tree(&[("40000", b"empty", &empty)]);
    let root = bench.origin.raw_tree(&[
        ("100644", b"file", &bench.origin.blob(b"")),
        ("40000", b"nested", &nested),
    ]);
    let commit = bench.origin.commit_tree(&root);
    bench.same_as_git(commit);
}

#[test]
fn group_write_gives_the_group_what_the_owner_has() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("d/file", "1")
        .put_mode("100755", "d/run", "2");
    let commit = bench.origin.commit();
    bench.build(commit, &TreeOptions::default());
    let options = TreeOptions {
        group_write: true,
        ..TreeOptions::default()
    };
    assert_ne!(options.fingerprint(), TreeOptions::default().fingerprint());
    let (tree, built) = bench.build(commit, &options);
    assert_eq!(built.files_shared, 0);
    for path in ["d", "d/file", "d/run"] {
        let mode = fs::metadata(tree.join(path)).unwrap().mode();
        assert_eq!(mode & 0o060, 0o060, "{path}: {mode:o}");
        assert_eq!(mode & 0o002, 0, "{path}: {mode:o}");
    }
    let (_, built) = bench.build(commit, &options);
    assert_eq!(built.files_shared, 2);
}

#[test]
fn a_cancelled_build_says_so() {
    let bench = Bench::new();
    bench.origin.put("a", "1");
    let commit = bench.origin.commit();
    let tree = bench.temp.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let budget = budget();
    budget
        .cancelled()
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let error = build(
        &BuildRequest {
            store: &bench.origin.store(),
            commit,
            destination: &tree,
            manifest: &bench.temp.path().join("manifest"),
            base: None,
            spare: None,
            options: &TreeOptions::default(),
        },
        &budget,
    )
    .unwrap_err();
    assert!(error.is_cancelled(), "{error}");
}

#[test]
fn one_worker_and_many_give_the_same_tree() {
    let mut bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let commit = bench.origin.commit();
    let gits = bench.gits(commit);
    for jobs in [1, 2, 8] {
        bench.last = None;
        let options = TreeOptions {
            jobs,
            ..TreeOptions::default()
        };
        let (tree, _) = bench.build(commit, &options);
        assert_same(&snapshot(&tree), &gits);
    }
}
