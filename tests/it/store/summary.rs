//! What a commit says about itself.

use super::*;

#[test]
fn a_summary_is_printable() {
    let world = World::new();
    world.commit("file", "1");
    let message = "  first \u{1b}[31mline\n\nbody";
    let date = "1700000000 +0000";
    let done = git_command(
        &world.upstream(),
        &["commit", "-q", "--amend", "-m", message],
    )
    .env("GIT_COMMITTER_DATE", date)
    .status()
    .unwrap();
    assert!(done.success());
    let commit = id(&git(&world.upstream(), &["rev-parse", "HEAD"]));
    world.fetch(commit, 1);
    let info = world.store.summary(commit).unwrap();
    assert_eq!(info.subject, "first \\u{1b}[31mline");
    assert_eq!(info.author, "T");
    assert_eq!(info.time.seconds(), 1_700_000_000);
    let absent = id("0123456789012345678901234567890123456789");
    assert_eq!(
        world.store.summary(absent).unwrap_err().reason,
        Reason::Store
    );
}

#[test]
fn a_summary_is_no_longer_than_a_line_of_a_log() {
    let world = World::new();
    world.commit("file", "1");
    let message = "é".repeat(50_000);
    let done = git_command(
        &world.upstream(),
        &["commit", "-q", "--amend", "-m", &message],
    )
    .status()
    .unwrap();
    assert!(done.success());
    let commit = id(&git(&world.upstream(), &["rev-parse", "HEAD"]));
    world.fetch(commit, 1);
    let subject = world.store.summary(commit).unwrap().subject;
    assert!(subject.starts_with("éé") && subject.chars().count() < 300);
}

/// Commits the tree of HEAD once more with an author and committer that git writes only when told to.
fn commit_by(world: &World, author: &str, committer: &str) -> Commit {
    let tree = git(&world.upstream(), &["rev-parse", "HEAD^{tree}"]);
    let text = format!("tree {tree}\nauthor {author}\ncommitter {committer}\n\nsubject\n");
    fs::write(world.dir.path().join("commit"), text).unwrap();
    let write = [
        "hash-object",
        "-t",
        "commit",
        "-w",
        "--literally",
        "../commit",
    ];
    let commit = git(&world.upstream(), &write);
    git(
        &world.upstream(),
        &["update-ref", "refs/heads/odd", &commit],
    );
    id(&commit)
}

#[test]
fn a_commit_whose_dates_git_clone_accepts_is_received_shown_and_maintained() {
    for (case, date, seconds) in [
        ("none", "", 0),
        ("overflowing", " 99999999999999999999 +0000", 0),
        ("negative", " -1 +0000", 0),
        ("far", " 253402300800 +0000", 253_402_300_800),
    ] {
        let world = World::new();
        world.commit("file", "1");
        let by = format!("A U Thor <a@example.org>{date}");
        let commit = commit_by(&world, &by, &by);
        let url = format!("file://{}", world.upstream().display());
        let clone = ["clone", "-q", "-b", "odd", &url, "clone"];
        git(world.dir.path(), &clone);

        let pack = world.pack(&[], &format!("{commit}\n"));
        world.take(&pack, commit).unwrap();
        assert!(world.store.contains(commit), "{case}");
        assert_eq!(world.store.haves(), [commit], "{case}");
        let info = world.store.summary(commit).unwrap();
        assert_eq!(info.author, "A U Thor", "{case}");
        assert_eq!(info.subject, "subject", "{case}");
        assert_eq!(info.time.seconds(), seconds, "{case}");
        world.store.maintain(&[commit], &budget()).unwrap();
        assert!(world.store.contains(commit), "{case}");
    }
}
