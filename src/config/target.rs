//! One target: what a sync cycle works on.

use super::error::ConfigError;
use super::paths::WorkingDirectory;
use super::schedule::schedule;
use super::{auth, gate, git, hooks, notify, tree, volume};
use crate::cli::Flags;
use crate::target::Target;

/// Takes all flags that describe the target.
pub(super) fn target(flags: &Flags, from: &WorkingDirectory) -> Result<Target, ConfigError> {
    let url = git::repo(&flags.git, from)?;
    let layout = volume::layout(&flags.volume, from)?;
    let name = volume::target_name(&flags.volume, &layout.link)?;
    let remote = auth::remote(&flags.auth, url, from)?;
    let tree = tree::options(flags, from)?;
    let publish_on = tree::publish_on(&flags.tree, tree.sparse.as_ref())?;
    Ok(Target {
        name,
        reference: git::reference(&flags.git)?,
        remote,
        depth: flags.git.depth,
        tree,
        publish_on,
        keep: flags.volume.keep,
        stale_timeout: flags.volume.stale_timeout,
        sync_when: volume::sync_when(&flags.volume),
        scrub_period: volume::scrub_period(&flags.volume)?,
        schedule: schedule(&flags.schedule, flags.serve.nudge_wait),
        max_staleness: flags.serve.max_staleness,
        files: notify::files(&flags.notify, &layout)?,
        status_file: notify::status_file(&flags.notify, &layout)?,
        hooks: hooks::hooks(&flags.hooks, from)?,
        gate: gate::gate(&flags.gate, from)?,
        layout,
    })
}
