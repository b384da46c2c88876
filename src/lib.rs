//! Keeps a directory on a volume equal to a git ref: polled, atomic, observable.
//!
//! This library is the inside of the `git-volume-reloader` command. It is a crate of its own so that
//! tests, benchmarks and fuzz targets can use it, and it promises no stable API.
//!
//! `ARCHITECTURE.md` describes the path of a commit, the directions between the rooms, and where each
//! promise is kept.
//!
//! | room | what belongs there |
//! |---|---|
//! | [`base`] | commits, errors, budgets, secrets, text, small files, durations, wake-ups |
//! | `pack` | objects as packs store them |
//! | [`manifest`] | the list of the files of a published tree |
//! | [`net`] | sockets, TLS, proxies and the HTTP client |
//! | [`credentials`] | sources of credentials, and which URL may get which |
//! | [`tree`] | a commit becomes files |
//! | [`store`] | the bare object store |
//! | [`volume`] | every path name under the root |
//! | [`remote`] | the git protocol over HTTP, SSH and local paths |
//! | [`notify`] | events, and those that are told |
//! | [`observe`] | the state behind `/metrics` and `/status` |
//! | [`serve`] | the HTTP port |
//! | [`target`] | one target: loop, schedule, cycle, housekeeping |
//! | [`cli`] | what may be typed, and its help |
//! | [`config`] | what the flags and the environment mean |
//! | [`app`] | the process: threads, watchdog, signals, log output |

pub mod app;
pub mod base;
pub mod child;
pub mod cli;
pub mod config;
pub mod control;
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
