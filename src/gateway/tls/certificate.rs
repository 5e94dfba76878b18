//! One certificate of a listener: the chain, its key, and whom it names.
use std::{net::IpAddr, sync::Arc};

use rustls::{Error, InconsistentKeys, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// Whom a certificate is for, by its subject alternative names; its common name does not count
/// (RFC 9525 section 2).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// In lower case.
    pub exact: Vec<Box<str>>,
    /// What stands behind `*.`, in lower case.
    pub wildcard: Vec<Box<str>>,
    pub addresses: Vec<IpAddr>,
}

impl Names {
    fn add_dns(&mut self, name: &str) {
        let is_fine = |name: &str| {
            let is_label = |it: &str| {
                let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                (1..=63).contains(&it.len()) && it.bytes().all(fine)
            };
            name.len() <= 253 && name.split('.').all(is_label)
        };
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(parent) if is_fine(parent) => self.wildcard.push(parent.into()),
            None if is_fine(&name) => self.exact.push(name.into()),
            // What no client can ask for. A `*` stands for one whole label or for nothing.
            _ => {}
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.addresses.is_empty()
    }

    /// Whether a client that asks for `host`, in canonical form, accepts the certificate.
    #[must_use]
    pub fn cover(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = address.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.exact.iter().any(|name| **name == *host)
            || parent(host).is_some_and(|parent| self.wildcard.iter().any(|name| **name == *parent))
    }
}

/// The name without its first label: what a wildcard may stand before (RFC 9525 section 6.3).
pub fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// A chain with its key.
#[derive(Debug)]
pub struct Certificate {
    /// The file of the chain, as the configuration names it.
    pub file: Arc<str>,
    pub key: Arc<CertifiedKey>,
    pub names: Names,
    /// Seconds since the epoch.
    pub not_before: u64,
    pub not_after: u64,
}

/// What is wrong with a chain and a key together.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    Chain(String),
    Nameless,
    Key(String),
    /// The number of the certificate in the chain, from 1, that the key does belong to.
    Mismatch(Option<usize>),
}

impl Certificate {
    /// # Errors
    /// See [`Flaw`].
    pub fn new(
        file: Arc<str>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Self, Flaw> {
        let cannot = |why: &dyn std::fmt::Display| {
            Flaw::Chain(format!("the first certificate in it cannot be used: {why}"))
        };
        let first = chain.first().ok_or_else(|| cannot(&"there is none"))?;
        let read = X509Certificate::from_der(first);
        let (_, leaf) = read.map_err(|_| cannot(&"it is not valid X.509 (RFC 5280)"))?;
        let mut names = Names::default();
        let alternative = leaf.subject_alternative_name().map_err(|why| cannot(&why))?;
        for name in alternative.iter().flat_map(|it| &it.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.add_dns(name),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        if names.is_empty() {
            return Err(Flaw::Nameless);
        }
        let validity = leaf.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let not_before = seconds(validity.not_before.timestamp());
        let not_after = seconds(validity.not_after.timestamp());
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            Flaw::Key(
                "the key cannot be used: RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, and \
                 Ed25519 can"
                    .to_owned(),
            )
        })?;
        let key = Arc::new(CertifiedKey::new(chain, key));
        match key.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(Flaw::Mismatch(owner(&key))),
            Err(why) => return Err(cannot(&why)),
        }
        Ok(Self { file, key, names, not_before, not_after })
    }
}

impl Certificate {
    /// Shows this along (RFC 6066 section 8).
    pub fn staple(&mut self, ocsp: Vec<u8>) {
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(ocsp);
        self.key = Arc::new(key);
    }
}

/// The number of the certificate in the chain, from 1, that the key belongs to.
fn owner(key: &CertifiedKey) -> Option<usize> {
    let is_owner = |certificate: &CertificateDer<'static>| {
        let alone = CertifiedKey::new(vec![certificate.clone()], key.key.clone());
        alone.keys_match().is_ok()
    };
    key.cert.iter().position(is_owner).map(|index| index + 1)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dns: &[&str], addresses: &[&str]) -> Names {
        let mut names = Names::default();
        dns.iter().for_each(|it| names.add_dns(it));
        names.addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        names
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let names = names(&["A.test", "*.b.test"], &["127.0.0.1", "::1"]);
        let check = |host: &str, expected| assert_eq!(names.cover(host), expected, "{host}");
        check("a.test", true);
        check("x.b.test", true);
        check("b.test", false);
        check("x.y.b.test", false);
        check("x.a.test", false);
        check("", false);
        check("127.0.0.1", true);
        check("127.0.0.2", false);
        check("[::1]", true);
        check("[::2]", false);
    }

    #[test]
    fn names_that_nobody_can_ask_for_are_left_out() {
        for odd in
            ["", "*", "*.", "a.*.test", "a*.test", "**.test", "a..test", "a\0.test", "ä.test"]
        {
            assert!(names(&[odd], &[]).is_empty(), "{odd}");
        }
        assert_eq!(names(&["*.test", "_acme.a.test"], &[]).wildcard.len(), 1);
    }
}
