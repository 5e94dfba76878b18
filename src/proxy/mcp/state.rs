//! What this node remembers between the requests of clients. All of it is bounded, and what is lost is
//! begun anew: a session at a server is opened again, a call that waited has to be made again.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ahash::AHashMap;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};

use super::{answer::Reply, speak::Visit};
use crate::mcp::sealed;

/// Sessions at servers.
const VISITS: usize = 50_000;
/// Sessions of clients that they ended.
const ENDED: usize = 100_000;
/// Calls that wait for a client's input, and of one caller.
const HELD: usize = 4_096;
const HELD_BY_ONE: usize = 32;
const WAIT: Duration = Duration::from_secs(sealed::WAITING);
/// Answers of clients that are waited for.
const WAITING: usize = 16_384;
const CALLS: usize = 65_536;

/// A call that a server has begun and that waits for its client's input.
pub struct Held {
    pub reply: Reply,
    pub visit: Arc<Visit>,
    /// The question, as its server asked it.
    pub question: String,
    /// Its id, as JSON.
    pub id: String,
    /// The id of the call at the server.
    pub call: String,
    caller: String,
    until: Instant,
}

/// Of which session, and which id in it.
type Place = (String, String);

/// What a client answered.
pub type Said = Result<Box<RawValue>, Box<RawValue>>;

pub struct State {
    visits: Cache<String, Arc<Visit>>,
    ended: Cache<String, ()>,
    held: Mutex<AHashMap<String, Held>>,
    waiting: Mutex<AHashMap<Place, oneshot::Sender<Said>>>,
    calls: Mutex<AHashMap<Place, Arc<Notify>>>,
    ids: AtomicU64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            visits: Cache::new(VISITS),
            ended: Cache::new(ENDED),
            held: Mutex::default(),
            waiting: Mutex::default(),
            calls: Mutex::default(),
            ids: AtomicU64::new(1),
        }
    }
}

/// Tells a call that it is cancelled, while it lives.
pub struct Cancel<'a> {
    state: &'a State,
    place: Option<Place>,
    pub told: Arc<Notify>,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            self.state.calls.lock().remove(place);
        }
    }
}

/// Waits for a client's answer, while it lives.
pub struct Waiting<'a> {
    state: &'a State,
    place: Place,
    pub said: oneshot::Receiver<Said>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.state.waiting.lock().remove(&self.place);
    }
}

impl State {
    /// A number that no other has.
    pub fn next(&self) -> u64 {
        self.ids.fetch_add(1, Relaxed)
    }

    /// The session at a server that is kept under `key`, opened now if there is none: once, however many
    /// want it.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn visit<E>(
        &self,
        key: &str,
        open: impl Future<Output = Result<Visit, E>>,
    ) -> Result<Arc<Visit>, E> {
        if let Some(visit) = self.visits.get(key) {
            return Ok(visit);
        }
        let open = async { open.await.map(Arc::new) };
        self.visits.get_or_insert_async(key, open).await
    }

    pub fn known_visit(&self, key: &str) -> Option<Arc<Visit>> {
        self.visits.get(key)
    }

    /// It is good no more; another one may have taken its place already.
    pub fn forget_visit(&self, key: &str, visit: &Arc<Visit>) {
        if self.visits.get(key).is_some_and(|it| Arc::ptr_eq(&it, visit)) {
            self.visits.remove(key);
        }
    }

    pub fn take_visit(&self, key: &str) -> Option<Arc<Visit>> {
        self.visits.remove(key).map(|it| it.1)
    }

    pub fn end(&self, nonce: &str) {
        self.ended.insert(nonce.to_owned(), ());
    }

    pub fn is_ended(&self, nonce: &str) -> bool {
        self.ended.get(nonce).is_some()
    }

    /// Keeps a call open until its client comes back, under a handle; none where there are too many.
    pub fn hold(
        &self,
        reply: Reply,
        visit: Arc<Visit>,
        question: (String, String),
        call: String,
        caller: &str,
    ) -> Option<String> {
        let now = Instant::now();
        let mut held = self.held.lock();
        held.retain(|_, it| it.until > now);
        let own = held.values().filter(|it| it.caller == caller).count();
        if held.len() >= HELD || own >= HELD_BY_ONE {
            return None;
        }
        let handle = random()?;
        let (id, question) = question;
        let (caller, until) = (caller.to_owned(), now + WAIT);
        held.insert(handle.clone(), Held { reply, visit, question, id, call, caller, until });
        Some(handle)
    }

    /// The call, for its caller alone, and once.
    pub fn resume(&self, handle: &str, caller: &str) -> Option<Held> {
        let mut held = self.held.lock();
        held.get(handle).filter(|it| it.caller == caller && it.until > Instant::now())?;
        held.remove(handle)
    }

    /// The answer to a question that a client is asked under `id` in its session.
    pub fn wait(&self, nonce: &str, id: &str) -> Option<Waiting<'_>> {
        let (sender, said) = oneshot::channel();
        let place = (nonce.to_owned(), id.to_owned());
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING {
            return None;
        }
        waiting.insert(place.clone(), sender);
        Some(Waiting { state: self, place, said })
    }

    /// Whether somebody waited for it.
    pub fn answered(&self, nonce: &str, id: &str, said: Said) -> bool {
        let sender = self.waiting.lock().remove(&(nonce.to_owned(), id.to_owned()));
        sender.is_some_and(|it| it.send(said).is_ok())
    }

    /// A call that its client may cancel by its id.
    pub fn begin(&self, nonce: Option<&str>, id: &str) -> Cancel<'_> {
        let told = Arc::new(Notify::new());
        let place = nonce.map(|it| (it.to_owned(), id.to_owned()));
        let place = place.filter(|place| {
            let mut calls = self.calls.lock();
            let has_room = calls.len() < CALLS;
            if has_room {
                calls.insert(place.clone(), told.clone());
            }
            has_room
        });
        Cancel { state: self, place, told }
    }

    pub fn cancel(&self, nonce: &str, id: &str) {
        let told = self.calls.lock().get(&(nonce.to_owned(), id.to_owned())).cloned();
        told.inspect(|it| it.notify_one());
    }
}

/// 128 random bits as text.
#[must_use]
pub fn random() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(u128::from_be_bytes(bytes)).map(|it| format!("{it:032x}"))
}
