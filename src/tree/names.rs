//! The names in a tree that git refuses to check out.
//!
//! The rules are those of git's `verify_path` on Linux with its defaults (`core.protectNTFS` on,
//! `core.protectHFS` off): a hostile repository must not write into a `.git` directory, here or on
//! another system that mounts the volume.

/// The longest name on Linux file systems, in bytes.
pub(super) const NAME_LIMIT: usize = 255;

/// The longest path within a tree, in bytes: the kernel's limit for one system call.
pub(super) const PATH_LIMIT: usize = 4095;

/// Why an entry with this name must not be written; `None` if it may be.
pub(super) fn refused(name: &[u8], symlink: bool) -> Option<&'static str> {
    match name {
        b"" => return Some("it has no name"),
        b"." | b".." => return Some("its name leads out of its directory"),
        _ if name.contains(&b'/') => return Some("its name contains a slash"),
        _ => {}
    }
    if name.eq_ignore_ascii_case(b".git") {
        return Some("it would be the control directory of a repository");
    }
    if symlink && name.eq_ignore_ascii_case(b".gitmodules") {
        return Some(".gitmodules must not be a symbolic link");
    }
    // A backslash separates directories on NTFS.
    let mut rest = Some(name);
    while let Some(part) = rest {
        if is_ntfs_dotgit(part) {
            return Some("NTFS would take it for the control directory of a repository");
        }
        if symlink && is_ntfs_dotgitmodules(part) {
            return Some(".gitmodules, as NTFS would read the name, must not be a symbolic link");
        }
        rest = part
            .iter()
            .position(|byte| *byte == b'\\')
            .map(|at| &part[at + 1..]);
    }
    None
}

/// git's `is_ntfs_dotgit`: `.git` or `git~1`, then only dots and spaces up to the end, a colon or
/// a backslash.
fn is_ntfs_dotgit(name: &[u8]) -> bool {
    let rest = match name.first() {
        Some(b'.') if starts_with(&name[1..], b"git") => &name[4..],
        Some(b'g' | b'G') if starts_with(name, b"git~1") => &name[5..],
        _ => return false,
    };
    for byte in rest {
        match byte {
            b'\\' | b':' => return true,
            b'.' | b' ' => {}
            _ => return false,
        }
    }
    true
}

/// git's `is_ntfs_dotgitmodules`: the long name, its regular short names (`GITMOD~1` to `~4`) and
/// its fall-back short names (`GI7EBA~1`).
fn is_ntfs_dotgitmodules(name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && starts_with(&name[1..], b"gitmodules") {
        return only_spaces_and_periods(&name[11..]);
    }
    if starts_with(name, b"gitmod")
        && name.get(6) == Some(&b'~')
        && name
            .get(7)
            .is_some_and(|digit| (b'1'..=b'4').contains(digit))
    {
        return only_spaces_and_periods(&name[8..]);
    }
    let mut tilde = false;
    let mut at = 0;
    while at < 8 {
        let Some(byte) = name.get(at) else {
            return false;
        };
        if tilde {
            if !byte.is_ascii_digit() {
                return false;
            }
        } else if *byte == b'~' {
            at += 1;
            if !name
                .get(at)
                .is_some_and(|digit| (b'1'..=b'9').contains(digit))
            {
                return false;
            }
            tilde = true;
        } else if at >= 6 || byte.to_ascii_lowercase() != b"gi7eba"[at] {
            return false;
        }
        at += 1;
    }
    only_spaces_and_periods(name.get(at..).unwrap_or_default())
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn only_spaces_and_periods(rest: &[u8]) -> bool {
    for byte in rest {
        match byte {
            b':' => return true,
            b' ' | b'.' => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_refuses_is_refused() {
        let names: [&[u8]; 17] = [
            b"",
            b".",
            b"..",
            b"a/b",
            b".git",
            b".GIT",
            b".gIt",
            b"git~1",
            b"GIT~1",
            b".git ",
            b".git.",
            b".git . .",
            b".git:x",
            b".git\\x",
            b"a\\.git",
            b"git~1 ",
            b"x\\git~1:",
        ];
        for name in names {
            assert!(refused(name, false).is_some(), "{}", name.escape_ascii());
        }
        let links: [&[u8]; 7] = [
            b".gitmodules",
            b".GITMODULES",
            b".gitmodules ",
            b"gitmod~1",
            b"GITMOD~4",
            b"gi7eba~1",
            b"gi7eb~10",
        ];
        for name in links {
            assert!(refused(name, true).is_some(), "{}", name.escape_ascii());
            assert!(refused(name, false).is_none(), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn what_git_takes_is_taken() {
        let names: [&[u8]; 10] = [
            b"...",
            b".gitignore",
            b".gitattributes",
            b"git",
            b"git~2",
            b".git2",
            b".gi",
            b"a\\b",
            b"\xff\n",
            b".git~1",
        ];
        for name in names {
            assert!(refused(name, true).is_none(), "{}", name.escape_ascii());
        }
    }
}
