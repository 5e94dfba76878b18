//! One window of one account: what was used in it, what is reserved, and what the store has not heard of.
//! Calendar windows end with the day or the month in UTC; a sliding one is counted in spans of its own
//! length, of which the last weighs less and less. It reads no clock.
use std::{fmt, time::Duration};

use jiff::{Timestamp, civil::Date, tz::Offset};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    Requests,
    Tokens,
    /// Millionths of a millionth of a dollar.
    Cost,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Cost];

    /// The word of the configuration, of the store and of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
        }
    }
}

/// In which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// The last so many seconds.
    Sliding(u32),
    Day,
    Month,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sliding(seconds) => write!(f, "{seconds}s"),
            Self::Day => f.write_str("day"),
            Self::Month => f.write_str("month"),
        }
    }
}

/// What is counted in which time: a consumer has one account of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    pub unit: Unit,
    pub period: Period,
}

impl Kind {
    /// From its two words.
    #[must_use]
    pub fn parse(unit: &str, period: &str) -> Option<Self> {
        let unit = Unit::ALL.into_iter().find(|it| it.word() == unit)?;
        let period = match period {
            "day" => Period::Day,
            "month" => Period::Month,
            seconds => {
                Period::Sliding(seconds.strip_suffix('s')?.parse().ok().filter(|it| *it > 0)?)
            }
        };
        Some(Self { unit, period })
    }
}

/// From `start` to before `end`, in seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Period {
    #[must_use]
    pub fn span(self, unix: u64) -> Span {
        match self {
            Self::Sliding(seconds) => {
                let length = u64::from(seconds.max(1));
                let start = unix - unix % length;
                Span { start, end: start.saturating_add(length) }
            }
            Self::Day => Self::Sliding(86_400).span(unix),
            Self::Month => month(unix).unwrap_or_default(),
        }
    }

    const fn is_sliding(self) -> bool {
        matches!(self, Self::Sliding(_))
    }
}

/// None for times that no calendar has.
fn month(unix: u64) -> Option<Span> {
    let now = Timestamp::from_second(i64::try_from(unix).ok()?).ok()?;
    let first = Offset::UTC.to_datetime(now).date().first_of_month();
    let next = first.checked_add(jiff::Span::new().months(1)).ok()?;
    let at = |it: Date| {
        let midnight = Offset::UTC.to_timestamp(it.at(0, 0, 0, 0)).ok()?;
        u64::try_from(midnight.as_second()).ok()
    };
    Some(Span { start: at(first)?, end: at(next)? })
}

/// A clock that goes back by less than this stays in the window that it has reached, so that nobody gets
/// one twice; by more, the clock was wrong before.
const BACK: u64 = 3 * 3600;

#[derive(Clone, Debug)]
pub(super) struct Window {
    pub kind: Kind,
    pub span: Span,
    /// What the store says, of all nodes.
    base: u64,
    /// On its way to the store.
    sending: u64,
    /// Not yet.
    pending: u64,
    /// All of the span before; of sliding windows.
    before: u64,
    reserved: u64,
}

/// Counted in a span that is over, and not in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdue {
    pub kind: Kind,
    pub span: Span,
    pub amount: u64,
}

/// Whether an amount is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// Only what others have reserved stands in the way, and they may use less.
    Busy,
    /// Not before so long.
    None(Duration),
}

impl Window {
    pub fn new(kind: Kind, unix: u64) -> Self {
        let span = kind.period.span(unix);
        Self { kind, span, base: 0, sending: 0, pending: 0, before: 0, reserved: 0 }
    }

    /// Goes on to the span of this moment; the answer is what the store has still to hear of the last.
    pub fn roll(&mut self, unix: u64) -> Option<Overdue> {
        let is_in = (self.span.start..self.span.end).contains(&unix);
        if is_in || (unix < self.span.start && self.span.start - unix < BACK) {
            return None;
        }
        let (last, kind) = (self.span, self.kind);
        self.span = kind.period.span(unix);
        let is_next = kind.period.is_sliding() && self.span.start == last.end;
        self.before = if is_next { self.counted() } else { 0 };
        let amount = self.pending;
        (self.base, self.sending, self.pending) = (0, 0, 0);
        (amount > 0).then_some(Overdue { kind, span: last, amount })
    }

    /// In this span.
    const fn counted(&self) -> u64 {
        self.base.saturating_add(self.sending).saturating_add(self.pending)
    }

