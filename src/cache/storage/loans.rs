//! Bodies from the disk that are too large to stay in memory: they are there for as long as somebody reads
//! them, once each, and no more of them than the budget allows.
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::Mutex;

use super::{disk::Found, memory::Key};

/// Which writing of which entry.
type Name = (Key, u64);

#[derive(Default)]
struct Lent {
    loans: HashMap<Name, Weak<Loan>>,
    bytes: u64,
}

#[derive(Clone, Default)]
pub(super) struct Loans(Arc<Mutex<Lent>>);

/// The place of one body in memory, until the last of its readers is done.
pub(super) struct Loan {
    name: Name,
    bytes: u64,
    /// Set by the first who has read it.
    pub found: OnceLock<Arc<Found>>,
    lent: Loans,
}

impl Loans {
    /// A share in a body that is lent already, or a place for it; none where `most` bytes are not enough.
    pub fn take(&self, key: Key, stamp: u64, bytes: u64, most: u64) -> Option<Arc<Loan>> {
        let name = (key, stamp);
        let mut lent = self.0.lock();
        if let Some(loan) = lent.loans.get(&name).and_then(Weak::upgrade) {
            return Some(loan);
        }
        if lent.bytes.saturating_add(bytes) > most {
            return None;
        }
        let loan = Arc::new(Loan { name, bytes, found: OnceLock::new(), lent: self.clone() });
        lent.bytes += bytes;
        lent.loans.insert(name, Arc::downgrade(&loan));
        Some(loan)
    }

    pub fn bytes(&self) -> u64 {
        self.0.lock().bytes
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut lent = self.lent.0.lock();
        lent.bytes = lent.bytes.saturating_sub(self.bytes);
        // Somebody may have taken a place for the same body since this one was on its way out.
        if lent.loans.get(&self.name).is_some_and(|it| it.strong_count() == 0) {
            lent.loans.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_lent_once_and_all_of_them_within_the_budget() {
        let loans = Loans::default();
        let one = loans.take([1; 16], 1, 60, 100).unwrap();
        let same = loans.take([1; 16], 1, 60, 100).unwrap();
        assert!(Arc::ptr_eq(&one, &same));
        assert_eq!(loans.bytes(), 60);
        assert!(loans.take([1; 16], 2, 60, 100).is_none(), "another writing is another body");
        assert!(loans.take([2; 16], 1, 40, 100).is_some());
        drop(one);
        assert!(loans.take([2; 16], 1, 60, 100).is_none());
        drop(same);
        assert_eq!(loans.bytes(), 0);
        assert!(loans.take([2; 16], 1, 100, 100).is_some());
        assert!(loans.0.lock().loans.is_empty());
    }
}
