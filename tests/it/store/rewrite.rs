//! What a rewrite copies into the new packs.

use super::*;

/// Revisions of one text, each of which differs from the next by a line, and as many kilobytes of
/// noise beside it as are asked for: oldest first.
fn revisions(world: &World, count: usize, noise: usize) -> Vec<Commit> {
    let mut lines: Vec<String> = (0..3000)
        .map(|_| (0..40).map(|_| fastrand::alphanumeric()).collect())
        .collect();
    (0..count)
        .map(|n| {
            // Longer than before: git makes the smaller text a delta of the larger.
            lines[n * 7] = format!("{:50}", format!("revision {n}"));
            if n > 0 && noise > 0 {
                let noise: Vec<u8> = (0..noise << 10).map(|_| fastrand::u8(..)).collect();
                fs::write(world.upstream().join("noise"), noise).unwrap();
            }
            world.commit("text", &lines.join("\n"))
        })
        .collect()
}

/// Id, offset and depth of the objects in the packs of the store, as git reads them.
fn packed(world: &World) -> Vec<(PathBuf, String, u64, u32)> {
    let indexes: Vec<_> = world
        .files()
        .into_iter()
        .filter(|file| file.ends_with(".idx"))
        .collect();
    let mut found = Vec::new();
    for index in indexes {
        let listed = git(world.store.path(), &["verify-pack", "-v", &index]);
        for line in listed.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if words.len() < 5 || words[0].len() != 40 {
                continue;
            }
            let depth = words.get(5).map_or(0, |depth| depth.parse().unwrap());
            let pack = PathBuf::from(&index).with_extension("pack");
            found.push((pack, words[0].to_owned(), words[4].parse().unwrap(), depth));
        }
    }
    found
}

fn blob(world: &World, commit: Commit, path: &str) -> String {
    git(
        &world.upstream(),
        &["rev-parse", &format!("{commit}:{path}")],
    )
}

/// A store with two packs, most of which the first commit does not need: its text is the last of a
/// chain of deltas whose bases are garbage.
fn store_with_a_chain(world: &World, options: &[&str]) -> Vec<Commit> {
    let commits = revisions(world, 12, 200);
    let (first, last) = (commits[0], commits[11]);
    let mut options = options.to_vec();
    options.extend(["--window=10", "--threads=1"]);
    let pack = world.pack(&options, &format!("{last}\n"));
    world.take(&pack, last).unwrap();
    let pack = world.pack(&options, &format!("{first}\n"));
    world.take(&pack, first).unwrap();
    let text = blob(world, first, "text");
    let depth = packed(world)
        .into_iter()
        .filter(|object| object.1 == text)
        .map(|object| object.3);
    assert!(depth.max() > Some(2), "git did not make a chain");
    commits
}

#[test]
fn a_rewrite_copies_deltas_with_the_bases_that_they_need() {
    for options in [&["--delta-base-offset"][..], &[]] {
        let world = World::new();
        let commits = store_with_a_chain(&world, options);
        let (first, last) = (commits[0], commits[11]);
        // The short pack goes, so that the chain is all there is.
        let text = blob(&world, first, "text");
        let whole = packed(&world)
            .into_iter()
            .find(|object| object.1 == text && object.3 == 0)
            .unwrap();
        fs::remove_file(whole.0.with_extension("idx")).unwrap();
        fs::remove_file(whole.0).unwrap();
        let extra = world.commit("extra", "x");
        let pack = world.pack(&[], &format!("{extra}\n^{last}\n"));
        world.take(&pack, extra).unwrap();
        world.assert_same(first);

        let maintained = world.store.maintain(&[first], &budget()).unwrap();
        assert!(maintained.rewritten, "{options:?} {maintained:?}");
        assert_eq!(maintained.packs, 1);
        assert!(maintained.bytes < 500_000, "{options:?} {maintained:?}");
        git(world.store.path(), &["fsck", "--full", "--strict"]);
        world.assert_same(first);
        let objects = packed(&world);
        let depth = objects.iter().find(|o| o.1 == text).map(|o| o.3);
        assert!(depth > Some(2), "{options:?}: the delta was not copied");
        let newest = blob(&world, last, "text");
        assert!(objects.iter().any(|o| o.1 == newest), "no base");
        let noise = blob(&world, last, "noise");
        assert!(!objects.iter().any(|o| o.1 == noise), "garbage was kept");
        let show = ["cat-file", "blob", &text];
        assert_eq!(
            git(world.store.path(), &show),
            git(&world.upstream(), &show)
        );
    }
}

