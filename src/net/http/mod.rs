//! An HTTP client with one kept-alive connection, whose every wait is bounded by a budget.
//!
//! [`Client::send`] returns an answer of any status: what a status means is for the caller to say,
//! and so is which servers may get a [`BoundHeader`]. Only a failure to get an answer is an error.
//!
//! Not handled: HTTP/2, cookies, caches, request bodies that do not fit into memory, and retries,
//! except for one after the server had closed the kept connection.

mod client;
mod failure;
mod message;
mod transport;

pub use client::Client;
pub use failure::Failure;
pub use message::{Body, BoundHeader, Redirects, Request, Response, without_query};
pub use ureq::http::{HeaderMap, Method, StatusCode, header};
