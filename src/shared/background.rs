//! Work that goes on beside the requests for as long as a snapshot that needs it runs.
use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{runtime::Handle, task::AbortHandle};

/// Keeps something fresh: a key set, a token, a document. What it keeps must live outside it, so that
/// the next snapshot, which brings work of its own, finds it again and need not fetch.
pub trait Background: Send + Sync {
    /// Never ends by itself.
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Stops the work when dropped.
#[derive(Debug)]
#[must_use = "the work ends at once without it"]
pub struct TaskGuard(AbortHandle);

impl TaskGuard {
    pub fn spawn(handle: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(handle.spawn(work).abort_handle())
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
