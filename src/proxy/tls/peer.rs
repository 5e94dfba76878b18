//! What a handshake settled, and whether it still holds when a request comes: files and configuration
//! change while a connection lives, and it may be used for another host than it was opened for.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use pingora::{http::ResponseHeader, protocols::raw_connect::ProxyDigest, proxy::Session};
use rustls_pki_types::CertificateDer;

use super::outcome;
use crate::{
    flow::{certificate::ClientCertificate, clock::Now},
    gateway::{
        Gateway,
        tls::trust::{Asked, Trust},
    },
};

/// The other end of a TLS connection.
#[derive(Debug)]
pub struct Peer {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// The listener's number.
    pub listener: usize,
    /// What the client asked for (SNI), in lower case.
    pub server_name: Option<Box<str>>,
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The certificate and those that came with it, to verify it again.
    pub chain: Box<[CertificateDer<'static>]>,
    /// The [`Trust`] that it was verified by last.
    pub verified_by: AtomicU64,
}

impl Peer {
    /// Carried where Pingora has room for data of ours: its TLS digest has such a place too, but only
    /// its own TLS can fill it. A listener's connection never came through a CONNECT proxy.
    pub(super) fn into_digest(self) -> Option<Arc<ProxyDigest>> {
        let blank = ResponseHeader::build_no_case(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(blank), Some(Box::new(self)))))
    }

    /// Of a request that came over TLS.
    #[must_use]
    pub fn of(session: &Session) -> Option<&Self> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Whether what was settled holds for a request to `host` under `gateway`.
    ///
    /// # Errors
    /// What does not, for the log.
    pub fn check(&self, gateway: &Gateway, host: &str, now: Now) -> Result<(), String> {
        let tls = gateway.tls.get(self.listener).and_then(Option::as_ref);
        let Some(tls) = tls else {
            return match self.certificate {
                Some(_) => Err("this listener asks for no certificate any more".to_owned()),
                None => Ok(()),
            };
        };
        let current = tls.current();
        self.check_certificate(current.trust.as_ref(), now)?;
        let name = self.server_name.as_deref();
        if gateway.do_tls_rules_differ && !current.table.covers(name, host) {
            let name = name.unwrap_or("none");
            return Err(format!(
                "the certificate that was shown is not for this host; SNI: {name}"
            ));
        }
        Ok(())
    }

    fn check_certificate(&self, trust: Option<&Trust>, now: Now) -> Result<(), String> {
        let Some(certificate) = &self.certificate else {
            return match trust.map(|it| it.asked) {
                Some(Asked::Required) => Err("this listener now asks for a certificate".to_owned()),
                Some(Asked::Optional) | None => Ok(()),
            };
        };
        let Some(trust) = trust else {
            return Err("this listener asks for no certificate any more".to_owned());
        };
        if now.unix.as_secs() > certificate.not_after {
            return Err("the client certificate has expired".to_owned());
        }
        // Authorities and lists change seldom, and verifying takes a signature or two.
        if self.verified_by.load(Relaxed) != trust.id {
            trust.verify(&self.chain, now.unix).map_err(|why| {
                format!(
                    "the client certificate is not accepted any more: {}",
                    outcome(&why).reason()
                )
            })?;
            self.verified_by.store(trust.id, Relaxed);
        }
        Ok(())
    }
}
