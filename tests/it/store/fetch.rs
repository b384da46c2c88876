//! Fetches from a local repository: depth, updates, force pushes, shallow sources.

use super::*;

#[test]
fn a_fetch_of_depth_one_brings_one_commit_whole() {
    let world = World::new();
    world.commit("a/b/file", "1");
    let second = world.commit("other", "2");
    let fetched = world.fetch(second, 1);
    assert_eq!(fetched.shallow, [second]);
    assert!(world.store.contains(second));
    assert_eq!(world.store.haves(), [second]);
    assert_eq!(world.store.shallow(), [second]);
    assert_eq!(world.log(second), [second.to_string()]);
    world.assert_same(second);
}

#[test]
fn an_update_brings_the_change_alone() {
    let world = World::new();
    for n in 0..50 {
        fs::create_dir_all(world.upstream().join(format!("d{n}"))).unwrap();
        let noise: Vec<u8> = (0..2000).map(|_| fastrand::u8(..)).collect();
        fs::write(world.upstream().join(format!("d{n}/file")), noise).unwrap();
    }
    let first = world.commit("x", "1");
    let whole = world.fetch(first, 1).bytes;
    let second = world.commit("d7/file", "changed");
    let change = world.fetch(second, 1).bytes;
    assert!(whole > 100_000 && change < 5_000, "{whole} {change}");
    world.assert_same(second);
    assert!(world.store.contains(first) && world.store.contains(second));
}

#[test]
fn objects_of_every_size_arrive() {
    let world = World::new();
    for size in [0, 1, 15, 16, 2047, 2048, 262_143, 262_144, 5_000_000] {
        let noise: String = (0..size).map(|_| fastrand::alphanumeric()).collect();
        fs::write(world.upstream().join(format!("f{size}")), noise).unwrap();
    }
    let commit = world.commit("last", "x");
    world.fetch(commit, 1);
    world.assert_same(commit);
}

#[test]
fn moves_force_pushes_and_unknown_haves_are_fetched_whole() {
    let world = World::new();
    let first = world.commit("a/file", "1");
    world.fetch(first, 1);
    git(&world.upstream(), &["checkout", "-q", "--orphan", "new"]);
    git(&world.upstream(), &["mv", "a", "b"]);
    let second = world.commit("more", "2");
    world.fetch(second, 1);
    world.assert_same(second);
    // The source forgets what we have.
    git(&world.upstream(), &["branch", "-D", "main"]);
    git(
        &world.upstream(),
        &["reflog", "expire", "--expire=now", "--all"],
    );
    git(&world.upstream(), &["gc", "-q", "--prune=now"]);
    let third = world.commit("b/file", "3");
    world.fetch(third, 1);
    world.assert_same(third);
}

#[test]
fn depth_is_honoured_lowered_raised_and_lifted() {
    let world = World::new();
    let commits: Vec<_> = (0..6)
        .map(|n| world.commit("file", &n.to_string()))
        .collect();
    world.fetch(commits[3], 2);
    assert_eq!(world.log(commits[3]).len(), 2);
    world.fetch(commits[4], 1);
    assert_eq!(world.log(commits[4]).len(), 1);
    let fetched = world.fetch(commits[5], 4);
    assert_eq!(fetched.shallow, [commits[2]]);
    assert!(fetched.unshallow.contains(&commits[4]));
    assert_eq!(world.log(commits[5]).len(), 4);
    world.fetch(commits[5], 0);
    assert_eq!(world.log(commits[5]).len(), 6);
    assert_eq!(world.store.shallow(), []);
    world.assert_same(commits[5]);
    for commit in commits {
        world.assert_same(commit);
    }
}

#[test]
fn full_history_is_updated_by_what_is_new() {
    let world = World::new();
    world.commit("file", "0");
    let second = world.commit("file", "1");
    assert_eq!(world.fetch(second, 0).shallow, []);
    git(
        &world.upstream(),
        &["checkout", "-q", "-b", "side", "HEAD~1"],
    );
    world.commit("side", "2");
    git(&world.upstream(), &["merge", "-q", "-m", "merge", "main"]);
    let merge = id(&git(&world.upstream(), &["rev-parse", "HEAD"]));
    world.fetch(merge, 0);
    assert_eq!(world.log(merge).len(), 4);
    world.assert_same(merge);
}

#[test]
fn a_shallow_source_hands_its_boundary_on() {
    let world = World::new();
    for n in 0..4 {
        world.commit("file", &n.to_string());
    }
    let url = format!("file://{}", world.upstream().display());
    git(
        world.dir.path(),
        &["clone", "-q", "--depth", "2", &url, "cut"],
    );
    let mut remote = LocalRemote::new(world.dir.path().join("cut"));
    let head = at(remote.tip(&RefName::Head, &budget()).unwrap());
    for depth in [1, 0, 50] {
        world.store.wipe().unwrap();
        world.fetch_from(&mut remote, head.commit, depth).unwrap();
        let expected = if depth == 1 { 1 } else { 2 };
        assert_eq!(world.log(head.commit).len(), expected, "depth {depth}");
        assert_eq!(world.store.shallow().len(), 1);
        world.assert_same(head.commit);
    }
}

#[test]
fn a_tag_object_is_fetched_with_its_commit() {
    let world = World::new();
    let commit = world.commit("file", "1");
    git(&world.upstream(), &["tag", "-a", "-m", "t", "v1"]);
    let tag = at(tip(&world, RefName::Short("v1".to_owned())));
    let mut receiving = world.store.receive(&budget(), NO_LIMIT).unwrap();
    let request = FetchRequest {
        want: tag.object,
        also: &[],
        name: None,
        haves: &[],
        shallow: &[],
        depth: 1,
        thin: true,
    };
    let fetched = world
        .remote()
        .fetch(&request, &mut receiving, &budget())
        .unwrap();
    receiving.finish(&fetched, &[commit]).unwrap();
    let kind = git(
        world.store.path(),
        &["cat-file", "-t", &tag.object.to_string()],
    );
    assert_eq!(kind, "tag");
    world.assert_same(commit);
}

#[test]
fn a_commit_that_the_source_lacks_is_a_missing_ref() {
    let world = World::new();
    world.commit("file", "1");
    let absent = id("0123456789012345678901234567890123456789");
    let known = at(tip(&world, RefName::Commit(absent)));
    assert_eq!(known.commit, absent);
    let error = world
        .fetch_from(&mut world.remote(), absent, 1)
        .unwrap_err();
    assert_eq!(error.reason, Reason::RefMissing);
    assert_eq!(world.files(), Vec::<String>::new());
}
