//! A remote over SSH that misbehaves.

use super::{Row, World, failure, launch, no_failure};
use crate::support::environment;
use crate::support::root::Root;
use crate::support::sidecar::Launch;
use crate::support::sshd::{Settings, Sshd};
use crate::support::tcp_proxy::{Fault, TcpProxy};
use crate::support::upstream::Upstream;

section!("The remote, over SSH", {
    a_server_that_never_says_hello: failure(
        "accepts the connection and never says a word",
        "poll", "timeout", "no answer for",
        |row| endure(row, Fault::Silent, true),
    ),
    a_server_that_stalls_in_the_handshake: failure(
        "stalls in the middle of the handshake",
        "poll", "timeout", "no answer for",
        |row| endure(row, Fault::StallAfter(500), true),
    ),
    a_server_that_stalls_in_a_pack: failure(
        "stalls in the middle of a pack",
        "fetch", "timeout", "no answer for",
        |row| endure(row, Fault::StallAfter(1_000_000), false),
    ),
    a_server_that_resets_in_a_pack: failure(
        "resets the connection in the middle of a pack",
        "fetch", "network", "the connection broke",
        |row| endure(row, Fault::ResetAfter(1_000_000), false),
    ),
    a_server_that_is_restarted: no_failure(
        "is killed and started again",
        restarted,
    ),
    a_host_key_that_changed: failure(
        "has another host key than before",
        "poll", "hostkey", "has changed",
        another_host_key,
    ),
});

/// A server, a proxy in front of it, and a world that follows a repository there.
fn world() -> (Sshd, TcpProxy, World) {
    let sshd = Sshd::with(&Settings::default());
    let proxy = TcpProxy::to(sshd.port());
    let upstream = Upstream::empty();
    let root = Root::new();
    let launch = with_ssh(&sshd, &proxy, &upstream, &root);
    let world = World::new(upstream, root, launch);
    (sshd, proxy, world)
}

fn with_ssh(sshd: &Sshd, proxy: &TcpProxy, upstream: &Upstream, root: &Root) -> Launch {
    let user = environment::command("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    let url = format!(
        "ssh://{}@127.0.0.1:{}{}",
        user.trim(),
        proxy.port(),
        upstream.path().display()
    );
    let known = format!(
        "[127.0.0.1]:{} {}\n",
        proxy.port(),
        sshd.host_key("ed25519")
    );
    launch(&url, root)
        .flag("ssh-key-file", sshd.client_key("ed25519").to_str().unwrap())
        .flag(
            "ssh-known-hosts-file",
            sshd.known_hosts(&known).to_str().unwrap(),
        )
}

/// Endures a fault on the way, on a new connection or on the one that is kept.
fn endure(row: &Row, fault: Fault, anew: bool) {
    let (_sshd, proxy, mut world) = world();
    proxy.set(fault);
    if anew {
        proxy.disconnect();
    }
    let pushed = world.push_heavy(1, 3_000_000);
    world.endure(row);
    world.recover(row, || proxy.set(Fault::None), &pushed);
}

fn restarted(row: &Row) {
    let (mut sshd, proxy, mut world) = world();
    for n in 1..=3 {
        sshd.restart();
        let pushed = world.push(n);
        world.sidecar.wait_for(&world.root, &pushed);
    }
    assert!(proxy.accepted() > 1, "the connection survived the server");
    let pushed = world.push(4);
    world.sidecar.wait_for(&world.root, &pushed);
    world.end(row, &pushed);
}

fn another_host_key(row: &Row) {
    let (mut sshd, _proxy, mut world) = world();
    let old = sshd.port();
    let other = Sshd::with(&Settings::default());
    let stranger = TcpProxy::to(other.port());
    assert_ne!(old, other.port());
    // The sidecar is started anew with an address where the known name has another key.
    world.sidecar.kill();
    let known = format!(
        "[127.0.0.1]:{} {}\n",
        stranger.port(),
        sshd.host_key("ed25519")
    );
    let file = sshd.known_hosts(&known);
    sshd.restart();
    world.sidecar = with_ssh(&other, &stranger, &world.upstream, &world.root)
        .flag("ssh-known-hosts-file", file.to_str().unwrap())
        .spawn();
    let pushed = world.push(1);
    world.endure(row);
    let right = format!(
        "[127.0.0.1]:{} {}\n",
        stranger.port(),
        other.host_key("ed25519")
    );
    world.recover(row, || std::fs::write(&file, right).unwrap(), &pushed);
}
