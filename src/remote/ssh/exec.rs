//! One run of `git-upload-pack` on the server. A protocol machine reads its output; its error text
//! is kept for the error message.
//!
//! This module does not know the git protocol.

use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg};

use crate::base::error::{Reason, SyncError};
use crate::base::text::printable;
use crate::remote::protocol::{Decoder, Machine, Step};

use super::connection::{Connection, Operation};

/// Bytes of the command's error text that are kept.
const MAX_STDERR: usize = 4 << 10;

/// Bytes of error text after which the command is given up.
const MAX_STDERR_READ: u64 = 1 << 20;

/// How long an idle connection may take to open a channel before it counts as dead. It may have
/// died unnoticed, and opening a new one costs little.
const PROBE: Duration = Duration::from_secs(5);

/// How long the server may take to close a channel whose answer is complete.
const CLOSE: Duration = Duration::from_secs(2);

/// Time for the last message on a channel to reach the socket. A server that allows one session
/// refuses the next channel until it has that message.
const FLUSH: Duration = Duration::from_millis(1);

/// A running command.
pub(super) struct Exec<'a> {
    connection: &'a Connection,
    operation: Operation<'a>,
    /// The repository's address, for messages.
    remote: &'a str,
    channel: Channel<Msg>,
    decoder: Decoder,
    /// Output that came with the last message and that no machine has taken yet.
    pending: Vec<u8>,
    stderr: Vec<u8>,
    stderr_bytes: u64,
    exit: Option<u32>,
}

impl<'a> Exec<'a> {
    /// Starts a command on its own channel, asking for protocol version 2 by the environment, as
    /// git does (gitprotocol-v2, "SSH and File Transport"). `reused` says whether the connection
    /// was idle before.
    pub(super) fn start(
        connection: &'a Connection,
        operation: Operation<'a>,
        remote: &'a str,
        command: &str,
        reused: bool,
    ) -> Result<Self, SyncError> {
        const WHAT: &str = "opening a session on";
        let handle = connection.handle(operation)?;
        let limit = reused.then_some(PROBE);
        let channel = connection.session(operation, WHAT, limit, handle.channel_open_session())?;
        let begin = async {
            channel.set_env(false, "GIT_PROTOCOL", "version=2").await?;
            channel.exec(true, command).await
        };
        connection.session(operation, WHAT, None, begin)?;
        Ok(Self {
            connection,
            operation,
            remote,
            channel,
            decoder: Decoder::new(),
            pending: Vec::new(),
            stderr: Vec::new(),
            stderr_bytes: 0,
            exit: None,
        })
    }

    /// Writes to the command.
    pub(super) fn send(&mut self, request: Vec<u8>) -> Result<(), SyncError> {
        let sent = self.channel.data_bytes(request);
        self.connection
            .session(self.operation, "sending the request to", None, sent)
    }

    /// Feeds the command's output to `machine` until it is done.
    pub(super) fn read(&mut self, machine: &mut dyn Machine) -> Result<(), SyncError> {
        let pending = std::mem::take(&mut self.pending);
        let mut step = self.feed(&pending, machine)?;
        while step == Step::More {
            step = self.next(machine)?;
        }
        Ok(())
    }

    /// Ends the command and its channel after a complete answer; says whether the connection can
    /// carry another one. `goodbye` is the protocol's last message.
    pub(super) fn finish(mut self, goodbye: &'static [u8]) -> bool {
        let end = async {
            // Not close(): russh would then drop the server's CLOSE, and the wait would never end.
            // A command that has exited already does not read the goodbye, which is no failure.
            if !goodbye.is_empty() {
                let _ = self.channel.data_bytes(goodbye).await;
            }
            let _ = self.channel.eof().await;
            loop {
                match self.channel.wait().await {
                    Some(ChannelMsg::Close) => break,
                    Some(_) => {}
                    None => return false,
                }
            }
            tokio::time::sleep(FLUSH).await;
            true
        };
        let what = "closing the session on";
        self.connection
            .drive(self.operation, what, Some(CLOSE), end)
            .unwrap_or(false)
    }

