//! Integration tests: the real binary, real repositories, real servers, in one test binary.
//! Integration tests: the library and the program against real servers, in one test binary.
#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic with the cause is the report"
)]

mod abuse;
mod bad_input;
mod contract;
mod disk;
mod http;
mod kill_points;
mod main_job;
mod refs;
mod serve;
mod signals;
mod ssh;
mod store;
mod support;
mod tree;
mod volume;
//! The integration tests: facts about the library and the program, on real servers and files.

#![allow(
    clippy::unwrap_used,
    reason = "a test, and what serves tests, may fail by panicking"
)]

//! Integration tests: one binary, a module a subject.

