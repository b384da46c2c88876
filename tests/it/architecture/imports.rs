//! Which module imports which, read from the source text.
//!
//! Names are resolved as far as the crate's own modules and the `use` declarations in them go. Items
//! that a macro makes, and names that reach a module by a glob import, are not resolved. What is
//! marked `#[cfg(test)]` is not read: a unit test may use any room.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The segments of an absolute path in the crate, without `crate`; empty for the crate itself.
pub(super) type ModulePath = Vec<String>;

/// How many re-exports of re-exports are followed.
const MAX_HOPS: usize = 16;

/// The modules of a crate, with what each of them names.
#[derive(Default)]
pub(super) struct Sources {
    modules: BTreeMap<ModulePath, Module>,
}

/// One file.
#[derive(Default)]
struct Module {
    /// Every path that the file writes out.
    paths: Vec<ModulePath>,
    /// What its `use` declarations bring in, by the name it has there.
    names: BTreeMap<String, ModulePath>,
}

impl Sources {
    /// Reads the text of the file that is the module `path`.
    pub(super) fn add(&mut self, path: &[&str], text: &str) {
        let tokens: TokenStream = text.parse().expect("the file is Rust");
        let path: ModulePath = path.iter().map(|part| (*part).to_owned()).collect();
        let mut module = Module::default();
        module.read(tokens, &path);
        self.modules.insert(path, module);
    }

    /// Every pair of a module and a room that it names, where that is not its own room.
    pub(super) fn named_rooms(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for (path, module) in &self.modules {
            for named in &module.paths {
                if let (Some(own), Some(room)) = (path.first(), named.first())
                    && own != room
                    && self.modules.contains_key(std::slice::from_ref(room))
                {
                    found.insert((path.join("/"), room.clone()));
                }
            }
        }
        found
    }

    /// The groups of files within one room that import each other in a circle.
    ///
    /// That a file uses what the `mod.rs` above it defines makes no circle: the `mod.rs` declares it.
    pub(super) fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let mut reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = BTreeMap::new();
        for path in self.modules.keys() {
            let mut seen = BTreeSet::new();
            let mut left = self.neighbours(path);
            while let Some(next) = left.pop() {
                if seen.insert(next) {
                    left.extend(self.neighbours(next));
                }
            }
            reached.insert(path, seen);
        }
        let mut circles = BTreeSet::new();
        for (path, others) in &reached {
            if others.contains(path) {
                let circle = others
                    .iter()
                    .filter(|other| reached[**other].contains(path))
                    .map(|other| other.join("/"))
                    .collect();
                circles.insert(circle);
            }
        }
        circles
    }

    /// The files of the same room that a file imports, and, for a `mod.rs`, those it declares.
    fn neighbours(&self, path: &ModulePath) -> Vec<&ModulePath> {
        let Some(room) = path.first() else {
            return Vec::new();
        };
        let declared = self.modules.keys().filter(|other| {
            other.len() == path.len() + 1 && other.starts_with(path) // Its own files.
        });
        self.modules[path]
            .paths
            .iter()
            .map(|named| self.resolve(named, MAX_HOPS))
            .filter(|other| other.first() == Some(room) && !path.starts_with(other))
            .chain(declared)
            .collect()
    }

    /// The module that defines what a path names.
    fn resolve(&self, path: &[String], hops: usize) -> &ModulePath {
        let (mut at, mut module) = self
            .modules
            .get_key_value(&ModulePath::new())
            .expect("the crate has a root");
        for (index, segment) in path.iter().enumerate() {
            let child: ModulePath = at.iter().chain([segment]).cloned().collect();
            if let Some((path, found)) = self.modules.get_key_value(&child) {
                (at, module) = (path, found);
                continue;
            }
            match module.names.get(segment) {
                Some(target) if hops > 0 => {
                    let rest = target.iter().chain(&path[index + 1..]).cloned();
                    return self.resolve(&rest.collect::<ModulePath>(), hops - 1);
                }
                _ => break,
            }
        }
        at
    }
}

