//! A file or symbolic link of a tree object: shared with the base, or written from the store.

use super::job::Job;
use super::locking::lock;
use super::paths::printable_path;
use super::task::{DirectoryPlan, TaskOutput};
use crate::base::error::SyncError;
use crate::manifest::{Kind, Record};
use crate::tree::Effort;
use crate::tree::attributes::STEP_LIMIT;
use crate::tree::conversion::Conversion;
use crate::tree::objects::TreeEntry;

impl Job<'_> {
    pub(super) fn file(
        &self,
        plan: &DirectoryPlan,
        entry: &TreeEntry<'_>,
        kind: Kind,
        path: &[u8],
        output: &mut TaskOutput,
    ) -> Result<(), SyncError> {
        if !self.includes(plan, path, false) {
            return Ok(());
        }
        let mut conversion = Conversion::default();
        if let Some(rules) = &plan.rules
            && kind != Kind::Symlink
        {
            let proceed = || self.proceed();
            let mut effort = Effort::new(STEP_LIMIT, &proceed);
            let attributes = rules.attributes_of(&path[plan.repository.prefix..], &mut effort)?;
            conversion = attributes.conversion;
            if let Some(filter) = attributes.filter {
                lock(&self.build.remarks)
                    .note_unapplied(&format!("filter={filter}"), printable_path(path));
            }
        }
        let recorded = conversion.to_bytes();
        let unchanged = plan
            .base
            .as_ref()
            .and_then(|base| base.find(entry.name, false))
            .filter(|record| {
                record.kind == kind && record.id == entry.id && record.conversion == recorded
            });
        if let Some(record) = unchanged
            && let Some(stat) = self.share(&plan.directory, &record)?
        {
            output.block.push(&Record { stat, ..record });
            return Ok(());
        }
        let written = self.write(&plan.directory, entry.name, kind, entry.id, &conversion)?;
        output.block.push(&Record {
            name: entry.name,
            kind,
            id: entry.id,
            stat: written.stat,
            conversion: &recorded,
            converted: written.converted,
            child: 0,
        });
        Ok(())
    }
}
