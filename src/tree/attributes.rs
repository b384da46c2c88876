//! Reads `.gitattributes`: the attributes of a path that change its file on checkout.
//!
//! The rules are those of gitattributes(5) and of git's attr.c and convert.c: files nearer to the path
//! win, later lines win within a file, and macros are defined in the top directory only. `filter`
//! drivers need configuration, which a volume does not have: they are reported and the file is written
//! unfiltered. `convert` changes the bytes.
//!
//! Unlike git, this module limits the number of macros, of lines, and of steps per path, because a
//! commit comes from outside and must not keep a worker busy beyond its deadline.

use std::collections::HashMap;
use std::sync::Arc;

use gix_attributes::StateRef;
use gix_attributes::parse::Kind;
use gix_glob::Pattern;

use super::conversion::{Conversion, Eol};
use super::effort::Effort;
use super::{encoding, glob};
use crate::base::error::{Reason, Stage, SyncError};
use crate::base::text::printable;

/// The longest line that git reads (attr.h, `ATTR_MAX_LINE_LENGTH`).
const LINE_LIMIT: usize = 2048;

/// The longest name of an encoding that is looked up. The manifest stores its length in one byte.
const ENCODING_LIMIT: usize = 64;

/// The most macros that a `.gitattributes` may define; git has no limit.
const MACRO_LIMIT: usize = 1_000;

/// The most lines that may apply to one path, those of all directories above it together; git has no
/// limit.
const LINES_LIMIT: usize = 100_000;

/// The most steps that the attributes of one path may take: about 0.2 s. An ordinary path takes a few
/// dozen.
pub const STEP_LIMIT: u64 = 50_000_000;

/// The attributes of a path that matter on checkout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathAttributes {
    pub(super) conversion: Conversion,
    /// The filter driver that the attributes name; it is not run.
    pub(super) filter: Option<String>,
}

/// The attributes in force in a directory: its own file, then those of its parents.
#[derive(Debug)]
pub struct Rules {
    parent: Option<Arc<Rules>>,
    macros: Arc<Macros>,
    /// Length of the directory's path with its slash.
    base: usize,
    lines: Vec<AttributeLine>,
    /// The lines of this directory and of all above it.
    lines_in_force: usize,
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
    ///
    /// # Errors
    /// Reason `limit`: too many lines or macros. Otherwise the error of `effort`.
    pub fn new(
        parent: Option<Arc<Self>>,
        directory: &[u8],
        bytes: &[u8],
        effort: &mut Effort<'_>,
    ) -> Result<Self, SyncError> {
        let macros = match &parent {
            Some(parent) => parent.macros.clone(),
            None if directory.is_empty() => Arc::new(Macros::from_top(bytes, effort)?),
            None => Arc::new(Macros::from_top(b"", effort)?),
        };
        let inherited = parent.as_ref().map_or(0, |parent| parent.lines_in_force);
        let mut lines = Vec::new();
        for_each_line(bytes, effort, |kind, assignments| {
            if let Kind::Pattern(pattern) = kind {
                let assignments = macros.known(assignments);
                if !assignments.is_empty() {
                    lines.push(AttributeLine {
                        pattern,
                        assignments,
                    });
                }
            }
            if inherited + lines.len() > LINES_LIMIT {
                return Err(refused(format!(
                    "more than {LINES_LIMIT} lines of .gitattributes apply to the files of {}",
                    shown(directory)
                )));
            }
            Ok(())
        })?;
        Ok(Self {
            lines_in_force: inherited + lines.len(),
            parent,
            macros,
            base: match directory.len() {
                0 => 0,
                length => length + 1,
            },
            lines,
        })
    }

    /// The attributes of the file at `path`, which is in the directory of these rules. Callers limit
    /// `effort` to [`STEP_LIMIT`].
    ///
    /// # Errors
    /// Reason `limit`: matching takes too many steps. Otherwise the error of `effort`.
    pub fn attributes_of(
        &self,
        path: &[u8],
        effort: &mut Effort<'_>,
    ) -> Result<PathAttributes, SyncError> {
        self.find(path, effort).map_err(|error| match error.reason {
            Reason::Limit => refused(format!("the attributes of {} are too complex", shown(path)))
                .with_source(error),
            _ => error,
        })
    }

    fn find(&self, path: &[u8], effort: &mut Effort<'_>) -> Result<PathAttributes, SyncError> {
        effort.spend(self.macros.bodies.len() as u64)?;
        let mut found = vec![None; self.macros.bodies.len()];
        let mut rules = Some(self);
        while let Some(here) = rules {
            effort.spend(1)?;
            if let Some(relative) = path.get(here.base..) {
                for line in here.lines.iter().rev() {
                    if glob::matches(&line.pattern, relative, false, effort)? {
                        self.macros.fill(&mut found, &line.assignments, effort)?;
                    }
                }
            }
            rules = here.parent.as_deref();
        }
        Ok(decide(&found))
    }
}

/// The error for attributes that git would accept.
fn refused(message: String) -> SyncError {
    SyncError::new(Stage::Build, Reason::Limit, message).with_hint(
        "simplify .gitattributes: write fewer lines and macros, and fewer ** in a pattern",
    )
}

fn shown(path: &[u8]) -> String {
    match path {
        [] => "the top directory".to_owned(),
        path => printable(&String::from_utf8_lossy(path)),
    }
}

