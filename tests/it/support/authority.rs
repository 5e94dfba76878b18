//! Certificates for the tests, made when they are needed.
use std::fs;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// A certification authority with a folder for PEM files.
pub struct Authority {
    pub certificate: Certificate,
    pub key: KeyPair,
    folder: TempDir,
}

/// A certificate that an [`Authority`] has signed, or nobody.
pub struct Signed {
    pub certificate: Certificate,
    pub key: KeyPair,
}

/// A certificate's parameters without names, good for a hundred years.
pub fn blank() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

/// Makes an authority of what `params` describes.
pub fn as_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

impl Authority {
    pub fn new() -> Self {
        Self::named("the tests' authority")
    }

    pub fn named(name: &str) -> Self {
        let mut params = blank();
        as_authority(&mut params);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, key, folder: tempfile::tempdir().unwrap() }
    }

    pub fn sign(&self, name: &str) -> Signed {
        self.sign_with(name, |_| {})
    }

    /// For a name or an address.
    pub fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        self.issue(params)
    }

    /// For a client: a common name, and what `change` adds.
    pub fn client(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = blank();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        Signed { certificate, key }
    }

    /// An authority below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let Signed { certificate, key } = self.client(name, as_authority);
        Self { certificate, key, folder: tempfile::tempdir().unwrap() }
    }

    /// A revocation list in PEM form, good until the given year.
    pub fn list(&self, revoked: &[&Signed], until: i32) -> String {
        let revoked = revoked.iter().map(|it| RevokedCertParams {
            serial_number: it.serial(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.certificate, &self.key).unwrap().pem().unwrap()
    }

    /// The path of a file in its folder, with this content, put there in one step.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        let new = self.folder.path().join(format!("{name}.new"));
        fs::write(&new, content).unwrap();
        fs::rename(new, &path).unwrap();
        path.display().to_string()
    }

    /// The path of its own certificate.
    pub fn ca(&self) -> String {
        self.file("ca.pem", &self.certificate.pem())
    }

    /// The paths of a chain and its key, as the configuration wants them.
    pub fn pair(&self, name: &str, signed: &Signed) -> String {
        let cert = self.file(&format!("{name}.pem"), &signed.certificate.pem());
        let key = self.file(&format!("{name}.key"), &signed.key.serialize_pem());
        format!("{{cert: '{cert}', key: '{key}'}}")
    }
}

impl Signed {
    /// By nobody but itself.
    pub fn alone(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = blank();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// SHA-256 of the DER, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        use sha2::{Digest, Sha256};
        Sha256::digest(self.certificate.der()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn serial(&self) -> SerialNumber {
        let (_, read) = x509_parser::parse_x509_certificate(self.certificate.der()).unwrap();
        SerialNumber::from_slice(read.raw_serial())
    }
}