    /// Of the span before what still counts.
    fn weight(&self, unix: Duration) -> u64 {
        let Period::Sliding(seconds) = self.kind.period else { return 0 };
        let end = u128::from(self.span.end) * 1000;
        let left = end.saturating_sub(unix.as_millis()).min(u128::from(seconds) * 1000);
        let weighed = u128::from(self.before) * left / (u128::from(seconds) * 1000).max(1);
        u64::try_from(weighed).unwrap_or(u64::MAX)
    }

    pub fn used(&self, unix: Duration) -> u64 {
        self.counted().saturating_add(self.weight(unix))
    }

    pub fn taken(&self, unix: Duration) -> u64 {
        self.used(unix).saturating_add(self.reserved)
    }

    /// A call that may use more than is left is let in where it would be alone: so all of a limit can be
    /// spent, and it is passed by one call at most.
    pub fn room(&self, amount: u64, limit: u64, unix: Duration) -> Room {
        let used = self.used(unix);
        if used.saturating_add(self.reserved).saturating_add(amount) <= limit {
            Room::Enough
        } else if used >= limit {
            Room::None(self.wait(limit, unix))
        } else if self.reserved == 0 {
            Room::Enough
        } else {
            Room::Busy
        }
    }

    /// Until less than the limit is used.
    fn wait(&self, limit: u64, unix: Duration) -> Duration {
        let rest = Duration::from_secs(self.span.end).saturating_sub(unix);
        let Period::Sliding(seconds) = self.kind.period else { return rest };
        let (length, counted) = (u64::from(seconds) * 1000, self.counted());
        // The part of a span after which so much of `of` has gone that less than `limit` is left.
        let after = |of: u64, limit: u64| {
            let gone = u128::from(of - limit.min(of)) * u128::from(length) / u128::from(of.max(1));
            Duration::from_millis(u64::try_from(gone).unwrap_or(length) + 1)
        };
        if counted >= limit {
            return rest + after(counted, limit);
        }
        let begun = Duration::from_millis(length).saturating_sub(rest);
        after(self.before, limit - counted).saturating_sub(begun)
    }

    /// Until nothing of what is used now counts.
    pub fn reset(&self, unix: Duration) -> Duration {
        let rest = Duration::from_secs(self.span.end).saturating_sub(unix);
        match self.kind.period {
            Period::Sliding(seconds) if self.counted() > 0 || self.reserved > 0 => {
                rest + Duration::from_secs(u64::from(seconds))
            }
            _ => rest,
        }
    }

    pub const fn reserve(&mut self, amount: u64) {
        self.reserved = self.reserved.saturating_add(amount);
    }

    /// What was reserved comes to this.
    pub const fn settle(&mut self, reserved: u64, used: u64) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.pending = self.pending.saturating_add(used);
    }

    /// What the store is to hear of.
    pub const fn send(&mut self) -> u64 {
        let amount = self.pending;
        self.pending = 0;
        self.sending = self.sending.saturating_add(amount);
        amount
    }

    /// The store has it.
    pub const fn sent(&mut self, amount: u64) {
        let amount = if amount < self.sending { amount } else { self.sending };
        self.sending -= amount;
        self.base = self.base.saturating_add(amount);
    }

    /// What the store says of a span, of all nodes together.
    pub const fn learn(&mut self, span: Span, total: u64) {
        if span.start == self.span.start {
            self.base = total;
        } else if self.kind.period.is_sliding() && span.end == self.span.start {
            self.before = total;
        }
    }

    /// What another process counted in a span.
    pub const fn add(&mut self, span: Span, amount: u64) {
        if span.start == self.span.start {
            self.pending = self.pending.saturating_add(amount);
        } else if self.kind.period.is_sliding() && span.end == self.span.start {
            self.before = self.before.saturating_add(amount);
        }
    }

    /// What was counted, by span: for the process that takes over.
    pub fn counts(&self) -> impl Iterator<Item = (Span, u64)> {
        let length = self.span.end - self.span.start;
        let last = Span { start: self.span.start.saturating_sub(length), end: self.span.start };
        [(last, self.before), (self.span, self.counted())].into_iter().filter(|(_, it)| *it > 0)
    }

    /// Whether nothing is lost without it.
    pub const fn is_over(&self, unix: u64) -> bool {
        let length = self.span.end - self.span.start;
        let is_idle = self.reserved == 0 && self.pending == 0 && self.sending == 0;
        is_idle && self.span.end.saturating_add(length) <= unix
    }
}
