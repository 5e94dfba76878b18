//! Which certificate is shown: by the name that the client asks for (SNI, RFC 6066 section 3), an
//! exact one before a wildcard, else the first.
use std::sync::Arc;

use ahash::AHashMap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    acme::{self, Pending},
    certificate::{Certificate, parent},
};

/// The certificates of a listener by name. Never changed: another one takes its place.
#[derive(Debug)]
pub struct Table {
    pub certificates: Box<[Certificate]>,
    exact: AHashMap<Box<str>, Vec<usize>>,
    wildcard: AHashMap<Box<str>, Vec<usize>>,
    /// Where authorities look for proofs on this listener.
    pending: Option<Arc<Pending>>,
}

impl Table {
    #[must_use]
    pub fn new(certificates: Vec<Certificate>, pending: Option<Arc<Pending>>) -> Self {
        let (mut exact, mut wildcard) = (AHashMap::new(), AHashMap::new());
        for (index, certificate) in certificates.iter().enumerate() {
            let add = |map: &mut AHashMap<Box<str>, Vec<usize>>, name: &str| {
                map.entry(name.into()).or_default().push(index);
            };
            certificate.names.exact.iter().for_each(|name| add(&mut exact, name));
            certificate.names.wildcard.iter().for_each(|name| add(&mut wildcard, name));
        }
        Self { certificates: certificates.into(), exact, wildcard, pending }
    }

    /// Whether authorities look for proofs here.
    #[must_use]
    pub const fn is_proving(&self) -> bool {
        self.pending.is_some()
    }

    /// What an authority is shown; it offers that protocol and no other (RFC 8737 section 3).
    fn proof(&self, hello: &ClientHello<'_>) -> Option<Option<Arc<CertifiedKey>>> {
        let pending = self.pending.as_ref()?;
        let mut protocols = hello.alpn()?;
        let is_asked = protocols.next() == Some(acme::PROTOCOL) && protocols.next().is_none();
        is_asked.then(|| pending.certificate(hello.server_name()?))
    }

    /// Those that may be shown to a client that asks for `name`, the first that fits before others:
    /// several are the same names with keys of several kinds.
    fn candidates(&self, name: Option<&str>) -> impl Iterator<Item = &Certificate> {
        let found = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name);
            let by_wildcard = || parent(name).and_then(|parent| self.wildcard.get(parent));
            self.exact.get(name).or_else(by_wildcard)
        });
        let default: &[usize] = &[0];
        let found = found.map_or(default, Vec::as_slice);
        found.iter().filter_map(|index| self.certificates.get(*index))
    }

    /// Whether a client that asked for `name` in its handshake may ask for `host` on the connection.
    #[must_use]
    pub fn covers(&self, name: Option<&str>, host: &str) -> bool {
        self.candidates(name).any(|it| it.names.cover(host))
    }
}

impl ResolvesServerCert for Table {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(proof) = self.proof(&hello) {
            return proof;
        }
        let schemes = hello.signature_schemes();
        let is_fit = |it: &&Certificate| it.key.key.choose_scheme(schemes).is_some();
        let name = hello.server_name();
        // With none that fits the handshake fails by the right alert: no signature in common.
        let chosen = self.candidates(name).find(is_fit).or_else(|| self.candidates(name).next());
        chosen.map(|it| it.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    fn certificate(
        file: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> Certificate {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let key = KeyPair::generate_for(algorithm).unwrap();
        let signed = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        Certificate::new(file.into(), vec![signed.der().clone()], key, &provider).unwrap()
    }

    fn table() -> Table {
        let ec = &PKCS_ECDSA_P256_SHA256;
        let certificates = vec![
            certificate("default", &["default.test"], ec),
            certificate("wild", &["*.a.test", "*.b.test"], ec),
            certificate("exact", &["x.a.test"], ec),
            certificate("pair-1", &["pair.test"], &PKCS_ED25519),
            certificate("pair-2", &["pair.test"], ec),
            certificate("address", &["127.0.0.1", "late.test"], ec),
        ];
        Table::new(certificates, None)
    }

    #[test]
    fn exact_goes_before_wildcard_before_the_first() {
        let table = table();
        let check = |name: Option<&str>, expected: &[&str]| {
            let found: Vec<&str> = table.candidates(name).map(|it| &*it.file).collect();
            assert_eq!(found, expected, "{name:?}");
        };
        check(Some("x.a.test"), &["exact"]);
        check(Some("y.a.test"), &["wild"]);
        check(Some("y.b.test"), &["wild"]);
        check(Some("y.b.test."), &["wild"]);
        check(Some("pair.test"), &["pair-1", "pair-2"]);
        check(Some("late.test"), &["address"]);
        for default in ["a.test", "x.y.a.test", "unknown.test", "default.test", "*.a.test", "", "."]
        {
            let wild = default == "*.a.test";
            check(Some(default), &[if wild { "wild" } else { "default" }]);
        }
        check(None, &["default"]);
    }

    #[test]
    fn a_host_is_covered_by_what_was_shown() {
        let table = table();
        let check = |name: Option<&str>, host: &str, expected| {
            assert_eq!(table.covers(name, host), expected, "{name:?} {host}");
        };
        check(Some("x.a.test"), "x.a.test", true);
        check(Some("x.a.test"), "y.a.test", false);
        check(Some("y.a.test"), "z.b.test", true);
        check(Some("y.a.test"), "pair.test", false);
        check(None, "default.test", true);
        check(None, "127.0.0.1", false);
        check(Some("unknown.test"), "unknown.test", false);
        check(Some("late.test"), "127.0.0.1", true);
        check(Some("x.a.test"), "", false);
    }
}
