//! The one reader of files that an operator mounts: passwords, tokens, SSH keys, known hosts.
//!
//! It reads regular files of a bounded size only, and never waits: a FIFO, a device or a directory
//! is an error. Symbolic links are followed, because Kubernetes mounts secrets behind links.

use std::io;
use std::path::Path;

use crate::base::error::{Reason, Stage, SyncError};
use crate::base::files;
use crate::base::secret::Secret;

/// The most bytes that a password, token or key may have. An SSH key of 16384 bits has 13 KB.
pub const MAX_SECRET: u64 = 64 << 10;

/// The most bytes that a known_hosts file may have.
pub const MAX_KNOWN_HOSTS: u64 = 16 << 20;

/// Reads a password or token, without the line breaks that editors leave at the end.
///
/// # Errors
/// When the file cannot be read, is not a regular file, is larger than [`MAX_SECRET`], is not
/// UTF-8, or is empty.
pub fn secret(path: &Path) -> io::Result<Secret> {
    let text = text(files::read(path, MAX_SECRET)?)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        secret => Ok(Secret::new(secret)),
    }
}

/// The content of a file as text.
pub(super) fn text(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The error for a file that cannot be used: `what` is the file's purpose and `flag` the setting
/// that names it.
pub fn unreadable(
    stage: Stage,
    reason: Reason,
    what: &str,
    flag: &str,
    path: &Path,
    cause: io::Error,
) -> SyncError {
    let hint = match cause.kind() {
        io::ErrorKind::NotFound => format!("check {flag} and the mounted secret"),
        io::ErrorKind::PermissionDenied => {
            "let the user that runs this process read it (fsGroup, defaultMode)".to_owned()
        }
        _ => format!("check {flag}: it must name a regular file with that content"),
    };
    SyncError::new(
        stage,
        reason,
        format!("cannot read the {what} {}", path.display()),
    )
    .with_hint(hint)
    .with_source(cause)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_line_breaks_at_the_end_are_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, " p w \r\n\n").unwrap();
        assert_eq!(secret(&path).unwrap().expose(), " p w ");
    }

    #[test]
    fn what_is_no_small_regular_text_file_is_refused_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        mknodat(
            CWD,
            path("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("large"), vec![b'x'; MAX_SECRET as usize + 1]).unwrap();
        fs::write(path("binary"), b"\xff\xfe").unwrap();
        fs::write(path("empty"), "\n").unwrap();
        for (name, why) in [
            ("fifo", "not a regular file"),
            ("directory", "not a regular file"),
            ("large", "larger than 65536 bytes"),
            ("binary", "not UTF-8"),
            ("empty", "empty"),
            ("missing", "No such file"),
        ] {
            let cause = secret(&path(name)).unwrap_err();
            let error = unreadable(
                Stage::Poll,
                Reason::Auth,
                "password file",
                "--password-file",
                &path(name),
                cause,
            );
            let told = error.chain();
            assert!(told.contains(why) && told.contains(name), "{told}");
        }
    }
}