#[test]
fn a_rewrite_prefers_the_whole_copy_of_an_object() {
    let world = World::new();
    let commits = store_with_a_chain(&world, &["--delta-base-offset"]);
    let maintained = world.store.maintain(&[commits[0]], &budget()).unwrap();
    assert!(maintained.rewritten);
    let objects = packed(&world);
    // A commit, a tree, and the text.
    assert_eq!(objects.len(), 3, "{objects:?}");
    world.assert_same(commits[0]);
}

#[test]
fn completed_thin_packs_are_rolled_up_without_longer_and_longer_chains() {
    let world = World::new();
    let commits = revisions(&world, 70, 0);
    let pack = world.pack(&[], &format!("{}\n", commits[0]));
    world.take(&pack, commits[0]).unwrap();
    let mut rewrites = 0;
    for pair in commits.windows(2) {
        let thin = world.pack(&["--thin"], &format!("{}\n^{}\n", pair[1], pair[0]));
        assert!(thin.len() < 2000, "git did not make a thin pack");
        world.take(&thin, pair[1]).unwrap();
        fs::write(
            world.store.path().join("shallow"),
            format!("{}\n{}\n", pair[0], pair[1]),
        )
        .unwrap();
        let maintained = world.store.maintain(pair, &budget()).unwrap();
        rewrites += usize::from(maintained.rewritten);
        assert!(maintained.packs <= 17, "{maintained:?}");
        assert!(maintained.bytes < 4_000_000, "{maintained:?}");
        world.assert_same(pair[1]);
    }
    assert!(rewrites >= 4, "{rewrites}");
    let deepest = packed(&world).iter().map(|object| object.3).max();
    assert!(deepest <= Some(2), "{deepest:?}");
}

#[test]
fn a_damaged_pack_is_left_alone_and_the_store_stays_small_beside_it() {
    for hurt in ["type", "data", "end"] {
        let world = World::new();
        let commits = store_with_a_chain(&world, &["--delta-base-offset"]);
        let text = blob(&world, commits[0], "text");
        for (pack, _, offset, _) in packed(&world).iter().filter(|object| object.1 == text) {
            let mut bytes = fs::read(pack).unwrap();
            let at = *offset as usize;
            match hurt {
                "type" => bytes[at] ^= 0x10,
                "data" => bytes[at + 40] ^= 0x10,
                _ => bytes.truncate(at + 1),
            }
            fs::remove_file(pack).unwrap();
            fs::write(pack, bytes).unwrap();
        }
        let before = world.files();
        let error = world.store.maintain(&commits[..1], &budget()).unwrap_err();
        assert_eq!(error.reason, Reason::Store, "{hurt}: {}", error.chain());
        assert_eq!(world.files(), before, "{hurt}");
        if hurt == "end" {
            // Its index tells that to whoever opens it.
            continue;
        }
        let mut previous = commits[0];
        let bytes = disk_usage(&world.store.path().join("objects"));
        for n in 0..40 {
            let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
            fs::write(world.upstream().join("noise"), noise).unwrap();
            let commit = world.commit("n", &n.to_string());
            world.fetch(commit, 1);
            let retained = [previous, commit];
            let maintained = world.store.maintain(&retained, &budget()).unwrap();
            assert!(maintained.packs <= 20, "{hurt}: {maintained:?}");
            assert!(
                maintained.bytes < 2 * bytes + 3_000_000,
                "{hurt}: {maintained:?}"
            );
            previous = commit;
        }
        for file in &before {
            assert!(
                fs::exists(file).unwrap() || !file.contains("/pack/"),
                "{hurt}: {file}"
            );
        }
    }
}
