//! Polls and fetches, in both versions of the protocol, and what the command on the server says.

use super::*;

/// The same story in both versions of the protocol.
fn follows_the_upstream(settings: &Settings) {
    let lab = Lab::with(settings);
    let first = lab.head();
    let second: Commit = lab.upstream.commit(&[("a/b", "2\n")]).parse().unwrap();
    let mut remote = lab.remote();
    assert_eq!(poll(&mut remote).unwrap(), second);

    let mut shallow = Store::new();
    let fetched = shallow.fetch(&mut remote, second, 1, &patient()).unwrap();
    assert_eq!(fetched.shallow, [second]);
    assert_eq!(shallow.history(), "1");

    lab.push_noise(300_000);
    let third: Commit = lab.upstream.commit(&[("a/c", "3\n")]).parse().unwrap();
    assert_eq!(poll(&mut remote).unwrap(), third);
    shallow.fetch(&mut remote, third, 1, &patient()).unwrap();
    let fourth: Commit = lab.upstream.commit(&[("a/d", "4\n")]).parse().unwrap();
    let fetched = shallow.fetch(&mut remote, fourth, 1, &patient()).unwrap();
    assert!(fetched.bytes < 2000, "{} bytes for a line", fetched.bytes);
    assert_eq!(shallow.git(&["show", "main:a/d"]), "4");

    let fetched = shallow.fetch(&mut remote, fourth, 0, &patient()).unwrap();
    assert!(fetched.unshallow.contains(&second), "{fetched:?}");
    assert!(shallow.shallow.is_empty());
    assert_eq!(shallow.history(), "5");

    // Version 0 serves only what a ref points to.
    lab.upstream
        .update_ref("refs/heads/old", &second.to_string());
    let mut full = Store::new();
    let fetched = full.fetch(&mut remote, second, 0, &patient()).unwrap();
    assert!(fetched.shallow.is_empty());
    assert_eq!(full.history(), "2");
    full.git(&["cat-file", "-e", &first.to_string()]);
    let fetched = full.fetch(&mut remote, fourth, 0, &patient()).unwrap();
    assert!(fetched.shallow.is_empty());
    assert_eq!(full.history(), "5");

    let tag = lab.upstream.annotated_tag("v1", &second.to_string());
    let name = RefName::Short("v1".to_owned());
    let Tip::At(at) = remote.tip(&name, &patient()).unwrap() else {
        panic!("the tag is missing");
    };
    assert_eq!(at.name, "refs/tags/v1");
    assert_eq!((at.object.to_string(), at.commit), (tag, second));
    let name = RefName::Full("refs/heads/none".to_owned());
    assert_eq!(
        remote.tip(&name, &patient()).unwrap(),
        Tip::Missing { empty: false }
    );
    assert_eq!(lab.sshd.logins(), 1, "one connection carries everything");
}

#[test]
fn version_2_polls_and_fetches_on_one_connection() {
    follows_the_upstream(&Settings::default());
}

#[test]
fn a_server_that_refuses_the_environment_is_spoken_to_in_version_0() {
    follows_the_upstream(&Settings {
        accept_git_protocol: false,
        ..Settings::default()
    });
}

#[test]
fn a_server_that_allows_one_session_serves_all_polls_on_one_connection() {
    let lab = Lab::with(&Settings {
        max_sessions: 1,
        ..Settings::default()
    });
    let mut remote = lab.remote();
    for _ in 0..20 {
        assert_eq!(poll(&mut remote).unwrap(), lab.head());
    }
    let mut store = Store::new();
    let head = lab.head();
    store.fetch(&mut remote, head, 1, &patient()).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), head);
    assert_eq!(lab.sshd.logins(), 1);
}

