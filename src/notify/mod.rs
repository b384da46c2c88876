//! Telling others what happened.

pub mod files;
