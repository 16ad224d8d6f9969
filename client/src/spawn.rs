//! The client's one door to tasks.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a task on the runtime of the caller.
#[expect(clippy::disallowed_methods, reason = "this is the one door")]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
