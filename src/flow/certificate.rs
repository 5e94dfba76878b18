//! What a verified client certificate says of its owner; read once a connection. Only names that can
//! be read in one way are taken: printable ASCII, no wildcards, and a common name that is alone.
use std::sync::Arc;

use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// Bytes of a name at most.
const LONGEST: usize = 1024;
/// Names of one kind at most: each may be looked up with each request.
const MOST: usize = 100;

/// A client certificate whose chain, time and revocation were checked in the handshake.
#[derive(Debug, Default)]
pub struct ClientCertificate {
    /// SHA-256 of the DER, lower-case hexadecimal.
    pub fingerprint: Arc<str>,
    /// The common name of the subject. None where there are several: readers disagree on which counts
    /// (RFC 6125 section 2.3.1).
    pub subject_cn: Option<Arc<str>>,
    /// In lower case. A wildcard names nobody and is left out.
    pub san_dns: Box<[Arc<str>]>,
    pub san_uri: Box<[Arc<str>]>,
    /// Seconds since the epoch; good up to and with this one.
    pub not_after: u64,
}

/// A certificate that cannot be read, or that names more than is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("not a certificate that can be read (RFC 5280)")]
    Malformed,
    #[error("more than {MOST} alternative names of one kind")]
    TooMany,
}

impl ClientCertificate {
    /// Reads the DER of a certificate. Checks nothing: that is the handshake's part.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn from_der(der: &[u8]) -> Result<Self, Unreadable> {
        let malformed = |_| Unreadable::Malformed;
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| Unreadable::Malformed)?;
        if !rest.is_empty() {
            return Err(Unreadable::Malformed);
        }
        let mut names = certificate.subject().iter_common_name();
        let subject_cn = match (names.next(), names.next()) {
            (Some(only), None) => only.as_str().ok().and_then(printable),
            _ => None,
        };
        let alternative = certificate.subject_alternative_name().map_err(malformed)?;
        let (mut san_dns, mut san_uri) = (Vec::new(), Vec::new());
        for name in alternative.iter().flat_map(|it| &it.value.general_names) {
            match name {
                GeneralName::DNSName(name) => san_dns.extend(dns(name)),
                GeneralName::URI(name) => san_uri.extend(printable(name)),
                _ => {}
            }
        }
        if san_dns.len() > MOST || san_uri.len() > MOST {
            return Err(Unreadable::TooMany);
        }
        let not_after = certificate.validity().not_after.timestamp();
        Ok(Self {
            fingerprint: fingerprint(der).into(),
            subject_cn,
            san_dns: san_dns.into(),
            san_uri: san_uri.into(),
            not_after: u64::try_from(not_after).unwrap_or(0),
        })
    }
}

fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that means one thing to every reader: `admin\0.evil.test` is `admin` to some.
fn printable(name: &str) -> Option<Arc<str>> {
    let is_fine = (1..=LONGEST).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && name.trim_ascii() == name;
    is_fine.then(|| name.into())
}

