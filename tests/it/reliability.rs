//! `docs/explanation/reliability.md` shows the table of faults that the tests prove, and nothing else.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::docs::read;
use crate::faults::{Readable, Recovery, Row, SECTIONS, Told};
use crate::support::environment::update_docs;

const DOCUMENT: &str = "docs/explanation/reliability.md";
const BEGIN: &str = "<!-- The table is made by `make reliability` from tests/it/faults. -->\n";
const END: &str = "<!-- The end of the table. -->\n";

#[test]
fn the_table_in_the_document_is_the_one_that_is_proven() {
    let document = read(DOCUMENT);
    let (before, rest) = document.split_once(BEGIN).expect("the table has a begin");
    let (shown, after) = rest.split_once(END).expect("the table has an end");
    let proven = table();
    if update_docs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
        fs::write(path, format!("{before}{BEGIN}{proven}{END}{after}")).unwrap();
        return;
    }
    assert!(
        shown == proven,
        "{DOCUMENT} is not what tests/it/faults prove: run `make reliability`"
    );
}

#[test]
fn no_fault_is_told_twice() {
    for section in SECTIONS {
        let mut faults: Vec<_> = section.rows.iter().map(|row| row.fault).collect();
        faults.sort_unstable();
        let all = faults.len();
        faults.dedup();
        assert_eq!(faults.len(), all, "{}", section.heading);
    }
}

fn table() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        write!(
            text,
            "\n### {}\n\n\
             | Fault | Readers see | The operator sees | Syncing works again |\n\
             |---|---|---|---|\n",
            section.heading
        )
        .unwrap();
        for row in section.rows {
            text.push_str(&line(row));
        }
    }
    text.push('\n');
    text
}

fn line(row: &Row) -> String {
    let operator = match row.operator {
        Told::Nothing => "nothing: it is no failure".to_owned(),
        Told::Ends => "a failure, or the end of the process".to_owned(),
        Told::Log(text) => format!("log: “{text}”"),
        Told::Failure(stage, reason, message) => {
            format!("stage `{stage}`, reason `{reason}`: “{message}”")
        }
        Told::Exit(text) => format!("exit code 1, last line: “{text}”"),
    };
    format!(
        "| {} | {} | {operator} | {} |\n",
        row.fault,
        readers(row.readers),
        recovery(row.recovery)
    )
}

fn readers(readers: Readable) -> &'static str {
    match readers {
        Readable::LastTree => "the tree they had",
        Readable::EachCommit => "each commit, whole",
        Readable::Mended => "the damage, until it is noticed",
        Readable::Errors => "errors, until it is built again",
    }
}

fn recovery(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::AtOnce => "it never stopped",
        Recovery::NextAttempt => "at the next attempt",
        Recovery::AfterRetryAfter => "when the time is over that was asked for",
        Recovery::FollowUp => "by itself: a nudge is followed by polls after 1, 2, 4 and 8 s",
        Recovery::Restart => "at the next start",
    }
}
