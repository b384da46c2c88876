//! What the tests stand on: real servers and their misbehaviour, a real repository, the sidecar as a
//! child process.

pub mod answers;
pub mod connect_proxy;
pub mod cow_disk;
pub mod daemon;
pub mod environment;
pub mod foreign;
pub mod full_disk;
pub mod git_oracle;
pub mod http_server;
pub mod listener;
pub mod memory_limit;
pub mod nginx;
pub mod power_cut;
pub mod readers;
pub mod root;
pub mod sidecar;
pub mod sshd;
pub mod tcp_proxy;
pub mod tools;
pub mod tracer;
pub mod tree_compare;
pub mod upstream;
pub mod wait;
