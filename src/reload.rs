//! From a file and a store to a running snapshot: load, check, compile, swap. On any error the old one
//! stays, and every reason is given.
mod begin;
mod follow;
mod usage;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;

pub use self::{
    begin::{Begun, Failure, begin},
    follow::{flush, follow, keep_uses},
    usage::{flush_usage, keep_usage, learn},
};
use crate::{
    config::{self, Loaded},
    diagnostic::{self, Diagnostic},
    flow::clock::Now,
    gateway::{
        Gateway, Shared,
        compile::{self, LeftOut, Source},
    },
    policy::report::Mode,
    shared::{background::TaskGuard, file::Stamp, last_uses::Kind},
    store::{Rows, Store},
    telemetry::AccessLog,
    upstream,
};

/// Loads and compiles `file` against `shared`, without a store.
///
/// # Errors
/// Every problem, rendered with its place and its line.
pub fn compile_file(file: &Path, shared: &Shared) -> Result<Gateway, Vec<String>> {
    check(config::load(file), base_dir(file), shared)
}

/// Compiles what was loaded, without a store. Of a file that could not be read whole, the rest is
/// compiled too, for the sake of its problems: the operator is to see them all at once.
///
/// # Errors
/// Every problem, rendered with its place and its line.
pub fn check(
    loaded: Result<Loaded, config::Failure>,
    base_dir: &Path,
    shared: &Shared,
) -> Result<Gateway, Vec<String>> {
    compiled(loaded, base_dir, &Rows::default(), shared).map(|(gateway, _)| gateway)
}

/// What file names in `file` are relative to.
fn base_dir(file: &Path) -> &Path {
    config::folder_of(file)
}

fn compiled(
    loaded: Result<Loaded, config::Failure>,
    base_dir: &Path,
    stored: &Rows,
    shared: &Shared,
) -> Result<(Gateway, Loaded), Vec<String>> {
    let none = config::Revision::none();
    let source = |raw, revision| Source { raw, revision, base_dir, stored, kept: None };
    let failure = match loaded {
        Ok(loaded) => {
            return match compile::compile(source(&loaded.config, &loaded.revision), shared) {
                Ok(gateway) => Ok((gateway, loaded)),
                Err(problems) => Err(diagnostic::render_each(&problems.0, &loaded.source)),
            };
        }
        Err(failure) => failure,
    };
    let further = failure
        .partial
        .as_deref()
        .and_then(|partial| compile::compile(source(partial, &none), shared).err());
    let failure = failure.with(further.unwrap_or_default());
    Err(diagnostic::render_each(&failure.diagnostics, &failure.source))
}

/// What the running snapshot was made of. Changes of the store are compiled against this and not
/// against the file, which somebody may be editing.
#[derive(Clone)]
pub struct Running {
    pub loaded: Arc<Loaded>,
    pub rows: Arc<Rows>,
}

impl Running {
    /// Why consumers of the store do not run.
    #[must_use]
    pub fn explain<'l>(&self, left_out: impl IntoIterator<Item = &'l LeftOut>) -> Vec<String> {
        let all: Vec<Diagnostic> = left_out.into_iter().map(|it| it.diagnostic.clone()).collect();
        diagnostic::render_each(&all, &self.loaded.source)
    }
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

/// What the store last brought, for the status.
#[derive(Clone, Debug)]
pub struct LastSync {
    pub at: SystemTime,
    /// From the question to the store until the new snapshot took requests.
    pub took: Duration,
    pub errors: Vec<String>,
}

/// Holds what a reload needs. Reloads are done one at a time on a thread of their own: the allocator
/// then finds the memory of the last snapshot again, and a thousand reloads take what a few take.
pub struct Reloader {
    file: PathBuf,
    live: Arc<ArcSwap<Gateway>>,
    shared: Arc<Shared>,
    store: Option<Arc<Store>>,
    access_log: Arc<AccessLog>,
    background: Handle,
    jobs: SyncSender<Job>,
    state: Mutex<State>,
    /// One at a time writes what was used.
    writer: tokio::sync::Mutex<usage::Writer>,
}

/// What a reload needs for the life of the process.
pub struct Parts {
    pub file: PathBuf,
    pub live: Arc<ArcSwap<Gateway>>,
    pub shared: Arc<Shared>,
    pub store: Option<Arc<Store>>,
    pub access_log: Arc<AccessLog>,
    pub background: Handle,
}

struct Job {
    work: Work,
    tell: SyncSender<Result<Applied, Vec<String>>>,
}

enum Work {
    /// The file and the store, as they are now.
    Reload { cause: String },
    /// The store as it is now, beside the file that runs.
    Sync,
}