#[test]
fn a_poll_does_not_download_other_refs() {
    let lab = Lab::new();
    lab.upstream.many_refs(20_000);
    let proxy = TcpProxy::to(lab.sshd.port());
    // Version 0 would take 1.3 MB.
    proxy.set(Fault::StallAfter(100_000));
    let mut remote = lab.remote_at(proxy.port());
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn an_empty_repository_is_an_answer() {
    let mut lab = Lab::new();
    lab.upstream = Upstream::empty();
    let tip = lab.remote().tip(&RefName::Head, &patient()).unwrap();
    assert_eq!(tip, Tip::Missing { empty: true });
}

#[test]
fn a_command_that_fails_is_told_in_its_own_words() {
    let mut lab = Lab::new();
    for (command, reason, says) in [
        ("exit 3", Reason::Server, "exited with status 3"),
        (
            "echo ERROR: Repository not found. >&2; exit 1",
            Reason::NotFound,
            "Repository not found.",
        ),
        (
            "echo Permission denied for this key >&2; exit 1",
            Reason::Auth,
            "Permission denied",
        ),
        (
            "printf 'a\\033[31mb' >&2; exit 1",
            Reason::Server,
            "a\\u{1b}[31mb",
        ),
        ("no-such-command-here", Reason::Server, "status 127"),
        ("echo Welcome", Reason::Protocol, "Welcome"),
        ("yes", Reason::Protocol, "git protocol"),
        ("yes >&2", Reason::Limit, "error text"),
        (
            "printf 0032",
            Reason::Server,
            "before its answer was complete",
        ),
        (
            "printf '0022ERR access denied for this one'",
            Reason::Auth,
            "access denied",
        ),
        ("kill -9 $$", Reason::Network, "without a status"),
    ] {
        lab.client.key = Some(lab.sshd.client_key_running(command));
        let error = poll_error(&mut lab.remote());
        assert_eq!(error.reason, reason, "{command}: {}", error.chain());
        assert!(error.to_string().contains(says), "{command}: {error}");
        assert!(error.to_string().len() < 5000, "{command}");
    }
}

#[test]
fn a_sink_that_fails_ends_the_fetch_with_its_own_error() {
    struct Full;
    impl PackSink for Full {
        fn write(&mut self, _: &[u8]) -> Result<(), SyncError> {
            Err(SyncError::new(Stage::Fetch, Reason::Disk, "disk full"))
        }
    }
    let lab = Lab::new();
    let mut remote = lab.remote();
    let want = poll(&mut remote).unwrap();
    let request = FetchRequest {
        want,
        also: &[],
        name: None,
        haves: &[],
        shallow: &[],
        depth: 1,
        thin: true,
    };
    let error = remote.fetch(&request, &mut Full, &patient()).unwrap_err();
    assert_eq!(error.reason, Reason::Disk);
    assert_eq!(poll(&mut remote).unwrap(), want);
}

#[test]
fn an_object_that_is_gone_is_a_missing_ref() {
    let lab = Lab::new();
    let gone = "00000000000000000000000000000000000000aa".parse().unwrap();
    for _ in 0..2 {
        let error = Store::new()
            .fetch(&mut lab.remote(), gone, 1, &patient())
            .unwrap_err();
        assert_eq!(error.reason, Reason::RefMissing, "{}", error.chain());
    }
}

#[test]
fn a_repository_that_does_not_exist_is_not_found() {
    let lab = Lab::new();
    let url = format!(
        "ssh://{}@127.0.0.1:{}/no'such!repo.git",
        user(),
        lab.sshd.port()
    );
    let error = poll_error(&mut open(&url, &lab.client));
    assert_eq!(error.reason, Reason::NotFound, "{}", error.chain());
    assert!(
        error
            .to_string()
            .contains("'/no'such!repo.git' does not appear"),
        "the server's words, and the path as it was meant: {error}"
    );
}

#[test]
fn a_path_relative_to_the_home_directory_is_found() {
    let lab = Lab::new();
    // Up to the root directory from wherever the home is.
    let path = format!("{}{}", "../".repeat(20), &lab.upstream.path().display());
    let mut config = config(&format!("{}@127.0.0.1:{path}", user()), &lab.client);
    let RepoUrl::Ssh(url) = &mut config.url else {
        panic!("not an SSH address");
    };
    assert_eq!(url.port, 22);
    url.port = lab.sshd.port();
    let mut remote = SshRemote::new(&config).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}
