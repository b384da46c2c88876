//! Reads `.gitattributes`: the attributes of a path that change its file on checkout.
//!
//! The rules are those of gitattributes(5) and of git's attr.c and convert.c: files nearer to the path
//! win, later lines win within a file, and macros are defined in the top directory only. `filter`
//! drivers need configuration, which a volume does not have: they are reported and the file is written
//! unfiltered. `convert` changes the bytes.

use std::collections::HashMap;
use std::sync::Arc;

use gix_attributes::StateRef;
use gix_attributes::parse::Kind;
use gix_glob::Pattern;
use gix_glob::pattern::Case;
use gix_glob::wildmatch::Mode as Wildmatch;

use super::conversion::{Conversion, Eol};
use super::encoding;

/// The longest line that git reads (attr.h, `ATTR_MAX_LINE_LENGTH`).
const LINE_LIMIT: usize = 2048;

/// The longest name of an encoding that is looked up. The manifest stores its length in one byte.
const ENCODING_LIMIT: usize = 64;

/// The attributes of a path that matter on checkout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PathAttributes {
    pub conversion: Conversion,
    /// The filter driver that the attributes name; it is not run.
    pub filter: Option<String>,
}

/// The attributes in force in a directory: its own file, then those of its parents.
#[derive(Debug)]
pub(super) struct Rules {
    parent: Option<Arc<Rules>>,
    macros: Arc<Macros>,
    /// Length of the directory's path with its slash.
    base: usize,
    lines: Vec<AttributeLine>,
}

#[derive(Debug)]
struct AttributeLine {
    pattern: Pattern,
    assignments: Vec<(usize, AttributeState)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AttributeState {
    Set,
    Unset,
    Unspecified,
    Value(Vec<u8>),
}

/// Attribute names as numbers: first those that change a file, then the macros of the top directory.
#[derive(Debug)]
struct Macros {
    numbers: HashMap<String, usize>,
    bodies: Vec<Vec<(usize, AttributeState)>>,
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
                    lines.push(AttributeLine {
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

    /// The attributes of the file at `path`, which is in the directory of these rules.
    pub fn attributes_of(&self, path: &[u8]) -> PathAttributes {
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
        // Git has one built-in macro. The last definition of a name counts.
        let mut definitions: Vec<(String, Vec<(String, AttributeState)>)> = Vec::new();
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

    fn known(&self, assignments: Vec<(String, AttributeState)>) -> Vec<(usize, AttributeState)> {
        assignments
            .into_iter()
            .filter_map(|(name, state)| Some((*self.numbers.get(&name)?, state)))
            .collect()
    }

    /// git's `fill_one`: an attribute that has a state keeps it, and a macro that becomes set is
    /// expanded.
    fn fill(&self, found: &mut [Option<AttributeState>], assignments: &[(usize, AttributeState)]) {
        let mut waiting: Vec<_> = assignments.iter().collect();
        while let Some((number, state)) = waiting.pop() {
            if found[*number].is_none() {
                found[*number] = Some(state.clone());
                if *state == AttributeState::Set {
                    waiting.extend(&self.bodies[*number]);
                }
            }
        }
    }
}

/// git's `convert_attrs`, with `core.autocrlf` and `core.eol` unset on Linux.
fn decide(found: &[Option<AttributeState>]) -> PathAttributes {
    #[derive(Clone, Copy, PartialEq)]
    enum Text {
        Undefined,
        Binary,
        Plain,
        Input,
        Auto,
    }
    let text_of = |number: usize| match &found[number] {
        Some(AttributeState::Set) => Text::Plain,
        Some(AttributeState::Unset) => Text::Binary,
        Some(AttributeState::Value(value)) if value == b"input" => Text::Input,
        Some(AttributeState::Value(value)) if value == b"auto" => Text::Auto,
        _ => Text::Undefined,
    };
    let mut text = text_of(TEXT);
    if text == Text::Undefined {
        text = text_of(CRLF);
    }
    let crlf = matches!(&found[EOL], Some(AttributeState::Value(value)) if value == b"crlf");
    let eol = match text {
        Text::Auto if crlf => Eol::AutoCrlf,
        Text::Undefined | Text::Plain | Text::Input if crlf => Eol::Crlf,
        _ => Eol::Keep,
    };
    let value = |number: usize| match &found[number] {
        Some(AttributeState::Value(value)) if !value.is_empty() => {
            Some(String::from_utf8_lossy(value).into_owned())
        }
        _ => None,
    };
    PathAttributes {
        conversion: Conversion {
            eol,
            ident: found[IDENT] == Some(AttributeState::Set),
            encoding: value(ENCODING)
                .filter(|name| !encoding::is_utf8(name) && name.len() <= ENCODING_LIMIT),
        },
        filter: value(FILTER),
    }
}

fn for_each_line(bytes: &[u8], mut use_line: impl FnMut(Kind, Vec<(String, AttributeState)>)) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.len() >= LINE_LIMIT {
            continue;
        }
        for (kind, assignments, _) in gix_attributes::parse(line).flatten() {
            // Like git, skip a line with an invalid attribute name.
            let assignments: Option<Vec<_>> = assignments
                .map(|assignment| {
                    let assignment = assignment.ok()?;
                    let state = match assignment.state {
                        StateRef::Set => AttributeState::Set,
                        StateRef::Unset => AttributeState::Unset,
                        StateRef::Unspecified => AttributeState::Unspecified,
                        StateRef::Value(value) => AttributeState::Value(value.as_bstr().to_vec()),
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
            .attributes_of(path.as_bytes())
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
    fn a_nearer_file_wins_and_may_reset_an_attribute() {
        let top = Arc::new(Rules::new(None, b"", b"*.txt eol=crlf ident\n"));
        let sub = Rules::new(Some(top), b"sub", b"/a.txt !eol\n");
        assert_eq!(sub.attributes_of(b"sub/a.txt").conversion.eol, Eol::Keep);
        assert!(sub.attributes_of(b"sub/a.txt").conversion.ident);
        assert_eq!(sub.attributes_of(b"sub/b.txt").conversion.eol, Eol::Crlf);
    }
}
