//! From a file to a running snapshot: load, check, compile, swap. On any error the old one stays,
//! and every reason is given.
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    config, diagnostic,
    flow::clock::Now,
    gateway::{Gateway, Shared, compile},
    policy::report::Mode,
    shared::{background::TaskGuard, file::Stamp},
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

/// Holds what a reload needs. Reloads are done one at a time on a thread of their own: the allocator
/// then finds the memory of the last snapshot again, and a thousand reloads take what a few take.
pub struct Reloader {
    file: PathBuf,
    live: Arc<ArcSwap<Gateway>>,
    shared: Arc<Shared>,
    access_log: Arc<AccessLog>,
    background: Handle,
    jobs: SyncSender<Job>,
    state: Mutex<State>,
}

struct Job {
    cause: String,
    tell: SyncSender<Result<Applied, Vec<String>>>,
}

/// Reloads that may wait; whoever asks beyond waits to ask.
const QUEUE: usize = 64;

#[derive(Default)]
struct State {
    last: Option<Last>,
    /// Health checks, name resolution and whatever else keeps the running snapshot fresh.
    tasks: Vec<TaskGuard>,
    /// The snapshot before: dropped here with the next reload, not by the request that ends last.
    previous: Option<Arc<Gateway>>,
}

impl Reloader {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        file: PathBuf,
        live: Arc<ArcSwap<Gateway>>,
        shared: Arc<Shared>,
        access_log: Arc<AccessLog>,
        background: Handle,
    ) -> std::io::Result<Arc<Self>> {
        let (jobs, waiting) = sync_channel::<Job>(QUEUE);
        let state = Mutex::new(State::default());
        let reloader = Arc::new(Self { file, live, shared, access_log, background, jobs, state });
        reloader.adopt(&reloader.live.load_full());
        let weak = Arc::downgrade(&reloader);
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            for job in waiting {
                let Some(reloader) = weak.upgrade() else { return };
                // Who is gone does not want to know.
                let _ = job.tell.send(reloader.apply(&job.cause));
            }
        })?;
        Ok(reloader)
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
        let (tell, told) = sync_channel(1);
        let job = Job { cause: cause.to_owned(), tell };
        let stopped = || Err(vec!["the process is stopping".to_owned()]);
        if self.jobs.send(job).is_err() {
            return stopped();
        }
        told.recv().unwrap_or_else(|_| stopped())
    }

    fn apply(&self, cause: &str) -> Result<Applied, Vec<String>> {
        let result = self.try_apply();
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
        let last = Last { at: SystemTime::now(), cause: cause.to_owned(), errors };
        self.state.lock().last = Some(last);
        result
    }

    fn try_apply(&self) -> Result<Applied, Vec<String>> {
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
            self.adopt(&gateway);
            self.state.lock().previous = Some(old);
        } else {
            // Who asks for a reload after changing a certificate does not want to wait for the watch.
            old.tls.iter().flatten().for_each(|tls| tls.look_now());
        }
        Ok(Applied { revision, is_new })
    }

    /// Gives what outlives a snapshot the settings of this one.
    fn adopt(&self, gateway: &Arc<Gateway>) {
        self.shared.metrics.config_applied(gateway.revision.as_str(), Now::read().unix);
        self.shared.cache.set_memory(gateway.cache_memory);
        for tls in gateway.tls.iter().flatten() {
            tls.warn();
        }
        let spawn = |upstream| upstream::spawn(upstream, &self.background);
        let kept_fresh = gateway
            .background
            .iter()
            .map(|it| TaskGuard::spawn(&self.background, it.clone().run()));
        self.state.lock().tasks =
            gateway.upstreams.values().map(|it| spawn(it)).chain(kept_fresh).collect();
        warn_of_open_routes(gateway);
        self.shared.metrics.sweep();
        self.shared.endpoints.sweep();
        // Each snapshot remembers tokens for itself: its consumers are its own.
        self.shared.tokens.clear();
    }
}

/// A route that only reports is open, and nobody should find that out by chance.
fn warn_of_open_routes(gateway: &Gateway) {
    const SHOWN: usize = 10;
    let open = gateway.routes.iter().filter(|it| it.mode == Mode::Report);
    let open: Vec<&str> = open.map(|it| &*it.id).collect();
    if open.is_empty() {
        return;
    }
    let shown = open.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    let more = if open.len() > SHOWN { ", …" } else { "" };
    log::warn!(
        "mode: report: {} of {} routes let through what they would refuse: {shown}{more}",
        open.len(),
        gateway.routes.len(),
    );
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
    let mut applied = Stamp::of(&reloader.file);
    let mut seen = applied;
    loop {
        tokio::time::sleep(WATCH).await;
        let now = Stamp::of(&reloader.file);
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
