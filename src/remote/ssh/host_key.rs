//! The decision on the server's host key, and what to tell the operator when it is refused.
//!
//! This module reads the known_hosts file; what the file means is decided in
//! [`known_hosts`](super::known_hosts).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::client::{DisconnectReason, Handler, Session};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

use crate::base::error::{Reason, Stage, SyncError};

use super::connection::{Endpoint, SharedNotes};
use super::known_hosts::{Trust, Verdict, all_algorithms, entry_name};

/// Larger than any known_hosts file that is one.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What the server must prove.
pub(super) struct HostCheck {
    endpoint: Endpoint,
    /// None where host keys are not checked.
    known: Option<(PathBuf, Trust)>,
}

/// The session's callbacks: host key, and the end of the connection.
pub(super) struct Verifier {
    stage: Stage,
    hosts: HostCheck,
    notes: SharedNotes,
}

impl HostCheck {
    /// Any key will do.
    pub(super) fn accept_any(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            known: None,
        }
    }

    /// The key must be vouched for by this file, as it is now.
    pub(super) fn load(stage: Stage, endpoint: &Endpoint, path: &Path) -> Result<Self, SyncError> {
        let text = read(path).map_err(|error| {
            let (host, port) = (&endpoint.host, endpoint.port);
            let (what, hint) = match error.kind() {
                io::ErrorKind::NotFound => (
                    format!("the known_hosts file {} does not exist", path.display()),
                    format!(
                        "make it with `ssh-keyscan -p {port} {host}`, check the fingerprints, and \
                         set --ssh-known-hosts-file to it"
                    ),
                ),
                _ => (
                    format!("cannot read the known_hosts file {}", path.display()),
                    "let the user that runs this process read it".to_owned(),
                ),
            };
            let refused = SyncError::new(stage, Reason::Hostkey, what).with_hint(hint);
            match error.kind() {
                io::ErrorKind::NotFound => refused,
                _ => refused.with_source(error),
            }
        })?;
        Ok(Self {
            endpoint: endpoint.clone(),
            known: Some((
                path.to_owned(),
                Trust::parse(&text, &endpoint.host, endpoint.port),
            )),
        })
    }

    /// Host-key algorithms to offer, best first.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        match &self.known {
            Some((_, trust)) => trust.algorithms(),
            None => all_algorithms(),
        }
    }

    /// Algorithms of host certificates to offer.
    pub(super) fn certificate_algorithms(&self) -> Vec<Algorithm> {
        match &self.known {
            Some((_, trust)) => trust.certificate_algorithms(),
            None => Vec::new(),
        }
    }

    fn check(&self, stage: Stage, shown: &PublicKeyOrCertificate) -> Result<(), SyncError> {
        let Some((path, trust)) = &self.known else {
            return Ok(());
        };
        let (key, verdict) = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                (key.key_data(), trust.check_key(key.key_data()))
            }
            PublicKeyOrCertificate::Certificate(certificate) => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs());
                (
                    certificate.public_key(),
                    trust.check_certificate(certificate, now),
                )
            }
        };
        self.explain(stage, path, key, verdict)
    }

    fn explain(
        &self,
        stage: Stage,
        path: &Path,
        key: &KeyData,
        verdict: Verdict,
    ) -> Result<(), SyncError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let file = path.display();
        let shown = format!(
            "{} {}",
            key.algorithm().as_str(),
            key.fingerprint(HashAlg::Sha256)
        );
        let (message, hint) = match verdict {
            Verdict::Trusted => return Ok(()),
            Verdict::Unknown => (
                format!(
                    "the host key of {} is unknown: {file} has no entry for it; the server \
                     showed {shown}",
                    self.endpoint
                ),
                format!(
                    "run `ssh-keyscan -p {port} {host}`, check the fingerprint with whoever runs \
                     the server, and add the line to {file}: {} {}",
                    entry_name(host, *port),
                    public_line(key)
                ),
            ),
            Verdict::Changed { line } => (
                format!(
                    "the host key of {} has changed: {file} line {line} names another one; the \
                     server showed {shown}",
                    self.endpoint
                ),
                format!(
                    "somebody may be intercepting the connection; if the server's key was \
                     replaced on purpose, replace line {line} with: {} {}",
                    entry_name(host, *port),
                    public_line(key)
                ),
            ),
            Verdict::Revoked { line } => (
                format!(
                    "the host key of {} is revoked by {file} line {line}: {shown}",
                    self.endpoint
                ),
                "do not trust this server until its operator explains it".to_owned(),
            ),
            Verdict::BadCertificate(why) => (
                format!(
                    "the host certificate of {} is not good: {why}; its key is {shown}",
                    self.endpoint
                ),
                "have the server's certificate issued anew, for this host name".to_owned(),
            ),
        };
        Err(SyncError::new(stage, Reason::Hostkey, message).with_hint(hint))
    }
}

impl Verifier {
    pub(super) fn new(stage: Stage, hosts: HostCheck, notes: SharedNotes) -> Self {
        Self {
            stage,
            hosts,
            notes,
        }
    }
}

impl Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        match self.hosts.check(self.stage, shown) {
            Ok(()) => Ok(true),
            Err(refusal) => {
                let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.refusal = Some(refusal);
                Ok(false)
            }
        }
    }

    async fn auth_banner(
        &mut self,
        banner: &str,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let banner: String = banner.chars().take(300).collect();
        tracing::debug!(banner = %crate::base::text::printable(&banner), "ssh banner");
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                notes.hung_up(said.reason_code, &said.message);
                Ok(())
            }
            DisconnectReason::Error(error) => {
                notes.say_farewell(format!("the connection broke: {error}"));
                Err(error)
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {} MiB", MAX_FILE_BYTES >> 20),
        ));
    }
    Ok(text)
}

fn public_line(key: &KeyData) -> String {
    PublicKey::new(key.clone(), "")
        .to_openssh()
        .map(|line| line.trim_end().to_owned())
        .unwrap_or_default()
}
