//! The `.git` directory inside a tree.

use super::submodules::put_submodules;
use super::*;

#[test]
fn git_works_inside_a_tree_that_has_its_directory() {
    let mut bench = Bench::new();
    bench.origin.put("first.txt", "1\n");
    let first = bench.origin.commit();
    run(
        &bench.origin.dir,
        &["tag", "-a", "-m", "one", "v1.0", &first.to_string()],
    );
    run(&bench.origin.dir, &["tag", "light", &first.to_string()]);
    put_submodules(&bench);
    bench
        .origin
        .put("d/file", "content\n")
        .put_mode("100755", "d/run", "#!/bin/sh\n")
        .put_mode("120000", "d/link", "file");
    let tree = bench.origin.write_tree();
    let id = run(
        &bench.origin.dir,
        &[
            "commit-tree",
            &tree,
            "-p",
            &first.to_string(),
            "-m",
            "second",
        ],
    );
    let second: Commit = id.parse().unwrap();
    let options = TreeOptions {
        git_dir: true,
        ..TreeOptions::default()
    };
    bench.build(first, &options);
    let (tree, _) = bench.build(second, &options);
    // A store under the same relative path: the whole place may move.
    let moved = bench.temp.path().join("revision-moved");
    fs::rename(tree.parent().unwrap(), &moved).unwrap();
    let tree = moved.join("tree");
    assert_eq!(run(&tree, &["status", "--porcelain"]), "");
    assert_eq!(run(&tree, &["rev-parse", "HEAD"]), second.to_string());
    assert_eq!(run(&tree, &["log", "--format=%s"]), "second\na commit");
    let described = run(&tree, &["describe"]);
    assert!(described.starts_with("v1.0-1-g"), "{described}");
    assert_eq!(run(&tree, &["tag", "-l"]), "light\nv1.0");
    fs::write(tree.join("d/file"), "changed\n").unwrap();
    assert_eq!(run(&tree, &["status", "--porcelain"]), "M d/file");
    let sparse = TreeOptions {
        sparse: Some(Sparse::from_paths(["top.txt"])),
        ..options
    };
    let (tree, _) = bench.build(second, &sparse);
    assert_eq!(run(&tree, &["status", "--porcelain"]), "");
}
