//! Sparse patterns, and changes under the watched paths.

use super::*;

pub(super) fn put_sparse_sample(origin: &Origin) {
    for path in [
        "README.md",
        "docs/index.md",
        "docs/guide/a.md",
        "docs/guide/img/x.png",
        "docs/api/b.md",
        "src/main.rs",
        "src/docs/inner.md",
        "src/deep/docs/x.md",
        "tools/run.sh",
        "tools/[x]/y",
        "space dir/file",
        "docs2/no.md",
    ] {
        origin.put(path, format!("{path}\n"));
    }
    origin.put(".gitattributes", "*.md eol=crlf\n");
}

#[test]
fn sparse_patterns_select_what_git_selects() {
    let mut bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let commit = bench.origin.commit();
    let clone = bench.temp.path().join("clone");
    bench.origin.checkout(commit, &clone);
    let patterns = [
        "/*\n!/*/\n/docs/\n",
        "/*\n!/*/\n/docs/\n!/docs/*/\n/docs/guide/\n",
        "docs\n",
        "docs/\n",
        "/docs\n",
        "*.md\n",
        "!*.md\n/*\n",
        "/*\n!*.md\n",
        "/*\n!docs\n",
        "/*\n!docs/\n/docs/api/b.md\n",
        "docs/guide\n",
        "docs/*/a.md\n",
        "**/img/\n",
        "src/**\n!src/docs\n",
        "/src/*/docs\n",
        "# comment\n\n/tools/\\[x\\]/\n\\#x\n",
        "/tools/[[]x]/\n",
        "/space dir\n",
        "/space dir   \r\n",
        "/README.md/\n",
        "main.rs\n/d*2\n",
        "/*\n!/docs/guide/img\n!/src/\n/src/deep\n",
    ];
    for cone in ["false", "true"] {
        for text in patterns {
            // Without these two, cone mode takes in the files at the top of its own accord.
            if cone == "true" && !text.starts_with("/*\n!/*/\n") {
                continue;
            }
            run(&clone, &["config", "core.sparseCheckout", "true"]);
            run(&clone, &["config", "core.sparseCheckoutCone", cone]);
            fs::write(clone.join(".git/info/sparse-checkout"), text).unwrap();
            run(&clone, &["read-tree", "-mu", "HEAD"]);
            let options = TreeOptions {
                sparse: Some(Sparse::parse(text.as_bytes())),
                ..TreeOptions::default()
            };
            let (tree, _) = bench.build(commit, &options);
            let (ours, gits) = (snapshot(&tree), snapshot(&clone));
            assert!(
                ours == gits,
                "{cone} {text:?}: {:?} {:?}",
                ours.keys(),
                gits.keys()
            );
        }
    }
}

#[test]
fn paths_select_files_and_whole_directories() {
    let mut bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let commit = bench.origin.commit();
    let all = bench.gits(commit);
    let options = TreeOptions {
        sparse: Some(Sparse::from_paths([
            "docs/guide",
            "/tools/[x]/",
            "README.md",
        ])),
        ..TreeOptions::default()
    };
    bench.build(commit, &TreeOptions::default());
    let (tree, built) = bench.build(commit, &options);
    let files: Vec<_> = snapshot(&tree)
        .into_iter()
        .filter(|(_, (kind, _))| kind.starts_with("file"))
        .collect();
    let expected: Vec<_> = [
        "README.md",
        "docs/guide/a.md",
        "docs/guide/img/x.png",
        "tools/[x]/y",
    ]
    .map(|path| (path.as_bytes().to_vec(), all[path.as_bytes()].clone()))
    .to_vec();
    assert_eq!(files, expected);
    // Other patterns are another revision, which still shares what both have.
    assert_ne!(options.fingerprint(), TreeOptions::default().fingerprint());
    assert_eq!((built.files_shared, built.files_written), (4, 0));
    let (tree, built) = bench.build(commit, &TreeOptions::default());
    assert_same(&snapshot(&tree), &all);
    assert_eq!(built.files_shared, 4);
}

#[test]
fn only_changes_under_the_watched_paths_count() {
    let bench = Bench::new();
    put_sparse_sample(&bench.origin);
    let first = bench.origin.commit();
    let changed = |to: Commit, paths: &[&str]| {
        let watched = Sparse::from_paths(paths);
        changed_under(&bench.origin.store(), first, to, &watched, &budget()).unwrap()
    };
    assert!(!changed(first, &["docs"]));
    bench.origin.put("src/main.rs", "changed");
    let second = bench.origin.commit();
    assert!(!changed(second, &["docs", "src/docs", "README.md"]));
    assert!(changed(second, &["src"]));
    assert!(changed(second, &["src/main.rs"]));
    bench.origin.remove("docs/guide");
    let third = bench.origin.commit();
    assert!(changed(third, &["docs/guide/img"]));
    assert!(changed(third, &["docs"]));
    assert!(!changed(third, &["docs/api", "docs2"]));
    bench.origin.put(".gitattributes", "*.md eol=lf\n");
    let fourth = bench.origin.commit();
    assert!(changed(fourth, &["docs/api"]));
}
