//! The repository and the ref.

use super::environment::non_empty;
use super::error::{ConfigError, bad};
use super::paths::WorkingDirectory;
use crate::base::commit::Commit;
use crate::base::repo_url::RepoUrl;
use crate::cli::{self, GitFlags};
use crate::remote::RefName;
use crate::tree::SubmoduleMode;

/// The address of the repository; a path is made absolute.
pub(super) fn repo(flags: &GitFlags, from: &WorkingDirectory) -> Result<RepoUrl, ConfigError> {
    let typed = non_empty(flags.repo.clone())
        .ok_or_else(|| bad("--repo", "it is required: the URL or path of a repository"))?;
    match RepoUrl::parse(&typed).map_err(|error| bad("--repo", &error.to_string()))? {
        RepoUrl::Local(path) => Ok(RepoUrl::Local(from.absolute(&path))),
        network => Ok(network),
    }
}

/// Which submodules are populated.
pub(super) fn submodules(flags: &GitFlags) -> SubmoduleMode {
    match flags.submodules {
        cli::Submodules::Recursive => SubmoduleMode::Recursive,
        cli::Submodules::Shallow => SubmoduleMode::Shallow,
        cli::Submodules::Off => SubmoduleMode::Off,
    }
}

/// The ref to follow. git-check-ref-format(1) lists what a ref name may not contain.
pub(super) fn reference(flags: &GitFlags) -> Result<RefName, ConfigError> {
    let typed = flags.reference.as_str();
    if typed == "HEAD" {
        return Ok(RefName::Head);
    }
    if let Ok(commit) = typed.parse::<Commit>() {
        return Ok(RefName::Commit(commit));
    }
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let malformed = typed.is_empty()
        || typed.contains(forbidden)
        || typed.contains("..")
        || typed.contains("//")
        || typed.contains("@{")
        || typed == "@"
        || typed.starts_with(['-', '/'])
        || typed.ends_with(['/', '.'])
        || typed
            .split('/')
            .any(|part| part.starts_with('.') || part.ends_with(".lock"));
    if malformed {
        return Err(bad(
            "--ref",
            "it is not a valid ref name (git help check-ref-format): give a branch, a tag, \
             refs/… or a full commit id",
        ));
    }
    Ok(if typed.starts_with("refs/") {
        RefName::Full(typed.to_owned())
    } else {
        RefName::Short(typed.to_owned())
    })
}
