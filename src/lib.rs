//! Keeps a directory on a volume equal to a git ref: polled, atomic, observable.
//!
//! This library is the inside of the `git-volume-reloader` command. It is split from the binary for
//! the tests' sake and promises no stable API.
//!
//! # The house
//!
//! Data flows one way; a module knows only those to its right:
//!
//! ```text
//! main -> process -> supervisor -> sync -> { remote, store, tree, volume, hooks }
//!                 -> serve -> { status, metrics, wake }
//! ```
//!
//! | room | what belongs there |
//! |---|---|
//! | [`cli`] | what may be typed, and its help |
//! | [`config`] | flags and environment become absolute paths, validated values, unprintable secrets |
//! | [`process`], [`logging`] | threads, watchdog, exit codes, the last words; log lines |
//! | [`supervisor`] | one loop per target: period, jitter, backoff, when to give up |
//! | [`sync`](mod@sync) | what to do about a tip, and one cycle that does it |
//! | [`remote`] | the git protocol over HTTP, SSH and local paths: a tip, a pack |
//! | [`credentials`] | passwords, tokens, SSH keys: their sources, and who may get them |
//! | [`net`] | sockets, TLS, proxies, HTTP; nothing of git |
//! | [`store`] | the bare object store: receive, heal, shrink |
//! | [`tree`] | a commit becomes files |
//! | `pack` | objects as packs hold them, for `store`, `tree` and local remotes |
//! | [`manifest`] | what a published tree consists of: for sharing and verification |
//! | [`volume`] | every path name under the root: lock, observe, stage, seal, publish, prune |
//! | [`hooks`] | what others are told through files |
//! | [`serve`], [`healthcheck`] | the HTTP side, and its client |
//! | [`metrics`], [`status`] | every series; the state that `/status` and health show |
//! | [`wake`] | what ends a wait: a nudge, a signal, a shutdown |
//! | [`commit`], [`error`], [`budget`], [`secret`], [`repo_url`] | the words that all of them speak |
//!
//! `remote`, `tree` and `volume` never import each other: `sync` joins them.
//!
//! # The contract on disk
//!
//! ```text
//! <root>/
//!   current -> .gvr/revisions/000042/<commit>     flipped by an atomic rename, relative
//!   .gvr/
//!     lock                       one writer per root (flock)
//!     store.git/                 bare object store, depth-limited
//!     staging/<n>/               being built; anything here at start-up is debris
//!     spare/<n>/                 links to the files of revision <n>, for the one after it; likewise
//!     revisions/<n>/<commit>/    complete; gets here only by rename from staging
//!     revisions/<n>/manifest     every file with mode, object id, size and mtime
//!     trash/                     on its way out
//! ```
//!
//! `<n>` only grows. The final name means "complete". The disk is the only state: every cycle reads
//! it again, so a kill at any instruction is an ordinary start.

pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod manifest;
pub mod net;
pub mod notify;
pub mod observe;
mod pack;
pub mod remote;
pub mod serve;
pub mod store;
pub mod target;
pub mod tree;
pub mod volume;
