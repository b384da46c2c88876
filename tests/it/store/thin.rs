//! Thin packs with thousands of deltas.

use super::*;

/// Two commits of 3,100 files, each of which the second changes by a line.
fn two_large_commits(world: &World) -> (Commit, Commit) {
    let mut stream = String::new();
    let data = |text: &str| format!("data {}\n{text}\n", text.len());
    let noise: Vec<String> = (0..3100)
        .map(|_| (0..300).map(|_| fastrand::alphanumeric()).collect())
        .collect();
    for line in ["first", "second"] {
        stream.push_str("commit refs/heads/main\ncommitter T <t@example.org> 1700000000 +0000\n");
        stream.push_str(&data(line));
        for (n, noise) in noise.iter().enumerate() {
            stream.push_str(&format!("M 100644 inline d{}/f{n}\n", n % 40));
            stream.push_str(&data(&format!("{noise}\n{line}\n")));
        }
    }
    import(world, &stream);
    let commit = |name| id(&git(&world.upstream(), &["rev-parse", name]));
    (commit("main~1"), commit("main"))
}

fn take_thin(world: &World, bytes: &[u8], want: Commit) -> Result<(), SyncError> {
    let mut receiving = world.store.receive(&budget(), NO_LIMIT)?;
    receiving.expect_thin();
    // The header arrives in pieces, too.
    receiving.write(&bytes[..5.min(bytes.len())])?;
    for chunk in bytes[5.min(bytes.len())..].chunks(7000) {
        receiving.write(chunk)?;
    }
    receiving.finish(&Fetched::default(), &[want])
}

#[test]
fn a_thin_pack_of_thousands_of_deltas_is_completed() {
    for (options, self_contained) in [(&["--thin"][..], false), (&[], true)] {
        let world = World::new();
        let (first, second) = two_large_commits(&world);
        let whole = world.pack(&[], &format!("{first}\n"));
        world.take(&whole, first).unwrap();
        let range = format!("{second}\n^{first}\n");
        let pack = world.pack(options, &range);
        assert_eq!(pack.len() > 600_000, self_contained, "{}", pack.len());
        take_thin(&world, &pack, second).unwrap();
        git(world.store.path(), &["fsck", "--full", "--strict"]);
        world.assert_same(first);
        world.assert_same(second);
        let leftovers: Vec<_> = world
            .files()
            .into_iter()
            .filter(|file| !file.ends_with(".pack") && !file.ends_with(".idx"))
            .collect();
        assert_eq!(leftovers, Vec::<String>::new());
    }
}

#[test]
fn a_base_that_a_thin_pack_holds_as_well_is_taken_from_there() {
    let world = World::new();
    let (first, second) = two_large_commits(&world);
    let whole = world.pack(&[], &format!("{first}\n"));
    world.take(&whole, first).unwrap();
    // Bases by id, all of which the pack and the store hold.
    let both = world.pack(&["--window=10"], &format!("{second}\n{first}\n"));
    take_thin(&world, &both, second).unwrap();
    git(world.store.path(), &["fsck", "--full", "--strict"]);
    world.assert_same(second);
}

#[test]
fn a_large_thin_pack_that_is_cut_damaged_or_lacks_a_base_is_refused_and_leaves_nothing() {
    let world = World::new();
    let (first, second) = two_large_commits(&world);
    let range = format!("{second}\n^{first}\n");
    let thin = world.pack(&["--thin"], &range);
    let error = take_thin(&world, &thin, second).unwrap_err();
    assert_eq!(error.reason, Reason::Store, "{}", error.chain());
    assert_eq!(world.files(), Vec::<String>::new());

    let whole = world.pack(&[], &format!("{first}\n"));
    world.take(&whole, first).unwrap();
    let before = world.files();
    for length in [11, 12, 40, thin.len() / 2, thin.len() - 20, thin.len() - 1] {
        let error = take_thin(&world, &thin[..length], second).unwrap_err();
        assert_eq!(error.reason, Reason::Network, "{length}: {}", error.chain());
        assert_eq!(world.files(), before, "{length}");
    }
    for at in [12, 40, thin.len() / 2, thin.len() - 1] {
        let mut hurt = thin.clone();
        hurt[at] ^= 0x55;
        let error = take_thin(&world, &hurt, second).unwrap_err();
        assert_ne!(error.reason, Reason::Other, "{at}: {}", error.chain());
        assert_eq!(world.files(), before, "{at}");
    }
    let mut longer = thin.clone();
    longer.extend(b"more");
    take_thin(&world, &longer, second).unwrap_err();
    assert_eq!(world.files(), before);
}
