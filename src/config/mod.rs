//! What the flags and the environment mean: absolute paths, validated values, unprintable secrets.
//!
//! The one module that reads the environment. It checks what can be checked without touching the
//! network or the root; what the disk or the remote say later is the business of a sync.

mod auth;

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::app::signals::{NotASignal, Signal};
use crate::base::commit::Commit;
use crate::base::repo_url::RepoUrl;
use crate::cli::{self, Flags, LogFormat};
use crate::notify::files::FileSettings;
use crate::remote::{RefName, RemoteConfig};
use crate::serve::bind::Bind;
use crate::serve::nudge::NudgeConfig;
use crate::tree::{Share, Sparse, SubmoduleMode, TreeOptions};
use crate::volume::{Layout, PublishMode};

/// Everything the process needs to know.
#[derive(Debug)]
pub struct Config {
    /// The targets to keep equal to their refs. The flags configure one.
    pub targets: Vec<Target>,
    /// What is served over HTTP, if anything.
    pub serve: Option<ServeConfig>,
    /// The signal that means "poll now".
    pub sync_on_signal: Option<Signal>,
}

/// A repository, a ref and a link: what one sync cycle works on.
#[derive(Debug)]
pub struct Target {
    /// The value of the target label.
    pub name: String,
    /// The ref to follow.
    pub reference: RefName,
    /// How to reach the repository.
    pub remote: RemoteConfig,
    /// Commits of history to keep; 0 for all.
    pub depth: u32,
    /// Where trees go.
    pub layout: Layout,
    /// What a tree looks like.
    pub tree: TreeOptions,
    /// Whether only a change under the sparse patterns is worth a flip.
    pub publish_on_paths: bool,
    /// How many older trees stay.
    pub keep: usize,
    /// How long a retired tree stays readable.
    pub stale_timeout: Duration,
    /// When to try, and when to give up.
    pub schedule: ScheduleConfig,
    /// How old the last successful poll may be before the target counts as stale.
    pub max_staleness: Option<Duration>,
    /// The files that tell others what happened.
    pub files: FileSettings,
}

/// When to try, and when to give up.
#[derive(Clone, Debug)]
pub struct ScheduleConfig {
    /// Between two polls.
    pub period: Duration,
    /// After the first failure before anything is published.
    pub init_period: Duration,
    /// Exit after the first success.
    pub one_time: bool,
    /// With `one_time`: an existing tree is good enough when the remote fails.
    pub allow_stale: bool,
    /// Failures in a row to bear once published; `None` for no limit.
    pub max_failures: Option<u64>,
    /// Failures in a row to bear before that; `None` for no limit.
    pub init_max_failures: Option<u64>,
    /// For one whole cycle.
    pub sync_timeout: Duration,
    /// For one silence of the remote.
    pub stall_timeout: Duration,
}

/// The HTTP side.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub bind: Bind,
    /// Who may nudge; `None` hides the route.
    pub nudge: Option<NudgeConfig>,
}

/// A flag, variable or file whose value cannot be used: exit code 2.
#[derive(Debug)]
pub struct ConfigError {
    message: String,
}

