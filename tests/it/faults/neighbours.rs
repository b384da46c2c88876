//! Another process on the same root.

use super::{Readable, Recovery, Row, Told, World, launch, no_failure};
use crate::support::sidecar::Launch;

section!("Neighbours", {
    a_second_process_that_gives_up: Row {
        fault: "a second process is given the same root, as an init container",
        readers: Readable::EachCommit,
        operator: Told::Exit("is in use by pid"),
        recovery: Recovery::AtOnce,
        prove: gives_up,
    },
    a_second_process_that_takes_over: Row {
        fault: "a second process waits for the root, and the first one ends",
        readers: Readable::EachCommit,
        operator: Told::Log("waiting for another instance"),
        recovery: Recovery::AtOnce,
        prove: takes_over,
    },
    an_init_container_and_then_a_sidecar: no_failure(
        "an init container and a sidecar use the root in turn",
        in_turn,
    ),
});

fn gives_up(row: &Row) {
    let (server, mut world) = World::over_http();
    let Told::Exit(last_line) = row.operator else {
        unreachable!("the row is an exit");
    };
    let second = Launch::one_time(&server.url("upstream.git"), &world.root)
        .flag("sync-timeout", "1s")
        .run();
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.last_line().contains(last_line), "{second:?}");
    let holder = format!("pid {} ", world.sidecar.pid().as_raw_nonzero());
    assert!(second.last_line().contains(&holder), "{second:?}");
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn takes_over(row: &Row) {
    let (server, mut world) = World::over_http();
    let mut second = launch(&server.url("upstream.git"), &world.root)
        .flag("sync-timeout", "30s")
        .spawn();
    let Told::Log(line) = row.operator else {
        unreachable!("the row is a line in the log");
    };
    let line = second.wait_for_log(line);
    let holder = format!("pid {} ", world.sidecar.pid().as_raw_nonzero());
    assert!(line.contains(&holder), "{line}");
    let pushed = world.push(1);
    world.sidecar.wait_for(&world.root, &pushed);
    world.sidecar.kill();
    world.sidecar = second;
    let next = world.push(2);
    world.sidecar.wait_for(&world.root, &next);
    world.end(row, &next);
}

fn in_turn(row: &Row) {
    let (server, mut world) = World::over_http();
    let url = server.url("upstream.git");
    for n in 1..=3 {
        world.sidecar.kill();
        let pushed = world.push(n);
        Launch::one_time(&url, &world.root).succeed();
        world.root.assert_published(&world.upstream, &pushed);
        let revision = world.root.revision();
        world.sidecar = launch(&url, &world.root).spawn();
        world.sidecar.wait_for_polls(1);
        assert_eq!(world.root.revision(), revision, "it was built again");
    }
    let failures = world.sidecar.metric("gvr_sync_failures_total", &[]);
    assert_eq!(failures, 0.0, "{}", row.fault);
    let pushed = world.push(4);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}
