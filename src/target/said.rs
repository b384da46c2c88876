//! What is not as a tree's reader may expect: said once, not for every tree.

use tracing::warn;

use crate::base::text::printable;
use crate::tree;

/// How many shortcomings of each kind are remembered.
const SAID: usize = 100;

/// What the log was told about shortcomings, so as not to repeat it for every tree.
#[derive(Default)]
pub(super) struct Said {
    cannot_share: bool,
    unfiltered: Vec<String>,
    unpopulated: Vec<String>,
}

impl Said {
    /// Says what is not as a tree's reader may expect, unless it was said of an earlier tree.
    pub fn warn_of_shortcomings(&mut self, tree: &tree::Built) {
        if let Some(why) = &tree.shared_fallback
            && !std::mem::replace(&mut self.cannot_share, true)
        {
            warn!(
                why = printable(why),
                "unchanged files are written again: they cannot be shared"
            );
        }
        let news = |said: &mut Vec<String>, now: &[String]| {
            let before = said.len();
            for item in now {
                if !said.contains(item) {
                    said.push(item.clone());
                }
            }
            let news = said.len() > before;
            said.drain(..said.len().saturating_sub(SAID));
            news
        };
        if news(&mut self.unfiltered, &tree.unfiltered) {
            let files = printable(&tree.unfiltered.join(", "));
            warn!(
                files,
                "filters are not run: these files are as the repository holds them"
            );
        }
        if news(&mut self.unpopulated, &tree.unpopulated) {
            let paths = printable(&tree.unpopulated.join(", "));
            warn!(
                paths,
                "submodules without an entry in .gitmodules stay empty"
            );
        }
    }
}
