//! A tree is published only after every acceptor accepted it.

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use git_volume_reloader::base::budget::Budget;
use git_volume_reloader::base::error::{Reason, Stage, SyncError};
use git_volume_reloader::cli::Cli;
use git_volume_reloader::config::Config;
use git_volume_reloader::notify::Observers;
use git_volume_reloader::target::{
    Acceptor, Context, Judgement, Outcome, Proposal, Syncer, Target,
};

use crate::support::root::Root;
use crate::support::upstream::Upstream;

/// Rejects the commits of a list, cannot decide about those of another, and counts its calls.
#[derive(Clone, Default)]
struct Strict {
    shared: Arc<Mutex<Lists>>,
}

#[derive(Default)]
struct Lists {
    rejected: HashSet<String>,
    undecided: HashSet<String>,
    calls: Vec<String>,
    identity: String,
}

impl Acceptor for Strict {
    fn identity(&self) -> String {
        self.shared.lock().unwrap().identity.clone()
    }

    fn judge(
        &mut self,
        proposal: &Proposal<'_>,
        _: &mut Context<'_>,
    ) -> Result<Judgement, SyncError> {
        let tree = proposal.revision;
        let commit = tree.commit.to_string();
        let mut lists = self.shared.lock().unwrap();
        lists.calls.push(commit.clone());
        assert!(
            tree.path.join("README.md").is_file(),
            "the tree is complete"
        );
        if lists.undecided.contains(&commit) {
            return Err(SyncError::new(Stage::Check, Reason::Check, "no verdict"));
        }
        Ok(match lists.rejected.contains(&commit) {
            true => Judgement::Reject("it is on the list".to_owned()),
            false => Judgement::Accept,
        })
    }
}

impl Strict {
    fn reject(&self, commit: &str) {
        self.shared
            .lock()
            .unwrap()
            .rejected
            .insert(commit.to_owned());
    }

    fn calls(&self, commit: &str) -> usize {
        let lists = self.shared.lock().unwrap();
        lists.calls.iter().filter(|call| *call == commit).count()
    }
}

/// One life of a process: an upstream, a root, and cycles that are run one by one.
struct Life {
    settings: Arc<Target>,
    syncer: Syncer,
    recheck: bool,
}

impl Life {
    fn begin(upstream: &Upstream, root: &Root, acceptor: &Strict) -> Self {
        let root = root.path().to_str().unwrap();
        let cli = Cli::try_parse_from(["gvr", "--repo", &upstream.url(), "--root", root]).unwrap();
        let mut config = Config::resolve(&cli.flags).unwrap();
        let settings = Arc::new(config.targets.remove(0));
        let acceptors: Vec<Box<dyn Acceptor>> = vec![Box::new(acceptor.clone())];
        let syncer = Syncer::new(settings.clone(), acceptors).unwrap();
        Self {
            settings,
            syncer,
            recheck: false,
        }
    }

    fn cycle(&mut self) -> Result<Outcome, SyncError> {
        let minute = Duration::from_secs(60);
        let budget = Budget::new(minute, minute, Arc::default());
        let mut observers = Observers::default();
        let mut context = Context::new(&self.settings, &budget, &mut observers);
        context.recheck = self.recheck;
        self.syncer.cycle(&mut context)
    }

