//! Integration tests: one binary, a module a subject.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, which clippy does not see"
)]

mod support;
mod tree;
