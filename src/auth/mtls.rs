//! Client certificates, verified in the handshake and mapped to a consumer here: by a name in them, or
//! by their fingerprint. A certificate that is there and names nobody whom we know is refused; it does
//! not fall through to the next method.
use std::sync::Arc;

use http::HeaderValue;

use super::{Presented, Reason, Refused, Subjects};
use crate::flow::{
    certificate::ClientCertificate,
    identity::{Consumer, Credential, Identity, Kind, Label, Source},
};

/// What of a certificate says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    SubjectCn,
    SanDns,
    SanUri,
    /// SHA-256 of the whole, in lower-case hexadecimal.
    Fingerprint,
}

impl Field {
    /// As the configuration calls them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("subject_cn", Self::SubjectCn),
        ("san_dns", Self::SanDns),
        ("san_uri", Self::SanUri),
        ("fingerprint", Self::Fingerprint),
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::SubjectCn => "subject_cn",
            Self::SanDns => "san_dns",
            Self::SanUri => "san_uri",
            Self::Fingerprint => "fingerprint",
        }
    }

    fn of(self, certificate: &ClientCertificate) -> &[Arc<str>] {
        match self {
            Self::SubjectCn => certificate.subject_cn.as_slice(),
            Self::SanDns => &certificate.san_dns,
            Self::SanUri => &certificate.san_uri,
            Self::Fingerprint => std::slice::from_ref(&certificate.fingerprint),
        }
    }
}

#[derive(Debug)]
pub struct Mtls {
    /// Of the authenticator, for who is no consumer.
    name: Arc<str>,
    field: Field,
    allows_unknown: bool,
    subjects: Arc<Subjects>,
    challenge: HeaderValue,
}

