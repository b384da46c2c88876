//! What `.gitattributes` say about a path, as far as it changes a file on checkout.
//!
//! The rules of gitattributes(5) and of git's attr.c and convert.c: files nearer to the path win,
//! later lines win within a file, macros are defined in the top directory only. `filter` drivers
//! need configuration that a volume has none of: they are reported and leave a file as it is.
//! The changing of bytes is `convert`'s part.

use std::collections::HashMap;
use std::sync::Arc;

use gix_attributes::StateRef;
use gix_attributes::parse::Kind;
use gix_glob::Pattern;
use gix_glob::pattern::Case;
use gix_glob::wildmatch::Mode as Wildmatch;

/// Longest line that git reads (attr.h, `ATTR_MAX_LINE_LENGTH`).
const LINE_LIMIT: usize = 2048;

/// Longest name of an encoding that is looked up; the manifest stores it in a byte's length.
const ENCODING_LIMIT: usize = 64;

/// What happens to line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Eol {
    /// Nothing.
    #[default]
    Keep,
    /// Every lone LF becomes CRLF.
    Crlf,
    /// The same, unless the content looks binary or holds a CR already.
    AutoCrlf,
}

/// How a file differs from its blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conversion {
    pub eol: Eol,
    /// Whether `$Id$` is expanded.
    pub ident: bool,
    /// The encoding that the file has outside of the repository.
    pub encoding: Option<String>,
}

/// What the attributes of a path ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub conversion: Conversion,
    /// A filter driver that is named and not to be had.
    pub filter: Option<String>,
}

/// The attributes in force in a directory: its own file, then those of its parents.
#[derive(Debug)]
pub(super) struct Rules {
    parent: Option<Arc<Rules>>,
    macros: Arc<Macros>,
    /// Length of the directory's path with its slash.
    base: usize,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    pattern: Pattern,
    assignments: Vec<(usize, State)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Set,
    Unset,
    Unspecified,
    Value(Vec<u8>),
}

/// Names as numbers: the attributes that change a file, then the macros of the top directory.
#[derive(Debug)]
struct Macros {
    numbers: HashMap<String, usize>,
    bodies: Vec<Vec<(usize, State)>>,
}

const TEXT: usize = 0;
const CRLF: usize = 1;
const EOL: usize = 2;
const IDENT: usize = 3;
const FILTER: usize = 4;
const ENCODING: usize = 5;
const KNOWN: [&str; 6] = [
    "text",
    "crlf",
    "eol",
    "ident",
    "filter",
    "working-tree-encoding",
];

impl Conversion {
    /// Whether the file is its blob.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The form in which the manifest records it: empty for none.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.is_none() {
            return Vec::new();
        }
        let eol = match self.eol {
            Eol::Keep => 0,
            Eol::Crlf => 1,
            Eol::AutoCrlf => 2,
        };
        let mut bytes = vec![eol | u8::from(self.ident) << 2];
        bytes.extend_from_slice(self.encoding.as_deref().unwrap_or_default().as_bytes());
        bytes
    }

    /// Reads what [`Conversion::to_bytes`] wrote; `None` if it did not write that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Some((flags, encoding)) = bytes.split_first() else {
            return Some(Self::default());
        };
        Some(Self {
            eol: match flags & 3 {
                0 => Eol::Keep,
                1 => Eol::Crlf,
                2 => Eol::AutoCrlf,
                _ => return None,
            },
            ident: flags & 4 != 0,
            encoding: match encoding {
                [] => None,
                name => Some(std::str::from_utf8(name).ok()?.to_owned()),
            },
        })
    }
}

