//! Git's sparse-checkout patterns: which paths of a commit are written.
//!
//! The patterns are those of `git help sparse-checkout`. A file that cone mode wrote has the same
//! meaning here. A list without cone mode's first two lines (`/*`, `!/*/`) is read as plain patterns:
//! the files of the top directory are not added. The last pattern that matches a path decides. A path
//! that no pattern matches is included if its directory is; the top directory is not included unless
//! a pattern matches. Unlike in `.gitignore` files, paths below an excluded directory can be included.

use gix_glob::Pattern;
use gix_glob::pattern::Mode;

use super::effort::Effort;
use super::glob;

/// A list of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    patterns: Vec<Pattern>,
    /// The text of the patterns, for the fingerprint.
    text: Vec<u8>,
}

impl Sparse {
    /// Parses a sparse-checkout file. Lines that are not patterns are skipped, as in git.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut sparse = Self::default();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.first() != Some(&b'#') {
                sparse.push(trim_trailing_spaces(line));
            }
        }
        sparse
    }

    /// Includes a file, or a directory with everything below it. Wildcards in the path have no special
    /// meaning.
    pub fn add_path(&mut self, path: &str) {
        let path = path.trim_start_matches("./").trim_matches('/');
        if path.is_empty() || path == "." {
            self.push(b"/*");
            return;
        }
        let mut pattern = vec![b'/'];
        for byte in path.bytes() {
            if b"*?[\\".contains(&byte) {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        self.push(&pattern);
    }

    /// Patterns that include exactly these paths and everything below them.
    pub fn from_paths<P: AsRef<str>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut sparse = Self::default();
        for path in paths {
            sparse.add_path(path.as_ref());
        }
        sparse
    }

    /// The text of the patterns, for a fingerprint: equal bytes select equal paths.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether the path is included. `inherited` says whether its directory is; it is false for the
    /// top directory.
    pub fn includes(&self, path: &[u8], directory: bool, inherited: bool) -> bool {
        // The patterns are the operator's, so the work is not limited; callers look at the budget
        // between two paths.
        let mut effort = Effort::new(u64::MAX, &|| Ok(()));
        self.patterns
            .iter()
            .rev()
            .find(|pattern| glob::matches(pattern, path, directory, &mut effort).unwrap_or(false))
            .map_or(inherited, |pattern| !pattern.is_negative())
    }

    /// Whether a path below a directory that is not included may be included.
    pub fn may_include_below(&self, directory: &[u8]) -> bool {
        self.patterns
            .iter()
            .any(|pattern| !pattern.is_negative() && may_match_below(pattern, directory))
    }

    fn push(&mut self, line: &[u8]) {
        if let Some(pattern) = Pattern::from_bytes(line) {
            self.patterns.push(pattern);
            self.text.extend_from_slice(line);
            self.text.push(b'\n');
        }
    }
}

fn may_match_below(pattern: &Pattern, directory: &[u8]) -> bool {
    if pattern.mode.contains(Mode::NO_SUB_DIR) && !pattern.mode.contains(Mode::ABSOLUTE) {
        return true;
    }
    let text: &[u8] = pattern.text.as_ref();
    let literal = &text[..pattern.first_wildcard_pos.unwrap_or(text.len())];
    let below = [directory, b"/"].concat();
    if literal.len() >= below.len() {
        literal.starts_with(&below)
    } else {
        pattern.first_wildcard_pos.is_some() && below.starts_with(literal)
    }
}

/// Removes trailing spaces that no backslash quotes (git's `trim_trailing_spaces`).
fn trim_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => at += 1,
            b'\\' => {
                at = (at + 2).min(line.len());
                end = at;
            }
            _ => {
                at += 1;
                end = at;
            }
        }
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides_and_holds_below_a_directory() {
        let sparse = Sparse::parse(b"/*\n!/docs/\n# no\n/docs/keep \r\n");
        assert!(sparse.includes(b"a", false, false));
        assert!(!sparse.includes(b"docs", true, false));
        assert!(sparse.includes(b"docs", false, false));
        assert!(sparse.includes(b"docs/keep", false, false));
        assert!(!sparse.includes(b"docs/other", false, false));
        assert!(sparse.includes(b"src/x", false, true));
    }

    #[test]
    fn a_directory_that_no_pattern_reaches_is_not_entered() {
        let sparse = Sparse::from_paths(["a/b", "x*y"]);
        assert!(sparse.may_include_below(b"a"));
        assert!(!sparse.may_include_below(b"b"));
        assert!(!sparse.may_include_below(b"a/c"));
        assert!(Sparse::parse(b"*.md").may_include_below(b"anything"));
        assert!(Sparse::parse(b"/a*/b").may_include_below(b"abc"));
        assert!(!Sparse::parse(b"/a*/b").may_include_below(b"b"));
    }

    #[test]
    fn a_path_is_taken_literally() {
        let sparse = Sparse::from_paths(["/a*[b]/"]);
        assert!(sparse.includes(b"a*[b]", true, false));
        assert!(!sparse.includes(b"axb", true, false));
    }
}
