//! Who is told about publishes and failures.

use std::path::{Path, PathBuf};

use super::paths::normalized;
use crate::cli::NotifyFlags;
use crate::notify::files::FileSettings;

/// The files that tell other programs what happened; relative paths start from the root.
pub(super) fn files(flags: &NotifyFlags, root: &Path) -> FileSettings {
    let below_root = |path: &PathBuf| normalized(&root.join(path));
    FileSettings {
        touch_files: flags.touch_file.iter().map(below_root).collect(),
        error_file: flags.error_file.as_ref().map(below_root),
    }
}

/// Where to keep the JSON of `/status`; a relative path starts from the root.
pub(super) fn status_file(flags: &NotifyFlags, root: &Path) -> Option<PathBuf> {
    let typed = flags.status_file.as_ref()?;
    (!typed.as_os_str().is_empty()).then(|| normalized(&root.join(typed)))
}
