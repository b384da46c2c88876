//! Integration tests: the library and the program against real servers, in one test binary.
#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic with the cause is the report"
)]

mod ssh;
mod support;