impl Rules {
    /// The rules of the directory `directory` (empty for the top), whose `.gitattributes` holds
    /// `bytes`, below the rules of its parents.
    pub fn new(parent: Option<Arc<Self>>, directory: &[u8], bytes: &[u8]) -> Self {
        let macros = match &parent {
            Some(parent) => parent.macros.clone(),
            None if directory.is_empty() => Arc::new(Macros::from_top(bytes)),
            None => Arc::new(Macros::from_top(b"")),
        };
        let mut lines = Vec::new();
        for_each_line(bytes, |kind, assignments| {
            if let Kind::Pattern(pattern) = kind {
                let assignments = macros.known(assignments);
                if !assignments.is_empty() {
                    lines.push(Line {
                        pattern,
                        assignments,
                    });
                }
            }
        });
        Self {
            parent,
            macros,
            base: match directory.len() {
                0 => 0,
                length => length + 1,
            },
            lines,
        }
    }

    /// What is asked for the file at `path`, which lies in the directory of these rules.
    pub fn wanted(&self, path: &[u8]) -> Wanted {
        let mut found = vec![None; self.macros.bodies.len()];
        let mut rules = Some(self);
        while let Some(here) = rules {
            if let Some(relative) = path.get(here.base..) {
                let basename = relative.iter().rposition(|byte| *byte == b'/');
                for line in here.lines.iter().rev() {
                    let matches = line.pattern.matches_repo_relative_path(
                        relative.into(),
                        basename.map(|at| at + 1),
                        Some(false),
                        Case::Sensitive,
                        Wildmatch::NO_MATCH_SLASH_LITERAL,
                    );
                    if matches {
                        self.macros.fill(&mut found, &line.assignments);
                    }
                }
            }
            rules = here.parent.as_deref();
        }
        decide(&found)
    }
}

impl Macros {
    fn from_top(bytes: &[u8]) -> Self {
        // Git knows one macro of its own; the last definition of a name counts.
        let mut definitions: Vec<(String, Vec<(String, State)>)> = Vec::new();
        for source in [b"[attr]binary -diff -merge -text".as_slice(), bytes] {
            for_each_line(source, |kind, assignments| {
                if let Kind::Macro(name) = kind {
                    definitions.retain(|(known, _)| known != name.as_str());
                    definitions.push((name.as_str().to_owned(), assignments));
                }
            });
        }
        let mut numbers = HashMap::new();
        for name in KNOWN {
            numbers.insert(name.to_owned(), numbers.len());
        }
        for (name, _) in &definitions {
            let next = numbers.len();
            numbers.entry(name.clone()).or_insert(next);
        }
        let mut macros = Self {
            bodies: vec![Vec::new(); numbers.len()],
            numbers,
        };
        for (name, body) in definitions {
            let body = macros.known(body);
            if let Some(number) = macros.numbers.get(&name) {
                macros.bodies[*number] = body;
            }
        }
        macros
    }

    fn known(&self, assignments: Vec<(String, State)>) -> Vec<(usize, State)> {
        assignments
            .into_iter()
            .filter_map(|(name, state)| Some((*self.numbers.get(&name)?, state)))
            .collect()
    }

    /// git's `fill_one`: what is known already stays, and a macro that becomes set is expanded.
    fn fill(&self, found: &mut [Option<State>], assignments: &[(usize, State)]) {
        let mut waiting: Vec<_> = assignments.iter().collect();
        while let Some((number, state)) = waiting.pop() {
            if found[*number].is_none() {
                found[*number] = Some(state.clone());
                if *state == State::Set {
                    waiting.extend(&self.bodies[*number]);
                }
            }
        }
    }
}

