//! A `.git` directory inside the tree.

use crate::budget::Budget;
use crate::error::SyncError;

use super::BuildRequest;

pub(super) fn write(_request: &BuildRequest<'_>, _budget: &Budget) -> Result<(), SyncError> {
    Ok(())
}
