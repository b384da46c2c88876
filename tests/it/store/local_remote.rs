//! The refs of local repositories, and what is accepted as one.

use super::*;

#[test]
fn refs_are_found_as_git_clone_finds_them() {
    let world = World::new();
    assert_eq!(tip(&world, RefName::Head), Tip::Missing { empty: true });
    let first = world.commit("file", "1");
    let upstream = world.upstream();
    git(&upstream, &["tag", "-a", "-m", "t", "v1"]);
    git(&upstream, &["tag", "light"]);
    git(&upstream, &["tag", "-a", "-m", "t", "nested", "v1"]);
    git(&upstream, &["tag", "both"]);
    let second = world.commit("file", "2");
    git(&upstream, &["branch", "both"]);
    git(&upstream, &["update-ref", "refs/notes/x", "HEAD"]);
    let packed = || git(&upstream, &["pack-refs", "--all"]);
    for pack in [false, true] {
        if pack {
            packed();
        }
        let short = |name: &str| at(tip(&world, RefName::Short(name.to_owned())));
        let head = at(tip(&world, RefName::Head));
        assert_eq!(
            (head.name.as_str(), head.commit),
            ("refs/heads/main", second)
        );
        assert_eq!(head.object, second);
        assert_eq!(short("both").name, "refs/heads/both");
        assert_eq!(short("light").commit, first);
        assert_eq!(short("notes/x").name, "refs/notes/x");
        for tag in ["v1", "nested"] {
            let tag = short(tag);
            assert_eq!(tag.commit, first);
            assert_eq!(
                tag.object,
                id(&git(&upstream, &["rev-parse", &tag.name])),
                "{}",
                tag.name
            );
        }
        let full = RefName::Full("refs/tags/both".to_owned());
        assert_eq!(at(tip(&world, full)).commit, first);
        for missing in ["absent", "bad..name", ""] {
            assert_eq!(
                tip(&world, RefName::Short(missing.to_owned())),
                Tip::Missing { empty: false }
            );
        }
    }
    git(&upstream, &["checkout", "-q", "--detach", "light"]);
    let head = at(tip(&world, RefName::Head));
    assert_eq!((head.name.as_str(), head.commit), ("HEAD", first));
}

#[test]
fn bare_repositories_and_linked_work_trees_are_remotes_too() {
    let world = World::new();
    let commit = world.commit("file", "1");
    git(
        &world.upstream(),
        &["worktree", "add", "-q", "-b", "wt", "../linked"],
    );
    git(
        world.dir.path(),
        &["clone", "-q", "--bare", "upstream", "bare.git"],
    );
    for (path, name) in [("linked", "wt"), ("bare.git", "main"), ("bare", "main")] {
        world.store.wipe().unwrap();
        let mut remote = LocalRemote::new(world.dir.path().join(path));
        let head = at(remote.tip(&RefName::Head, &budget()).unwrap());
        assert_eq!(head.name, format!("refs/heads/{name}"), "{path}");
        world.fetch_from(&mut remote, head.commit, 1).unwrap();
        assert!(world.store.contains(commit), "{path}");
    }
}

#[test]
fn what_is_no_repository_and_what_is_absent_are_told_apart() {
    let world = World::new();
    fs::create_dir(world.dir.path().join("plain")).unwrap();
    for (path, words) in [
        ("absent", "does not exist"),
        ("plain", "is not a git repository"),
    ] {
        let error = LocalRemote::new(world.dir.path().join(path))
            .tip(&RefName::Head, &budget())
            .unwrap_err();
        assert_eq!(error.reason, Reason::NotFound, "{path}");
        assert!(error.to_string().contains(words), "{error}");
    }
    // Inside a repository, and not itself one.
    fs::create_dir(world.upstream().join("inner")).unwrap();
    let error = LocalRemote::new(world.upstream().join("inner"))
        .tip(&RefName::Head, &budget())
        .unwrap_err();
    assert!(
        error.to_string().contains("is not a git repository"),
        "{error}"
    );
}
