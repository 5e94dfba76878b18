//! What the authority is to find while an order is under way: a text at a path, or a certificate by a
//! protocol of its own. Gone when the order has ended, however.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;

/// What the authority asks for in its handshake (RFC 8737 section 6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";
/// RFC 8555 section 8.3.
const PATH: &str = "/.well-known/acme-challenge/";

#[derive(Debug, Default)]
pub struct Pending {
    /// How many, so that a request costs no lock while there is none.
    count: AtomicUsize,
    texts: Mutex<HashMap<String, String>>,
    certificates: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// Takes back what it stands for when dropped.
#[must_use]
pub struct Shown {
    pending: Arc<Pending>,
    what: What,
}

enum What {
    Text(String),
    Certificate(String),
}

impl Pending {
    pub fn show_text(self: &Arc<Self>, token: &str, text: &str) -> Shown {
        self.texts.lock().insert(token.to_owned(), text.to_owned());
        self.count.fetch_add(1, Ordering::Release);
        Shown { pending: self.clone(), what: What::Text(token.to_owned()) }
    }

    pub fn show_certificate(self: &Arc<Self>, name: &str, key: Arc<CertifiedKey>) -> Shown {
        self.certificates.lock().insert(name.to_owned(), key);
        self.count.fetch_add(1, Ordering::Release);
        Shown { pending: self.clone(), what: What::Certificate(name.to_owned()) }
    }

    /// What stands at this path, if it is one of a challenge.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.texts.lock().get(path.strip_prefix(PATH)?).cloned()
    }

    #[must_use]
    pub fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates.lock().get(name).cloned()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        match &self.what {
            What::Text(token) => drop(self.pending.texts.lock().remove(token)),
            What::Certificate(name) => drop(self.pending.certificates.lock().remove(name)),
        }
        self.pending.count.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_there_as_long_as_its_order() {
        let pending = Arc::new(Pending::default());
        let shown = pending.show_text("abc", "abc.thumb");
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(pending.text(path).as_deref(), expected, "{path}");
        };
        check("/.well-known/acme-challenge/abc", Some("abc.thumb"));
        check("/.well-known/acme-challenge/abd", None);
        check("/.well-known/acme-challenge/", None);
        check("/abc", None);
        drop(shown);
        check("/.well-known/acme-challenge/abc", None);
    }
}
