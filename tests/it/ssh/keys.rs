//! Which keys log in, and what is said about those that do not.

use super::*;

#[test]
fn every_usual_kind_of_key_logs_in() {
    let mut lab = Lab::new();
    for (kind, format) in [
        ("ed25519", None),
        ("ecdsa", None),
        ("rsa", None),
        ("rsa", Some("PEM")),
        ("rsa", Some("PKCS8")),
    ] {
        let path = lab.sshd.client_key(kind);
        if let Some(format) = format {
            convert_key(&path, format);
        }
        lab.client.key = Some(path);
        assert_eq!(
            poll(&mut lab.remote()).map_err(|error| error.chain()),
            Ok(lab.head()),
            "{kind} {format:?}"
        );
    }
}

#[test]
fn a_key_that_the_server_does_not_know_is_an_auth_failure_until_it_is_replaced() {
    let mut lab = Lab::new();
    let path = lab.sshd.stranger_key("ed25519");
    lab.client.key = Some(path.clone());
    let mut remote = lab.remote();
    let error = poll_error(&mut remote);
    assert_eq!(error.reason, Reason::Auth, "{}", error.chain());
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("deploy key: ssh-ed25519 AAAA")
    );
    let good = lab.sshd.client_key("ecdsa");
    std::fs::rename(good, path).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn a_key_file_that_is_no_use_is_named() {
    let mut lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let encrypted = dir.path().join("encrypted");
    generate_key(&encrypted, "ed25519", "secret");
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "not a key").unwrap();
    let public = dir.path().join("encrypted.pub");
    let missing = dir.path().join("missing");
    for (path, says) in [
        (&encrypted, "passphrase"),
        (&garbage, "no SSH private key"),
        (&public, "no SSH private key"),
        (&missing, "cannot read"),
    ] {
        lab.client.key = Some(path.clone());
        let error = poll_error(&mut lab.remote());
        assert_eq!(error.reason, Reason::Auth, "{}", error.chain());
        let message = error.to_string();
        assert!(message.contains(says), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
    lab.client.key = None;
    assert_eq!(poll_error(&mut lab.remote()).reason, Reason::Auth);
}

/// A key file that is replaced by another one as soon as the server has refused it.
struct Replaced {
    file: KeyFile,
    path: PathBuf,
    replacement: PathBuf,
}

impl Source for Replaced {
    fn get(
        &mut self,
        request: &Request<'_>,
        budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        self.file.get(request, budget)
    }

    fn rejected(&mut self, _: &Request<'_>, _: &Credential) {
        std::fs::rename(&self.replacement, &self.path).unwrap();
    }
}

#[test]
fn a_key_that_is_replaced_while_it_is_refused_logs_in_at_once() {
    let lab = Lab::new();
    let path = lab.sshd.stranger_key("ed25519");
    let mut settings = lab.config_at(lab.sshd.port());
    settings.credentials = Keyring::default();
    settings.credentials.add(
        Scope::AnySsh,
        Replaced {
            file: KeyFile::new(path.clone()),
            path,
            replacement: lab.sshd.client_key("ecdsa"),
        },
    );
    let mut remote = SshRemote::new(&settings).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn a_refused_key_that_does_not_change_is_tried_once() {
    let mut lab = Lab::new();
    lab.client.key = Some(lab.sshd.stranger_key("ed25519"));
    let proxy = TcpProxy::to(lab.sshd.port());
    let error = poll_error(&mut lab.remote_at(proxy.port()));
    assert_eq!(error.reason, Reason::Auth, "{}", error.chain());
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn a_fifo_or_a_directory_in_the_place_of_a_file_is_told_at_once() {
    let mut lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let good = lab.client.key.clone();
    for path in [fifo.as_path(), dir.path()] {
        lab.client.key = Some(path.to_owned());
        let error = poll_error(&mut lab.remote());
        assert_eq!(error.reason, Reason::Auth);
        assert!(error.chain().contains("not a regular file"), "{error}");
        lab.client.key.clone_from(&good);
        lab.client.hosts = SshHosts::Known(Some(path.to_owned()));
        let error = poll_error(&mut lab.remote());
        assert_eq!(error.reason, Reason::Hostkey);
        assert!(error.chain().contains("not a regular file"), "{error}");
    }
}
