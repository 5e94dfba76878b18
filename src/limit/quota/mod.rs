//! How much of what is known only afterwards: tokens and money, and requests by the day and the month, for
//! each consumer. What a call may use is reserved before it is made, and what it used is counted when it
//! has ended; a limit never says no because of a reservation alone. The counts are in memory, and go to
//! the store and come from it beside the requests.
mod window;

use std::{collections::hash_map::Entry, sync::Arc, time::Duration};

use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::{Notify, futures::Notified};

pub use self::window::{Kind, Period, Span, Unit};
use self::window::{Overdue, Room, Window};

/// What a call wants of one window, and how much that window has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub kind: Kind,
    pub limit: u64,
    pub amount: u64,
}

/// One window, after the call or without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub limit: u64,
    pub used: u64,
    /// Neither used nor reserved.
    pub remaining: u64,
    /// Until all of it is there again, if nothing more is used.
    pub reset: Duration,
}

/// Why there is no reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only what calls under way have reserved stands in the way: they may use less.
    Busy,
    /// The window with this number is used up, for so long.
    Used(usize, Duration),
}

/// Calls of one consumer that wait for others to end, at most.
const WAITING: u32 = 1000;

/// What one consumer has used and reserved.
#[derive(Debug, Default)]
pub struct Account {
    held: Mutex<Held>,
    /// A call has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    windows: SmallVec<[Window; 4]>,
    overdue: Vec<Overdue>,
    waiting: u32,
}

impl Held {
    /// The window of a kind, in the span of this moment.
    fn window(&mut self, kind: Kind, unix: u64) -> Option<&mut Window> {
        let found = self.windows.iter().position(|it| it.kind == kind);
        let at = found.unwrap_or(self.windows.len());
        if found.is_none() {
            self.windows.push(Window::new(kind, unix));
        }
        let window = self.windows.get_mut(at)?;
        if let Some(late) = window.roll(unix) {
            // However long the store is away: of a sliding window only the last span still weighs.
            let is_sliding = matches!(kind.period, Period::Sliding(_));
            self.overdue.retain(|it| !is_sliding || it.kind != kind);
            self.overdue.push(late);
        }
        Some(window)
    }
}

/// A place among those who wait.
#[must_use]
#[derive(Debug)]
pub struct Place<'a>(&'a Account);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.held.lock().waiting -= 1;
    }
}

impl Account {
    /// Reserves all that is wanted, or nothing.
    ///
    /// # Errors
    /// Not now.
    pub fn reserve(
        self: &Arc<Self>,
        wanted: &[Wanted],
        unix: Duration,
    ) -> Result<Reservation, Refusal> {
        let mut held = self.held.lock();
        let (mut is_busy, mut used) = (false, None::<(usize, Duration)>);
        for (index, it) in wanted.iter().enumerate() {
            let Some(window) = held.window(it.kind, unix.as_secs()) else { continue };
            match window.room(it.amount, it.limit, unix) {
                Room::Enough => {}
                Room::Busy => is_busy = true,
                Room::None(wait) if used.is_none_or(|(_, longest)| wait > longest) => {
                    used = Some((index, wait));
                }
                Room::None(_) => {}
            }
        }
        match used {
            Some((index, wait)) => Err(Refusal::Used(index, wait)),
            None if is_busy => Err(Refusal::Busy),
            None => Ok(self.take(&mut held, wanted, unix)),
        }
    }

    /// Reserves all that is wanted whatever the limits say: they are on trial.
    pub fn reserve_anyway(self: &Arc<Self>, wanted: &[Wanted], unix: Duration) -> Reservation {
        self.take(&mut self.held.lock(), wanted, unix)
    }

    fn take(self: &Arc<Self>, held: &mut Held, wanted: &[Wanted], unix: Duration) -> Reservation {
        for it in wanted {
            if let Some(window) = held.window(it.kind, unix.as_secs()) {
                window.reserve(it.amount);
            }
        }
        let items = wanted.iter().map(|it| (it.kind, it.amount)).collect();
        Reservation { account: self.clone(), items }
    }

    /// How the windows are. Charges nothing.
    pub fn states(&self, wanted: &[Wanted], unix: Duration) -> SmallVec<[State; 4]> {
        let mut held = self.held.lock();
        let state = |it: &Wanted| {
            let limit = it.limit;
            let Some(window) = held.window(it.kind, unix.as_secs()) else {
                return State { limit, remaining: limit, ..State::default() };
            };
            let (used, taken) = (window.used(unix), window.taken(unix));
            State { limit, used, remaining: limit.saturating_sub(taken), reset: window.reset(unix) }
        };
        wanted.iter().map(state).collect()
    }

    /// A place to wait for a call to end; none where too many wait.
    pub fn queue(&self) -> Option<Place<'_>> {
        let mut held = self.held.lock();
        if held.waiting >= WAITING {
            return None;
        }
        held.waiting += 1;
        Some(Place(self))
    }

    /// Comes with the next call that ends.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

