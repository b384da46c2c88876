//! The number and size of packs over many updates.

use super::*;

/// A history of many small commits on a larger tree, made in one go: oldest first.
fn long_history(world: &World, updates: usize) -> Vec<Commit> {
    let mut stream = String::new();
    for update in 0..=updates {
        let data = |text: &str| format!("data {}\n{text}\n", text.len());
        stream.push_str("commit refs/heads/main\n");
        stream.push_str(&format!(
            "committer T <t@example.org> {} +0000\n",
            1_700_000_000 + update
        ));
        stream.push_str(&data(&format!("update {update}")));
        if update == 0 {
            for n in 0..2000 {
                let noise: String = (0..1500).map(|_| fastrand::alphanumeric()).collect();
                stream.push_str(&format!("M 100644 inline d{}/f{n}\n", n % 40));
                stream.push_str(&data(&noise));
            }
        } else {
            let n = update * 7 % 2000;
            stream.push_str(&format!("M 100644 inline d{}/f{n}\n", n % 40));
            stream.push_str(&data(&format!("changed by {update}\n")));
        }
    }
    import(world, &stream);
    git(&world.upstream(), &["rev-list", "--reverse", "main"])
        .lines()
        .map(id)
        .collect()
}

#[test]
fn hundreds_of_updates_leave_few_packs_and_little_garbage() {
    let world = World::new();
    let commits = long_history(&world, 200);
    let mut rewrites = 0;
    for pair in commits.windows(2) {
        world.fetch(pair[1], 1);
        let maintained = world.store.maintain(pair, &budget()).unwrap();
        rewrites += usize::from(maintained.rewritten);
        assert!(maintained.packs <= 20, "{maintained:?}");
        assert!(world.store.shallow().len() <= 40);
        assert!(world.store.contains(pair[1]));
    }
    assert!((10..50).contains(&rewrites), "{rewrites}");
    let last = commits.last().unwrap();
    world.assert_same(*last);
    world.assert_same(commits[commits.len() - 2]);
    let url = format!("file://{}", world.upstream().display());
    let clone = world.dir.path().join("clone.git");
    let clone = clone.to_str().unwrap();
    git(
        world.dir.path(),
        &["clone", "-q", "--bare", "--depth", "1", &url, clone],
    );
    let fresh = disk_usage(&Path::new(clone).join("objects"));
    let ours = disk_usage(&world.store.path().join("objects"));
    assert!(ours <= 2 * fresh, "{ours} {fresh}");
}

#[test]
fn replacing_everything_again_and_again_is_cleaned_up() {
    let world = World::new();
    let mut previous = None;
    let mut sizes = Vec::new();
    for round in 0..8 {
        for n in 0..8 {
            let noise: String = (0..100_000).map(|_| fastrand::alphanumeric()).collect();
            fs::write(world.upstream().join(format!("f{n}")), noise).unwrap();
        }
        let commit = world.commit("round", &round.to_string());
        world.fetch(commit, 1);
        let retained: Vec<_> = previous.into_iter().chain([commit]).collect();
        let maintained = world.store.maintain(&retained, &budget()).unwrap();
        sizes.push(maintained.bytes);
        world.assert_same(commit);
        previous = Some(commit);
    }
    // Two retained commits of 600 kB each, twice that, and the slack of a megabyte.
    assert!(sizes.iter().all(|bytes| *bytes < 3_700_000), "{sizes:?}");
}

#[test]
fn a_commit_that_pruning_took_apart_is_not_claimed_and_can_be_fetched_again() {
    let world = World::new();
    let commits = long_history(&world, 60);
    for commit in &commits {
        world.fetch(*commit, 1);
        world.store.maintain(&[*commit], &budget()).unwrap();
    }
    let last = *commits.last().unwrap();
    assert_eq!(world.store.haves(), [last]);
    let mut fetched = 0;
    for commit in commits.iter().step_by(9) {
        if !world.store.contains(*commit) {
            world.fetch(*commit, 1);
            fetched += 1;
        }
        world.assert_same(*commit);
    }
    assert!(fetched > 0, "pruning took nothing apart");
}

#[test]
fn a_retained_commit_that_was_never_fetched_by_name_is_kept() {
    let world = World::new();
    let first = world.commit("file", "1");
    let second = world.commit("file", "2");
    world.fetch(second, 0);
    assert!(world.store.contains(first));
    world.store.maintain(&[first], &budget()).unwrap();
    assert_eq!(world.store.haves(), [first]);
}

#[test]
fn interrupted_maintenance_changes_nothing_for_readers() {
    let world = World::new();
    let commits = long_history(&world, 30);
    for commit in &commits {
        world.fetch(*commit, 1);
    }
    let last = *commits.last().unwrap();
    let spent = Budget::new(Duration::ZERO, Duration::ZERO, Arc::default());
    let error = world.store.maintain(&[last], &spent).unwrap_err();
    assert_eq!(error.reason, Reason::Timeout);
    let packs = world.files();
    world.assert_same(last);
    assert!(packs.len() > 40);
    let maintained = world.store.maintain(&[last], &budget()).unwrap();
    assert!(
        maintained.rewritten && maintained.packs <= 9,
        "{maintained:?}"
    );
    world.assert_same(last);
}

#[test]
fn hundreds_of_packs_that_nobody_rolled_up_become_few_again() {
    let world = World::new();
    let commits = long_history(&world, 130);
    for commit in &commits {
        world.fetch(*commit, 1);
    }
    let last = *commits.last().unwrap();
    let packs: Vec<_> = (0..3)
        .map(|_| world.store.maintain(&[last], &budget()).unwrap().packs)
        .collect();
    assert!(packs[0] > 17 && packs[2] <= 17, "{packs:?}");
    world.assert_same(last);
}
