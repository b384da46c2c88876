//! Integration tests: real disks, real repositories, real servers.

// A test that cannot go on says where by panicking.
#![allow(clippy::unwrap_used)]

mod store;
mod volume;
