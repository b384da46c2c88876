//! A private key file for SSH: looked at for every connection, and decoded again when it changed.
//!
//! Not handled: agents, passphrases, hardware keys and user certificates.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::{Error as KeyError, PrivateKey, decode_secret_key};

use crate::base::budget::Budget;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;

use super::read;
use super::source::{Credential, Proof, Request, Source};

/// A key file and what it held when it was last read.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    cached: Option<(Stamp, Arc<PrivateKey>)>,
}

/// What changes when a file is replaced or rewritten. Secret mounts flip a link, so that the
/// inode behind the path changes.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl KeyFile {
    /// Nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, cached: None }
    }

    /// The key as the file holds it now. Keys of RSA, ECDSA and Ed25519 in OpenSSH's format,
    /// PKCS#1 (RSA) and PKCS#8 are read.
    fn load(&mut self, stage: Stage) -> Result<Arc<PrivateKey>, SyncError> {
        let unreadable = |cause: io::Error| {
            let (what, flag) = ("SSH key", "--ssh-key-file");
            read::unreadable(stage, Reason::Auth, what, flag, &self.path, cause)
        };
        let file = files::open(&self.path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let stamp = Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        if let Some((seen, key)) = &self.cached
            && *seen == stamp
        {
            return Ok(Arc::clone(key));
        }
        let text = files::read_file(&file, read::MAX_SECRET)
            .and_then(read::text)
            .map_err(unreadable)?;
        self.cached = None;
        let key = Arc::new(self.decode(stage, &text)?);
        self.cached = Some((stamp, Arc::clone(&key)));
        Ok(key)
    }

    fn decode(&self, stage: Stage, text: &str) -> Result<PrivateKey, SyncError> {
        // PEM keys name their encryption in the clear; russh would report broken base64.
        let encrypted = text.contains("Proc-Type: 4,ENCRYPTED")
            || text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----");
        let error = match decode_secret_key(text, None) {
            Ok(key) if key.is_encrypted() => KeyError::KeyIsEncrypted,
            Ok(key) => return Ok(key),
            Err(_) if encrypted => KeyError::KeyIsEncrypted,
            Err(error) => error,
        };
        let path = self.path.display();
        Err(match error {
            KeyError::KeyIsEncrypted => SyncError::new(
                stage,
                Reason::Auth,
                format!("the SSH key {path} is encrypted with a passphrase"),
            )
            .with_hint(
                "give a key without a passphrase (ssh-keygen -p removes it), such as a deploy key",
            ),
            error => SyncError::new(
                stage,
                Reason::Auth,
                format!("{path} holds no SSH private key that can be used"),
            )
            .with_source(error)
            .with_hint("give the private key, not the .pub file; ssh-keygen -t ed25519 makes one"),
        })
    }
}

impl Source for KeyFile {
    fn get(
        &mut self,
        request: &Request<'_>,
        _budget: &Budget,
    ) -> Result<Option<Credential>, SyncError> {
        Ok(Some(Credential::lasting(Proof::SshKey {
            key: self.load(request.stage)?,
            name: self.path.display().to_string(),
        })))
    }
}
