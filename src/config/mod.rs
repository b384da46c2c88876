//! What the flags and the environment mean: absolute paths, validated values, unprintable secrets.
//!
//! Each file turns the flags of one room into the options of that room. This module is the only one
//! that reads the environment. It does not touch the network or the root: errors there are errors of
//! a sync, not of the configuration.

mod auth;
mod environment;
mod error;
mod gate;
mod git;
mod hooks;
mod log;
mod network;
mod notify;
mod paths;
mod schedule;
mod serve;
mod target;
mod tree;
mod volume;

pub use error::ConfigError;
pub use log::LogConfig;
pub use serve::ServeConfig;

use error::bad;

use crate::base::signal::{NotASignal, Signal};
use crate::cli::Flags;
use crate::target::Target;

/// Everything the process needs to know.
#[derive(Debug)]
pub struct Config {
    /// The targets to keep equal to their refs. The flags configure one.
    pub targets: Vec<Target>,
    /// What is served over HTTP, if anything.
    pub serve: Option<ServeConfig>,
    /// The signal that triggers a poll.
    pub sync_on_signal: Option<Signal>,
}

impl Config {
    /// Validates the flags and reads the variables that are not flags.
    ///
    /// # Errors
    /// Names the flag, what is wrong with its value, and what would be right; never a secret.
    pub fn resolve(flags: &Flags) -> Result<Self, ConfigError> {
        let from = paths::WorkingDirectory::current()?;
        Ok(Self {
            targets: vec![target::target(flags, &from)?],
            serve: serve::serve(&flags.serve, &from)?,
            sync_on_signal: environment::non_empty(flags.schedule.sync_on_signal.clone())
                .map(|signal| signal.parse())
                .transpose()
                .map_err(|error: NotASignal| bad("--sync-on-signal", &error.to_string()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::remote::RefName;
    use crate::target::PublishOn;

    fn resolve(args: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from([&["gvr"], args].concat()).map_err(|e| e.to_string())?;
        Config::resolve(&cli.flags).map_err(|e| e.to_string())
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
    fn a_file_for_other_programs_is_outside_the_tree_and_a_regular_file() {
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().unwrap();
        let (root, at) = (dir.path().join("v"), |name: &str| dir.path().join(name));
        std::fs::create_dir_all(root.join(".gvr/revisions/1")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(root.join(".gvr/revisions"), at("way-in")).unwrap();
        symlink(".gvr/revisions/1", root.join("current")).unwrap();
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), kind, mode, 0).unwrap();
        let root = root.to_str().unwrap();
        let result = |flag: &str, path: &str| {
            resolve(&["--repo", "https://h/r", "--root", root, flag, path])
        };
        for flag in ["--touch-file", "--error-file", "--status-file"] {
            for (path, why) in [
                (at("fifo"), "not a regular file"),
                (at("directory"), "directory"),
                (at("link"), "symbolic link"),
                (at("way-in/x"), ".gvr"),
                ("current/x".into(), "tree"),
                ("current".into(), "tree"),
                (".gvr/x".into(), ".gvr"),
                ("other/../.gvr/x".into(), ".gvr"),
            ] {
                let error = result(flag, path.to_str().unwrap()).map(drop).unwrap_err();
                assert!(error.starts_with(flag) && error.contains(why), "{error}");
            }
            for path in [at("file"), at("new"), "beside".into()] {
                result(flag, path.to_str().unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn more_threads_than_256_are_refused() {
        assert_eq!(
            with_repo(&["--jobs", "256"]).unwrap().targets[0].tree.jobs,
            256
        );
        let error = with_repo(&["--jobs", "100000"]).map(drop).unwrap_err();
        assert!(error.contains("--jobs") && error.contains("256"), "{error}");
    }

    #[test]
    fn a_link_cannot_swallow_the_root_or_enter_our_directory() {
        for link in [".", "/", "..", "/v", ".gvr/x", "/v/.gvr"] {
            assert!(with_repo(&["--link", link]).is_err(), "{link}");
        }
    }

    #[test]
    fn a_ref_is_a_branch_a_tag_a_full_name_or_a_commit() {
        let reference = |typed: &str| {
            with_repo(&["--ref", typed])
                .unwrap()
                .targets
                .remove(0)
                .reference
        };
        assert_eq!(reference("main"), RefName::Short("main".into()));
        assert_eq!(
            reference("refs/pull/1/head"),
            RefName::Full("refs/pull/1/head".into())
        );
        assert_eq!(reference("HEAD"), RefName::Head);
        assert!(matches!(reference(&"a".repeat(40)), RefName::Commit(_)));
    }

    #[test]
    fn a_malformed_ref_is_refused() {
        for wrong in [
            "-x", "a b", "a..b", "a^", "a:b", "x.lock", "/a", "a/", "@{u}", "a\n",
        ] {
            let error = with_repo(&[&format!("--ref={wrong}")]).unwrap_err();
            assert!(error.starts_with("--ref"), "{wrong:?}: {error}");
        }
    }

    fn assert_refuses(result: Result<Config, String>, flag: &str) {
        let error = result.map(drop).unwrap_err();
        assert!(error.starts_with(flag), "{flag}: {error}");
    }

    #[test]
    fn a_missing_flag_is_named() {
        assert_refuses(resolve(&["--root", "/v"]), "--repo");
        assert_refuses(resolve(&["--repo", "/r"]), "--root");
    }

    #[test]
    fn publishing_by_paths_needs_paths() {
        let paths = ["--publish-on", "paths"];
        assert_refuses(with_repo(&paths), "--publish-on");
        let target = with_repo(&[&paths[..], &["--path", "docs"]].concat())
            .unwrap()
            .targets
            .remove(0);
        let patterns = target.tree.sparse.unwrap();
        assert_eq!(target.publish_on, PublishOn::Paths(patterns));
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused() {
        assert_refuses(
            with_repo(&["--git-dir", "--publish", "exchange"]),
            "--git-dir",
        );
        assert_refuses(
            with_repo(&["--nudge-token-file", "/t"]),
            "--nudge-token-file",
        );
    }

    #[test]
    fn nudges_need_a_secret_and_an_address() {
        assert_refuses(
            with_repo(&["--nudge-secret-file", "/s"]),
            "--nudge-secret-file",
        );
        assert_refuses(with_repo(&["--nudge-bind", ":1"]), "--nudge-bind");
        let topic = "arn:aws:sns:eu-central-1:1:git";
        let with_topic = |topic, more: &[&str]| {
            with_repo(&[&["--http-bind", ":0", "--nudge-sns-topic", topic], more].concat())
        };
        assert_refuses(with_topic(topic, &[]), "--nudge-sns-topic");
        let secret = ["--nudge-secret-file", "a,b"];
        assert_refuses(with_topic("git", &secret), "--nudge-sns-topic");
        let serve = with_topic(topic, &secret).unwrap().serve.unwrap();
        assert_eq!(serve.nudge.unwrap().secret_files.len(), 2);
        let own = with_repo(&["--nudge-bind", ":1", "--nudge-token-file", "/t"]).unwrap();
        assert!(own.serve.unwrap().bind.is_none());
    }

    #[test]
    fn only_a_signal_that_may_be_chosen_is_accepted() {
        assert_refuses(with_repo(&["--sync-on-signal", "KILL"]), "--sync-on-signal");
        let config = with_repo(&["--sync-on-signal", "usr1"]).unwrap();
        assert_eq!(config.sync_on_signal, Some(Signal::Usr1));
    }

    #[test]
    fn a_file_of_patterns_that_is_no_regular_file_is_refused() {
        for file in ["/dev/zero", "/"] {
            let result = with_repo(&["--sparse-checkout-file", file]);
            assert_refuses(result, "--sparse-checkout-file");
        }
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
