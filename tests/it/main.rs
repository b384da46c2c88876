//! Integration tests: the real binary, real repositories, real servers, in one test binary.

mod docs;
mod k8s;
