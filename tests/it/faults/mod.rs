//! What may go wrong around the running program, one fault at a time: what readers keep, what the
//! operator is told, and that syncing goes on by itself when the cause is gone.
//!
//! Each fault is a [`Row`] of a table with the scenario that proves it, through the real binary.
//! The same table is what `docs/explanation/reliability.md` shows.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::foreign::Volume;
use crate::support::http_server::HttpServer;
use crate::support::readers::{Readers, generation};
use crate::support::root::Root;
use crate::support::sidecar::{Launch, Sidecar};
use crate::support::upstream::{Change, Upstream};

/// Makes a section of the table, and a test of each row in it.
macro_rules! section {
    ($heading:literal, { $($name:ident: $row:expr,)* }) => {
        /// The faults of this module, as the table shows them.
        pub const SECTION: crate::faults::Section = crate::faults::Section {
            heading: $heading,
            rows: &[$($row),*],
        };

        $(
            #[test]
            fn $name() {
                let row: crate::faults::Row = $row;
                (row.prove)(&row);
            }
        )*
    };
}

pub mod commits;
pub mod disk;
pub mod http;
pub mod neighbours;
pub mod process;
pub mod ssh;
pub mod tls;

/// The sections in the order of the document.
pub const SECTIONS: [Section; 7] = [
    http::SECTION,
    tls::SECTION,
    ssh::SECTION,
    commits::SECTION,
    disk::SECTION,
    process::SECTION,
    neighbours::SECTION,
];

/// Faults that belong together.
pub struct Section {
    pub heading: &'static str,
    pub rows: &'static [Row],
}

/// One fault: what is promised about it, and the scenario that proves it.
#[derive(Clone, Copy)]
pub struct Row {
    /// What happens to the program.
    pub fault: &'static str,
    /// What readers see meanwhile.
    pub readers: Readable,
    /// What the operator sees.
    pub operator: Told,
    /// When syncing works again once the cause is gone.
    pub recovery: Recovery,
    /// Brings the fault about, checks all of the above, and takes the fault away.
    pub prove: fn(&Row),
}

/// What readers see while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// The tree that was published before, whole.
    LastTree,
    /// Each published commit, whole and in time.
    EachCommit,
    /// The tree that was published before; what it lost is back as soon as it is noticed.
    Mended,
    /// Errors, until syncing works again.
    Errors,
}

