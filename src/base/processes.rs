//! The processes of this process namespace, as /proc lists them.

use std::fs;

use rustix::process::Pid;

/// A process at the moment when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its parent; `None` if that is outside the namespace.
    pub parent: Option<Pid>,
    /// Whether it has ended and waits to be reaped.
    pub is_zombie: bool,
}

/// Every process. Those that end meanwhile are left out; without /proc there is none.
pub fn all() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let stat = fs::read(entry.path().join("stat")).ok()?;
            let (parent, is_zombie) = parse(&String::from_utf8_lossy(&stat))?;
            Some(Process {
                pid,
                parent,
                is_zombie,
            })
        })
}

/// The parent and the state in a line of proc_pid_stat(5).
fn parse(stat: &str) -> Option<(Option<Pid>, bool)> {
    // The name in parentheses may hold parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    let parent = fields.next()?.parse().ok()?;
    Some((Pid::from_raw(parent), is_zombie))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_fields_after_it() {
        let parsed = parse("7 (a) Z 1 (b) S 3 7 7").unwrap();
        assert_eq!(parsed, (Pid::from_raw(3), false));
        assert_eq!(parse("7 (a) Z 0 7").unwrap(), (None, true));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn this_process_is_listed_with_its_parent() {
        let own = rustix::process::getpid();
        let found = all().find(|process| process.pid == own).unwrap();
        assert_eq!(found.parent, rustix::process::getppid());
    }
}
