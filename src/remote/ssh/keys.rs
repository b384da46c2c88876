//! The private key file: read again whenever it changed, decoded once while it does not.
//!
//! This module does not know agents, passphrases, hardware keys or user certificates.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{Error as KeyError, PrivateKey, decode_secret_key};

use crate::base::error::{Reason, Stage, SyncError};

/// More than any private key; a device or a log file given by mistake must not fill the memory.
const MAX_KEY_BYTES: u64 = 64 << 10;

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

    /// Where the key is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key as the file holds it now. Keys of RSA, ECDSA and Ed25519 in OpenSSH's format,
    /// PKCS#1 (RSA) and PKCS#8 are read.
    ///
    /// # Errors
    /// Reason `auth`, when the file is missing, not readable, no private key, or encrypted.
    pub fn load(&mut self, stage: Stage) -> Result<Arc<PrivateKey>, SyncError> {
        let mut file = File::open(&self.path).map_err(|error| self.unreadable(stage, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| self.unreadable(stage, error))?;
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
        self.cached = None;
        let mut text = String::new();
        (&mut file)
            .take(MAX_KEY_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| self.unreadable(stage, error))?;
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

    fn unreadable(&self, stage: Stage, error: io::Error) -> SyncError {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "let the user that runs this process read it (fsGroup, defaultMode)"
            }
            _ => "set --ssh-key-file to a private key whose public half is a deploy key",
        };
        SyncError::new(
            stage,
            Reason::Auth,
            format!("cannot read the SSH key {}", self.path.display()),
        )
        .with_source(error)
        .with_hint(hint)
    }
}
