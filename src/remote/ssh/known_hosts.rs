//! Which host keys a known_hosts file vouches for (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! It understands plain, bracketed and hashed host names, `*` and `?`, negation, comments, and the
//! markers `@revoked` and `@cert-authority`. A malformed line is skipped, as OpenSSH does, so
//! that one typing error does not lock out every other host.
//!
//! This module reads no files, knows no network, and never adds an entry. Entries for the address
//! of a host are not consulted (`CheckHostIP no`, OpenSSH's default).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey};

/// Host-key algorithms that are accepted, best first. `ssh-rsa` with SHA-1 and DSA are not.
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
];

/// What a known_hosts file says about one host and port.
#[derive(Clone, Debug)]
pub struct Trust {
    host: String,
    /// Entries for `[host]:port`, or for the host alone at port 22.
    exact: Entries,
    /// Entries for the bare host where the port is not 22: they can vouch, but not contradict.
    bare: Entries,
}

#[derive(Clone, Debug, Default)]
struct Entries {
    keys: Vec<Entry>,
    authorities: Vec<Entry>,
    revoked: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    line: usize,
    key: KeyData,
}

/// What a known_hosts file says about a server's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file vouches for the key.
    Trusted,
    /// The file does not know the host.
    Unknown,
    /// The file knows the host by other keys only; the first of them is on this line.
    Changed {
        /// Counted from 1.
        line: usize,
    },
    /// The key, or the authority that signed it, is marked `@revoked` on this line.
    Revoked {
        /// Counted from 1.
        line: usize,
    },
    /// A trusted authority signed the certificate, but it is not valid for this host now.
    BadCertificate(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    CertAuthority,
    Revoked,
}

impl Trust {
    /// Collects what a known_hosts file says about `host` (without brackets) and `port`.
    pub fn parse(known_hosts: &[u8], host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let names = if port == 22 {
            (host.clone(), None)
        } else {
            (format!("[{host}]:{port}"), Some(host.clone()))
        };
        let mut trust = Self {
            host,
            exact: Entries::default(),
            bare: Entries::default(),
        };
        for (index, line) in known_hosts.split(|&byte| byte == b'\n').enumerate() {
            let Some((marker, hosts, kind, key)) =
                std::str::from_utf8(line).ok().and_then(split_line)
            else {
                continue;
            };
            let entries = if host_matches(hosts, &names.0) {
                &mut trust.exact
            } else if names
                .1
                .as_deref()
                .is_some_and(|bare| host_matches(hosts, bare))
            {
                &mut trust.bare
            } else {
                continue;
            };
            if let Some(key) = parse_key(kind, key) {
                let list = match marker {
                    Marker::None => &mut entries.keys,
                    Marker::CertAuthority => &mut entries.authorities,
                    Marker::Revoked => &mut entries.revoked,
                };
                list.push(Entry {
                    line: index + 1,
                    key,
                });
            }
        }
        trust
    }

    /// The host-key algorithms to offer: those of known keys first, so that a server with several
    /// keys shows the one that can be checked.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let known = |algorithm: &Algorithm| {
            let mut keys = self.exact.keys.iter();
            let mut bare = self.bare.keys.iter();
            let same = |entry: &Entry| same_kind(&entry.key.algorithm(), algorithm);
            if self.exact.keys.is_empty() {
                bare.any(same)
            } else {
                keys.any(same)
            }
        };
        let (mut offered, others): (Vec<_>, Vec<_>) = ALGORITHMS.into_iter().partition(known);
        offered.extend(others);
        offered
    }

    /// The algorithms of host certificates to offer: none unless an authority is trusted for the
    /// host, because a server that has a certificate would show it instead of its plain key.
    pub fn certificate_algorithms(&self) -> Vec<Algorithm> {
        if self.exact.authorities.is_empty() && self.bare.authorities.is_empty() {
            Vec::new()
        } else {
            ALGORITHMS.to_vec()
        }
    }

    /// Judges a plain host key.
    pub fn check_key(&self, key: &KeyData) -> Verdict {
        if let Some(entry) = self.revocation(key) {
            return Verdict::Revoked { line: entry.line };
        }
        let vouched = |entries: &Entries| entries.keys.iter().any(|entry| entry.key == *key);
        if vouched(&self.exact) {
            return Verdict::Trusted;
        }
        match self.exact.keys.first() {
            Some(other) => Verdict::Changed { line: other.line },
            None if vouched(&self.bare) => Verdict::Trusted,
            None => Verdict::Unknown,
        }
    }

    /// Judges a host certificate at `now` (seconds since 1970): signature, authority, type,
    /// principals, validity, critical options, revocation of the key and of the authority
    /// (PROTOCOL.certkeys of OpenSSH).
    ///
    /// If no trusted authority signed it, the key inside counts as a plain key, as with OpenSSH.
    pub fn check_certificate(&self, certificate: &Certificate, now: u64) -> Verdict {
        let authority = certificate.signature_key();
        let revoked = self
            .revocation(certificate.public_key())
            .or_else(|| self.revocation(authority));
        if let Some(entry) = revoked {
            return Verdict::Revoked { line: entry.line };
        }
        let mut authorities = self.exact.authorities.iter().chain(&self.bare.authorities);
        if !authorities.any(|entry| entry.key == *authority) {
            return self.check_key(certificate.public_key());
        }
        if certificate.cert_type() != CertType::Host {
            return Verdict::BadCertificate("it is a user certificate, not a host certificate");
        }
        if matches!(
            certificate.signature().algorithm(),
            Algorithm::Rsa { hash: None } | Algorithm::Dsa
        ) {
            return Verdict::BadCertificate("its authority signed it with SHA-1");
        }
        if now < certificate.valid_after() {
            return Verdict::BadCertificate("it is not valid yet");
        }
        if now >= certificate.valid_before() {
            return Verdict::BadCertificate("it has expired");
        }
        // No principal at all means any host (PROTOCOL.certkeys).
        let principals = certificate.valid_principals();
        if !principals.is_empty()
            && !principals
                .iter()
                .any(|name| glob(name.to_ascii_lowercase().as_bytes(), self.host.as_bytes()))
        {
            return Verdict::BadCertificate("it was issued for other host names");
        }
        // No critical option is defined for hosts, and an unknown one must be refused.
        if !certificate.critical_options().is_empty() {
            return Verdict::BadCertificate("it has a critical option that is not supported");
        }
        let fingerprint = authority.fingerprint(HashAlg::Sha256);
        match certificate.validate_at(now, [&fingerprint]) {
            Ok(()) => Verdict::Trusted,
            Err(_) => Verdict::BadCertificate("its signature is wrong"),
        }
    }

    fn revocation(&self, key: &KeyData) -> Option<&Entry> {
        let mut revoked = self.exact.revoked.iter().chain(&self.bare.revoked);
        revoked.find(|entry| entry.key == *key)
    }
}

