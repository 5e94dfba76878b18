//! Certificates, keys and revocation lists out of the files that hold them, with a word on what is in
//! the file where it is not what was asked for. Nothing of a key is ever said.
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};

/// At least one certificate, in the order of the file.
///
/// # Errors
/// A sentence for people.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("there is no certificate in PEM form in it{}", instead(bytes))),
        Err(why) => Err(format!("not a certificate in PEM form: {why}")),
    }
}

/// The first private key.
///
/// # Errors
/// A sentence for people.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let marks = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
    if marks.iter().any(|mark| memchr::memmem::find(bytes, mark.as_bytes()).is_some()) {
        return Err("the key is encrypted, and nobody is there to type its passphrase: store it \
                    without one (`openssl pkey -in FILE -out PLAIN`)"
            .to_owned());
    }
    match PrivateKeyDer::pem_slice_iter(bytes).next() {
        Some(Ok(key)) => Ok(key),
        // Nothing of the file is repeated: it may be a part of the key.
        Some(Err(_)) => Err("not a private key in PEM form".to_owned()),
        None => Err(format!("there is no private key in PEM form in it{}", instead(bytes))),
    }
}

/// At least one revocation list: PEM, or one in DER, as authorities publish them.
///
/// # Errors
/// A sentence for people.
pub fn revocation_lists(
    bytes: Vec<u8>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    if is_der(&bytes) {
        return Ok(vec![bytes.into()]);
    }
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("there is no revocation list in it{}", instead(&bytes))),
        Err(why) => Err(format!("not a revocation list in PEM or DER form: {why}")),
    }
}

/// An ASN.1 SEQUENCE of more than 127 bytes.
pub fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x80..=0xff, ..])
}

/// What is in a file in place of what was looked for.
fn instead(bytes: &[u8]) -> &'static str {
    if bytes.is_empty() {
        return ": it is empty";
    }
    if is_der(bytes) {
        return ": it looks like DER; `openssl x509 -inform der` makes PEM of a certificate";
    }
    let kinds = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes).map_while(Result::ok);
    let kinds: Vec<SectionKind> = kinds.map(|(kind, _)| kind).collect();
    let has = |wanted: &[SectionKind]| kinds.iter().any(|kind| wanted.contains(kind));
    let keys = [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey];
    match () {
        () if has(&keys) => ", but a private key: are two files swapped?",
        () if has(&[SectionKind::Certificate]) => ", but a certificate: are two files swapped?",
        () if has(&[SectionKind::Csr]) => ", but a request for one, which the authority must sign",
        () if has(&[SectionKind::PublicKey]) => ", but a public key",
        () if has(&[SectionKind::Crl]) => ", but a revocation list",
        () => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pem(label: &str) -> String {
        format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n")
    }

    #[track_caller]
    fn check<T>(result: Result<T, String>, expected: &str) {
        assert_eq!(result.err().as_deref().unwrap_or("fine"), expected);
    }

    #[test]
    fn what_is_there_instead_is_said() {
        let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
        check(certificates(certificate.as_bytes()), "fine");
        check(certificates((key.clone() + &certificate).as_bytes()), "fine");
        let none = "there is no certificate in PEM form in it";
        check(certificates(b""), &format!("{none}: it is empty"));
        check(certificates(b"hello"), none);
        check(
            certificates(key.as_bytes()),
            &format!("{none}, but a private key: are two files swapped?"),
        );
        check(
            certificates(pem("CERTIFICATE REQUEST").as_bytes()),
            &format!("{none}, but a request for one, which the authority must sign"),
        );
        check(
            certificates(b"\x30\x82\x01\x00"),
            &format!(
                "{none}: it looks like DER; `openssl x509 -inform der` makes PEM of a certificate"
            ),
        );
        check(private_key(key.as_bytes()), "fine");
        check(
            private_key(certificate.as_bytes()),
            "there is no private key in PEM form in it, but a certificate: are two files swapped?",
        );
        check(
            private_key(pem("PUBLIC KEY").as_bytes()),
            "there is no private key in PEM form in it, but a public key",
        );
        let encrypted = private_key(pem("ENCRYPTED PRIVATE KEY").as_bytes()).unwrap_err();
        assert!(encrypted.starts_with("the key is encrypted"), "{encrypted}");
        check(revocation_lists(pem("X509 CRL").into()), "fine");
        check(revocation_lists(b"\x30\x82\x01\x00".to_vec()), "fine");
        check(
            revocation_lists(certificate.into()),
            "there is no revocation list in it, but a certificate: are two files swapped?",
        );
    }

    #[test]
    fn a_broken_key_is_not_repeated() {
        let broken = "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n";
        check(private_key(broken.as_bytes()), "not a private key in PEM form");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, label in "(CERTIFICATE|PRIVATE KEY|X509 CRL)") {
            let armoured = [format!("-----BEGIN {label}-----\n").as_bytes(), &bytes].concat();
            for bytes in [bytes, armoured] {
                let _ = (certificates(&bytes), private_key(&bytes));
                let _ = revocation_lists(bytes);
            }
        }
    }
}