impl Config {
    /// Validates the flags and reads the environment's part.
    ///
    /// # Errors
    /// Names the flag, what is wrong with its value, and what would be right; never a secret.
    pub fn resolve(flags: Flags) -> Result<Self, ConfigError> {
        let working_directory = std::env::current_dir()
            .map_err(|error| bad("the working directory", &error.to_string()))?;
        let absolute = |path: &Path| normalized(&working_directory.join(path));

        let repo = non_empty(flags.repo.clone())
            .ok_or_else(|| bad("--repo", "it is required: the URL or path of a repository"))?;
        let url = match RepoUrl::parse(&repo).map_err(|error| bad("--repo", &error.to_string()))? {
            RepoUrl::Local(path) => RepoUrl::Local(absolute(&path)),
            network => network,
        };
        let root = flags
            .root
            .as_deref()
            .filter(|root| !root.as_os_str().is_empty())
            .map(absolute)
            .ok_or_else(|| {
                bad(
                    "--root",
                    "it is required: a directory that this process may own",
                )
            })?;
        if root.parent().is_none() {
            return Err(bad("--root", "it cannot be the root of the file system"));
        }
        let link = link(&flags.link, &root, &absolute)?;
        let name = target_name(flags.name.as_deref(), &link)?;

        let remote = auth::remote(&flags, url, &absolute)?;
        let sparse = sparse(&flags, &absolute)?;
        let publish_on_paths = flags.publish_on == cli::PublishOn::Paths;
        if publish_on_paths && sparse.is_none() {
            return Err(bad(
                "--publish-on",
                "\"paths\" needs --path or --sparse-checkout-file to name the paths",
            ));
        }

        if flags.git_dir && flags.publish == cli::Publish::Exchange {
            return Err(bad(
                "--git-dir",
                "it does not go with --publish exchange: a tree that is swapped between two places \
                 cannot find its objects from both",
            ));
        }

        let below_root = |path: &PathBuf| normalized(&root.join(path));
        let target = Target {
            reference: reference(&flags.reference)?,
            remote,
            depth: flags.depth,
            layout: Layout {
                root: root.clone(),
                link,
                mode: match flags.publish {
                    cli::Publish::Symlink => PublishMode::Symlink,
                    cli::Publish::Exchange => PublishMode::Exchange,
                },
            },
            tree: TreeOptions {
                jobs: flags.jobs,
                share: match flags.share {
                    cli::Share::Hardlink => Share::Hardlink,
                    cli::Share::Reflink => Share::Reflink,
                    cli::Share::None => Share::None,
                },
                group_write: flags.group_write,
                submodules: match flags.submodules {
                    cli::Submodules::Recursive => SubmoduleMode::Recursive,
                    cli::Submodules::Shallow => SubmoduleMode::Shallow,
                    cli::Submodules::Off => SubmoduleMode::Off,
                },
                sparse,
                git_dir: flags.git_dir,
                depth: flags.depth,
                max_bytes: flags.max_tree_bytes,
                max_files: flags.max_files,
            },
            publish_on_paths,
            keep: flags.keep,
            stale_timeout: flags.stale_timeout,
            schedule: schedule(&flags),
            max_staleness: flags.max_staleness,
            files: FileSettings {
                touch_files: flags.touch_file.iter().map(below_root).collect(),
                error_file: flags.error_file.as_ref().map(below_root),
            },
            name,
        };

        let serve = flags.http_bind.map(|bind| ServeConfig {
            bind,
            nudge: flags.nudge_token_file.as_deref().map(|file| NudgeConfig {
                token_file: absolute(file),
            }),
        });
        if serve.is_none() && flags.nudge_token_file.is_some() {
            return Err(bad("--nudge-token-file", "it needs --http-bind"));
        }
        Ok(Self {
            targets: vec![target],
            serve,
            sync_on_signal: non_empty(flags.sync_on_signal.clone())
                .map(|signal| signal.parse())
                .transpose()
                .map_err(|error: NotASignal| bad("--sync-on-signal", &error.to_string()))?,
        })
    }
}

impl Target {
    /// How to reach another repository that this one refers to: a submodule.
    pub fn remote_for(&self, url: &RepoUrl) -> RemoteConfig {
        self.remote.at(url)
    }
}

#[allow(clippy::disallowed_methods)] // The one place that reads the environment.
fn variable(name: &str) -> Option<String> {
    non_empty(std::env::var(name).ok())
}

