//! Integration tests: the real binary, real repositories, real servers, in one test binary.
#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic with the cause is the report"
)]

mod http;
mod support;
