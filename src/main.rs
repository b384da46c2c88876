//! The command: parse, resolve, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use git_volume_reloader::cli::{Cli, Command};
use git_volume_reloader::config::{Config, LogConfig};
use git_volume_reloader::{healthcheck, logging, process};

/// Bad usage or configuration; clap exits with the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Healthcheck {
        probe,
        http_bind,
        timeout,
    }) = cli.command
    {
        return match healthcheck::run(http_bind, probe, timeout) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => process::last_words(1, &error.to_string()),
        };
    }
    let resolved = LogConfig::resolve(&cli.flags)
        .and_then(|log| Config::resolve(cli.flags).map(|config| (log, config)));
    match resolved {
        Ok((log, config)) => {
            logging::install(log);
            process::run(config)
        }
        Err(error) => process::last_words(USAGE, &error.to_string()),
    }
}
