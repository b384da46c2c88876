//! Hostile names, limits, and damaged objects.

use super::*;

#[test]
fn hostile_names_are_refused_before_anything_outside_is_touched() {
    let mut bench = Bench::new();
    let outside = bench.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let origin = &bench.origin;
    let blob = origin.blob(b"evil");
    let target = origin.blob(outside.to_str().unwrap().as_bytes());
    let inner = origin.raw_tree(&[("100644", b"evil", &blob)]);
    let trees = [
        origin.raw_tree(&[("100644", b"../outside/evil", &blob)]),
        origin.raw_tree(&[("40000", b"..", &inner)]),
        origin.raw_tree(&[("40000", b".", &inner)]),
        origin.raw_tree(&[("100644", b"", &blob)]),
        origin.raw_tree(&[("40000", b".git", &inner)]),
        origin.raw_tree(&[("40000", b".GIT", &inner)]),
        origin.raw_tree(&[("100644", b"git~1", &blob)]),
        origin.raw_tree(&[("40000", b".git ", &inner)]),
        origin.raw_tree(&[("120000", b".gitmodules", &blob)]),
        // Through a link of the same tree, in either order.
        origin.raw_tree(&[("120000", b"a", &target), ("40000", b"a", &inner)]),
        origin.raw_tree(&[("40000", b"a", &inner), ("120000", b"a", &target)]),
        // The same name twice.
        origin.raw_tree(&[("100644", b"a", &blob), ("100644", b"a", &blob)]),
        // Objects of another type than the tree says.
        origin.raw_tree(&[("100644", b"a", &inner)]),
        origin.raw_tree(&[("40000", b"a", &blob)]),
        // Links without a target, or with one that no link can have.
        origin.raw_tree(&[("120000", b"a", &origin.blob(b""))]),
        origin.raw_tree(&[("120000", b"a", &origin.blob(b"x\0y"))]),
        origin.raw_tree(&[("120000", b"a", &origin.blob(&[b'x'; 5000]))]),
        // An entry of no known type.
        origin.raw_tree(&[("10644", b"a", &blob)]),
    ];
    for tree in trees {
        let commit = bench.origin.commit_tree(&tree);
        let error = bench.refused(commit, &TreeOptions::default());
        assert_eq!(error.reason, Reason::Hostile, "{}", error.chain());
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert!(!bench.temp.path().join("evil").exists());
    }
}

#[test]
fn a_name_that_drives_terminals_is_escaped_in_the_error() {
    let mut bench = Bench::new();
    let blob = bench.origin.blob(b"x");
    let inner = bench.origin.raw_tree(&[("100644", b".git", &blob)]);
    let tree = bench.origin.raw_tree(&[("40000", b"\x1b[31m\n", &inner)]);
    let commit = bench.origin.commit_tree(&tree);
    let error = bench.refused(commit, &TreeOptions::default()).chain();
    assert!(!error.contains(['\u{1b}', '\n']), "{error:?}");
}

#[test]
fn limits_are_enforced_and_name_their_flags() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("a", vec![0; 1000])
        .put("d/b", vec![0; 1000]);
    let commit = bench.origin.commit();
    for (max_bytes, max_files, flag) in [
        (Some(1999), None, "--max-tree-bytes"),
        (None, Some(2), "--max-files"),
    ] {
        let options = TreeOptions {
            max_bytes,
            max_files,
            ..TreeOptions::default()
        };
        let error = bench.refused(commit, &options);
        assert_eq!(error.reason, Reason::Limit);
        assert!(error.hint().unwrap().contains(flag), "{:?}", error.hint());
    }
    let options = TreeOptions {
        max_bytes: Some(2000),
        max_files: Some(3),
        ..TreeOptions::default()
    };
    bench.build(commit, &options);
    // What is shared counts as well.
    let (_, built) = bench.build(commit, &options);
    assert_eq!((built.bytes, built.entries), (2000, 3));
    let less = TreeOptions {
        max_bytes: Some(1999),
        ..TreeOptions::default()
    };
    assert_eq!(bench.refused(commit, &less).reason, Reason::Limit);
}

#[test]
fn a_tree_that_multiplies_itself_stops_at_the_limit() {
    let mut bench = Bench::new();
    let blob = bench.origin.blob(b"x");
    let mut tree = bench.origin.raw_tree(&[("100644", b"f", &blob)]);
    for _ in 0..10 {
        let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let entries: Vec<(&str, &[u8], &str)> = names
            .iter()
            .map(|name| ("40000", name.as_bytes(), tree.as_str()))
            .collect();
        tree = bench.origin.raw_tree(&entries);
    }
    let commit = bench.origin.commit_tree(&tree);
    let options = TreeOptions {
        max_files: Some(500),
        ..TreeOptions::default()
    };
    assert_eq!(bench.refused(commit, &options).reason, Reason::Limit);
}

#[test]
fn a_missing_or_damaged_object_is_the_stores_fault() {
    let mut bench = Bench::new();
    bench.origin.put("a", "some content that is long enough");
    let commit = bench.origin.commit();
    let id = run(&bench.origin.dir, &["rev-parse", "HEAD:a"]);
    let (start, rest) = id.split_at(2);
    let object = bench.origin.store().join("objects").join(start).join(rest);
    let mut bytes = fs::read(&object).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    fs::remove_file(&object).unwrap();
    fs::write(&object, bytes).unwrap();
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
    fs::remove_file(&object).unwrap();
    let error = bench.refused(commit, &TreeOptions::default());
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
}
