//! Comparing a published tree with its manifest.

use super::*;

#[test]
fn what_happens_to_a_published_file_is_damage() {
    let mut bench = Bench::new();
    bench
        .origin
        .put("d/file", "content")
        .put_mode("120000", "d/link", "file")
        .put("e/only", "x");
    let commit = bench.origin.commit();
    let (tree, _) = bench.build(commit, &TreeOptions::default());
    fs::write(tree.join("d/extra"), "a consumer's own").unwrap();
    assert_eq!(verify(&tree), None);
    type Harm = fn(&Path);
    let damage: [(&str, Harm); 7] = [
        ("d/file has another size", |tree| {
            fs::write(tree.join("d/file"), "").unwrap();
        }),
        ("d/file was modified", |tree| {
            fs::write(tree.join("d/file"), "CONTENT").unwrap();
        }),
        ("d/file has other permissions", |tree| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(tree.join("d/file"), mode).unwrap();
        }),
        ("d/link points elsewhere", |tree| {
            fs::remove_file(tree.join("d/link")).unwrap();
            symlink("fill", tree.join("d/link")).unwrap();
        }),
        ("d/file is of another type", |tree| {
            fs::remove_file(tree.join("d/file")).unwrap();
            fs::create_dir(tree.join("d/file")).unwrap();
        }),
        ("e is of another type", |tree| {
            fs::rename(tree.join("e"), tree.join("elsewhere")).unwrap();
            symlink("elsewhere", tree.join("e")).unwrap();
        }),
        ("e/only is gone, with its directory", |tree| {
            fs::remove_dir_all(tree.join("e")).unwrap();
        }),
    ];
    for (found, harm) in damage {
        bench.last = None;
        let (tree, _) = bench.build(commit, &TreeOptions::default());
        harm(&tree);
        assert_eq!(verify(&tree).as_deref(), Some(found));
    }
}
