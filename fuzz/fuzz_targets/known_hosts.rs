//! No known_hosts file makes a key trusted that it does not hold.
#![no_main]

use git_volume_reloader::remote::ssh::known_hosts::{Trust, Verdict, entry_name, host_matches};
use libfuzzer_sys::fuzz_target;
use russh::keys::PublicKey;

/// The public key of nobody.
const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIEepvTMgjLC7on1eNF12WbeglYkWrpoTNhu1fDtpYS6Q";

fuzz_target!(|input: (bool, &[u8])| {
    let (standard, bytes) = input;
    let port = if standard { 22 } else { 2222 };
    let trust = Trust::parse(bytes, "git.example.com", port);
    trust.algorithms();
    trust.certificate_algorithms();

    let name = entry_name("git.example.com", port);
    let key = PublicKey::from_openssh(&format!("ssh-ed25519 {KEY}")).unwrap();
    let key = key.key_data();
    let holds = bytes
        .windows(KEY.len())
        .any(|window| window == KEY.as_bytes());
    let verdict = trust.check_key(key);
    assert!(holds || !matches!(verdict, Verdict::Trusted | Verdict::Revoked { .. }));

    let mut revoked = bytes.to_vec();
    revoked.extend_from_slice(format!("\n@revoked * ssh-ed25519 {KEY}\n").as_bytes());
    let verdict = Trust::parse(&revoked, "git.example.com", port).check_key(key);
    assert!(matches!(verdict, Verdict::Revoked { .. }));
    if let Ok(patterns) = std::str::from_utf8(bytes) {
        host_matches(patterns, &name);
    }
});
