//! The termination message: the last line of a failing container, where Kubernetes looks for it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Where Kubernetes reads a container's termination message
/// (`terminationMessagePath` in the Pod API).
pub const PATH: &str = "/dev/termination-log";

/// The bytes of a termination message that Kubernetes keeps.
const LIMIT: usize = 4096;

/// Writes the termination message, if the file exists.
///
/// Failures are ignored, because the same line went to standard error.
pub fn write(file: &Path, line: &str) {
    let mut end = line.len().min(LIMIT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    if let Ok(mut file) = File::options().write(true).truncate(true).open(file) {
        let _ = file.write_all(&line.as_bytes()[..end]);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_termination_message_is_cut_at_a_character_and_replaces_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        write(&file, "the file does not exist");
        assert!(!file.exists());
        fs::write(&file, "").unwrap();
        write(&file, &"é".repeat(3000));
        assert_eq!(fs::read_to_string(&file).unwrap(), "é".repeat(2048));
        write(&file, "shorter");
        assert_eq!(fs::read_to_string(&file).unwrap(), "shorter");
    }
}