/// What the operator sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: it is no failure.
    Nothing,
    /// A line in the log that holds this text, and no failure.
    Log(&'static str),
    /// A failure under this stage and reason, with a message that holds this text.
    Failure(&'static str, &'static str, &'static str),
    /// The end of the process by a signal, or a failure; which of them is left to the system.
    Ends,
    /// The process ends with exit code 1 and a last line that holds this text.
    Exit(&'static str),
}

/// When syncing works again once the cause is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It never stopped.
    AtOnce,
    /// The first attempt that begins afterwards succeeds.
    NextAttempt,
    /// The same, and no attempt is made before the time that the remote asked for is over.
    AfterRetryAfter,
    /// By the polls that follow a nudge up.
    FollowUp,
    /// The next start.
    Restart,
}

/// A failure that readers do not notice and that the next attempt gets over.
pub const fn failure(
    fault: &'static str,
    stage: &'static str,
    reason: &'static str,
    message: &'static str,
    prove: fn(&Row),
) -> Row {
    Row {
        fault,
        readers: Readable::LastTree,
        operator: Told::Failure(stage, reason, message),
        recovery: Recovery::NextAttempt,
        prove,
    }
}

/// Something that nobody has to notice.
pub const fn no_failure(fault: &'static str, prove: fn(&Row)) -> Row {
    Row {
        fault,
        readers: Readable::EachCommit,
        operator: Told::Nothing,
        recovery: Recovery::AtOnce,
        prove,
    }
}

/// A sidecar that has published, its remote, and a reader that watches it all the time.
pub struct World {
    pub upstream: Upstream,
    pub root: Root,
    pub sidecar: Sidecar,
    pub first: String,
    readers: Option<Readers>,
}

/// A sidecar's launch with deadlines short enough to be waited for, and long enough for a busy
/// machine.
pub fn launch(repo: &str, root: &Root) -> Launch {
    Launch::new(repo, root)
        .http()
        .flag("sync-timeout", "4s")
        .flag("stall-timeout", "1s")
}

impl World {
    /// A world whose sidecar follows `repo`, where `upstream` can be reached.
    pub fn new(upstream: Upstream, root: Root, launch: Launch) -> Self {
        let first = upstream.commit_changes("main", &generation(0));
        let mut sidecar = launch.spawn();
        sidecar.wait_for(&root, &first);
        // The cycle goes on for a moment after the flip.
        sidecar.wait_for_metric("gvr_syncs_total", &[("outcome", "changed")], 1.0);
        let readers = Some(Readers::start(1, root.link()));
        Self {
            upstream,
            root,
            sidecar,
            first,
            readers,
        }
    }

    /// The usual one: over HTTP.
    pub fn over_http() -> (HttpServer, Self) {
        Self::at(Root::new(), &[])
    }

    /// The same without a reader, for what readers cannot but notice.
    pub fn unwatched(mut self) -> Self {
        let seen = self.readers.take().map(Readers::finish);
        assert_eq!(seen.unwrap().torn, [] as [String; 0]);
        self
    }

    /// The usual one with its root at a place of its own.
    pub fn at(root: Root, flags: &[(&str, &str)]) -> (HttpServer, Self) {
        let upstream = Upstream::empty();
        let server = serve(&upstream);
        let launch = launch(&server.url("upstream.git"), &root).flags(flags);
        let world = Self::new(upstream, root, launch);
        (server, world)
    }

    /// The next commit of the chain that the reader knows.
    pub fn push(&self, n: u64) -> String {
        self.upstream.commit_changes("main", &generation(n))
    }

    /// The same with a file beside it, which no compression makes smaller than `bytes`.
    pub fn push_heavy(&self, n: u64, bytes: usize) -> String {
        self.push_beside(n, [noise(bytes)])
    }

    /// The same with other changes beside it.
    pub fn push_beside(&self, n: u64, others: impl IntoIterator<Item = Change>) -> String {
        let mut changes = generation(n);
        changes.extend(others);
        self.upstream.commit_changes("main", &changes)
    }

    /// Waits until the fault is told as the row says, and no other reason with it; readers keep
    /// what they have, and the probes say so.
    #[track_caller]
    pub fn endure(&mut self, row: &Row) {
        self.endure_unready(row);
        assert_eq!(self.sidecar.get("/readyz").code, 200, "{}", row.fault);
    }

    /// The same for a start that never came to see the tree.
    #[track_caller]
    pub fn endure_unready(&mut self, row: &Row) {
        let Told::Failure(stage, reason, message) = row.operator else {
            panic!("{}: nothing to wait for", row.fault);
        };
        let labels = [("stage", stage), ("reason", reason)];
        let sidecar = &mut self.sidecar;
        sidecar.wait_while_alive(row.fault, |sidecar| {
            let text = sidecar.log().join("\n");
            text.contains(&format!("\"reason\":\"{reason}\""))
        });
        sidecar.wait_for_metric("gvr_sync_failures_total", &labels, 1.0);
        let told = told(sidecar);
        let error = &told["last_error"];
        assert_eq!(error["reason"], reason, "{}: {told}", row.fault);
        let shown = error["message"].as_str().unwrap();
        assert!(shown.contains(message), "{}: {shown:?}", row.fault);
        assert_eq!(sidecar.get("/livez").code, 200, "{}", row.fault);
        assert_eq!(row.readers, Readable::LastTree);
        self.root.assert_published(&self.upstream, &self.first);
        // Two questions: there may be one more of the same between them.
        let all = sidecar.metric("gvr_sync_failures_total", &[]);
        let told = sidecar.metric("gvr_sync_failures_total", &labels);
        assert!(
            told >= all,
            "{}: failures for other reasons\n{}",
            row.fault,
            sidecar.log().join("\n")
        );
    }

    /// Waits for what the row says about the log, which is no failure.
    #[track_caller]
    pub fn notice(&mut self, row: &Row) {
        let Told::Log(text) = row.operator else {
            panic!("{}: nothing to wait for", row.fault);
        };
        self.sidecar.wait_for_log(text);
        let failures = self.sidecar.metric("gvr_sync_failures_total", &[]);
        assert_eq!(failures, 0.0, "{}", row.fault);
    }

    /// Takes the cause away; the first attempt that begins then must publish `commit`.
    #[track_caller]
    pub fn recover(mut self, row: &Row, clear: impl FnOnce(), commit: &str) {
        assert_eq!(row.recovery, Recovery::NextAttempt);
        let before = self.sidecar.metric("gvr_sync_failures_total", &[]);
        clear();
        self.sidecar.wait_for(&self.root, commit);
        let after = self.sidecar.metric("gvr_sync_failures_total", &[]);
        // One may have ended while the first number was on its way, one may be under way.
        assert!(after <= before + 2.0, "{}: {before} {after}", row.fault);
        self.end(row, commit);
    }

    /// The end of every scenario: the tree is git's, nothing is torn, nothing lies about.
    #[track_caller]
    pub fn end(mut self, row: &Row, commit: &str) {
        self.root.assert_published(&self.upstream, commit);
        // What a failed cycle left is on its way out; a stop would leave it to the next start.
        let root = &self.root;
        self.sidecar
            .wait_while_alive("a tidy root", |_| root.litter(&[]).is_empty());
        self.sidecar.stop();
        self.root.assert_tidy(&[]);
        if let Some(readers) = self.readers {
            assert_eq!(readers.finish().torn, [] as [String; 0], "{}", row.fault);
        }
    }
}

/// A world whose process is no superuser, whom modes and limits would not concern, on a volume that
/// it may write to; with the launch for another start.
pub fn unprivileged(flags: &[(&str, &str)]) -> (Volume, HttpServer, World, Launch) {
    let volume = Volume::new(0o775);
    let root = Root::at(&volume.path().join("root"));
    fs::create_dir(root.path()).unwrap();
    volume.share(root.path());
    let upstream = Upstream::empty();
    let server = serve(&upstream);
    let launch = volume.launch(launch(&server.url("upstream.git"), &root).flags(flags));
    let world = World::new(upstream, root, launch.clone());
    (volume, server, world, launch)
}

/// What `/status` tells about the target.
#[track_caller]
pub fn told(sidecar: &mut Sidecar) -> Value {
    sidecar.status()["targets"][0].take()
}

/// A server for the directory of this repository, which is `upstream.git` on it.
pub fn serve(upstream: &Upstream) -> HttpServer {
    HttpServer::start(upstream.path().parent().unwrap())
}

/// The file `noise/file`, which no compression makes smaller than `bytes`.
pub fn noise(bytes: usize) -> Change {
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
    Change::file("noise/file", noise)
}

/// A file with this text in a directory that lasts as long as the guard.
pub fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// Asks a sidecar to poll now.
#[track_caller]
pub fn nudge(address: &str, token: &str) {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "POST /nudge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 202"), "{answer}");
}
