//! The command line's side: asks a running instance, and shows the answer to people.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::server::{directory, within};
use super::{Answer, MAX_ANSWER, Request, SOCKET, What};
use crate::base::text::printable;

/// How long an answer may take: somewhat longer than the instance waits for its sync thread.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the instance that uses this root. Returns what to print: JSON for `status` with `json`,
/// else lines for people.
///
/// # Errors
/// What failed and what to do about it, for people.
pub fn ask(root: &Path, request: &Request, json: bool) -> Result<String, String> {
    let answer = exchange(root, request).map_err(|error| explain(root, &error))?;
    match answer {
        Answer::Failed(why) => Err(printable(&why)),
        Answer::Done(document) if request.what == What::Status => {
            if json {
                return serde_json::to_string_pretty(&document).map_err(|e| e.to_string());
            }
            Ok(shown(&document))
        }
        Answer::Done(Value::String(sentence)) => Ok(printable(&sentence)),
        Answer::Done(other) => Ok(other.to_string()),
    }
}

fn exchange(root: &Path, request: &Request) -> io::Result<Answer> {
    let directory = directory(root)?;
    let mut socket = UnixStream::connect(within(&directory, SOCKET))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer)?;
    if answer.is_empty() {
        let busy = "it closed the connection: too many are asking at once";
        return Err(io::Error::other(busy));
    }
    Ok(serde_json::from_slice(&answer)?)
}

fn explain(root: &Path, error: &io::Error) -> String {
    let root = root.display();
    match error.kind() {
        ErrorKind::NotFound => format!(
            "no instance has a control socket in {root}: give the --root of a sidecar that runs \
             (--one-time has none)"
        ),
        ErrorKind::ConnectionRefused => {
            format!("nobody listens in {root}: the instance that did has ended")
        }
        ErrorKind::PermissionDenied => format!(
            "the control socket in {root} is only for the user that the instance runs as: {error}"
        ),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("the instance in {root} does not answer")
        }
        _ => format!("cannot ask the instance in {root}: {error}"),
    }
}

/// The status of every target as aligned lines, targets separated by an empty line.
fn shown(status: &Value) -> String {
    let targets = status["targets"].as_array().map_or(&[][..], Vec::as_slice);
    let blocks: Vec<String> = targets.iter().map(block).collect();
    blocks.join("\n")
}

fn block(target: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    };
    let commit = &target["commit"];
    let readers_see = match commit {
        Value::Null => "nothing yet".to_owned(),
        commit => format!(
            "{}  {} ({}, {})",
            text(&commit["id"]),
            text(&commit["subject"]),
            text(&commit["author"]),
            text(&commit["time"])
        ),
    };
    let upstream = match &target["upstream"] {
        Value::Null => "not known yet".to_owned(),
        same if *same == commit["id"] => "the same".to_owned(),
        other => text(other),
    };
    let flag = |name: &str| target[name].as_bool().unwrap_or_default();
    let health = match (flag("live"), flag("ready"), flag("stale")) {
        (false, ..) => "stuck",
        (_, true, _) => "ready",
        (_, _, true) => "stale: the last successful poll is longer ago than --max-staleness",
        _ => "not ready",
    };
    let mut lines = vec![
        ("target", text(&target["target"])),
        ("repository", text(&target["repo"])),
        ("ref", text(&target["ref"])),
        ("link", text(&target["link"])),
        ("commit", readers_see),
        ("published", text(&target["published_at"])),
        ("upstream", upstream),
        ("health", health.to_owned()),
    ];
    if let pin @ Value::Object(_) = &target["pinned"] {
        let held = format!("{} since {}", text(&pin["commit"]), text(&pin["since"]));
        lines.push(("pinned", held));
    }
    lines.push(("last success", text(&target["last_success"])));
    lines.push(("next poll", text(&target["next_poll"])));
    let failures = target["consecutive_failures"].as_u64().unwrap_or_default();
    if failures > 0 {
        let error = &target["last_error"];
        lines.push((
            "failing",
            format!("{failures} times: {}", text(&error["message"])),
        ));
        if !error["hint"].is_null() {
            lines.push(("advice", text(&error["hint"])));
        }
    }
    lines.push(("revisions", text(&target["revisions_kept"])));
    lines.push(("version", text(&target["version"])));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .fold(String::new(), |mut block, (name, value)| {
            // Writing to memory cannot fail.
            let _ = writeln!(block, "{name:width$}  {value}");
            block
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_aligned_lines() {
        let commit = "a".repeat(40);
        let status = json!({"targets": [{
            "target": "docs", "repo": "https://example.org/docs.git", "ref": "main",
            "link": "/v/current", "version": "1", "live": true, "ready": true, "stale": false,
            "commit": {"id": commit, "subject": "Say \u{1b}[31mhello", "author": "A", "time": "t"},
            "upstream": commit, "published_at": null, "last_success": "now", "next_poll": null,
            "pinned": {"commit": commit, "since": "noon"}, "consecutive_failures": 2,
            "last_error": {"message": "no", "hint": "log in"}, "revisions_kept": 2,
        }]});
        let text = shown(&status);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "target        docs");
        assert!(lines.contains(&"upstream      the same"));
        assert!(lines.contains(&"health        ready"));
        assert!(lines.contains(&&*format!("pinned        {commit} since noon")));
        assert!(lines.contains(&"failing       2 times: no"));
        assert!(!text.contains('\u{1b}'));
        let nothing = shown(&json!({"targets": [{}]}));
        assert!(nothing.contains("commit        nothing yet\n"), "{nothing}");
    }

    #[test]
    fn without_an_instance_the_error_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request {
            what: What::Status,
            target: None,
        };
        let error = ask(dir.path(), &request, false).unwrap_err();
        assert!(error.contains("no instance"), "{error}");
        std::fs::create_dir(dir.path().join(".gvr")).unwrap();
        let socket = dir.path().join(".gvr").join(SOCKET);
        drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
        let error = ask(dir.path(), &request, false).unwrap_err();
        assert!(error.contains("has ended"), "{error}");
    }
}
