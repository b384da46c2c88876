//! The walk through submodules enters each commit once, however many paths lead to it.
#![no_main]

use std::collections::HashMap;

use git_volume_reloader::base::error::Reason;
use git_volume_reloader::base::repo_url::RepoUrl;
use git_volume_reloader::tree::Submodule;
use git_volume_reloader::tree::nested::{SUBMODULE_LEVELS, SUBMODULE_LIMIT, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // Edges: from a commit to one with a higher number, because no commit can name itself.
    let edges: Vec<(u8, u8)> = input
        .chunks_exact(2)
        .take(512)
        .map(|pair| (pair[0] % 32, pair[1] % 32))
        .filter(|(from, to)| from < to)
        .collect();
    let below = |commit: u8| -> Vec<Submodule> {
        let named = edges.iter().filter(|(from, _)| *from == commit);
        named.map(|(_, to)| submodule(*to)).collect()
    };
    let mut entered: HashMap<String, u32> = HashMap::new();
    let result = walk(below(0), &mut |submodule| {
        *entered.entry(submodule.commit.to_string()).or_default() += 1;
        let number = u64::from_str_radix(&submodule.commit.to_string()[24..], 16).unwrap();
        Ok(below(u8::try_from(number).unwrap()))
    });
    assert!(entered.values().all(|times| *times == 1));

    // From the last commit to the first: how many paths there are, and how deep.
    let (mut paths, mut levels) = ([0_u64; 32], [0_usize; 32]);
    for from in (0..32).rev() {
        for (_, to) in edges.iter().filter(|edge| usize::from(edge.0) == from) {
            let to = usize::from(*to);
            paths[from] = paths[from].saturating_add(paths[to].saturating_add(1));
            levels[from] = levels[from].max(levels[to] + 1);
        }
    }
    let fits = paths[0] <= SUBMODULE_LIMIT && levels[0] <= SUBMODULE_LEVELS;
    match result {
        Ok(()) => assert!(fits, "{} paths, {} levels", paths[0], levels[0]),
        Err(error) => {
            assert_eq!(error.reason, Reason::Limit);
            assert!(!fits, "{} paths, {} levels", paths[0], levels[0]);
        }
    }
});

fn submodule(number: u8) -> Submodule {
    Submodule {
        path: format!("m{number}").into(),
        url: RepoUrl::parse("https://h/x").unwrap(),
        commit: format!("{number:040x}").parse().unwrap(),
    }
}
