//! What the tests stand on: real servers, a real repository, the sidecar as a child process.

pub mod answers;
pub mod environment;
pub mod foreign;
pub mod full_disk;
pub mod git_oracle;
pub mod http_server;
pub mod readers;
pub mod root;
pub mod sidecar;
pub mod sshd;
pub mod tcp_proxy;
pub mod tree_compare;
pub mod upstream;
pub mod wait;
//! The real servers and their misbehaviour, for all integration tests.

//! What the tests stand on: real servers and a real repository.

//! What the tests share.

