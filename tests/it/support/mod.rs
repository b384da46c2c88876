//! The real servers and their misbehaviour, for all integration tests.

pub mod http_server;