impl Module {
    fn read(&mut self, tokens: TokenStream, here: &ModulePath) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => match tokens.get(at + 1) {
                    Some(TokenTree::Group(attribute)) => {
                        at += 2;
                        if attribute.stream().to_string().replace(' ', "") == "cfg(test)" {
                            at = end_of_item(&tokens, at);
                        }
                    }
                    _ => at += 1,
                },
                TokenTree::Ident(word) if word == "use" && !is(&tokens, at + 1, '<') => {
                    let end = tokens[at..]
                        .iter()
                        .position(|token| is_punct(token, ';'))
                        .map_or(tokens.len(), |length| at + length);
                    self.declare(&tokens[at + 1..end], here, None);
                    at = end + 1;
                }
                TokenTree::Ident(word) if starts_a_path(&word.to_string()) => {
                    let mut path = start(&word.to_string(), here);
                    let mut next = at + 1;
                    while is(&tokens, next, ':') && is(&tokens, next + 1, ':') {
                        match tokens.get(next + 2) {
                            Some(TokenTree::Ident(part)) if part == "super" => {
                                path.pop();
                            }
                            Some(TokenTree::Ident(part)) => path.push(part.to_string()),
                            _ => break,
                        }
                        next += 3;
                    }
                    if next > at + 1 {
                        self.paths.push(path);
                    }
                    at = next;
                }
                TokenTree::Group(group) => {
                    let inline = match (at.checked_sub(2), at.checked_sub(1)) {
                        (Some(keyword), Some(name)) if group.delimiter() == Delimiter::Brace => {
                            match (&tokens[keyword], &tokens[name]) {
                                (TokenTree::Ident(word), TokenTree::Ident(name)) => {
                                    (word == "mod").then(|| name.to_string())
                                }
                                _ => None,
                            }
                        }
                        _ => None,
                    };
                    let inside = here.iter().cloned().chain(inline).collect();
                    self.read(group.stream(), &inside);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Takes a use tree: what follows `use`, or what stands between two commas of its braces.
    fn declare(&mut self, tree: &[TokenTree], here: &ModulePath, prefix: Option<&ModulePath>) {
        let mut path = prefix.cloned();
        for (at, token) in tree.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    let name = tree.get(at + 1).map(ToString::to_string);
                    return self.import(path, name);
                }
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    path = Some(match path {
                        None => start(&word, here),
                        Some(mut path) => {
                            match word.as_str() {
                                "super" => drop(path.pop()),
                                "self" => {}
                                _ => path.push(word),
                            }
                            path
                        }
                    });
                }
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for branch in inside.split(|token| is_punct(token, ',')) {
                        self.declare(branch, here, path.as_ref());
                    }
                    return;
                }
                _ => {}
            }
        }
        let name = path.as_ref().and_then(|path| path.last().cloned());
        self.import(path, name);
    }

    fn import(&mut self, path: Option<ModulePath>, name: Option<String>) {
        let Some(path) = path else { return };
        if let Some(name) = name {
            self.names.insert(name, path.clone());
        }
        self.paths.push(path);
    }
}

fn starts_a_path(word: &str) -> bool {
    matches!(word, "crate" | "self" | "super")
}

/// The absolute path that a first segment stands for. A bare name may be a module of this one.
fn start(word: &str, here: &ModulePath) -> ModulePath {
    match word {
        "crate" => ModulePath::new(),
        "self" => here.clone(),
        "super" => here[..here.len().saturating_sub(1)].to_vec(),
        name => here.iter().cloned().chain([name.to_owned()]).collect(),
    }
}

/// Where the item that begins at `at` is over: after its braces or its semicolon.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';'),
    };
    tokens[at..]
        .iter()
        .position(ends)
        .map_or(tokens.len(), |length| at + length + 1)
}

fn is(tokens: &[TokenTree], at: usize, wanted: char) -> bool {
    tokens.get(at).is_some_and(|token| is_punct(token, wanted))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}
