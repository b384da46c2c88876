//! Opening a store that an interrupted fetch, a power cut or an operator left behind.

use super::*;

#[test]
fn leftovers_of_interrupted_fetches_are_removed_at_open() {
    let world = World::new();
    let commit = world.commit("file", "1");
    world.fetch(commit, 1);
    let store = world.store.path();
    let sum = "0123456789012345678901234567890123456789";
    let mut before = files(store);
    for name in [
        "objects/pack/pack_git2_a1B2c3",
        "objects/pack/pack_git2_a1idx.lock",
        "objects/pack/tmp_pack_XYZ",
        &format!("objects/pack/pack-{sum}.pack"),
        "objects/pack/pack-1123456789012345678901234567890123456789.idx",
        "shallow.lock",
        "config.lock",
        "HEAD.lock",
        &format!("refs/gvr/{sum}.lock"),
    ] {
        fs::write(store.join(name), "left over").unwrap();
    }
    for extension in ["pack", "idx"] {
        let name = format!("objects/pack/pack-2{}.{extension}", &sum[1..]);
        fs::write(store.join(name), "").unwrap();
    }
    fs::write(store.join("refs/gvr").join(sum), "").unwrap();
    let reopened = Store::open(store).unwrap();
    let mut after = files(store);
    before.sort();
    after.sort();
    assert_eq!(before, after);
    assert!(reopened.contains(commit));
    assert_eq!(reopened.haves(), [commit]);
}

#[test]
fn an_unusable_store_is_started_afresh() {
    let world = World::new();
    let commit = world.commit("file", "1");
    let store = world.store.path();
    let hurts: [(&str, &dyn Fn()); 7] = [
        ("empty shallow", &|| {
            fs::write(store.join("shallow"), "").unwrap();
        }),
        ("no HEAD", &|| fs::remove_file(store.join("HEAD")).unwrap()),
        ("no objects", &|| {
            fs::remove_dir_all(store.join("objects")).unwrap();
        }),
        ("no refs", &|| {
            fs::remove_dir_all(store.join("refs")).unwrap()
        }),
        ("bad config", &|| {
            fs::write(store.join("config"), "[core\n\0").unwrap();
        }),
        ("empty", &|| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("a file", &|| {
            fs::remove_dir_all(store).unwrap();
            fs::write(store, "x").unwrap();
        }),
    ];
    for (what, hurt) in hurts {
        world.fetch(commit, 1);
        hurt();
        let reopened = Store::open(store).unwrap();
        assert!(!reopened.contains(commit), "{what}");
        world.fetch(commit, 1);
        world.assert_same(commit);
    }
}
