//! The submodules of a commit: their paths, repositories and commits.
//!
//! `.gitmodules` is read from the commit, never from a work tree. This module does not fetch, and
//! lists one level: the submodules of a submodule are listed with the submodule's own commit.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use git2::{Odb, Oid};

use super::gitmodules::{self, BadLine, Module};
use super::names::PATH_LIMIT;
use super::objects::{self, EntryMode, Objects};
use super::{SubmoduleMode, TreeOptions};
use crate::base::budget::Budget;
use crate::base::commit::Commit;
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::repo_url::RepoUrl;
use crate::base::text::printable;

/// The most submodules that a `.gitmodules` may name; git has no limit.
const MODULE_LIMIT: usize = 100_000;

/// A submodule that the tree will contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submodule {
    /// Its path in the superproject's tree.
    pub path: PathBuf,
    /// The URL of its repository; absolute.
    pub url: RepoUrl,
    /// The commit that the superproject names.
    pub commit: Commit,
}

/// The submodules of `commit` that the options select. Relative URLs are resolved against
/// `superproject`. The list has one level; it is empty if submodules are off. The time is in
/// proportion to the size of the trees that have submodules in them.
///
/// A submodule without an entry in `.gitmodules`, or with `update = none`, is not listed: its
/// directory stays empty.
///
/// # Errors
/// Reason `hostile`: a URL begins with a dash, leads above its host, uses a transport that is not
/// allowed, or leads from a remote repository to this machine. `store`: an object is missing.
/// `other`: `.gitmodules` is not valid configuration. `limit`: it has too many entries. `timeout` or
/// `cancelled`: the budget ended.
pub fn list(
    store: &Path,
    commit: Commit,
    options: &TreeOptions,
    superproject: &RepoUrl,
    budget: &Budget,
) -> Result<Vec<Submodule>, SyncError> {
    if options.submodules == SubmoduleMode::Off {
        return Ok(Vec::new());
    }
    let objects = Objects::open(store)?;
    let odb = objects.odb()?;
    let root = objects::tree(&odb, objects::tree_of_commit(&odb, commit.oid())?)?;
    let modules = modules(&odb, &root)?.map;
    let wanted = modules
        .iter()
        .filter(|(_, module)| !module.update_none)
        .map(|(path, _)| path.as_slice())
        .collect();
    let mut found = Vec::new();
    for (path, id) in gitlinks(&odb, root, wanted, options, budget)? {
        let Some(module) = modules.get(&path) else {
            continue;
        };
        found.push(Submodule {
            url: address(module, superproject)?,
            path: PathBuf::from(OsString::from_vec(path)),
            commit: Commit::from(id),
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The `.gitmodules` of one tree.
#[derive(Debug, Default)]
pub(super) struct Modules {
    /// The blob of `.gitmodules`, if there is one.
    pub id: Option<Oid>,
    map: HashMap<Vec<u8>, Module>,
}

impl Modules {
    /// Whether the submodule at a path, relative to this tree, is populated; `None` if it has no entry
    /// in `.gitmodules`.
    pub fn populates(&self, path: &[u8]) -> Option<bool> {
        self.map.get(path).map(|module| !module.update_none)
    }
}

/// Reads `.gitmodules` of a root tree, given as raw bytes.
pub(super) fn modules(odb: &Odb<'_>, root: &[u8]) -> Result<Modules, SyncError> {
    let Some(entry) = objects::find(root, b".gitmodules")? else {
        return Ok(Modules::default());
    };
    if !matches!(entry.mode, EntryMode::File | EntryMode::Executable) {
        return Ok(Modules::default());
    }
    let Some(text) = objects::control_file(odb, ".gitmodules", entry.id)? else {
        return Ok(Modules::default());
    };
    let modules = gitmodules::parse(&text).map_err(|BadLine(line)| {
        SyncError::new(
            Stage::Build,
            Reason::Other,
            format!("line {line} of .gitmodules is not git configuration"),
        )
        .with_hint("correct .gitmodules, or set --submodules off")
    })?;
    if modules.len() > MODULE_LIMIT {
        return Err(SyncError::new(
            Stage::Build,
            Reason::Limit,
            format!(".gitmodules names more than {MODULE_LIMIT} submodules"),
        )
        .with_hint("set --submodules off, or remove entries from .gitmodules"));
    }
    let map = modules
        .into_iter()
        .filter(|module| module.url.is_some())
        .filter_map(|module| Some((module.path.clone()?, module)))
        .collect();
    Ok(Modules {
        id: Some(entry.id),
        map,
    })
}

/// A directory that may have submodules in it or below it.
struct Waiting<'m> {
    tree: Vec<u8>,
    /// Length of its path, with a slash.
    prefix: usize,
    /// Whether the sparse patterns include it.
    included: bool,
    /// The paths, from the top, that may be submodules.
    wanted: Vec<&'m [u8]>,
}

/// Those of the `wanted` paths that are submodules and that the options select, with their commits.
/// Reads each tree once.
fn gitlinks(
    odb: &Odb<'_>,
    root: Vec<u8>,
    wanted: Vec<&[u8]>,
    options: &TreeOptions,
    budget: &Budget,
) -> Result<Vec<(Vec<u8>, Oid)>, SyncError> {
    let mut found = Vec::new();
    let mut waiting = vec![Waiting {
        tree: root,
        prefix: 0,
        included: options.sparse.is_none(),
        // The tree writer refuses longer paths.
        wanted: wanted
            .into_iter()
            .filter(|path| path.len() <= PATH_LIMIT)
            .collect(),
    }];
    while let Some(here) = waiting.pop() {
        let mut by_name: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
        for path in here.wanted {
            let rest = &path[here.prefix..];
            let end = rest.iter().position(|byte| *byte == b'/');
            let name = &rest[..end.unwrap_or(rest.len())];
            by_name.entry(name).or_default().push(path);
        }
        let mut at = 0;
        while let Some(entry) = objects::next_entry(&here.tree, &mut at) {
            let entry = entry?;
            budget.check().map_err(|cause| {
                SyncError::interrupted(Stage::Build, "listing the submodules", cause)
            })?;
            // Like git, takes the first of two entries with one name.
            let Some(paths) = by_name.remove(entry.name) else {
                continue;
            };
            let end = here.prefix + entry.name.len();
            let is_tree = entry.mode == EntryMode::Tree;
            let mut included = here.included;
            if let (Some(sparse), Some(path)) = (&options.sparse, paths.first()) {
                // A submodule is matched like a file, because git's index has one entry for it.
                included = sparse.includes(&path[..end], is_tree, included);
            }
            if is_tree {
                let below: Vec<&[u8]> = paths.into_iter().filter(|p| p.len() > end).collect();
                if !below.is_empty() {
                    waiting.push(Waiting {
                        tree: objects::tree(odb, entry.id)?,
                        prefix: end + 1,
                        included,
                        wanted: below,
                    });
                }
            } else if entry.mode == EntryMode::Commit && included {
                let path = paths.into_iter().find(|path| path.len() == end);
                found.extend(path.map(|path| (path.to_vec(), entry.id)));
            }
        }
    }
    Ok(found)
}

/// The absolute URL of a submodule; fails if it is not allowed.
fn address(module: &Module, superproject: &RepoUrl) -> Result<RepoUrl, SyncError> {
    let refused = |why: &str| {
        objects::hostile(format!("submodule {:?}: {why}", printable(&module.name)))
            .with_hint("correct its url in .gitmodules, or set --submodules off")
    };
    let url = module.url.as_deref().unwrap_or_default();
    if module.name.starts_with('-') || module.name.split('/').any(|part| part == "..") {
        return Err(refused("its name begins with a dash or contains .."));
    }
    if url.starts_with("./") || url.starts_with("../") {
        return resolve(superproject, url)
            .ok_or_else(|| refused("its relative url leads above the superproject's host"));
    }
    let parsed = RepoUrl::parse(url)
        .map_err(|error| refused(&format!("its url is not acceptable: {error}")))?;
    match &parsed {
        RepoUrl::Local(_) if !superproject.is_local() => Err(refused(
            "its url is a path on this machine, and the superproject is not",
        )),
        RepoUrl::Local(path) if !path.is_absolute() => Err(refused(
            "its url is neither absolute nor relative to the superproject (./, ../)",
        )),
        _ => Ok(parsed),
    }
}

/// Resolves a URL that begins with `./` or `../` against the superproject's, textually, as `git
/// submodule` does. `None` if it leads above the host.
fn resolve(superproject: &RepoUrl, relative: &str) -> Option<RepoUrl> {
    let mut resolved = superproject.clone();
    match &mut resolved {
        RepoUrl::Http(http) => {
            let path = join_url(http.url.path(), relative)?;
            http.url.set_path(&path);
            // A query belongs to the superproject's URL.
            http.url.set_query(None);
        }
        RepoUrl::Ssh(ssh) => {
            ssh.path = join_url(&ssh.path, relative)?;
            if ssh.path.starts_with('-') {
                return None;
            }
        }
        RepoUrl::Local(path) => *path = PathBuf::from(join_url(path.to_str()?, relative)?),
    }
    Some(resolved)
}

fn join_url(base: &str, relative: &str) -> Option<String> {
    let mut joined = base.strip_suffix('/').unwrap_or(base);
    let mut rest = relative;
    loop {
        if let Some(below) = rest.strip_prefix("../") {
            rest = below;
            joined = match joined.rfind('/') {
                Some(slash) => &joined[..slash],
                // In "host:repository" only the repository can be removed.
                None if !joined.is_empty() => "",
                None => return None,
            };
        } else if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else {
            break;
        }
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    Some(if joined.is_empty() && !base.starts_with('/') {
        rest.to_owned()
    } else {
        format!("{joined}/{rest}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(superproject: &str, url: &str) -> Result<String, String> {
        let module = Module {
            name: "lib".to_owned(),
            url: Some(url.to_owned()),
            ..Module::default()
        };
        address(&module, &RepoUrl::parse(superproject).unwrap())
            .map(|url| url.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn relative_urls_follow_the_superproject() {
        for (superproject, url, expected) in [
            (
                "https://h/org/app.git",
                "../lib.git",
                "https://h/org/lib.git",
            ),
            (
                "https://h/org/app.git/",
                "../lib.git/",
                "https://h/org/lib.git",
            ),
            (
                "https://h:8443/org/app",
                "./lib",
                "https://h:8443/org/app/lib",
            ),
            (
                "https://h/org/app",
                "../../other/lib",
                "https://h/other/lib",
            ),
            ("git@h:org/app.git", "../lib.git", "ssh://git@h/org/lib.git"),
            ("git@h:app.git", "../lib.git", "ssh://git@h/lib.git"),
            (
                "ssh://git@h:2222/org/app",
                "../lib",
                "ssh://git@h:2222/org/lib",
            ),
            ("/srv/git/app.git", "../lib.git", "/srv/git/lib.git"),
            ("https://h/org/app", "https://other/x", "https://other/x"),
            ("/srv/git/app.git", "/srv/lib.git", "/srv/lib.git"),
            ("https://h/a", "git@other:lib", "ssh://git@other/lib"),
        ] {
            assert_eq!(
                resolved(superproject, url).as_deref(),
                Ok(expected),
                "{superproject} {url}"
            );
        }
    }

    #[test]
    fn a_url_that_leaves_the_host_or_leads_to_this_machine_is_refused() {
        for (superproject, url) in [
            ("https://h/app", "../../lib"),
            ("https://h/app", "file:///etc"),
            ("https://h/app", "/etc"),
            ("https://h/app", "ext::sh -c x"),
            ("https://h/app", "-oProxyCommand=x"),
            ("git@h:app", "../../lib"),
            ("git@h:app", "../-lib"),
            ("/srv/app", "lib"),
            ("https://h/app", "git://h/lib"),
        ] {
            let error = resolved(superproject, url).unwrap_err();
            assert!(error.contains("\"lib\""), "{superproject} {url}: {error}");
        }
    }
}
