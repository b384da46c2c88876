//! Trees that are too large are refused, and smaller ones follow.

use super::{error_file, stage_and_reason};
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::upstream::{Change, Upstream};

#[test]
fn a_tree_over_a_limit_is_refused_and_a_smaller_one_follows() {
    let files: Vec<_> = (0..40)
        .map(|n| Change::file(format!("many/{n}"), format!("{n}\n")))
        .collect();
    let cases = [
        (
            "max-tree-bytes",
            "100000",
            vec![Change::file("large", vec![b'x'; 200_000])],
            "large",
        ),
        ("max-files", "30", files, "many"),
    ];
    for (flag, limit, large, path) in cases {
        let upstream = Upstream::new();
        let root = Root::new();
        let error_file = error_file(&root);
        let mut sidecar = Launch::new(&upstream.url(), &root)
            .flag(flag, limit)
            .flag("error-file", error_file.to_str().unwrap())
            .http()
            .spawn();
        let good = upstream.tip("main");
        sidecar.wait_for(&root, &good);
        upstream.commit_changes("main", &large);
        sidecar.wait_while_alive("the refusal", |_| stage_and_reason(&error_file).is_some());
        let (_, reason) = stage_and_reason(&error_file).unwrap();
        assert_eq!(reason, "limit");
        let text = std::fs::read_to_string(&error_file).unwrap();
        assert!(text.contains(&format!("--{flag}")), "{text}");
        assert_eq!(root.commit().as_deref(), Some(&*good));
        assert!(sidecar.metric("gvr_sync_failures_total", &[("reason", "limit")]) >= 1.0);

        let smaller = upstream.commit_changes("main", &[Change::Delete(path.to_owned())]);
        sidecar.wait_for(&root, &smaller);
        sidecar.wait_while_alive("the error to be over", |_| !error_file.exists());
        root.assert_published(&upstream, &smaller);
        sidecar.stop();
        root.assert_tidy(&[]);
    }
}
