//! What a request may use of the node, until its answer is written.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// The credits of one request. It travels with every message that serves the request; the credits are free again
/// when the last clone is dropped, also if the caller has gone away.
#[derive(Clone, Debug, Default)]
pub struct Permit(Option<Arc<Mutex<Vec<OwnedSemaphorePermit>>>>);

impl Permit {
    /// Credits taken from connection and node.
    #[must_use]
    pub fn new(credits: Vec<OwnedSemaphorePermit>) -> Self {
        Self(Some(Arc::new(Mutex::new(credits))))
    }

    /// The node's own work, which is bounded where it begins.
    #[must_use]
    pub fn internal() -> Self {
        Self(None)
    }

    /// Adds credits that the request turned out to need; the node's own work needs none.
    pub fn add(&self, credit: OwnedSemaphorePermit) {
        if let Some(credits) = &self.0 {
            credits.lock().push(credit);
        }
    }
}
