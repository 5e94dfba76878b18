//! Whose client certificates are believed: authorities, revocation lists, and whether one must be
//! shown. What is decided is RFC 5280's path validation, by webpki.
use std::{sync::Arc, time::Duration};

use rustls::{
    Error, RootCertStore,
    crypto::CryptoProvider,
    server::{
        ClientCertVerifierBuilder, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList,
};

/// What a listener asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    Optional,
    Required,
}

/// Who may vouch for clients. At least one.
#[derive(Debug)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    hash: Sha256,
    /// DER of their names, and the names for people.
    pub names: Vec<(Vec<u8>, String)>,
}

impl Authorities {
    /// # Errors
    /// One that cannot be an authority.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let (mut roots, mut hash) = (RootCertStore::empty(), Sha256::new());
        let mut names = Vec::new();
        for (index, certificate) in certificates.into_iter().enumerate() {
            let cannot = |why: &dyn std::fmt::Display| {
                format!("certificate {} of it cannot be an authority: {why}", index + 1)
            };
            let read = X509Certificate::from_der(&certificate);
            let (_, read) = read.map_err(|_| cannot(&"it is not valid X.509 (RFC 5280)"))?;
            let shown = read.subject().to_string().escape_debug().to_string();
            names.push((read.subject().as_raw().to_vec(), shown));
            hash.update(Sha256::digest(&certificate));
            roots.add(certificate.clone()).map_err(|why| cannot(&why))?;
        }
        Ok(Self { roots: roots.into(), hash, names })
    }

    fn builder(&self, provider: &Arc<CryptoProvider>) -> ClientCertVerifierBuilder {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
    }
}

fn unusable(why: &VerifierBuilderError) -> String {
    match why {
        VerifierBuilderError::InvalidCrl(why) => format!("a revocation list: {why:?}"),
        other => other.to_string(),
    }
}

/// The rule for client certificates, ready for use.
#[derive(Debug)]
pub struct Trust {
    pub asked: Asked,
    /// The same for the same authorities, lists and demand: what was verified under it need not be
    /// verified again.
    pub id: u64,
    pub verifier: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// # Errors
    /// A list that cannot be used.
    pub fn new(
        asked: Asked,
        authorities: &Authorities,
        lists: Vec<CertificateRevocationListDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut hash = authorities.hash.clone();
        hash.update([u8::from(asked == Asked::Required)]);
        lists.iter().for_each(|list| hash.update(Sha256::digest(list)));
        let builder = authorities
            .builder(provider)
            .with_crls(lists)
            // A list that is out of date may lack the very certificate that was stolen.
            .enforce_revocation_expiration();
        let builder = match asked {
            Asked::Optional => builder.allow_unauthenticated(),
            Asked::Required => builder,
        };
        let verifier = builder.build().map_err(|why| unusable(&why))?;
        let id = hash.finalize().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        Ok(Self { asked, id, verifier })
    }

    /// Verifies a chain, its own certificate first, as a handshake does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, chain: &[CertificateDer<'static>], unix: Duration) -> Result<(), Error> {
        let (own, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let now = UnixTime::since_unix_epoch(unix);
        self.verifier.verify_client_cert(own, intermediates, now).map(drop)
    }
}

/// A revocation list, as far as the operator has to know.
#[derive(Debug)]
pub struct List {
    /// DER of the name of who has issued it.
    pub issuer: Vec<u8>,
    /// Seconds since the epoch at which it is out of date.
    pub next_update: u64,
    pub revoked: usize,
}

impl List {
    /// # Errors
    /// It is not one, or one of a kind that is not understood (delta and indirect lists).
    pub fn read(
        list: &CertificateRevocationListDer<'static>,
        authorities: &Authorities,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("a revocation list: {why}");
        let (rest, read) = CertificateRevocationList::from_der(list)
            .map_err(|_| cannot(&"it cannot be read (RFC 5280 section 5)"))?;
        if !rest.is_empty() {
            return Err(cannot(&"there is something behind it"));
        }
        let next_update = read.next_update().ok_or_else(|| cannot(&"it has no nextUpdate"))?;
        // As it will be used.
        let builder = authorities.builder(provider).with_crls([list.clone()]);
        builder.build().map_err(|why| unusable(&why))?;
        Ok(Self {
            issuer: read.issuer().as_raw().to_vec(),
            next_update: u64::try_from(next_update.timestamp()).unwrap_or(0),
            revoked: read.iter_revoked_certificates().count(),
        })
    }
}