fn non_empty(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn bad(what: &str, why: &str) -> ConfigError {
    ConfigError {
        message: format!("{what}: {why}"),
    }
}

/// The path without `.` and `..`, without looking at the disk.
fn normalized(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

fn link(
    typed: &Path,
    root: &Path,
    absolute: &dyn Fn(&Path) -> PathBuf,
) -> Result<PathBuf, ConfigError> {
    let ends_in_a_name = matches!(typed.components().next_back(), Some(Component::Normal(_)));
    if !ends_in_a_name {
        return Err(bad("--link", "it must end in a name"));
    }
    let link = if typed.is_absolute() {
        absolute(typed)
    } else {
        normalized(&root.join(typed))
    };
    if link == root || root.starts_with(&link) {
        return Err(bad("--link", "it must not contain --root"));
    }
    if link.starts_with(root.join(".gvr")) {
        return Err(bad(
            "--link",
            "it must not lie in the root's .gvr directory",
        ));
    }
    Ok(link)
}

fn target_name(typed: Option<&str>, link: &Path) -> Result<String, ConfigError> {
    let leaf = link.file_name().map(|leaf| leaf.to_string_lossy());
    let name = match typed.filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => leaf.unwrap_or_default().into_owned(),
    };
    if name.chars().any(char::is_control) {
        return Err(bad("--name", "it contains a control character"));
    }
    Ok(name)
}

/// See git-check-ref-format(1) for what a ref may not contain.
fn reference(typed: &str) -> Result<RefName, ConfigError> {
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

fn sparse(
    flags: &Flags,
    absolute: &dyn Fn(&Path) -> PathBuf,
) -> Result<Option<Sparse>, ConfigError> {
    if let Some(file) = &flags.sparse_checkout_file {
        let file = absolute(file);
        let patterns = std::fs::read(&file).map_err(|error| {
            bad(
                "--sparse-checkout-file",
                &format!("cannot read {}: {error}", file.display()),
            )
        })?;
        return Ok(Some(Sparse::parse(&patterns)));
    }
    if flags.path.is_empty() {
        return Ok(None);
    }
    for path in &flags.path {
        let inside = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.is_empty() || !inside {
            return Err(bad(
                "--path",
                "it must be a path inside the repository, without a leading slash or ..",
            ));
        }
    }
    Ok(Some(Sparse::from_paths(&flags.path)))
}

fn schedule(flags: &Flags) -> ScheduleConfig {
    let limit = |failures: i64| u64::try_from(failures).ok();
    ScheduleConfig {
        period: flags.period,
        init_period: flags.init_period.unwrap_or(flags.period),
        one_time: flags.one_time,
        allow_stale: flags.allow_stale,
        max_failures: limit(flags.max_failures),
        init_max_failures: match flags.init_max_failures {
            Some(failures) => limit(failures),
            None if flags.one_time => Some(0),
            None => None,
        },
        sync_timeout: flags.sync_timeout,
        stall_timeout: flags.stall_timeout,
    }
}

/// How the log is to be written, known before anything else is.
#[derive(Debug)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is written at all.
    pub filter: tracing_subscriber::EnvFilter,
}

impl LogConfig {
    /// Takes `--log-format` and `--log-level`.
    ///
    /// # Errors
    /// When the level is neither a level nor a filter.
    pub fn resolve(flags: &Flags) -> Result<Self, ConfigError> {
        let filter = tracing_subscriber::EnvFilter::builder()
            .parse(&flags.log_level)
            .map_err(|_| {
                bad(
                    "--log-level",
                    "it must be error, warn, info, debug, trace or a tracing filter",
                )
            })?;
        Ok(Self {
            format: flags.log_format,
            filter,
        })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn resolve(args: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from([&["gvr"], args].concat()).map_err(|e| e.to_string())?;
        Config::resolve(cli.flags).map_err(|e| e.to_string())
    }

    fn with_repo(args: &[&str]) -> Result<Config, String> {
        resolve(&[&["--repo", "https://h/r", "--root", "/v"], args].concat())
    }

    #[test]
    fn paths_become_absolute_and_clean() {
        let config = with_repo(&["--link", "../elsewhere/./docs", "--touch-file", "t"]).unwrap();
        assert_eq!(config.targets[0].layout.link, Path::new("/elsewhere/docs"));
        assert_eq!(config.targets[0].name, "docs");
        assert_eq!(config.targets[0].files.touch_files, [PathBuf::from("/v/t")]);
    }

    #[test]
    fn a_link_cannot_swallow_the_root_or_enter_our_directory() {
        for link in [".", "/", "..", "/v", ".gvr/x", "/v/.gvr"] {
            assert!(with_repo(&["--link", link]).is_err(), "{link}");
        }
    }

    #[test]
    fn a_ref_is_a_branch_a_tag_a_full_name_or_a_commit() {
        assert_eq!(reference("main").unwrap(), RefName::Short("main".into()));
        assert_eq!(
            reference("refs/pull/1/head").unwrap(),
            RefName::Full("refs/pull/1/head".into())
        );
        assert_eq!(reference("HEAD").unwrap(), RefName::Head);
        assert!(matches!(
            reference(&"a".repeat(40)).unwrap(),
            RefName::Commit(_)
        ));
        for wrong in [
            "-x", "a b", "a..b", "a^", "a:b", "x.lock", "/a", "a/", "@{u}", "a\n",
        ] {
            assert!(reference(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn missing_or_contradictory_flags_are_refused_by_name() {
        assert!(
            resolve(&["--root", "/v"])
                .unwrap_err()
                .starts_with("--repo")
        );
        assert!(
            resolve(&["--repo", "/r"])
                .unwrap_err()
                .starts_with("--root")
        );
        assert!(
            with_repo(&["--publish-on", "paths"])
                .unwrap_err()
                .starts_with("--publish-on")
        );
        assert!(
            with_repo(&["--git-dir", "--publish", "exchange"])
                .unwrap_err()
                .starts_with("--git-dir")
        );
        assert!(with_repo(&["--sync-on-signal", "KILL"]).is_err());
        assert!(with_repo(&["--log-level", "info", "--nudge-token-file", "/t"]).is_err());
    }

    #[test]
    fn one_time_gives_up_at_the_first_failure_unless_told_otherwise() {
        let limit = |args: &[&str]| {
            with_repo(args).unwrap().targets[0]
                .schedule
                .init_max_failures
        };
        assert_eq!(limit(&["--one-time"]), Some(0));
        assert_eq!(limit(&["--one-time", "--init-max-failures", "3"]), Some(3));
        assert_eq!(limit(&[]), None);
    }
}
