//! A volume as an unprivileged container meets it: the process is user 65533, whom the system does
//! not know and who has no home; the volume belongs to somebody else.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::environment;
use super::sidecar::{BINARY, Launch};

/// The user and the group that the process runs as.
const USER: u32 = 65533;

/// A directory of root's that holds the volume and a binary that the user can run.
pub struct Volume {
    dir: TempDir,
    binary: PathBuf,
    mode: u32,
}

impl Volume {
    /// A volume whose shared directories have this mode.
    ///
    /// # Panics
    /// When this process is not root.
    pub fn new(mode: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = dir.path().join("git-volume-reloader");
        if fs::hard_link(BINARY, &binary).is_err() {
            fs::copy(BINARY, &binary).unwrap();
        }
        Self { dir, binary, mode }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a directory root's, shared with the user's group as far as the mode says: as fsGroup
    /// does.
    pub fn share(&self, directory: &Path) {
        chown(directory, Some(0), Some(USER)).expect("these tests change owners: run them as root");
        fs::set_permissions(directory, fs::Permissions::from_mode(self.mode)).unwrap();
    }

    /// Gives a directory and all in it to the user, and lets him reach it.
    pub fn give(&self, directory: &Path) {
        let parent = directory.parent().unwrap();
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
        let status = environment::command("chown")
            .args(["-R", &format!("{USER}:{USER}")])
            .arg(directory)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "these tests change owners: run them as root"
        );
    }

    /// The same command line, run as that user.
    pub fn launch(&self, launch: Launch) -> Launch {
        launch.binary(&self.binary).under(&[
            "setpriv",
            "--reuid=65533",
            "--regid=65533",
            "--clear-groups",
            "--inh-caps=-all",
        ])
    }
}
