//! The integration tests: facts about the library and the program, on real servers and files.

#![allow(
    clippy::unwrap_used,
    reason = "a test, and what serves tests, may fail by panicking"
)]

mod abuse;
mod serve;
