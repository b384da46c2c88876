//! The directions that ARCHITECTURE.md states hold in the source: rooms import only rooms below
//! them, files of a room do not import each other in a circle, and no file is forgotten.

mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::docs::{code, files, read, rows, section, words};
use imports::Sources;

/// Every room, and the rooms that it may import. A row names only rooms above it in this list, so
/// that no import goes up and none goes sideways.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("child", &["base"]),
    ("pack", &["base"]),
    ("manifest", &["base"]),
    ("net", &["base"]),
    ("credentials", &["base", "child", "net"]),
    ("tree", &["base", "pack", "manifest"]),
    ("store", &["base", "pack", "manifest"]),
    ("volume", &["base", "manifest"]),
    ("remote", &["base", "pack", "net", "credentials"]),
    ("notify", &["base", "child", "net"]),
    ("observe", &["base", "notify"]),
    ("serve", &["base", "remote", "notify", "observe"]),
    ("control", &["base", "notify", "observe", "serve"]),
    (
        "target",
        &[
            "base",
            "child",
            "manifest",
            "net",
            "credentials",
            "tree",
            "store",
            "volume",
            "remote",
            "notify",
        ],
    ),
    ("cli", &["base", "serve"]),
    (
        "config",
        &[
            "base",
            "child",
            "net",
            "credentials",
            "tree",
            "volume",
            "remote",
            "notify",
            "serve",
            "target",
            "cli",
        ],
    ),
    (
        "app",
        &[
            "base",
            "child",
            "net",
            "credentials",
            "tree",
            "store",
            "volume",
            "remote",
            "notify",
            "observe",
            "serve",
            "control",
            "target",
            "cli",
            "config",
        ],
    ),
];

/// The crate, without `main.rs`, which is a crate of its own.
fn sources() -> Sources {
    let mut sources = Sources::default();
    for file in files("src", "rs") {
        if file == Path::new("src/main.rs") {
            continue;
        }
        let below = file.strip_prefix("src").expect("it is below src");
        let module = match below.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs" | "mod.rs") => below.parent().expect("it has a name").to_owned(),
            _ => below.with_extension(""),
        };
        let path: Vec<&str> = module.iter().filter_map(|part| part.to_str()).collect();
        sources.add(&path, &read(&file));
    }
    sources
}

/// The imports that the table does not allow.
fn violations(
    named: &BTreeSet<(String, String)>,
    rooms: &[(&str, &[&str])],
) -> BTreeSet<(String, String)> {
    named
        .iter()
        .filter(|(file, room)| {
            let own = file.split('/').next().unwrap_or_default();
            let row = rooms.iter().find(|(name, _)| *name == own);
            !row.is_some_and(|(_, allowed)| allowed.contains(&room.as_str()))
        })
        .cloned()
        .collect()
}

#[test]
fn a_room_imports_only_rooms_that_the_table_allows() {
    let found = violations(&sources().named_rooms(), ROOMS);
    assert_eq!(
        found,
        BTreeSet::new(),
        "(file, room that it must not import)"
    );
}

#[test]
fn the_table_lets_no_import_go_up_or_sideways() {
    for (row, (room, allowed)) in ROOMS.iter().enumerate() {
        for below in *allowed {
            assert!(
                ROOMS[..row].iter().any(|(name, _)| name == below),
                "{room} may import {below}, which is not above it in the table"
            );
        }
    }
    for apart in [["remote", "tree"], ["remote", "volume"], ["tree", "volume"]] {
        for (room, allowed) in ROOMS {
            let both = apart.contains(room) && apart.iter().any(|other| allowed.contains(other));
            assert!(!both, "{apart:?} must not import each other");
        }
    }
}

#[test]
fn every_directory_of_the_source_is_a_room_of_the_table() {
    for file in files("src", "rs") {
        let below = file.strip_prefix("src").expect("it is below src");
        let room = below.with_extension("");
        let room = room.iter().next().and_then(|part| part.to_str());
        let room = room.expect("the name is UTF-8");
        let known = ["lib", "main"].contains(&room) || ROOMS.iter().any(|(name, _)| *name == room);
        assert!(known, "{} is in no room of the table", file.display());
    }
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    assert_eq!(sources().circles(), BTreeSet::new());
}

#[test]
fn architecture_md_describes_the_rooms_of_the_table_in_its_order() {
    let text = read("ARCHITECTURE.md");
    let table = section(&text, "The rooms");
    let described: Vec<&str> = rows(table)
        .filter_map(|row| code(row[0])?.strip_prefix("src/"))
        .map(|room| room.trim_end_matches(".rs").trim_end_matches('/'))
        .collect();
    let known: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    assert_eq!(described, known);
}

