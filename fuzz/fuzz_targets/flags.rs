//! Any command line is a configuration, or an error with a message.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use clap::Parser as _;
use git_volume_reloader::cli::Cli;
use git_volume_reloader::config::{Config, LogConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let words = bytes.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let command = [OsStr::new("git-volume-reloader")];
    match Cli::try_parse_from(command.into_iter().chain(words)) {
        Ok(mut cli) => {
            // Would read whatever file the fuzzer thinks of.
            cli.flags.tree.sparse_checkout_file = None;
            if let Err(error) = LogConfig::resolve(&cli.flags.log) {
                assert!(!error.to_string().is_empty());
            }
            if let Err(error) = Config::resolve(&cli.flags) {
                assert!(!error.to_string().is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
