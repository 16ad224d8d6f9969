//! The doors: bytes in, requests to [`Api`](crate::api::Api), bytes out.
//!
//! Invariants:
//! - a length is checked before anything of that length is read, and memory grows with what has arrived;
//! - a connection's requests are begun in the order in which they came, and answered in that order;
//! - a connection reads no further than its credits go; a client that does not read its answers is closed;
//! - a hostile client harms one connection.

pub mod admission;
pub mod http;
pub mod kafka;
pub mod peer;
pub mod quic;
pub mod throttle;
