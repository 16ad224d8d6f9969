//! What a request may use of the node, until it is answered.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

/// The credits of one request. It travels with every message that serves the request; the credits are free
/// again when the last of them is dropped, also if the caller has gone away.
#[derive(Clone, Debug, Default)]
pub struct Permit(
    #[expect(dead_code, reason = "it is held, not read")] Option<Arc<Vec<OwnedSemaphorePermit>>>,
);

impl Permit {
    /// Credits taken from connection and node.
    #[must_use]
    pub fn new(credits: Vec<OwnedSemaphorePermit>) -> Self {
        Self(Some(Arc::new(credits)))
    }

    /// The node's own work, which is bounded where it begins.
    #[must_use]
    pub fn internal() -> Self {
        Self(None)
    }
}