/// Reloads that may wait; whoever asks beyond waits to ask.
const QUEUE: usize = 64;

struct State {
    running: Running,
    last: Option<Last>,
    last_sync: Option<LastSync>,
    /// Health checks and name resolution.
    upstreams: Vec<TaskGuard>,
    /// Whatever else keeps the running snapshot fresh.
    tasks: Vec<TaskGuard>,
    /// The snapshot before: dropped here with the next reload, not by the request that ends last.
    previous: Option<Arc<Gateway>>,
}

impl Reloader {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(parts: Parts, running: Running) -> std::io::Result<Arc<Self>> {
        let Parts { file, live, shared, store, access_log, background } = parts;
        let (jobs, waiting) = sync_channel::<Job>(QUEUE);
        let (upstreams, tasks) = (Vec::new(), Vec::new());
        let (last, last_sync, previous) = (None, None, None);
        let state = Mutex::new(State { running, last, last_sync, upstreams, tasks, previous });
        let writer = tokio::sync::Mutex::default();
        let reloader =
            Self { file, live, shared, store, access_log, background, jobs, state, writer };
        let reloader = Arc::new(reloader);
        reloader.adopt(&reloader.live.load_full());
        let weak = Arc::downgrade(&reloader);
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            for job in waiting {
                let Some(reloader) = weak.upgrade() else { return };
                // Who is gone does not want to know.
                let _ = job.tell.send(match job.work {
                    Work::Reload { cause } => reloader.apply(&cause),
                    Work::Sync => reloader.apply_store(),
                });
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
    pub const fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// Runs `work` beside the requests and waits for it; not to be called from there.
    pub fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.background.block_on(work)
    }

    #[must_use]
    pub fn running(&self) -> Running {
        self.state.lock().running.clone()
    }

    #[must_use]
    pub fn last(&self) -> Option<Last> {
        self.state.lock().last.clone()
    }

    #[must_use]
    pub fn last_sync(&self) -> Option<LastSync> {
        self.state.lock().last_sync.clone()
    }

    /// Applies the file as it is now. Blocks for as long as reading and compiling take; call it off
    /// the request threads. `cause` goes to the log and the status.
    ///
    /// # Errors
    /// Every reason why the old configuration stays.
    pub fn reload(&self, cause: &str) -> Result<Applied, Vec<String>> {
        self.ask(Work::Reload { cause: cause.to_owned() })
    }

    /// Applies the store as it is now. Blocks likewise.
    ///
    /// # Errors
    /// Every reason why the old snapshot stays.
    pub fn sync(&self) -> Result<Applied, Vec<String>> {
        self.ask(Work::Sync)
    }

