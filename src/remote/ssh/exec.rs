//! One run of `git-upload-pack` on the server: its output to a protocol machine, its error text
//! kept for the message if it fails.
//!
//! This module does not know what is asked or answered.

use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg};

use crate::base::error::{Reason, SyncError};
use crate::base::text::printable;
use crate::remote::protocol::{Decoder, Machine, Step};

use super::connection::{Connection, Operation};

/// The most that is kept of the command's error text.
const MAX_STDERR: usize = 4 << 10;

/// The most error text that is listened to at all.
const ENDLESS_STDERR: u64 = 1 << 20;

/// How long a connection that was idle may take to open a channel before it counts as dead: such
/// a connection may have died unnoticed, and a fresh one is cheap.
const PROBE: Duration = Duration::from_secs(5);

/// How long the server may take to close a channel whose answer is complete.
const CLOSE: Duration = Duration::from_secs(2);

/// Time for the last reply on a channel to reach the socket. Servers that allow one session would
/// refuse the next channel before it arrives.
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
    /// carry another one. `goodbye` is what the protocol wants to hear at the end.
    pub(super) fn finish(mut self, goodbye: &'static [u8]) -> bool {
        let end = async {
            // Not close(): the server's own CLOSE would then go unnoticed and the wait never end.
            // A command that has exited already does not take a goodbye; that is no failure.
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

    /// Gives output to the machine; what it leaves is kept for the next one.
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
                if self.stderr_bytes > ENDLESS_STDERR {
                    return Err(self.operation.error(
                        Reason::Limit,
                        format!("{} sends error text without end", self.remote),
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
                        "check that the key may read repositories, and is no SFTP account",
                    ));
            }
            Some(ChannelMsg::Close) => return Err(self.ended()),
            // The channel is gone without a CLOSE: so is the connection.
            None => return Err(self.connection.lost(self.operation, WHAT)),
            Some(_) => {}
        }
        Ok(Step::More)
    }

    /// The error for a command that ended before its answer was complete.
    fn ended(&self) -> SyncError {
        let said = printable(String::from_utf8_lossy(&self.stderr).trim());
        let (reason, hint) = classify(&said.to_ascii_lowercase(), self.exit);
        let status = match self.exit {
            Some(status) => format!("exited with status {status}"),
            None => "ended without a status".to_owned(),
        };
        let message = if said.is_empty() {
            format!(
                "git-upload-pack on {} {status} before its answer was complete",
                self.remote
            )
        } else {
            format!("{} refused ({status}): {said}", self.remote)
        };
        let error = self.operation.error(reason, message);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// The class of a failed command by the words that git's and the large hosts' servers use.
fn classify(said: &str, exit: Option<u32>) -> (Reason, Option<&'static str>) {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if exit == Some(127) || says(&["command not found"]) {
        (
            Reason::Server,
            Some("install git on the server, in the PATH of non-interactive logins"),
        )
    } else if says(&["dubious ownership"]) {
        (
            Reason::Server,
            Some("on the server, let the repository belong to the login user (safe.directory)"),
        )
    } else if says(&[
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
    } else if says(&[
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
    } else if exit.is_none() && said.is_empty() {
        (Reason::Network, None)
    } else {
        (Reason::Server, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_decides_the_reason() {
        for (said, exit, reason) in [
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
            assert_eq!(classify(said, exit).0, reason, "{said}");
        }
    }
}