    #[track_caller]
    fn rejection(&mut self) -> (String, bool) {
        match self.cycle().unwrap() {
            Outcome::Rejected(rejection) => {
                assert_eq!(rejection.reason, "it is on the list");
                (rejection.commit.to_string(), rejection.is_new)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_rejected_commit_is_never_shown_and_judged_once_in_this_life_and_the_next() {
    let (upstream, root, strict) = (Upstream::new(), Root::new(), Strict::default());
    let mut life = Life::begin(&upstream, &root, &strict);
    life.cycle().unwrap();
    let good = upstream.tip("main");
    root.assert_published(&upstream, &good);

    let bad = upstream.commit(&[("README.md", "bad\n")]);
    strict.reject(&bad);
    assert_eq!(life.rejection(), (bad.clone(), true));
    assert_eq!(life.rejection(), (bad.clone(), false));
    root.assert_published(&upstream, &good);

    drop(life);
    let mut life = Life::begin(&upstream, &root, &strict);
    assert_eq!(life.rejection(), (bad.clone(), false));
    assert_eq!(strict.calls(&bad), 1);
    root.assert_published(&upstream, &good);

    let better = upstream.commit(&[("README.md", "better\n")]);
    life.cycle().unwrap();
    root.assert_published(&upstream, &better);
}

#[test]
fn a_lost_link_goes_back_to_an_accepted_tree_and_not_to_a_newer_rejected_one() {
    let (upstream, root, strict) = (Upstream::new(), Root::new(), Strict::default());
    let mut life = Life::begin(&upstream, &root, &strict);
    life.cycle().unwrap();
    let good = upstream.tip("main");
    let bad = upstream.commit(&[("README.md", "bad\n")]);
    strict.reject(&bad);
    assert_eq!(life.rejection(), (bad.clone(), true));

    fs::remove_file(root.link()).unwrap();
    assert_eq!(life.rejection(), (bad.clone(), false));
    root.assert_published(&upstream, &good);

    drop(life);
    fs::remove_file(root.link()).unwrap();
    let mut life = Life::begin(&upstream, &root, &strict);
    assert_eq!(life.rejection(), (bad, false));
    root.assert_published(&upstream, &good);
}

#[test]
fn a_tree_without_a_verdict_is_judged_again_and_not_built_again() {
    let (upstream, root, strict) = (Upstream::new(), Root::new(), Strict::default());
    let mut life = Life::begin(&upstream, &root, &strict);
    life.cycle().unwrap();
    let next = upstream.commit(&[("README.md", "next\n")]);
    strict.shared.lock().unwrap().undecided.insert(next.clone());
    assert_eq!(life.cycle().unwrap_err().reason, Reason::Check);
    assert_ne!(root.commit(), Some(next.clone()));
    let built = root.revisions();

    drop(life);
    let mut life = Life::begin(&upstream, &root, &strict);
    assert_eq!(life.cycle().unwrap_err().reason, Reason::Check);
    strict.shared.lock().unwrap().undecided.clear();
    life.cycle().unwrap();
    root.assert_published(&upstream, &next);
    assert_eq!(root.revisions(), built);
}

#[test]
fn a_rejected_first_commit_leaves_readers_without_a_link() {
    let (upstream, root, strict) = (Upstream::new(), Root::new(), Strict::default());
    let mut life = Life::begin(&upstream, &root, &strict);
    let bad = upstream.tip("main");
    strict.reject(&bad);
    assert_eq!(life.rejection(), (bad, true));
    assert_eq!(root.commit(), None);
    let good = upstream.commit(&[("README.md", "good\n")]);
    life.cycle().unwrap();
    root.assert_published(&upstream, &good);
}

#[test]
fn a_verdict_of_other_checks_does_not_hold() {
    let (upstream, root, strict) = (Upstream::new(), Root::new(), Strict::default());
    let bad = upstream.tip("main");
    strict.reject(&bad);
    assert_eq!(
        Life::begin(&upstream, &root, &strict).rejection(),
        (bad.clone(), true)
    );
    strict.shared.lock().unwrap().identity = "stricter".to_owned();
    let mut life = Life::begin(&upstream, &root, &strict);
    assert_eq!(life.rejection(), (bad.clone(), true));
    assert_eq!(life.rejection(), (bad.clone(), false));
    assert_eq!(strict.calls(&bad), 2);
}

#[test]
fn a_rejected_commit_is_judged_again_when_somebody_asks_for_it() {
    let (upstream, root, strict) = (Upstream::new(), Root::new(), Strict::default());
    let bad = upstream.tip("main");
    strict.reject(&bad);
    let mut life = Life::begin(&upstream, &root, &strict);
    assert_eq!(life.rejection(), (bad.clone(), true));
    life.recheck = true;
    assert_eq!(life.rejection(), (bad.clone(), true));
    strict.shared.lock().unwrap().rejected.clear();
    life.cycle().unwrap();
    root.assert_published(&upstream, &bad);
}
