//! TLS of the listeners: certificates by name, client certificates, and the files that both come
//! from, watched. The handshake itself is in `proxy/tls`.
//!
//! What a listener uses is swapped whole, certificates, authorities and lists together, so no
//! handshake sees half of a change; those under way end with what they began with.

pub mod acme;
mod certificate;
mod load;
pub mod pem;
pub mod settings;
mod table;
pub mod trust;
mod watch;

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use rustls::{crypto::CryptoProvider, server::ProducesTickets};
use serde_json::{Value, json};

use self::{load::Scene, settings::Settings, watch::Seen};
pub use self::{
    load::{Loaded, Warning},
    watch::Watch,
};
use crate::{
    diagnostic::Problems,
    flow::clock::Now,
    telemetry::{Metrics, TlsMetrics},
};

/// The TLS of one listener in one snapshot.
pub struct Tls {
    pub listener: Arc<str>,
    settings: Settings,
    current: ArcSwap<Loaded>,
    seen: Mutex<Seen>,
    tickets: Arc<dyn ProducesTickets>,
    pending: Arc<acme::Pending>,
    /// Has an authority sign one of the certificates.
    pub renewal: Option<Arc<acme::Renewal>>,
    pub metrics: Arc<TlsMetrics>,
}

/// What outlives a snapshot: the keys that sessions are sealed with, by listener. A reload does not
/// make every client begin anew.
#[derive(Default)]
pub struct Tickets(Mutex<std::collections::BTreeMap<Arc<str>, Arc<dyn ProducesTickets>>>);

impl Tickets {
    /// A key that changes by itself every six hours; tickets live for twelve.
    fn of(&self, listener: &Arc<str>) -> Result<Arc<dyn ProducesTickets>, String> {
        let mut all = self.0.lock();
        if let Some(found) = all.get(listener) {
            return Ok(found.clone());
        }
        let made = rustls::crypto::ring::Ticketer::new().map_err(|why| why.to_string())?;
        all.insert(listener.clone(), made.clone());
        Ok(made)
    }
}

/// One for all: it holds no state.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
}

impl Tls {
    /// Reads the files that `settings` name.
    ///
    /// # Errors
    /// Every problem of them.
    pub fn new(
        listener: &Arc<str>,
        settings: Settings,
        tickets: &Tickets,
        orders: &acme::Registry,
        metrics: &Metrics,
    ) -> Result<Self, Problems> {
        let tickets = tickets.of(listener).map_err(|why| {
            let mut problems = Problems::default();
            problems.add(&crate::diagnostic::Path::root(), format!("TLS cannot be set up: {why}"));
            problems
        })?;
        // Before reading: what changes meanwhile is read again.
        let seen = Seen::new(settings.stamps());
        let pending = orders.pending.clone();
        let loaded = load::load(&settings, scene(&tickets, &pending))?;
        let renewal = settings
            .acme
            .clone()
            .map(|it| Arc::new(acme::Renewal::new(listener, it, orders, metrics)));
        Ok(Self {
            listener: listener.clone(),
            pending,
            renewal,
            settings,
            current: ArcSwap::from_pointee(loaded),
            seen: Mutex::new(seen),
            tickets,
            metrics: metrics.tls(listener),
        })
    }

    /// What a handshake that begins now is made with.
    pub fn current(&self) -> Guard<Arc<Loaded>> {
        self.current.load()
    }

    pub fn warnings(&self) -> Vec<Warning> {
        self.current().warnings.clone()
    }

    /// Says to the log what should not stay as it is.
    pub fn warn(&self) {
        for Warning { place, message } in &self.current().warnings {
            log::warn!("listener {}: {place}: {message}", self.listener);
        }
    }

    /// For the status: what is shown, what is asked for, and why newer files are not used.
    #[must_use]
    pub fn status(&self) -> Value {
        let current = self.current();
        let certificates = current.table.certificates.iter().map(|it| {
            let wildcards = it.names.wildcard.iter().map(|name| format!("*.{name}"));
            let addresses = it.names.addresses.iter().map(ToString::to_string);
            let exact = it.names.exact.iter().map(ToString::to_string);
            let names: Vec<String> = exact.chain(wildcards).chain(addresses).collect();
            json!({"file": &*it.file, "names": names, "expires": load::date(it.not_after)})
        });
        let lists = current.lists.iter();
        let lists = lists.map(|(file, at)| json!({"file": &**file, "expires": load::date(*at)}));
        let asked = current.trust.as_ref().map_or("none", |trust| match trust.asked {
            trust::Asked::Optional => "optional",
            trust::Asked::Required => "required",
        });
        let warnings = current.warnings.iter().map(|it| format!("{}: {}", it.place, it.message));
        json!({
            "certificates": certificates.collect::<Vec<_>>(),
            "client_certificate": asked,
            "client_crl": lists.collect::<Vec<_>>(),
            "acme": self.renewal.as_ref().map(|it| it.status()),
            "warnings": warnings.collect::<Vec<_>>(),
            "not_used": self.seen.lock().not_used(),
        })
    }

    /// The chains by file, and when each is out of date.
    #[must_use]
    pub fn expiries(&self) -> Vec<(Arc<str>, u64)> {
        let current = self.current();
        current.table.certificates.iter().map(|it| (it.file.clone(), it.not_after)).collect()
    }

    /// The revocation lists by file, and when each is out of date.
    #[must_use]
    pub fn lists(&self) -> Vec<(Arc<str>, u64)> {
        self.current().lists.clone()
    }
}

fn scene<'a>(tickets: &'a Arc<dyn ProducesTickets>, pending: &'a Arc<acme::Pending>) -> Scene<'a> {
    Scene { provider: provider(), tickets, pending, unix: Now::read().unix.as_secs() }
}

/// Whether two listeners ask different things of their clients, so that what was settled on one says
/// nothing on the other.
#[must_use]
pub fn do_rules_differ(all: &[Option<Arc<Tls>>]) -> bool {
    let rule = |it: &Arc<Tls>| {
        it.settings.clients.as_ref().map(|it| {
            let lists: Vec<_> = it.lists.iter().map(|it| it.path.clone()).collect();
            (it.asked, it.authorities.path.clone(), lists)
        })
    };
    let mut rules = all.iter().flatten().map(rule);
    let first = rules.next();
    rules.any(|it| Some(it) != first)
}

#[cfg(test)]
mod tests;
