//! From a file to a running snapshot: load, check, compile, swap. On any error the old one stays,
//! and every reason is given.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    config, diagnostic,
    flow::clock::Now,
    gateway::{Gateway, Shared, compile},
    telemetry::AccessLog,
    upstream,
};

/// Loads and compiles `file` against `shared`.
///
/// # Errors
/// Every problem, rendered with its place and its line.
pub fn compile_file(file: &Path, shared: &Shared) -> Result<Gateway, Vec<String>> {
    check(config::load(file), file.parent().unwrap_or(Path::new(".")), shared)
}

/// Compiles what was loaded. Of a file that could not be read whole, the rest is compiled too, for
/// the sake of its problems: the operator is to see them all at once.
///
/// # Errors
/// Every problem, rendered with its place and its line.
pub fn check(
    loaded: Result<config::Loaded, config::Failure>,
    base_dir: &Path,
    shared: &Shared,
) -> Result<Gateway, Vec<String>> {
    let failure = match loaded {
        Ok(loaded) => {
            let compiled = compile::compile(&loaded.config, &loaded.revision, base_dir, shared);
            return compiled
                .map_err(|problems| diagnostic::render_each(&problems.0, &loaded.source));
        }
        Err(failure) => failure,
    };
    let further = failure.partial.as_deref().and_then(|partial| {
        compile::compile(partial, &config::Revision::none(), base_dir, shared).err()
    });
    let failure = failure.with(further.unwrap_or_default());
    Err(diagnostic::render_each(&failure.diagnostics, &failure.source))
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub revision: String,
    /// Whether anything differs from what ran before.
    pub is_new: bool,
}

/// What the last reload came to, for the status.
#[derive(Clone, Debug)]
pub struct Last {
    pub at: SystemTime,
    pub cause: String,
    pub errors: Vec<String>,
}

/// Holds what a reload needs. One at a time: the lock on `state` is the queue.
pub struct Reloader {
    file: PathBuf,
    live: Arc<ArcSwap<Gateway>>,
    shared: Arc<Shared>,
    access_log: Arc<AccessLog>,
    background: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Last>,
    /// Health checks and name resolution of the running snapshot.
    tasks: Vec<upstream::TaskGuard>,
}

impl Reloader {
    #[must_use]
    pub fn new(
        file: PathBuf,
        live: Arc<ArcSwap<Gateway>>,
        shared: Arc<Shared>,
        access_log: Arc<AccessLog>,
        background: Handle,
    ) -> Self {
        let state = Mutex::new(State::default());
        let reloader = Self { file, live, shared, access_log, background, state };
        let gateway = reloader.live.load_full();
        reloader.adopt(&gateway, &mut reloader.state.lock());
        reloader
    }

    #[must_use]
    pub fn live(&self) -> &Arc<ArcSwap<Gateway>> {
        &self.live
    }

    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    #[must_use]
    pub fn last(&self) -> Option<Last> {
        self.state.lock().last.clone()
    }

    /// Applies the file as it is now. Blocks for as long as reading and compiling take; call it off
    /// the request threads. `cause` goes to the log and the status.
    ///
    /// # Errors
    /// Every reason why the old configuration stays.
    pub fn reload(&self, cause: &str) -> Result<Applied, Vec<String>> {
        let mut state = self.state.lock();
        let result = self.try_reload(&mut state);
        match &result {
            Ok(applied) => {
                self.shared.metrics.reload_succeeded();
                log::info!("{cause}: revision {} is applied", applied.revision);
            }
            Err(errors) => {
                self.shared.metrics.reload_failed();
                log::error!("{cause}: the old configuration stays\n{}", errors.join("\n"));
            }
        }
        let errors = result.as_ref().err().cloned().unwrap_or_default();
        state.last = Some(Last { at: SystemTime::now(), cause: cause.to_owned(), errors });
        result
    }

    fn try_reload(&self, state: &mut State) -> Result<Applied, Vec<String>> {
        let gateway = Arc::new(compile_file(&self.file, &self.shared)?);
        let old = self.live.load_full();
        if let Some(what) = needs_upgrade(&old, &gateway) {
            return Err(vec![format!(
                "{}: {what} differs from what this process runs with: nothing was applied; \
                 this change needs `tollgate upgrade` or a restart",
                self.file.display()
            )]);
        }
        let revision = gateway.revision.to_string();
        let is_new = old.revision != gateway.revision;
        if is_new {
            // Before the swap: a log that cannot be opened is a reason to stay.
            self.access_log.set_destination(gateway.access_log.clone()).map_err(|why| {
                vec![format!("{}: telemetry.access_log.path: {why}", self.file.display())]
            })?;
            self.live.store(gateway.clone());
            self.adopt(&gateway, state);
        }
        Ok(Applied { revision, is_new })
    }

    /// Gives what outlives a snapshot the settings of this one.
    fn adopt(&self, gateway: &Arc<Gateway>, state: &mut State) {
        self.shared.metrics.config_applied(gateway.revision.as_str(), Now::read().unix);
        state.tasks = gateway
            .upstreams
            .values()
            .map(|upstream| upstream::spawn(upstream, &self.background))
            .collect();
        self.shared.metrics.sweep();
        self.shared.endpoints.sweep();
    }
}

/// What a running process cannot change of itself.
fn needs_upgrade(old: &Gateway, new: &Gateway) -> Option<&'static str> {
    let (old, new) = (&old.process, &new.process);
    if old.listeners != new.listeners {
        Some("`listeners`")
    } else if old.admin != new.admin {
        Some("`admin.address`")
    } else if old.workers != new.workers {
        Some("`server.workers`")
    } else {
        None
    }
}

/// How often the file is looked at. A look is one `stat`.
const WATCH: Duration = Duration::from_millis(500);

/// Reloads when the file has changed and then stood still for one look, so that a file that is being
/// written is not read in the middle. Content that was tried once is not tried again.
pub async fn watch(reloader: Arc<Reloader>) {
    let mut applied = stamp(&reloader.file);
    let mut seen = applied;
    loop {
        tokio::time::sleep(WATCH).await;
        let now = stamp(&reloader.file);
        let is_still = now == seen;
        seen = now;
        if is_still && seen != applied && seen.is_some() {
            applied = seen;
            let reloader = reloader.clone();
            let _ = tokio::task::spawn_blocking(move || reloader.reload_if_new()).await;
        }
    }
}

impl Reloader {
    fn reload_if_new(&self) {
        let is_same = config::load(&self.file)
            .is_ok_and(|loaded| loaded.revision == self.live.load().revision);
        if !is_same {
            let _ = self.reload("file changed");
        }
    }
}

/// What tells one state of a file from another without reading it. Inode, because editors and
/// orchestrators replace the file (or the link to it).
fn stamp(file: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
