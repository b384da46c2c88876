//! What the documents enumerate is what the program has: flags, metrics, routes, reasons, links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use git_volume_reloader::base::error::{Reason, Stage};
use git_volume_reloader::observe::metrics;
use git_volume_reloader::serve::routes::ROUTES;

/// Flags that clap adds to every program: the README's table leaves them out.
const USUAL: [&str; 2] = ["--help", "--version"];

/// The checkout's text file at `path`.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `directory` of the checkout whose names end in `.extension`, relative to it.
pub(crate) fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut left = vec![root.join(directory)];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).expect("the directory is in the checkout") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let relative = path.strip_prefix(root).expect("it is below the root");
                found.push(relative.to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no *.{extension} in {directory}");
    found.sort();
    found
}

/// Every word of `text` that begins with `prefix` and goes on with characters that `allowed` takes.
pub(crate) fn words(text: &str, prefix: &str, allowed: fn(char) -> bool) -> BTreeSet<String> {
    text.match_indices(prefix)
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| allowed(c) || c == '-'))
        .map(|(at, _)| {
            let rest = &text[at + prefix.len()..];
            let end = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
            format!("{prefix}{}", &rest[..end])
        })
        .filter(|word| word != prefix)
        .collect()
}

/// Whether a flag's name may contain the character.
pub(crate) fn in_a_flag(c: char) -> bool {
    c.is_ascii_lowercase() || c == '-'
}

/// Every flag in `--help`, with the default that it states.
pub(crate) fn flags() -> BTreeMap<String, Option<String>> {
    let mut flags = BTreeMap::new();
    let mut current = None;
    for line in help(&["--help"]).lines() {
        let text = line.trim_start();
        // Deeper lines are explanations, which may begin with the name of another flag.
        if line.len() - text.len() <= 6 && text.starts_with('-') {
            let flag = words(text, "--", in_a_flag).into_iter().next();
            let flag = flag.unwrap_or_else(|| panic!("a flag without a long name: {line}"));
            flags.insert(flag.clone(), None);
            current = Some(flag);
        }
        if let (Some(flag), Some((_, rest))) = (&current, line.split_once("[default: ")) {
            let default = rest.split(']').next().unwrap_or_default().to_owned();
            flags.insert(flag.clone(), Some(default));
        }
    }
    assert!(flags.contains_key("--repo"), "no --repo in the help");
    flags
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_git-volume-reloader"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("the help is UTF-8")
}

/// The cells of every table row in `text`.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| ") && line.ends_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(str::trim)
                .collect::<Vec<_>>()
        })
}

/// What stands alone in backquotes in a cell.
pub(crate) fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?
        .strip_suffix('`')
        .filter(|code| !code.contains('`'))
}

/// The part of `text` under the heading `title`.
pub(crate) fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let at = text
        .find(&heading)
        .unwrap_or_else(|| panic!("no heading {title:?}"));
    let body = &text[at + heading.len()..];
    body.find("\n## ").map_or(body, |end| &body[..end])
}

fn owned<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_readme_lists_every_flag_and_no_other() {
    let readme = read("README.md");
    let listed = rows(section(&readme, "Flags"))
        .filter_map(|row| code(row[0]).map(str::to_owned))
        .collect::<BTreeSet<_>>();
    let mut existing = flags().into_keys().collect::<BTreeSet<_>>();
    existing.retain(|flag| !USUAL.contains(&flag.as_str()));
    assert_eq!(listed, existing);
}

#[test]
fn the_readme_states_the_defaults_that_the_help_states() {
    let readme = read("README.md");
    let flags = flags();
    let mut compared = 0;
    for row in rows(section(&readme, "Flags")) {
        let default = code(row[0]).and_then(|flag| flags.get(flag)?.as_deref());
        if let Some(default) = default {
            assert_eq!(code(row[1]), Some(default), "default of {}", row[0]);
            compared += 1;
        }
    }
    assert!(compared > 5, "only {compared} defaults in the help");
}

