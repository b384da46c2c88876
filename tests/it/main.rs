//! The integration tests: facts about the library and the program, on real servers and files, in
//! one test binary.
#![allow(
    clippy::unwrap_used,
    reason = "in a test a panic with the cause is the report"
)]

mod abuse;
mod acceptance;
mod architecture;
mod bad_input;
mod charts;
mod cli;
mod contract;
mod control;
mod disk;
mod docs;
mod docs_site;
mod durability;
mod examples;
mod faults;
mod features;
mod gate;
mod hooks;
mod http;
mod k8s;
mod kill_points;
mod main_job;
mod monitoring;
mod nudges;
mod power_cuts;
mod refs;
mod reliability;
mod serve;
mod signals;
mod site;
mod soak;
mod ssh;
mod store;
mod support;
mod targets;
mod transports;
mod tree;
mod volume;
mod webhooks;
