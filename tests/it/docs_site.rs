//! Every command and manifest of the documents is run or rendered, and the documentation site builds.

use crate::support::sidecar::BINARY;
use crate::support::tools::script;

#[test]
fn every_command_and_manifest_of_the_documents_works_and_the_site_builds() {
    let said = script("check-docs", &[BINARY]);
    assert!(said.contains("the site builds"), "{said}");
}
