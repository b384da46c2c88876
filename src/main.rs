//! The command: parse, resolve, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use git_volume_reloader::app::{self, healthcheck, logging};
use git_volume_reloader::cli::{self, Cli, Command};
use git_volume_reloader::config::{Config, LogConfig};

/// Bad usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(error) => return app::last_words(USAGE, &cli::usage(error)),
    };
    if let Some(Command::Healthcheck {
        probe,
        http_bind,
        timeout,
    }) = cli.command
    {
        return match healthcheck::run(http_bind, probe, timeout) {
            Ok(()) => ExitCode::SUCCESS,
            // Standard error only: the termination message belongs to the main process of the
            // container that the probe runs in.
            Err(error) => {
                app::complain(&error.to_string());
                ExitCode::FAILURE
            }
        };
    }
    let resolved = LogConfig::resolve(&cli.flags.log)
        .and_then(|log| Config::resolve(&cli.flags).map(|config| (log, config)));
    match resolved {
        Ok((log, config)) => {
            logging::install(log);
            app::run(config)
        }
        Err(error) => app::last_words(USAGE, &error.to_string()),
    }
}
