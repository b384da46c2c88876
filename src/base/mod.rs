//! The types that every room uses: commits, errors, budgets, secrets, text.
//!
//! Nothing here imports another room.

pub mod allowance;
pub mod budget;
pub mod commit;
pub mod durations;
pub mod error;
pub mod files;
pub mod heartbeat;
pub mod processes;
pub mod repo_url;
pub mod secret;
pub mod signal;
pub mod text;
pub mod transfer;
pub mod wake;