#[test]
fn the_long_form_explains_every_flag_and_no_other() {
    let text = read("docs/reference/flags.md");
    let explained = text
        .split("**")
        .filter_map(|bold| code(bold).filter(|code| code.starts_with("--")))
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
    assert_eq!(explained, flags().into_keys().collect::<BTreeSet<_>>());
}

#[test]
fn the_flags_that_stay_the_same_after_git_sync_exist() {
    let flags = flags();
    let text = read("docs/how-to/migrating-from-git-sync.md");
    let mut checked = 0;
    for row in rows(&text).filter(|row| row[0].starts_with("`--")) {
        let ours = match row[1] {
            "the same" => row[0],
            other => other,
        };
        for flag in words(ours, "--", in_a_flag) {
            assert!(flags.contains_key(&flag), "{flag} is not a flag");
            checked += 1;
        }
    }
    assert!(checked > 15, "only {checked} flags in the table");
}

#[test]
fn the_healthcheck_of_the_documents_exists() {
    assert!(read("README.md").contains("git-volume-reloader healthcheck"));
    let help = help(&["healthcheck", "--help"]);
    assert!(help.contains("livez") && help.contains("readyz"), "{help}");
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let text = read("docs/reference/metrics.md");
    let documented = rows(&text)
        .filter_map(|row| code(row[0]).map(str::to_owned))
        .collect::<BTreeSet<_>>();
    assert_eq!(documented, owned(metrics::NAMES.iter().copied()));
}

#[test]
fn the_readme_names_every_metric_of_ours_and_no_other() {
    let readme = read("README.md");
    let named = words(section(&readme, "Metrics"), "gvr_", |c| {
        c.is_ascii_lowercase() || c == '_'
    });
    let ours = metrics::NAMES.iter().copied();
    assert_eq!(named, owned(ours.filter(|name| name.starts_with("gvr_"))));
}

#[test]
fn every_stage_is_documented() {
    let text = read("docs/reference/metrics.md");
    let line = text
        .lines()
        .find(|line| line.starts_with("Stages:"))
        .expect("a line of stages");
    for stage in Stage::ALL {
        let stage = stage.as_str();
        assert!(line.contains(&format!("`{stage}`")), "{stage}: {line}");
    }
}

#[test]
fn every_reason_is_documented_and_no_other() {
    let text = read("docs/how-to/troubleshooting.md");
    let documented = rows(section(&text, "Reasons"))
        .filter_map(|row| code(row[0]).map(str::to_owned))
        .collect::<BTreeSet<_>>();
    assert_eq!(documented, owned(Reason::FAILURES.map(Reason::as_str)));
}

#[test]
fn every_route_is_documented_with_its_method_and_no_other() {
    let readme = read("README.md");
    let documented = rows(section(&readme, "HTTP routes"))
        .filter_map(|row| code(row[0]).map(str::to_owned))
        .collect::<BTreeSet<_>>();
    let served = ROUTES
        .iter()
        .map(|(path, methods, _)| {
            let method = methods.split(',').next().unwrap_or_default();
            format!("{method} {path}")
        })
        .collect::<BTreeSet<_>>();
    assert_eq!(documented, served);
}

#[test]
fn every_relative_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files("docs", "md");
    documents.extend(files("k8s", "md"));
    documents.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "RELEASING.md",
            "SECURITY.md",
        ]
        .map(PathBuf::from),
    );
    let mut followed = 0;
    for document in documents {
        let text = read(&document);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root.join(&document),
                path => root.join(document.parent().unwrap_or(root)).join(path),
            };
            let at = document.display();
            assert!(target.exists(), "{at}: {link} leads nowhere");
            if !anchor.is_empty() {
                let anchors = anchors(&read(&target));
                assert!(anchors.contains(anchor), "{at}: no heading for {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "only {followed} links found");
}

/// The anchors that forges derive from headings.
pub(crate) fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}
