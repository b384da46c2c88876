//! The command: parse, resolve, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use git_volume_reloader::app::{self, healthcheck, logging};
use git_volume_reloader::cli::{self, Cli, Command};
use git_volume_reloader::config::{Config, LogConfig};
use git_volume_reloader::control::{Request, What, client};

/// Bad usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(error) => return app::last_words(USAGE, &cli::usage(error)),
    };
    if let Some(command) = cli.command {
        return match run(command) {
            Ok(text) => {
                app::say(&text);
                ExitCode::SUCCESS
            }
            // Standard error only: the termination message belongs to the main process of the
            // container that the command runs in.
            Err(error) => {
                app::complain(&error);
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

/// Runs a command other than the main job. Returns what to print.
fn run(command: Command) -> Result<String, String> {
    let (what, instance, json) = match command {
        Command::Healthcheck {
            probe,
            http_bind,
            timeout,
        } => {
            let healthy = healthcheck::run(http_bind, probe, timeout);
            return healthy.map(|()| String::new()).map_err(|e| e.to_string());
        }
        Command::Status { instance, json } => (What::Status, instance, json),
        Command::Nudge { instance } => (What::Nudge, instance, false),
        Command::Pin { to, instance } => (What::Pin(to), instance, false),
        Command::Unpin { instance } => (What::Unpin, instance, false),
        Command::Recheck { instance } => (What::Recheck, instance, false),
    };
    let target = instance.target;
    client::ask(&instance.root, &Request { what, target }, json)
}