impl Mtls {
    #[must_use]
    pub fn new(name: &str, field: Field, allows_unknown: bool, subjects: Arc<Subjects>) -> Self {
        // It is asked for in the handshake: this tells what is missing, and no scheme is registered for it
        // (`Mutual` is a password's, RFC 8120).
        let challenge = HeaderValue::from_static("ClientCertificate realm=\"tollgate\"");
        Self { name: name.into(), field, allows_unknown, subjects, challenge }
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// A certificate is there and is nobody's that we know.
    pub fn authenticate(&self, presented: &Presented<'_>) -> Result<Option<Identity>, Refused> {
        let Some(certificate) = presented.certificate else { return Ok(None) };
        let names = self.field.of(certificate);
        let mut known: Option<(&Arc<str>, &Arc<Consumer>)> = None;
        for name in names {
            let Some(consumer) = self.subjects.find(name) else { continue };
            match known {
                // Whose limits would count, and whose rights?
                Some((_, first)) if !Arc::ptr_eq(first, consumer) => {
                    let cause = "the certificate has the names of two consumers";
                    return Err(Refused::from(Reason::Duplicate).cause(cause));
                }
                Some(_) => {}
                None => known = Some((name, consumer)),
            }
        }
        let (name, consumer) = match (known, names.first()) {
            (Some((name, consumer)), _) => (name, Some(consumer)),
            (None, Some(first)) if self.allows_unknown => (first, None),
            (None, Some(first)) => {
                // Every certificate says its names to whoever looks: none is a secret.
                let cause = format!("no consumer has the subject {first}");
                return Err(Refused::from(Reason::Unknown).cause(cause));
            }
            (None, None) => {
                let cause =
                    format!("the certificate has no {} that can be used", self.field.word());
                return Err(Refused::from(Reason::Malformed).cause(cause));
            }
        };
        let credential = self.credential(name, consumer, certificate.not_after);
        let credential = credential.ok_or(Reason::Malformed)?;
        Ok(Some(Identity { credential: Arc::new(credential), source: Source::Connection }))
    }

    /// `None` for a name that no header can hold, which none in a [`ClientCertificate`] is.
    fn credential(
        &self,
        name: &Arc<str>,
        consumer: Option<&Arc<Consumer>>,
        not_after: u64,
    ) -> Option<Credential> {
        let owner = consumer.map_or(&*self.name, |it| it.name.as_str());
        Some(Credential {
            kind: Kind::Certificate,
            id: Label::new(name)?,
            full_id: format!("{owner}/{name}").into(),
            consumer: consumer.cloned(),
            // Good up to and with that second; expired from the next on.
            expires: Some(not_after.saturating_add(1)),
            scopes: Box::default(),
            scope_header: None,
            claims: None,
            last_use: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(name: &str, index: usize) -> Arc<Consumer> {
        Arc::new(Consumer {
            index,
            name: Label::new(name).unwrap(),
            groups: Box::default(),
            plan: None,
            groups_header: None,
        })
    }

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            fingerprint: "ab".repeat(32).into(),
            subject_cn: Some("billing".into()),
            san_dns: ["other.test".into(), "billing.test".into()].into(),
            san_uri: Box::default(),
            not_after: 100,
        }
    }

    fn ask(
        field: Field,
        allows_unknown: bool,
        certificate: Option<ClientCertificate>,
    ) -> Result<Option<Identity>, Reason> {
        let mut subjects = Subjects::default();
        let (acme, globex) = (consumer("acme", 0), consumer("globex", 1));
        for subject in ["billing", "billing.test", "also.billing.test", &"ab".repeat(32)] {
            assert!(subjects.insert(subject, &acme).is_none());
        }
        assert!(subjects.insert("globex.test", &globex).is_none());
        let mtls = Mtls::new("machines", field, allows_unknown, subjects.into());
        let (request, ()) = http::Request::new(()).into_parts();
        let certificate = certificate.map(Arc::new);
        let presented =
            Presented { certificate: certificate.as_ref(), ..Presented::bare(&request) };
        mtls.authenticate(&presented).map_err(|refused| refused.reason)
    }

    #[track_caller]
    fn check(
        field: Field,
        change: impl Fn(&mut ClientCertificate),
        expected: Result<&str, Reason>,
    ) {
        let mut certificate = certificate();
        change(&mut certificate);
        let identity = ask(field, false, Some(certificate));
        let id = identity.map(|it| it.unwrap().credential.full_id.to_string());
        assert_eq!(id.as_deref().map_err(|reason| *reason), expected);
    }

    #[test]
    fn the_chosen_field_says_whose_it_is() {
        check(Field::SubjectCn, |_| {}, Ok("acme/billing"));
        check(Field::SanDns, |_| {}, Ok("acme/billing.test"));
        check(Field::Fingerprint, |_| {}, Ok(&format!("acme/{}", "ab".repeat(32))));
        check(Field::SanUri, |_| {}, Err(Reason::Malformed));
        check(Field::SubjectCn, |it| it.subject_cn = None, Err(Reason::Malformed));
        check(Field::SubjectCn, |it| it.subject_cn = Some("Billing".into()), Err(Reason::Unknown));
        // A name of one kind never counts as one of another.
        check(Field::SanUri, |it| it.san_uri = ["spiffe://x".into()].into(), Err(Reason::Unknown));
        check(Field::SanDns, |it| it.san_dns = Box::default(), Err(Reason::Malformed));
    }

    #[test]
    fn names_of_two_consumers_are_nobodys() {
        let names = |names: &[&str]| names.iter().map(|it| Arc::from(*it)).collect();
        let check = |all: &[&str], expected| {
            check(Field::SanDns, |it| it.san_dns = names(all), expected);
        };
        check(&["billing.test", "globex.test"], Err(Reason::Duplicate));
        check(&["billing.test", "also.billing.test"], Ok("acme/billing.test"));
    }

    #[test]
    fn without_a_certificate_the_next_is_asked() {
        assert!(matches!(ask(Field::SubjectCn, false, None), Ok(None)));
        assert!(matches!(ask(Field::SubjectCn, true, None), Ok(None)));
    }

    #[test]
    fn who_is_no_consumer_can_be_let_in() {
        let mut stranger = certificate();
        stranger.subject_cn = Some("stranger".into());
        let identity = ask(Field::SubjectCn, true, Some(stranger)).unwrap().unwrap();
        assert_eq!(&*identity.credential.full_id, "machines/stranger");
        assert!(identity.consumer().is_none());
        assert!(!identity.credential.is_expired(100) && identity.credential.is_expired(101));
        let mut nameless = certificate();
        nameless.subject_cn = None;
        let refused = ask(Field::SubjectCn, true, Some(nameless)).unwrap_err();
        assert_eq!(refused, Reason::Malformed);
    }
}