/// Given back when it is dropped, unless it was settled.
#[must_use]
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    items: SmallVec<[(Kind, u64); 4]>,
}

impl Reservation {
    /// The call has ended and used so much.
    pub fn settle(mut self, used: impl Fn(Unit) -> u64, unix: u64) {
        self.end(used, Some(unix));
    }

    fn end(&mut self, used: impl Fn(Unit) -> u64, unix: Option<u64>) {
        if self.items.is_empty() {
            return;
        }
        let mut held = self.account.held.lock();
        for (kind, reserved) in self.items.drain(..) {
            // Given back, it is given back to the span that is there.
            let window = match unix {
                Some(unix) => held.window(kind, unix),
                None => held.windows.iter_mut().find(|it| it.kind == kind),
            };
            if let Some(window) = window {
                window.settle(reserved, used(kind.unit));
            }
        }
        drop(held);
        self.account.changed.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(|_| 0, None);
    }
}

/// What one consumer used in one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    pub consumer: Arc<str>,
    pub kind: Kind,
    pub span: Span,
    pub used: u64,
}

/// Those of all consumers, by name: as many as there are consumers with a plan that counts.
#[derive(Debug, Default)]
pub struct Accounts(RwLock<AHashMap<Arc<str>, Arc<Account>>>);

impl Accounts {
    pub fn of(&self, consumer: &str) -> Arc<Account> {
        if let Some(found) = self.0.read().get(consumer) {
            return found.clone();
        }
        match self.0.write().entry(consumer.into()) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(new) => new.insert(Arc::default()).clone(),
        }
    }

    fn all(&self) -> Vec<(Arc<str>, Arc<Account>)> {
        self.0.read().iter().map(|(name, it)| (name.clone(), it.clone())).collect()
    }

    /// What the store has not heard of. From here on it counts as under way: each is to be written
    /// once, and then to be [`sent`](Self::sent).
    pub fn send(&self) -> Vec<Amount> {
        let mut amounts = Vec::new();
        for (consumer, account) in self.all() {
            let mut held = account.held.lock();
            let amount = |kind, span, used| Amount { consumer: consumer.clone(), kind, span, used };
            let overdue = std::mem::take(&mut held.overdue);
            amounts.extend(overdue.iter().map(|it| amount(it.kind, it.span, it.amount)));
            for window in &mut held.windows {
                let (kind, span, used) = (window.kind, window.span, window.send());
                amounts.extend((used > 0).then(|| amount(kind, span, used)));
            }
        }
        amounts
    }

    /// The store has these now.
    pub fn sent(&self, amounts: &[Amount]) {
        for Amount { consumer, kind, span, used } in amounts {
            let account = self.of(consumer);
            let mut held = account.held.lock();
            let window = held.windows.iter_mut().find(|it| it.kind == *kind && it.span == *span);
            if let Some(window) = window {
                window.sent(*used);
            }
        }
    }

    /// What the store says, of all nodes.
    pub fn learn(&self, totals: &[Amount], unix: u64) {
        self.each(totals, unix, Window::learn);
    }

    /// What the process before has counted.
    pub fn add(&self, amounts: &[Amount], unix: u64) {
        self.each(amounts, unix, Window::add);
    }

    fn each(&self, amounts: &[Amount], unix: u64, tell: impl Fn(&mut Window, Span, u64)) {
        for Amount { consumer, kind, span, used } in amounts {
            let account = self.of(consumer);
            let mut held = account.held.lock();
            if let Some(window) = held.window(*kind, unix) {
                tell(window, *span, *used);
            }
        }
    }

    /// All that was counted, for the process that takes over.
    pub fn snapshot(&self) -> Vec<Amount> {
        let mut amounts = Vec::new();
        for (consumer, account) in self.all() {
            for window in &account.held.lock().windows {
                amounts.extend(window.counts().map(|(span, used)| Amount {
                    consumer: consumer.clone(),
                    kind: window.kind,
                    span,
                    used,
                }));
            }
        }
        amounts
    }

    /// How the windows of one consumer are that it has used.
    pub fn used(&self, consumer: &str, unix: Duration) -> Vec<(Kind, Span, u64)> {
        let Some(account) = self.0.read().get(consumer).cloned() else { return Vec::new() };
        let mut held = account.held.lock();
        let kinds: Vec<Kind> = held.windows.iter().map(|it| it.kind).collect();
        let used = kinds.into_iter().filter_map(|kind| {
            let window = held.window(kind, unix.as_secs())?;
            Some((kind, window.span, window.used(unix)))
        });
        used.collect()
    }

    /// Forgets windows that are over, and consumers that have none.
    pub fn sweep(&self, unix: u64) {
        self.0.write().retain(|_, account| {
            let mut held = account.held.lock();
            held.windows.retain(|it| !it.is_over(unix));
            let is_used = !held.windows.is_empty() || !held.overdue.is_empty();
            drop(held);
            // A count of one cannot rise behind our back: the map is locked.
            is_used || Arc::strong_count(account) > 1
        });
    }
}

#[cfg(test)]
mod tests;