    fn ask(&self, work: Work) -> Result<Applied, Vec<String>> {
        let (tell, told) = sync_channel(1);
        let stopped = || Err(vec!["the process is stopping".to_owned()]);
        if self.jobs.send(Job { work, tell }).is_err() {
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
        // Without the store, what is known of it goes on.
        let known = self.running().rows;
        let rows = self.load(&known).map_or(known, Arc::new);
        let dir = base_dir(&self.file);
        let (gateway, loaded) = compiled(config::load(&self.file), dir, &rows, &self.shared)?;
        let (gateway, old) = (Arc::new(gateway), self.live.load_full());
        if let Some(what) = needs_upgrade(&old, &gateway) {
            return Err(vec![format!(
                "{}: {what} differs from what this process runs with: nothing was applied; \
                 this change needs `tollgate upgrade` or a restart",
                self.file.display()
            )]);
        }
        let running = Running { loaded: Arc::new(loaded), rows };
        let left_out = newly_left_out(&old, &gateway);
        if !left_out.is_empty() {
            return Err(running.explain(left_out));
        }
        let revision = gateway.revision.to_string();
        let is_new =
            old.revision != gateway.revision || old.store_revision != gateway.store_revision;
        if is_new {
            // Before the swap: a log that cannot be opened is a reason to stay.
            self.access_log.set(gateway.access_log.clone()).map_err(|why| {
                vec![format!("{}: telemetry.access_log.path: {why}", self.file.display())]
            })?;
            self.live.store(gateway.clone());
            self.state.lock().running = running;
            self.adopt(&gateway);
            self.state.lock().previous = Some(old);
        } else {
            // Who asks for a reload after changing a certificate does not want to wait for the watch.
            old.tls.iter().flatten().for_each(|tls| tls.look_now());
        }
        Ok(Applied { revision, is_new })
    }

    /// The rows of the store as they are now; nothing without a store or while it does not answer.
    fn load(&self, known: &Rows) -> Option<Rows> {
        self.background.block_on(self.store.as_ref()?.load(known)).ok()
    }

    fn apply_store(&self) -> Result<Applied, Vec<String>> {
        let begun = Instant::now();
        let result = self.try_apply_store();
        let errors = result.as_ref().err().cloned().unwrap_or_default();
        if result.as_ref().is_ok_and(|applied| !applied.is_new) {
            return result;
        }
        self.shared.metrics.store_synced(result.is_ok());
        if !errors.is_empty() {
            log::error!("a change of the store is not applied yet\n{}", errors.join("\n"));
        }
        let last_sync = LastSync { at: SystemTime::now(), took: begun.elapsed(), errors };
        self.state.lock().last_sync = Some(last_sync);
        result
    }

    fn try_apply_store(&self) -> Result<Applied, Vec<String>> {
        let (old, running) = (self.live.load_full(), self.running());
        let revision = old.revision.to_string();
        let unchanged = Applied { revision: revision.clone(), is_new: false };
        let Some(store) = &self.store else { return Ok(unchanged) };
        let rows = self.background.block_on(store.load(&running.rows));
        let rows = rows.map_err(|why| vec![why.to_string()])?;
        if rows.revision == old.store_revision {
            return Ok(unchanged);
        }
        // First, and whatever comes of the rest.
        compile::stored::withdraw(&old, &running.rows, &rows);
        let source = Source {
            raw: &running.loaded.config,
            revision: &running.loaded.revision,
            base_dir: base_dir(&self.file),
            stored: &rows,
            kept: Some(&old),
        };
        let gateway = compile::compile(source, &self.shared)
            .map_err(|problems| diagnostic::render_each(&problems.0, &running.loaded.source))?;
        let gateway = Arc::new(gateway);
        self.live.store(gateway.clone());
        let left_out = newly_left_out(&old, &gateway);
        if !left_out.is_empty() {
            let why = running.explain(left_out).join("\n");
            log::error!("consumers of the store that do not fit are left out\n{why}");
        }
        log::info!("revision {} of the store is applied", rows.revision);
        self.state.lock().running.rows = Arc::new(rows);
        self.keep_fresh(&gateway);
        self.state.lock().previous = Some(old);
        Ok(Applied { revision, is_new: true })
    }

    /// Gives what outlives a snapshot the settings of this one.
    fn adopt(&self, gateway: &Arc<Gateway>) {
        self.shared.metrics.config_applied(gateway.revision.as_str(), Now::read().unix);
        self.shared.cache.configure(&gateway.cache);
        for tls in gateway.tls.iter().flatten() {
            tls.warn();
        }
        warn_of_open_routes(gateway);
        let spawn = |upstream| upstream::spawn(upstream, &self.background);
        self.state.lock().upstreams = gateway.upstreams.values().map(|it| spawn(it)).collect();
        self.keep_fresh(gateway);
    }

    /// As `adopt`, where only the store has changed: upstreams are those of the snapshot before.
    fn keep_fresh(&self, gateway: &Arc<Gateway>) {
        let kept_fresh = gateway
            .background
            .iter()
            .map(|it| TaskGuard::spawn(&self.background, it.clone().run()));
        self.state.lock().tasks = kept_fresh.collect();
        self.shared.metrics.sweep();
        self.shared.endpoints.sweep();
        let rows = self.running().rows;
        self.shared.last_uses.sweep(|kind, full_id| {
            let key = full_id.split_once('/').and_then(|(consumer, id)| rows.key(consumer, id));
            kind == Kind::ApiKey && key.is_some()
        });
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

/// Consumers of the store that ran until now and would no longer.
fn newly_left_out<'n>(old: &Gateway, new: &'n Gateway) -> Vec<&'n LeftOut> {
    new.left_out.iter().filter(|it| !old.left_out.contains(it)).collect()
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
    } else if old.store != new.store {
        Some("`store`")
    } else {
        None
    }
}

/// How often the file is looked at. A look is one `stat`.
const WATCH: Duration = Duration::from_millis(500);

/// Reloads when the file has changed and then stood still for one look, so that a file that is being
/// written is not read in the middle. Content that was tried once is not tried again.
/// With `looks_first` the file is also compared with what runs at the beginning.
pub async fn watch(reloader: Arc<Reloader>, looks_first: bool) {
    let mut seen = Stamp::of(&reloader.file);
    let mut applied = if looks_first { None } else { seen };
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
    /// Applies the file, unless it is what runs.
    pub fn reload_if_new(&self) {
        let is_same = config::load(&self.file)
            .is_ok_and(|loaded| loaded.revision == self.live.load().revision);
        if !is_same {
            let _ = self.reload("file changed");
        }
    }
}
