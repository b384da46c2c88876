

mod abuse;
mod bad_input;
mod cli;
mod contract;
mod disk;
mod docs;
mod http;
mod k8s;
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
