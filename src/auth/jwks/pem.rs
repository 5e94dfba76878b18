//! One public key out of a PEM file: a public key (RFC 5280 SubjectPublicKeyInfo), an RSA public key
//! (RFC 8017 appendix A.1.1) or the key of a certificate. A certificate is only the wrapping of its key:
//! its issuer, dates and names are not looked at.
use x509_parser::{
    certificate::X509Certificate,
    der_parser::{Oid, oid},
    pem::Pem,
    prelude::FromDer,
    public_key::{PublicKey, RSAPublicKey},
    x509::SubjectPublicKeyInfo,
};

use super::key::{Key, Kind};

const ED25519: Oid<'static> = oid!(1.3.101.112);
/// Other curves have points of the same length.
const P256: Oid<'static> = oid!(1.2.840.10045.3.1.7);
const P384: Oid<'static> = oid!(1.3.132.0.34);

/// # Errors
/// There is not exactly one public key, it is weak, or of a kind that is not taken.
pub fn parse(text: &[u8]) -> Result<Key, String> {
    let sections: Result<Vec<Pem>, _> = Pem::iter_from_buffer(text).take(2).collect();
    let sections = sections.map_err(|_| "not PEM that can be read".to_owned())?;
    let [Pem { label, contents: der }] = &*sections else {
        return Err("exactly one `-----BEGIN PUBLIC KEY-----`, `RSA PUBLIC KEY` or `CERTIFICATE` \
                    is needed"
            .to_owned());
    };
    match &**label {
        "PUBLIC KEY" => info(&whole(SubjectPublicKeyInfo::from_der(der))?),
        "RSA PUBLIC KEY" => rsa(&whole(RSAPublicKey::from_der(der))?),
        "CERTIFICATE" => info(&whole(X509Certificate::from_der(der))?.tbs_certificate.subject_pki),
        other if other.ends_with("PRIVATE KEY") => {
            Err("a private key: only the public one belongs \
                                                        here (`openssl pkey -in key.pem -pubout` \
                                                        prints it)"
                .to_owned())
        }
        _ => Err("neither a public key nor a certificate".to_owned()),
    }
}

/// What was read, with nothing after it.
fn whole<T, E>(parsed: Result<(&[u8], T), E>) -> Result<T, String> {
    match parsed {
        Ok(([], it)) => Ok(it),
        _ => Err("not a key in DER that can be read".to_owned()),
    }
}

fn rsa(key: &RSAPublicKey<'_>) -> Result<Key, String> {
    Key::rsa(key.modulus, key.exponent)
}

fn info(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, String> {
    if info.algorithm.algorithm == ED25519 {
        return Key::ed25519(&info.subject_public_key.data);
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => rsa(&key),
        Ok(PublicKey::EC(point)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
            let kind = match curve {
                Some(oid) if oid == P256 => Some(Kind::P256),
                Some(oid) if oid == P384 => Some(Kind::P384),
                _ => None,
            };
            match Key::point(point.data())? {
                key if Some(key.kind()) == kind => Ok(key),
                _ => Err("a key on a curve other than P-256 and P-384".to_owned()),
            }
        }
        _ => Err("a key of a kind that is not taken: RSA, P-256, P-384 and Ed25519 are".to_owned()),
    }
}