    /// Gives output to the machine, and keeps the rest for the next machine.
    fn feed(&mut self, output: &[u8], machine: &mut dyn Machine) -> Result<Step, SyncError> {
        let (used, step) = self
            .decoder
            .feed(output, machine)
            .map_err(|error| error.at(self.operation.stage, &self.remote))?;
        self.pending.extend_from_slice(&output[used..]);
        Ok(step)
    }

    /// Waits for the next message on the channel.
    fn next(&mut self, machine: &mut dyn Machine) -> Result<Step, SyncError> {
        const WHAT: &str = "reading from";
        let waiting = self.channel.wait();
        match self.connection.drive(self.operation, WHAT, None, waiting)? {
            Some(ChannelMsg::Data { data }) => return self.feed(&data, machine),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                self.stderr_bytes += data.len() as u64;
                if self.stderr_bytes > MAX_STDERR_READ {
                    return Err(self.operation.error(
                        Reason::Limit,
                        format!("{} sends more than 1 MiB of error text", self.remote),
                    ));
                }
                let room = MAX_STDERR.saturating_sub(self.stderr.len());
                self.stderr.extend_from_slice(&data[..data.len().min(room)]);
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => self.exit = Some(exit_status),
            Some(ChannelMsg::Failure) => {
                return Err(self
                    .operation
                    .error(
                        Reason::Auth,
                        format!("{} does not let this key run git-upload-pack", self.remote),
                    )
                    .with_hint(
                        "check that the key may read repositories, and that the account is not for SFTP only",
                    ));
            }
            Some(ChannelMsg::Close) => return Err(self.ended()),
            // The channel ended without a CLOSE, so the connection ended.
            None => return Err(self.connection.lost(self.operation, WHAT)),
            Some(_) => {}
        }
        Ok(Step::More)
    }

    /// The error for a command that ended before its answer was complete.
    fn ended(&self) -> SyncError {
        let text = printable(String::from_utf8_lossy(&self.stderr).trim());
        let (reason, hint) = classify(&text.to_ascii_lowercase(), self.exit);
        let status = match self.exit {
            Some(status) => format!("exited with status {status}"),
            None => "ended without a status".to_owned(),
        };
        let message = if text.is_empty() {
            format!(
                "git-upload-pack on {} {status} before its answer was complete",
                self.remote
            )
        } else {
            format!("{} refused ({status}): {text}", self.remote)
        };
        let error = self.operation.error(reason, message);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// The reason of a failed command, by the phrases that servers of git and of the large hosting
/// services print.
fn classify(text: &str, exit: Option<u32>) -> (Reason, Option<&'static str>) {
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if exit == Some(127) || has(&["command not found"]) {
        (
            Reason::Server,
            Some("install git on the server, in the PATH of non-interactive logins"),
        )
    } else if has(&["dubious ownership"]) {
        (
            Reason::Server,
            Some("on the server, let the repository belong to the login user (safe.directory)"),
        )
    } else if has(&[
        "not appear to be a git repository",
        "not found",
        "could not be found",
        "does not exist",
        "no such file or directory",
        "not a git repository",
    ]) {
        (
            Reason::NotFound,
            Some("check the path in --repo, and that this key may read it"),
        )
    } else if has(&[
        "permission",
        "denied",
        "not allowed",
        "forbidden",
        "authoriz",
        "authenti",
        "not available",
    ]) {
        (
            Reason::Auth,
            Some("let the key read the repository (deploy key)"),
        )
    } else if exit.is_none() && text.is_empty() {
        (Reason::Network, None)
    } else {
        (Reason::Server, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_and_the_status_of_the_command_decide_the_reason() {
        for (text, exit, reason) in [
            ("error: repository not found.", Some(1), Reason::NotFound),
            (
                "fatal: '/x' does not appear to be a git repository",
                Some(128),
                Reason::NotFound,
            ),
            (
                "bash: git-upload-pack: command not found",
                Some(127),
                Reason::Server,
            ),
            ("permission to x denied", Some(1), Reason::Auth),
            ("fatal: out of memory", Some(128), Reason::Server),
            ("", None, Reason::Network),
            ("", Some(1), Reason::Server),
        ] {
            assert_eq!(classify(text, exit).0, reason, "{text}");
        }
    }
}