impl Macros {
    fn from_top(bytes: &[u8], effort: &mut Effort<'_>) -> Result<Self, SyncError> {
        // Git has one built-in macro. The last definition of a name counts.
        let mut definitions: HashMap<String, Vec<(String, AttributeState)>> = HashMap::new();
        for source in [b"[attr]binary -diff -merge -text".as_slice(), bytes] {
            for_each_line(source, effort, |kind, assignments| {
                if let Kind::Macro(name) = kind {
                    definitions.insert(name.as_str().to_owned(), assignments);
                }
                if definitions.len() > MACRO_LIMIT {
                    return Err(refused(format!(
                        ".gitattributes defines more than {MACRO_LIMIT} macros"
                    )));
                }
                Ok(())
            })?;
        }
        let mut numbers = HashMap::new();
        for name in KNOWN {
            numbers.insert(name.to_owned(), numbers.len());
        }
        for name in definitions.keys() {
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
        Ok(macros)
    }

    fn known(&self, assignments: Vec<(String, AttributeState)>) -> Vec<(usize, AttributeState)> {
        assignments
            .into_iter()
            .filter_map(|(name, state)| Some((*self.numbers.get(&name)?, state)))
            .collect()
    }

    /// git's `fill_one`: an attribute that has a state keeps it, and a macro that becomes set is
    /// expanded.
    fn fill(
        &self,
        found: &mut [Option<AttributeState>],
        assignments: &[(usize, AttributeState)],
        effort: &mut Effort<'_>,
    ) -> Result<(), SyncError> {
        let mut waiting: Vec<_> = assignments.iter().collect();
        while let Some((number, state)) = waiting.pop() {
            effort.spend(1)?;
            if found[*number].is_none() {
                found[*number] = Some(state.clone());
                if *state == AttributeState::Set {
                    waiting.extend(&self.bodies[*number]);
                }
            }
        }
        Ok(())
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

fn for_each_line(
    bytes: &[u8],
    effort: &mut Effort<'_>,
    mut use_line: impl FnMut(Kind, Vec<(String, AttributeState)>) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.len() >= LINE_LIMIT {
            continue;
        }
        // Parsing a byte takes about as long as a few steps of matching.
        effort.spend(4 * line.len() as u64 + 16)?;
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
                use_line(kind, assignments)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(
        parent: Option<Arc<Rules>>,
        directory: &str,
        text: &str,
    ) -> Result<Arc<Rules>, SyncError> {
        let mut effort = Effort::new(u64::MAX, &|| Ok(()));
        Rules::new(parent, directory.as_bytes(), text.as_bytes(), &mut effort).map(Arc::new)
    }

    fn attributes(rules: &Rules, path: &str) -> Result<PathAttributes, SyncError> {
        let mut effort = Effort::new(STEP_LIMIT, &|| Ok(()));
        rules.attributes_of(path.as_bytes(), &mut effort)
    }

    fn eol(top: &str, path: &str) -> Eol {
        let rules = rules(None, "", top).unwrap();
        attributes(&rules, path).unwrap().conversion.eol
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
        let top = rules(None, "", "*.txt eol=crlf ident\n").unwrap();
        let sub = rules(Some(top), "sub", "/a.txt !eol\n").unwrap();
        let a = attributes(&sub, "sub/a.txt").unwrap().conversion;
        assert_eq!(a.eol, Eol::Keep);
        assert!(a.ident);
        let b = attributes(&sub, "sub/b.txt").unwrap().conversion;
        assert_eq!(b.eol, Eol::Crlf);
    }

    #[test]
    fn too_many_macros_lines_or_steps_are_refused_with_a_limit() {
        use std::fmt::Write as _;
        let mut macros = String::new();
        let mut lines = String::new();
        for n in 0..150_000 {
            writeln!(macros, "[attr]m{n} text").unwrap();
            writeln!(lines, "f{n} text").unwrap();
        }
        for (text, expected) in [(&macros, "macros"), (&lines, "lines")] {
            let error = rules(None, "", text).unwrap_err();
            assert_eq!(error.reason, Reason::Limit);
            assert!(error.to_string().contains(expected), "{error}");
        }
        // The lines of directories above count, too.
        let above = rules(None, "", &lines[..lines.len() / 3]).unwrap();
        let below = rules(Some(above), "sub", &lines[..lines.len() / 2]);
        assert_eq!(below.unwrap_err().reason, Reason::Limit);

        let line = format!("{}x text\n", "**/".repeat(600));
        let complex = rules(None, "", &line.repeat(100)).unwrap();
        let path = format!("{}y", "a/".repeat(2000));
        let error = attributes(&complex, &path).unwrap_err();
        assert_eq!(error.reason, Reason::Limit);
        assert!(error.to_string().contains("too complex"), "{error}");
    }

    #[test]
    fn random_files_take_steps_in_proportion_to_their_length_and_that_of_the_path() {
        let mut random = fastrand::Rng::with_seed(11);
        let pieces = [
            "[attr]",
            "m",
            "a",
            "/",
            "*",
            "**/",
            "?",
            "[a-z]",
            " text",
            " eol=crlf",
            " m",
            " -m",
            " !text",
            "\n",
            "\n",
            "\"",
            "\\",
            "#",
            "!",
        ];
        for _ in 0..2000 {
            let text: String = (0..random.usize(1..200))
                .map(|_| *random.choice(&pieces).unwrap())
                .collect();
            let path = ["a", "b/", "mm/", "a/b/"][random.usize(..4)].repeat(random.usize(1..500));
            let path = format!("{path}a");
            let mut parsing = Effort::new(u64::MAX, &|| Ok(()));
            let Ok(rules) = Rules::new(None, b"", text.as_bytes(), &mut parsing) else {
                continue;
            };
            let (file, name) = (text.len() as u64 + 64, path.len() as u64 + 64);
            assert!(parsing.spent() <= 64 * file, "{text:?}");
            let mut matching = Effort::new(STEP_LIMIT, &|| Ok(()));
            rules.attributes_of(path.as_bytes(), &mut matching).unwrap();
            assert!(matching.spent() <= 4 * file * name, "{text:?} {path:?}");
        }
    }
}