#[test]
fn every_file_that_architecture_md_names_exists() {
    let text = read("ARCHITECTURE.md");
    let named: BTreeSet<String> = ["src/", "tests/"]
        .into_iter()
        .flat_map(|prefix| {
            words(&text, prefix, |c| {
                c.is_ascii_alphanumeric() || "_/.-".contains(c)
            })
        })
        .map(|word| word.trim_end_matches('.').to_owned())
        .collect();
    assert!(named.len() > 30, "only {named:?} found");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<&str> = named
        .iter()
        .map(String::as_str)
        .filter(|name| !root.join(name).exists())
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_test_file_is_part_of_the_test_binary() {
    let mut included = BTreeSet::from([PathBuf::from("tests/it/main.rs")]);
    let mut left = vec![PathBuf::from("tests/it/main.rs")];
    while let Some(file) = left.pop() {
        let directory = file.parent().expect("it has a name");
        for line in read(&file).lines() {
            let line = line.trim_start_matches("pub ");
            let name = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';'));
            let Some(name) = name else { continue };
            for module in [format!("{name}.rs"), format!("{name}/mod.rs")] {
                let module = directory.join(module);
                let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(&module);
                if there.exists() && included.insert(module.clone()) {
                    left.push(module);
                }
            }
        }
    }
    let existing: BTreeSet<PathBuf> = files("tests", "rs").into_iter().collect();
    assert_eq!(included, existing);
}

#[test]
fn a_module_with_files_of_its_own_is_a_mod_rs() {
    for directory in ["src", "tests", "benches"] {
        for file in files(directory, "rs") {
            let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(file.with_extension(""));
            assert!(
                !beside.is_dir(),
                "{} belongs into its directory, as mod.rs",
                file.display()
            );
        }
    }
}

/// A crate of two rooms, `low` and `high`, made for the tests of the reader.
fn made_up(files: &[(&[&str], &str)]) -> Sources {
    let mut sources = Sources::default();
    sources.add(&[], "pub mod low; pub mod high;");
    sources.add(&["low"], "mod one; mod two; pub use two::Two;");
    sources.add(&["low", "one"], "");
    sources.add(&["low", "two"], "pub struct Two;");
    sources.add(&["high"], "use crate::low::Two;");
    for (path, text) in files {
        sources.add(path, text);
    }
    sources
}

fn found_upward(text: &str) -> bool {
    let table: &[(&str, &[&str])] = &[("low", &[]), ("high", &["low"])];
    let found = violations(&made_up(&[(&["low", "one"], text)]).named_rooms(), table);
    let expected = ("low/one".to_owned(), "high".to_owned());
    assert!(found.is_empty() || found == BTreeSet::from([expected]));
    !found.is_empty()
}

#[test]
fn an_import_that_goes_up_is_found_however_it_is_written() {
    for text in [
        "use crate::high::X;",
        "use crate::{high::X, low};",
        "use super::super::high;",
        "pub(crate) use crate::high as other;",
        "fn f() -> crate::high::X { todo!() }",
        "fn f() { info!(version = crate::high::VERSION) }",
        "fn f() { { use crate::high::*; } }",
    ] {
        assert!(found_upward(text), "{text}");
    }
    for text in [
        "use std::high;",
        "// use crate::high::X;",
        "const X: &str = \"crate::high::X\";",
        "#[cfg(test)] mod tests { use crate::high::X; }",
        "#[cfg(test)] use crate::high::X; fn f() {}",
        "use super::two::Two;",
    ] {
        assert!(!found_upward(text), "{text}");
    }
}

#[test]
fn a_circle_is_found_through_a_re_export_and_through_a_nested_mod_rs() {
    let circles = |files: &[(&[&str], &str)]| made_up(files).circles();
    let circle = |names: &[&str]| {
        BTreeSet::from([names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()])
    };
    assert_eq!(circles(&[]), BTreeSet::new());
    let one_to_two: (&[&str], &str) = (&["low", "one"], "use super::Two;");
    assert_eq!(circles(&[one_to_two]), BTreeSet::new());
    assert_eq!(
        circles(&[one_to_two, (&["low", "two"], "use super::one::X;")]),
        circle(&["low/one", "low/two"])
    );
    assert_eq!(
        circles(&[
            (&["low", "one"], "use super::nested::X;"),
            (&["low", "nested"], "mod leaf;"),
            (&["low", "nested", "leaf"], "use crate::low::one::Y;"),
        ]),
        circle(&["low/one", "low/nested", "low/nested/leaf"])
    );
}
