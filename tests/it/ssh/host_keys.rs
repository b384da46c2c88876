//! Which servers are trusted.

use super::*;

#[test]
fn an_unknown_host_key_is_refused_with_the_line_that_would_accept_it() {
    let mut lab = Lab::new();
    let (port, key) = (lab.sshd.port(), lab.sshd.host_key("ed25519"));
    let mut remote = lab.remote_trusting("other.example.org ssh-ed25519 AAAA\n");
    let error = poll_error(&mut remote);
    assert_eq!(error.reason, Reason::Hostkey);
    let message = error.to_string();
    assert!(
        message.contains("unknown") && message.contains("SHA256:"),
        "{message}"
    );
    assert!(message.contains("ssh-ed25519"), "{message}");
    let line = format!("[127.0.0.1]:{port} {key}");
    let hint = error.hint().unwrap().to_owned();
    assert!(
        hint.contains(&line) && hint.contains("ssh-keyscan -p"),
        "{hint}"
    );
    // The file is read again for each attempt.
    let SshHosts::Known(Some(file)) = &lab.client.hosts else {
        panic!("{:?}", lab.client.hosts);
    };
    std::fs::write(file, format!("{line}\n")).unwrap();
    assert_eq!(poll(&mut remote).unwrap(), lab.head());
}

#[test]
fn a_changed_host_key_is_refused_with_its_own_message() {
    let mut lab = Lab::new();
    let mut known = format!("[127.0.0.1]:{} ", lab.sshd.port());
    known.push_str(&lab.sshd.host_key("ed25519"));
    let mut remote = lab.remote_trusting(&known);
    poll(&mut remote).unwrap();
    lab.sshd.replace_host_key("ed25519");
    lab.sshd.restart();
    let error = poll_error(&mut remote);
    assert_eq!(error.reason, Reason::Hostkey);
    assert!(error.to_string().contains("has changed"), "{error}");
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn a_revoked_host_key_is_refused() {
    let mut lab = Lab::new();
    let key = lab.sshd.host_key("ed25519");
    let error = poll_error(&mut lab.remote_trusting(&format!("* {key}\n@revoked * {key}\n")));
    assert_eq!(error.reason, Reason::Hostkey);
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[test]
fn a_missing_known_hosts_file_is_named() {
    let mut lab = Lab::new();
    lab.client.hosts = SshHosts::Known(Some(PathBuf::from("/nonexistent/known_hosts")));
    let error = poll_error(&mut lab.remote());
    assert_eq!(error.reason, Reason::Hostkey);
    assert!(
        error
            .to_string()
            .contains("/nonexistent/known_hosts does not exist")
    );
    lab.client.hosts = SshHosts::Known(None);
    let error = poll_error(&mut lab.remote());
    assert_eq!(error.reason, Reason::Hostkey);
    lab.client.hosts = SshHosts::Any;
    assert_eq!(poll(&mut lab.remote()).unwrap(), lab.head());
}

#[test]
fn a_hashed_entry_made_by_ssh_keygen_is_understood() {
    let mut lab = Lab::new();
    let line = format!(
        "[127.0.0.1]:{} {}\n",
        lab.sshd.port(),
        lab.sshd.host_key("ed25519")
    );
    let file = lab.sshd.known_hosts(&line);
    let hashed = command("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(hashed.success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("|1|"), "{text}");
    assert_eq!(poll(&mut lab.remote_trusting(&text)).unwrap(), lab.head());
}

#[test]
fn the_known_one_of_several_host_keys_is_asked_for() {
    let mut lab = Lab::with(&Settings {
        host_keys: vec!["ed25519", "ecdsa", "rsa"],
        ..Settings::default()
    });
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let line = format!("127.0.0.1 {}\n", lab.sshd.host_key(kind));
        let mut remote = lab.remote_trusting(&line);
        assert_eq!(poll(&mut remote).unwrap(), lab.head(), "{kind}");
    }
}

#[test]
fn a_host_certificate_counts_only_by_a_trusted_authority_and_for_this_host_now() {
    for (principals, validity, expected) in [
        ("127.0.0.1,git.example.org", "-1h:+1h", None),
        ("127.0.0.*", "-1h:+1h", None),
        ("git.example.org", "-1h:+1h", Some("other host names")),
        ("127.0.0.1", "-2h:-1h", Some("expired")),
        ("127.0.0.1", "+1h:+2h", Some("not valid yet")),
    ] {
        let mut lab = Lab::with(&Settings {
            certificate: Some(Certified {
                principals,
                validity,
            }),
            ..Settings::default()
        });
        let authority = lab.sshd.authority();
        let trusted = format!("@cert-authority 127.0.0.1\t{authority}\n");
        let result = poll(&mut lab.remote_trusting(&trusted));
        match expected {
            None => assert_eq!(result.unwrap(), lab.head()),
            Some(why) => {
                let error = result.unwrap_err();
                assert_eq!(error.reason, Reason::Hostkey);
                assert!(error.to_string().contains(why), "{error}");
            }
        }
        if principals != "127.0.0.*" {
            continue;
        }
        // Trust is in the authority, and ends with it.
        let revoked = format!("{trusted}@revoked * {authority}\n");
        let error = poll_error(&mut lab.remote_trusting(&revoked));
        assert!(error.to_string().contains("revoked"), "{error}");
        let revoked = format!("{trusted}@revoked * {}\n", lab.sshd.host_key("ed25519"));
        let error = poll_error(&mut lab.remote_trusting(&revoked));
        assert!(error.to_string().contains("revoked"), "{error}");
        let elsewhere = format!("@cert-authority *.example.org {authority}\n");
        let error = poll_error(&mut lab.remote_trusting(&elsewhere));
        assert!(error.to_string().contains("unknown"), "{error}");
        // An authority's key is no host key, and a certified host's plain key still is one.
        let error = poll_error(&mut lab.remote_trusting(&format!("127.0.0.1 {authority}\n")));
        assert_eq!(error.reason, Reason::Hostkey);
        let plain = format!("127.0.0.1 {}\n", lab.sshd.host_key("ed25519"));
        assert_eq!(poll(&mut lab.remote_trusting(&plain)).unwrap(), lab.head());
    }
}
