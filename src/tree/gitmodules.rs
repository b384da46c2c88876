//! Parses `.gitmodules`: git's configuration syntax (git-config(1), "Syntax").
//!
//! Sections and keys that do not belong in `.gitmodules` are parsed and ignored. Includes are not
//! followed, as in git.

use std::collections::BTreeMap;

/// One submodule in `.gitmodules`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// The name between the quotes of the section.
    pub name: String,
    /// Its path in the tree, as bytes.
    pub path: Option<Vec<u8>>,
    /// The URL of its repository; may be relative to the superproject's.
    pub url: Option<String>,
    /// Whether it has `update = none`, which means that it is not populated.
    pub update_none: bool,
}

/// The number of a line that is not valid configuration, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine(pub usize);

/// Parses the submodules, ordered by name.
///
/// # Errors
/// The number of the first line that git would reject too.
pub fn parse(bytes: &[u8]) -> Result<Vec<Module>, BadLine> {
    let mut reader = Reader {
        bytes: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes),
        at: 0,
        line: 1,
    };
    let mut modules: Vec<Module> = Vec::new();
    // A name may have megabytes, so it is copied and compared once per section, not once per key.
    let mut numbers: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut section: Option<Vec<u8>> = None;
    let mut number = None;
    while let Some(byte) = reader.next() {
        match byte {
            _ if byte.is_ascii_whitespace() => {}
            b'#' | b';' => reader.skip_line(),
            b'[' => {
                section = reader.section()?;
                number = None;
            }
            _ if byte.is_ascii_alphabetic() => {
                let (key, value) = reader.assignment(byte)?;
                // A section without keys is no submodule.
                if let Some(name) = section.take() {
                    let new = Module {
                        name: String::from_utf8_lossy(&name).into_owned(),
                        ..Module::default()
                    };
                    let known = *numbers.entry(name).or_insert(modules.len());
                    if known == modules.len() {
                        modules.push(new);
                    }
                    number = Some(known);
                }
                let Some(module) = number.and_then(|number: usize| modules.get_mut(number)) else {
                    continue;
                };
                let Some(value) = value else { continue };
                match key.as_slice() {
                    b"path" => module.path = Some(value),
                    b"url" => module.url = Some(String::from_utf8_lossy(&value).into_owned()),
                    b"update" => module.update_none = value == b"none",
                    _ => {}
                }
            }
            _ => return Err(reader.bad()),
        }
    }
    let by_name = numbers.into_values();
    Ok(by_name
        .map(|number| std::mem::take(&mut modules[number]))
        .collect())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Reader<'_> {
    fn bad(&self) -> BadLine {
        BadLine(self.line)
    }

    fn peek(&self) -> Option<u8> {
        match self.bytes.get(self.at..)? {
            [b'\r', b'\n', ..] => Some(b'\n'),
            [byte, ..] => Some(*byte),
            [] => None,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        // CRLF counts as one line end.
        self.at += if byte == b'\n' && self.bytes[self.at] == b'\r' {
            2
        } else {
            1
        };
        if byte == b'\n' {
            self.line += 1;
        }
        Some(byte)
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.next();
        }
    }

    /// Parses a section header after its `[`. Returns the submodule's name, or `None` for a section
    /// of another kind.
    fn section(&mut self) -> Result<Option<Vec<u8>>, BadLine> {
        let mut name = Vec::new();
        loop {
            match self.next().ok_or_else(|| self.bad())? {
                b']' => {
                    // The old form [submodule.name], in which the name is in lower case.
                    return Ok(name.strip_prefix(b"submodule.").map(<[u8]>::to_vec));
                }
                b' ' | b'\t' => break,
                byte if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' => {
                    name.push(byte.to_ascii_lowercase());
                }
                _ => return Err(self.bad()),
            }
        }
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.next();
        }
        if self.next() != Some(b'"') {
            return Err(self.bad());
        }
        let mut subsection = Vec::new();
        loop {
            match self.next().ok_or_else(|| self.bad())? {
                b'\n' => return Err(BadLine(self.line - 1)),
                b'"' => break,
                b'\\' => match self.next() {
                    None | Some(b'\n') => return Err(self.bad()),
                    Some(byte) => subsection.push(byte),
                },
                byte => subsection.push(byte),
            }
        }
        if self.next() != Some(b']') {
            return Err(self.bad());
        }
        Ok((name == b"submodule").then_some(subsection))
    }

    /// Parses an assignment after the first letter of its key. Returns the key in lower case, and
    /// its value if it has one.
    fn assignment(&mut self, first: u8) -> Result<(Vec<u8>, Option<Vec<u8>>), BadLine> {
        let mut key = vec![first.to_ascii_lowercase()];
        while let Some(byte) = self.peek() {
            if !byte.is_ascii_alphanumeric() && byte != b'-' {
                break;
            }
            key.push(byte.to_ascii_lowercase());
            self.next();
        }
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.next();
        }
        match self.peek() {
            None | Some(b'\n') => Ok((key, None)),
            Some(b'=') => {
                self.next();
                Ok((key, Some(self.value()?)))
            }
            Some(_) => Err(self.bad()),
        }
    }

    fn value(&mut self) -> Result<Vec<u8>, BadLine> {
        let mut value = Vec::new();
        let mut quoted = false;
        // The length up to the last byte that is not an unquoted trailing blank.
        let mut kept = 0;
        while let Some(byte) = self.peek() {
            if byte == b'\n' {
                if quoted {
                    return Err(self.bad());
                }
                break;
            }
            self.next();
            match byte {
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c if !quoted => {
                    if kept > 0 {
                        value.push(byte);
                    }
                    continue;
                }
                b'#' | b';' if !quoted => {
                    self.skip_line();
                    break;
                }
                b'"' => {
                    quoted = !quoted;
                    kept = value.len().max(kept);
                    continue;
                }
                b'\\' => match self.next() {
                    Some(b'\n') => continue,
                    Some(b't') => value.push(b'\t'),
                    Some(b'n') => value.push(b'\n'),
                    Some(b'b') => value.push(0x08),
                    Some(byte @ (b'"' | b'\\')) => value.push(byte),
                    _ => return Err(self.bad()),
                },
                _ => value.push(byte),
            }
            kept = value.len();
        }
        if quoted {
            return Err(self.bad());
        }
        value.truncate(kept);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_comments_are_read_as_git_reads_them() {
        let text = b"# top\n[core]\n\tx = 1\n[submodule \"a \\\"b\\\\\"] ; c\r\n\
            \tpath = \" lead \" in  # no\r\n\tURL = ../x\\\n  y\n\tupdate = none\n\tshallow\n";
        let modules = parse(text).unwrap();
        assert_eq!(
            modules,
            [Module {
                name: "a \"b\\".to_owned(),
                path: Some(b" lead  in".to_vec()),
                url: Some("../x  y".to_owned()),
                update_none: true,
            }]
        );
    }

    #[test]
    fn the_last_value_counts_and_sections_may_repeat() {
        let text = b"[submodule \"a\"]\npath=x\n[submodule \"b\"]\npath=y\n[submodule \"a\"]\npath=z\nurl=u";
        let modules = parse(text).unwrap();
        assert_eq!(modules[0].path.as_deref(), Some(&b"z"[..]));
        assert_eq!(modules[0].url.as_deref(), Some("u"));
        assert_eq!(modules[1].path.as_deref(), Some(&b"y"[..]));
    }

    #[test]
    fn invalid_configuration_is_reported_with_its_line() {
        for (text, line) in [
            (&b"[submodule \"a\"]\n=x"[..], 2),
            (b"[submodule \"a\n\"]", 1),
            (b"[submodule \"a\"]\npath = \"x", 2),
            (b"[submodule \"a\"]\npath = \\q", 2),
            (b"[submodule", 1),
        ] {
            assert_eq!(parse(text), Err(BadLine(line)), "{}", text.escape_ascii());
        }
    }
}
