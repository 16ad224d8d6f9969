//! The one door to the network for Callboard's own protocol: QUIC, TLS 1.3 always.

pub mod authority;
pub mod endpoint;
pub mod network;
pub mod peer;
pub mod stream;
pub mod tls;
