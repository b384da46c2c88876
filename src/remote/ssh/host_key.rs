//! Checks the server's host key, and says what to do when it is refused.
//!
//! This module reads the known_hosts file; [`known_hosts`](super::known_hosts) interprets it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use russh::client::{DisconnectReason, Handler, Session};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;
use crate::base::text::excerpt;
use crate::credentials::read;

use super::endpoint::Endpoint;
use super::known_hosts::{Trust, Verdict, all_algorithms, entry_name};
use super::notes::SharedNotes;

/// Which keys the server may have.
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
    /// Accepts any key.
    pub(super) fn accept_any(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            known: None,
        }
    }

    /// Accepts the keys that this file vouches for, as it is now.
    pub(super) fn load(stage: Stage, endpoint: &Endpoint, path: &Path) -> Result<Self, SyncError> {
        let text = files::read(path, read::MAX_KNOWN_HOSTS).map_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                let (what, flag) = ("known_hosts file", "--ssh-known-hosts-file");
                return read::unreadable(stage, Reason::Hostkey, what, flag, path, error);
            }
            let (host, port) = (&endpoint.host, endpoint.port);
            SyncError::new(
                stage,
                Reason::Hostkey,
                format!("the known_hosts file {} does not exist", path.display()),
            )
            .with_hint(format!(
                "make it with `ssh-keyscan -p {port} {host}`, check the fingerprints, and set \
                 --ssh-known-hosts-file to it"
            ))
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
                    "run `ssh-keyscan -p {port} {host}`, check the fingerprint with the operator of \
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
                    "the connection may be intercepted; if the server's key was \
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
                    "the host certificate of {} is not valid: {why}; its key is {shown}",
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
                self.notes.lock().refusal = Some(refusal);
                Ok(false)
            }
        }
    }

    async fn auth_banner(
        &mut self,
        banner: &str,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        tracing::debug!(banner = %excerpt(banner, 300), "ssh banner");
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        let mut notes = self.notes.lock();
        match reason {
            DisconnectReason::ReceivedDisconnect(message) => {
                notes.disconnected(message.reason_code, &message.message);
                Ok(())
            }
            DisconnectReason::Error(error) => {
                notes.ended(format!("the connection broke: {error}"));
                Err(error)
            }
        }
    }
}

fn public_line(key: &KeyData) -> String {
    PublicKey::new(key.clone(), "")
        .to_openssh()
        .map(|line| line.trim_end().to_owned())
        .unwrap_or_default()
}