/// The host-key algorithms that are offered when the host key is not checked.
pub fn all_algorithms() -> Vec<Algorithm> {
    ALGORITHMS.to_vec()
}

/// How a host is named in known_hosts: `host`, or `[host]:port` for a port other than 22.
pub fn entry_name(host: &str, port: u16) -> String {
    if port == 22 {
        host.to_owned()
    } else {
        format!("[{host}]:{port}")
    }
}

/// Whether the first field of a known_hosts line stands for `name` (in lower case, with brackets
/// and port where the port is not 22).
pub fn host_matches(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix('|') {
        return hash_matches(hashed, name);
    }
    let mut matched = false;
    for pattern in patterns.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// The marker, the hosts, the key type and the key of a line that has them all.
fn split_line(line: &str) -> Option<(Marker, &str, &str, &str)> {
    let mut fields = line
        .split([' ', '\t', '\r'])
        .filter(|field| !field.is_empty());
    let first = fields.next()?;
    let (marker, hosts) = match first {
        "@cert-authority" => (Marker::CertAuthority, fields.next()?),
        "@revoked" => (Marker::Revoked, fields.next()?),
        _ if first.starts_with(['#', '@']) => return None,
        _ => (Marker::None, first),
    };
    Some((marker, hosts, fields.next()?, fields.next()?))
}

fn parse_key(kind: &str, key: &str) -> Option<KeyData> {
    let bytes = STANDARD.decode(key).ok()?;
    let key = PublicKey::from_bytes(&bytes).ok()?;
    (key.algorithm().as_str() == kind).then(|| key.key_data().clone())
}

/// `1|<salt>|<HMAC-SHA1 of the name, keyed with the salt>`, both in base64.
fn hash_matches(hashed: &str, name: &str) -> bool {
    let mut fields = hashed.split('|');
    let (Some("1"), Some(salt), Some(hash), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    hmac::verify(&key, name.as_bytes(), &hash).is_ok()
}

/// `*` and `?`, without backtracking beyond the last `*`: the time is bounded by the product of
/// the two lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star = None;
    while pos < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, pos));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[pos] => {
                at += 1;
                pos += 1;
            }
            _ => match star {
                Some((star_at, star_pos)) => {
                    star = Some((star_at, star_pos + 1));
                    at = star_at + 1;
                    pos = star_pos + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// One RSA key serves both of its signature algorithms.
fn same_kind(key: &Algorithm, offered: &Algorithm) -> bool {
    match (key, offered) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        _ => key == offered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const KEY_B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const KEY_P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";

    fn key(text: &str) -> KeyData {
        PublicKey::from_openssh(text).unwrap().key_data().clone()
    }

    fn verdict(file: &str, host: &str, port: u16, shown: &str) -> Verdict {
        Trust::parse(file.as_bytes(), host, port).check_key(&key(shown))
    }

    #[test]
    fn a_bad_line_does_not_hide_the_good_ones() {
        let file = format!(
            "# comment\n\nexample.org\nexample.org ssh-ed25519 !!!\nexample.org ssh-rsa {}\n\
             @unknown example.org {KEY_B}\n\u{7f}\u{0}garbage\n  other,Example.ORG\t{KEY_A} me@x\r\n",
            KEY_A.split(' ').nth(1).unwrap(),
        );
        assert_eq!(verdict(&file, "example.org", 22, KEY_A), Verdict::Trusted);
        assert_eq!(verdict(&file, "EXAMPLE.org", 22, KEY_A), Verdict::Trusted);
        assert_eq!(verdict(&file, "example.com", 22, KEY_A), Verdict::Unknown);
        assert_eq!(
            verdict(&file, "example.org", 22, KEY_B),
            Verdict::Changed { line: 8 }
        );
        let mut bytes = b"\xff\xfe\n".to_vec();
        bytes.extend(file.as_bytes());
        let trust = Trust::parse(&bytes, "other", 22);
        assert_eq!(trust.check_key(&key(KEY_A)), Verdict::Trusted);
    }

    #[test]
    fn a_port_has_its_own_entry_and_falls_back_on_the_bare_host() {
        let own = format!("[h]:2222 {KEY_A}\nh {KEY_B}\n");
        assert_eq!(verdict(&own, "h", 2222, KEY_A), Verdict::Trusted);
        assert_eq!(
            verdict(&own, "h", 2222, KEY_B),
            Verdict::Changed { line: 1 }
        );
        assert_eq!(verdict(&own, "h", 22, KEY_B), Verdict::Trusted);
        let bare = format!("h {KEY_A}\n");
        assert_eq!(verdict(&bare, "h", 2222, KEY_A), Verdict::Trusted);
        assert_eq!(verdict(&bare, "h", 2222, KEY_B), Verdict::Unknown);
        let v6 = format!("[::1]:22,::1 {KEY_A}\n");
        assert_eq!(verdict(&v6, "::1", 22, KEY_A), Verdict::Trusted);
        assert_eq!(verdict(&v6, "::1", 23, KEY_A), Verdict::Trusted);
    }

    #[test]
    fn wildcards_and_negation_are_honoured() {
        let file = format!("*.example.org,!bad.example.org,h?st {KEY_A}\n");
        for (host, expected) in [
            ("a.example.org", Verdict::Trusted),
            ("a.b.example.org", Verdict::Trusted),
            ("bad.example.org", Verdict::Unknown),
            ("example.org", Verdict::Unknown),
            ("host", Verdict::Trusted),
            ("hoost", Verdict::Unknown),
        ] {
            assert_eq!(verdict(&file, host, 22, KEY_A), expected, "{host}");
        }
        assert!(!glob(&b"*a".repeat(4000), &b"a".repeat(3999)));
    }

    #[test]
    fn hashed_names_match_with_and_without_a_port() {
        let hashed = |name: &str| {
            let salt = [7_u8; 20];
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
            let hash = hmac::sign(&key, name.as_bytes());
            format!(
                "|1|{}|{} {KEY_A}\n",
                STANDARD.encode(salt),
                STANDARD.encode(hash)
            )
        };
        let file = hashed("example.org");
        assert_eq!(verdict(&file, "Example.org", 22, KEY_A), Verdict::Trusted);
        assert_eq!(verdict(&file, "example.com", 22, KEY_A), Verdict::Unknown);
        let file = hashed("[example.org]:29418");
        assert_eq!(
            verdict(&file, "example.org", 29418, KEY_A),
            Verdict::Trusted
        );
        assert_eq!(verdict(&file, "example.org", 22, KEY_A), Verdict::Unknown);
        for broken in ["|1|", "|1|a|b", "|2|AAAA|AAAA", "|", "|1|AAAA|AAAA|AAAA"] {
            assert!(!host_matches(broken, "example.org"), "{broken}");
        }
    }

    #[test]
    fn a_revoked_key_is_refused_wherever_else_it_is_listed() {
        let file = format!("h {KEY_A}\n@revoked\t* {KEY_A}\n");
        assert_eq!(verdict(&file, "h", 22, KEY_A), Verdict::Revoked { line: 2 });
        assert_eq!(
            verdict(&file, "h", 2222, KEY_A),
            Verdict::Revoked { line: 2 }
        );
    }

    #[test]
    fn an_authority_is_no_host_key() {
        let file = format!("@cert-authority h {KEY_A}\n");
        assert_eq!(verdict(&file, "h", 22, KEY_A), Verdict::Unknown);
        assert!(
            !Trust::parse(file.as_bytes(), "h", 22)
                .certificate_algorithms()
                .is_empty()
        );
        let trust = Trust::parse(KEY_A.as_bytes(), "h", 22);
        assert!(trust.certificate_algorithms().is_empty());
    }

    #[test]
    fn algorithms_of_known_keys_are_offered_first_and_sha1_never() {
        let file = format!("h {KEY_P256}\n");
        let offered = Trust::parse(file.as_bytes(), "h", 22).algorithms();
        assert_eq!(offered[0].as_str(), "ecdsa-sha2-nistp256");
        assert_eq!(offered.len(), ALGORITHMS.len());
        assert!(!offered.contains(&Algorithm::Rsa { hash: None }));
        let stranger = Trust::parse(b"", "h", 22).algorithms();
        assert_eq!(stranger, all_algorithms());
    }
}