/// git's `convert_attrs`, with `core.autocrlf` and `core.eol` unset on Linux.
fn decide(found: &[Option<State>]) -> Wanted {
    #[derive(Clone, Copy, PartialEq)]
    enum Text {
        Undefined,
        Binary,
        Plain,
        Input,
        Auto,
    }
    let text_of = |number: usize| match &found[number] {
        Some(State::Set) => Text::Plain,
        Some(State::Unset) => Text::Binary,
        Some(State::Value(value)) if value == b"input" => Text::Input,
        Some(State::Value(value)) if value == b"auto" => Text::Auto,
        _ => Text::Undefined,
    };
    let mut text = text_of(TEXT);
    if text == Text::Undefined {
        text = text_of(CRLF);
    }
    let crlf = matches!(&found[EOL], Some(State::Value(value)) if value == b"crlf");
    let eol = match text {
        Text::Auto if crlf => Eol::AutoCrlf,
        Text::Undefined | Text::Plain | Text::Input if crlf => Eol::Crlf,
        _ => Eol::Keep,
    };
    let value = |number: usize| match &found[number] {
        Some(State::Value(value)) if !value.is_empty() => {
            Some(String::from_utf8_lossy(value).into_owned())
        }
        _ => None,
    };
    Wanted {
        conversion: Conversion {
            eol,
            ident: found[IDENT] == Some(State::Set),
            encoding: value(ENCODING)
                .filter(|name| !super::convert::is_utf8(name) && name.len() <= ENCODING_LIMIT),
        },
        filter: value(FILTER),
    }
}

fn for_each_line(bytes: &[u8], mut use_line: impl FnMut(Kind, Vec<(String, State)>)) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.len() >= LINE_LIMIT {
            continue;
        }
        for (kind, assignments, _) in gix_attributes::parse(line).flatten() {
            // One invalid attribute name makes git skip the line.
            let assignments: Option<Vec<_>> = assignments
                .map(|assignment| {
                    let assignment = assignment.ok()?;
                    let state = match assignment.state {
                        StateRef::Set => State::Set,
                        StateRef::Unset => State::Unset,
                        StateRef::Unspecified => State::Unspecified,
                        StateRef::Value(value) => State::Value(value.as_bstr().to_vec()),
                    };
                    Some((assignment.name.as_str().to_owned(), state))
                })
                .collect();
            if let Some(assignments) = assignments {
                use_line(kind, assignments);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eol(top: &str, path: &str) -> Eol {
        Rules::new(None, b"", top.as_bytes())
            .wanted(path.as_bytes())
            .conversion
            .eol
    }

    #[test]
    fn the_last_line_that_matches_wins() {
        assert_eq!(eol("* eol=crlf\n*.sh eol=lf\n", "a/b.sh"), Eol::Keep);
        assert_eq!(eol("* eol=crlf\n*.sh eol=lf\n", "a/b.txt"), Eol::Crlf);
        assert_eq!(eol("*.sh eol=lf\n* eol=crlf\n", "a/b.sh"), Eol::Crlf);
        assert_eq!(eol("* text=auto eol=crlf\n", "x"), Eol::AutoCrlf);
        assert_eq!(eol("* eol=crlf\n*.bin binary\n", "x.bin"), Eol::Keep);
    }

    #[test]
    fn a_macro_expands_where_it_becomes_set() {
        let top = "[attr]dos text eol=crlf\n* dos\n*.u -dos\n*.v dos eol=lf\n";
        assert_eq!(eol(top, "x"), Eol::Crlf);
        assert_eq!(eol(top, "x.u"), Eol::Keep);
        assert_eq!(eol(top, "x.v"), Eol::Keep);
    }

    #[test]
    fn a_nearer_file_wins_and_may_take_back() {
        let top = Arc::new(Rules::new(None, b"", b"*.txt eol=crlf ident\n"));
        let sub = Rules::new(Some(top), b"sub", b"/a.txt !eol\n");
        assert_eq!(sub.wanted(b"sub/a.txt").conversion.eol, Eol::Keep);
        assert!(sub.wanted(b"sub/a.txt").conversion.ident);
        assert_eq!(sub.wanted(b"sub/b.txt").conversion.eol, Eol::Crlf);
    }

    #[test]
    fn a_conversion_survives_the_manifest() {
        let conversion = Conversion {
            eol: Eol::AutoCrlf,
            ident: true,
            encoding: Some("UTF-16LE-BOM".to_owned()),
        };
        assert_eq!(
            Conversion::from_bytes(&conversion.to_bytes()),
            Some(conversion)
        );
        assert!(Conversion::default().to_bytes().is_empty());
    }
}
