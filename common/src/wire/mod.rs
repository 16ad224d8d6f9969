//! Callboard's own protocol on the QUIC door: frames with a fixed header, a bincode body, and record bytes after it.

pub mod codec;
pub mod frame;