/// DNS names are compared without regard to case (RFC 4343).
fn dns(name: &str) -> Option<Arc<str>> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=253).contains(&name.len()) && name.bytes().all(is_fine);
    is_name.then(|| name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, Ia5String, KeyPair, SanType};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    /// OID 2.5.4.3 again, as another type of rcgen's so that it stands beside the first.
    fn second_cn() -> DnType {
        DnType::CustomDnType(vec![2, 5, 4, 3])
    }

    #[track_caller]
    fn check_cn(values: &[DnValue], expected: Option<&str>) {
        let der = made(|params| {
            for (value, kind) in values.iter().zip([DnType::CommonName, second_cn()]) {
                params.distinguished_name.push(kind, value.clone());
            }
        });
        let read = ClientCertificate::from_der(&der).unwrap();
        assert_eq!(read.subject_cn.as_deref(), expected, "{values:?}");
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn a_common_name_is_taken_if_it_is_one_and_plain() {
        check_cn(&[utf8("billing")], Some("billing"));
        check_cn(&[utf8("Billing Service (EU) ~ 1")], Some("Billing Service (EU) ~ 1"));
        check_cn(&[DnValue::PrintableString("billing".try_into().unwrap())], Some("billing"));
        check_cn(&[], None);
        check_cn(&[utf8("")], None);
        check_cn(&[utf8("billing"), utf8("admin")], None);
        check_cn(&[utf8("billing"), utf8("billing")], None);
        for odd in ["admin\0.evil", "admin\n", "a\u{7f}", "a\u{1b}[m", " admin", "admin ", "\t"] {
            check_cn(&[utf8(odd)], None);
        }
        for foreign in ["аdmin", "ädmin", "admin\u{200b}", "\u{feff}admin", "\u{202e}nimda"] {
            check_cn(&[utf8(foreign)], None);
        }
        check_cn(&[DnValue::BmpString("admin".try_into().unwrap())], None);
        check_cn(&[DnValue::TeletexString("admin".try_into().unwrap())], None);
        check_cn(&[utf8(&"a".repeat(LONGEST))], Some(&"a".repeat(LONGEST)));
        check_cn(&[utf8(&"a".repeat(LONGEST + 1))], None);
    }

    #[track_caller]
    fn check_names(names: &[SanType], dns: &[&str], uri: &[&str]) {
        let der = made(|params| params.subject_alt_names = names.to_vec());
        let read = ClientCertificate::from_der(&der).unwrap();
        let plain = |names: &[Arc<str>]| names.iter().map(|it| it.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (plain(&read.san_dns), plain(&read.san_uri)),
            (
                dns.iter().map(|it| (*it).to_owned()).collect(),
                uri.iter().map(|it| (*it).to_owned()).collect(),
            )
        );
    }

    fn dns_name(text: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(text).unwrap())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).unwrap())
    }

    #[test]
    fn alternative_names_are_taken_by_their_kind() {
        check_names(
            &[dns_name("a.test"), uri("spiffe://a.test/b")],
            &["a.test"],
            &["spiffe://a.test/b"],
        );
        check_names(&[dns_name("A.Test"), dns_name("b.test")], &["a.test", "b.test"], &[]);
        check_names(&[dns_name("*.test"), dns_name("*"), dns_name("a*.test")], &[], &[]);
        check_names(&[dns_name("a.test\0.evil"), dns_name("a b"), dns_name("")], &[], &[]);
        check_names(&[uri("spiffe://a\0"), uri("spiffe://a\r\nX: y"), uri("")], &[], &[]);
        // Neither an address nor a mail address is a DNS name.
        let mail = SanType::Rfc822Name(Ia5String::try_from("a@a.test").unwrap());
        check_names(&[SanType::IpAddress([127, 0, 0, 1].into()), mail], &[], &[]);
    }

    #[test]
    fn names_without_end_are_refused() {
        let all = |count| {
            let names: Vec<_> = (0..count).map(|n| dns_name(&format!("n{n}.test"))).collect();
            ClientCertificate::from_der(&made(|params| params.subject_alt_names = names))
        };
        assert_eq!(all(MOST).unwrap().san_dns.len(), MOST);
        assert_eq!(all(MOST + 1).unwrap_err(), Unreadable::TooMany);
    }

    #[test]
    fn the_fingerprint_is_that_of_the_whole() {
        let der = made(|params| params.not_after = rcgen::date_time_ymd(2100, 1, 1));
        let read = ClientCertificate::from_der(&der).unwrap();
        assert_eq!(*read.fingerprint, *fingerprint(&der));
        assert_eq!(read.fingerprint.len(), 64);
        assert_eq!(read.not_after, 4_102_444_800);
        let longer = [&der[..], b"\0"].concat();
        assert_eq!(ClientCertificate::from_der(&longer).unwrap_err(), Unreadable::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = ClientCertificate::from_der(&bytes);
        }

        #[test]
        fn no_mutated_certificate_panics_or_gives_an_odd_name(
            edits in prop::collection::vec((0_usize..600, any::<u8>()), 1..8),
        ) {
            let mut der = made(|params| {
                params.distinguished_name.push(DnType::CommonName, "billing");
                params.subject_alt_names = vec![dns_name("a.test"), uri("spiffe://a.test/b")];
            });
            for (at, byte) in edits {
                let at = at % der.len();
                der[at] = byte;
            }
            if let Ok(read) = ClientCertificate::from_der(&der) {
                let names = read.subject_cn.iter().chain(&read.san_dns).chain(&read.san_uri);
                for name in names {
                    prop_assert!(name.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", name);
                }
            }
        }
    }
}
