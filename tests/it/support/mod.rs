//! What the tests stand on: real servers and a real repository.

pub mod environment;
pub mod sshd;
pub mod tcp_proxy;
pub mod upstream;
pub mod wait;
