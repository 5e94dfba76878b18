//! Looks at the files of the listeners' TLS twice a second, and swaps in what has changed once it
//! stands still. Files that cannot be used change nothing; the log, a metric and the status say why.
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{Tls, load, scene};
use crate::{flow::clock::Now, shared::background::Background, shared::file::Stamp};

/// Between two looks. A look is one `stat` a file.
const EVERY: Duration = Duration::from_millis(500);

type Stamps = Box<[Option<Stamp>]>;

/// What the watch knows of the files.
pub(super) struct Seen {
    /// As they were when they were last read, whether they could be used or not.
    read: Stamps,
    /// As they were at the last look.
    last: Stamps,
    /// Why what is there now is not used, and since when.
    refused: Option<(Duration, Vec<String>)>,
}

impl Seen {
    pub(super) fn new(stamps: Stamps) -> Self {
        Self { read: stamps.clone(), last: stamps, refused: None }
    }

    pub(super) fn not_used(&self) -> serde_json::Value {
        self.refused.as_ref().map_or(
            serde_json::Value::Null,
            |(since, why)| serde_json::json!({"since": load::date(since.as_secs()), "errors": why}),
        )
    }
}

impl Tls {
    /// Reads the files again if they have changed and were the same at the look before: a chain and
    /// its key are two files, and one comes after the other.
    pub fn look(&self) {
        let now = self.settings.stamps();
        let mut seen = self.seen.lock();
        let is_still = seen.last == now;
        seen.last.clone_from(&now);
        if is_still && seen.read != now {
            self.read(&mut seen, now);
        }
    }

    /// The same without waiting for them to stand still.
    pub fn look_now(&self) {
        let now = self.settings.stamps();
        let mut seen = self.seen.lock();
        if seen.read != now {
            seen.last.clone_from(&now);
            self.read(&mut seen, now);
        }
    }

    fn read(&self, seen: &mut Seen, stamps: Stamps) {
        seen.read = stamps;
        match load::load(&self.settings, scene(&self.tickets, &self.pending)) {
            Ok(loaded) => {
                self.current.store(Arc::new(loaded));
                seen.refused = None;
                self.metrics.swapped();
                log::info!("listener {}: the changed TLS files are in use", self.listener);
                self.warn();
            }
            Err(problems) => {
                let said = problems.0.iter().map(|it| format!("{}: {}", it.path, it.message));
                let said: Vec<String> = said.collect();
                self.metrics.not_swapped();
                log::error!(
                    "listener {}: the changed TLS files are not used, the old ones go on: {}",
                    self.listener,
                    said.join("; ")
                );
                seen.refused = Some((Now::read().unix, said));
            }
        }
    }
}

/// The watch over all listeners of a snapshot.
pub struct Watch(Vec<Arc<Tls>>);

impl Watch {
    #[must_use]
    pub fn new(all: &[Option<Arc<Tls>>]) -> Self {
        Self(all.iter().flatten().cloned().collect())
    }
}

impl Background for Watch {
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let watch = self.clone();
                // A file may lie on a disk that does not answer.
                let look = move || watch.0.iter().for_each(|tls| tls.look());
                let _ = tokio::task::spawn_blocking(look).await;
            }
        })
    }
}
