//! Files that are read, changed and broken.
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};

use super::{
    settings::{Clients, File, Pair, Version},
    trust::Asked,
    *,
};
use crate::diagnostic::Path;

/// A folder with an authority in it, and settings that name its files.
struct Rig {
    folder: tempfile::TempDir,
    authority: (Certificate, KeyPair),
}

fn authority(name: &str) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), key)
}

fn list((certificate, key): &(Certificate, KeyPair), until: i32) -> String {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(certificate, key).unwrap().pem().unwrap()
}

impl Rig {
    fn new() -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap(), authority: authority("ours") };
        rig.pair("www", &["www.test"]);
        rig.write("ca.pem", &rig.authority.0.pem());
        rig
    }

    fn write(&self, name: &str, content: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn pair(&self, name: &str, names: &[&str]) {
        self.pair_with(name, names, |_| {});
    }

    fn pair_with(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.authority.0, &self.authority.1).unwrap();
        self.write(&format!("{name}.pem"), &signed.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn file(&self, name: &str) -> File {
        File::new(name, self.folder.path(), Path::root().key(name))
    }

    fn settings(&self) -> Settings {
        Settings {
            certificates: vec![Pair {
                chain: self.file("www.pem"),
                key: self.file("www.key"),
                ocsp: None,
            }],
            acme: None,
            min_version: Version::Tls12,
            alpn: vec!["h2"],
            clients: None,
        }
    }

    fn asking(&self, lists: &[&str]) -> Settings {
        let lists = lists.iter().map(|it| self.file(it)).collect();
        let authorities = self.file("ca.pem");
        let clients = Some(Clients { asked: Asked::Required, authorities, lists });
        Settings { clients, ..self.settings() }
    }

    fn tls(&self, settings: Settings) -> Result<Tls, Problems> {
        let (tickets, orders) = (Tickets::default(), acme::Registry::default());
        Tls::new(&"https".into(), settings, &tickets, &orders, &Metrics::new().unwrap())
    }

    /// What is said of them: problems, or warnings.
    fn said(&self, settings: Settings) -> String {
        let said: Vec<String> = match self.tls(settings) {
            Ok(tls) => tls.warnings().iter().map(|it| format!("warning: {}", it.message)).collect(),
            Err(problems) => {
                problems.0.iter().map(|it| format!("{}: {}", it.path, it.message)).collect()
            }
        };
        said.join("\n")
    }

    #[track_caller]
    fn check(&self, settings: Settings, expected: &str) {
        let said = self.said(settings);
        assert!(
            if expected.is_empty() { said.is_empty() } else { said.contains(expected) },
            "{said:?} does not say {expected:?}"
        );
    }
}

#[test]
fn sound_files_are_fine() {
    let rig = Rig::new();
    rig.check(rig.settings(), "");
    rig.check(rig.asking(&[]), "");
    rig.write("ours.crl", &list(&rig.authority, 2100));
    rig.check(rig.asking(&["ours.crl"]), "");
}

#[test]
fn broken_certificates_and_keys_are_told() {
    let rig = Rig::new();
    let (chain, key) = (rig.read("www.pem"), rig.read("www.key"));
    let check = |chain: &str, key: &str, expected: &str| {
        rig.write("www.pem", chain);
        rig.write("www.key", key);
        rig.check(rig.settings(), expected);
    };
    rig.pair("other", &["other.test"]);
    let (other, other_key) = (rig.read("other.pem"), rig.read("other.key"));
    check(&chain, &other_key, "\"www.key\": www.key: not the key of www.pem");
    check(&(other.clone() + &chain), &key, "not the key of www.pem");
    check(
        &key,
        &chain,
        "no certificate in PEM form in it, but a private key: are two files swapped?",
    );
    check("", &key, "\"www.pem\": www.pem: there is no certificate in PEM form in it: it is empty");
    check(&chain.replace("MII", "!!!"), &key, "not a certificate in PEM form");
    check(&chain.replace("MII", "AII"), &key, "the first certificate in it cannot be used");
    check(&chain, &key[..key.len() / 2], "not a private key in PEM form");
    let half = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    check(&chain, half, "the key cannot be used: RSA of 2048");
    // A bundle of chain and key serves as both.
    check(&(chain.clone() + &key), &(chain.clone() + &key), "");
    rig.pair("nameless", &[]);
    check(&rig.read("nameless.pem"), &rig.read("nameless.key"), "the certificate names nobody");
    let gone = Settings {
        certificates: vec![Pair { chain: rig.file("a"), key: rig.file("b"), ocsp: None }],
        ..rig.settings()
    };
    rig.check(gone, "a: a: No such file or directory (os error 2)\nb: b: No such file");
}

#[test]
fn the_certificate_that_the_key_does_belong_to_is_named() {
    let rig = Rig::new();
    let (chain, issuer) = (rig.read("www.pem"), rig.authority.0.pem());
    rig.pair_with("www", &["issuer.test"], |_| {});
    rig.write("www.pem", &(rig.read("www.pem") + &chain + &issuer));
    rig.write("www.key", &rig.authority.1.serialize_pem());
    let problems = rig.tls(rig.settings()).err().unwrap();
    let hint = problems.0[0].hint.as_deref().unwrap();
    assert!(hint.starts_with("it is the key of certificate 3 in that file"), "{hint}");
}

#[test]
fn what_is_unwise_is_a_warning() {
    let rig = Rig::new();
    rig.pair_with("www", &["www.test"], |it| it.not_after = date_time_ymd(2020, 1, 1));
    rig.check(
        rig.settings(),
        "warning: www.pem: the certificate has expired at 2020-01-01T00:00:00Z",
    );
    rig.pair_with("www", &["www.test"], |it| it.not_before = date_time_ymd(3000, 1, 1));
    rig.check(rig.settings(), "warning: www.pem: the certificate is not valid before 3000-01-01");
    rig.pair("www", &["www.test"]);
    let key = rig.folder.path().join("www.key");
    fs::set_permissions(key, Permissions::from_mode(0o644)).unwrap();
    rig.check(rig.settings(), "warning: www.key: everybody on this machine can read the key");
}

#[test]
fn broken_authorities_and_lists_are_told() {
    let rig = Rig::new();
    let ours = list(&rig.authority, 2100);
    let check = |content: &str, expected: &str| {
        rig.write("a.crl", content);
        rig.check(rig.asking(&["a.crl"]), expected);
    };
    check("", "\"a.crl\": a.crl: there is no revocation list in it: it is empty");
    check(&rig.read("ca.pem"), "no revocation list in it, but a certificate");
    let broken = "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n";
    check(broken, "a.crl: a revocation list: it cannot be read");
    check(&list(&authority("theirs"), 2100), "none of the lists is by an authority of ca.pem");
    check(&list(&rig.authority, 2021), "warning: a.crl: out of date since 2021-01-01T00:00:00Z");
    check(&(list(&authority("theirs"), 2100) + &ours), "");
    rig.write("ca.pem", &(rig.read("ca.pem") + &authority("second").0.pem()));
    check(&ours, "warning: a.crl: no list is by `CN=second`");
    rig.write("ca.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    check(&ours, "\"ca.pem\": ca.pem: certificate 1 of it cannot be an authority");
    let der = pem::revocation_lists(ours.into_bytes()).unwrap();
    rig.write("ca.pem", &rig.authority.0.pem());
    fs::write(rig.folder.path().join("a.crl"), &der[0]).unwrap();
    rig.check(rig.asking(&["a.crl"]), "");
}

fn shown(tls: &Tls) -> Vec<Box<str>> {
    tls.current().table.certificates[0].names.exact.clone()
}

#[test]
fn a_change_is_taken_up_once_it_stands_still() {
    let rig = Rig::new();
    let tls = rig.tls(rig.settings()).ok().unwrap();
    tls.look();
    assert_eq!(*shown(&tls), [Box::<str>::from("www.test")]);
    rig.pair("www", &["new.test"]);
    tls.look();
    assert_eq!(*shown(&tls), [Box::<str>::from("www.test")]);
    tls.look();
    assert_eq!(*shown(&tls), [Box::<str>::from("new.test")]);
    // Who asks for it does not wait.
    rig.pair("www", &["newer.test"]);
    tls.look_now();
    assert_eq!(*shown(&tls), [Box::<str>::from("newer.test")]);
}

#[test]
fn a_broken_change_changes_nothing_and_is_said_once() {
    let rig = Rig::new();
    let tls = rig.tls(rig.settings()).ok().unwrap();
    assert_eq!(tls.status()["not_used"], Value::Null);
    rig.write("www.pem", "half a certi");
    for _ in 0..4 {
        tls.look();
        assert_eq!(*shown(&tls), [Box::<str>::from("www.test")]);
    }
    let status = tls.status();
    let error = status["not_used"]["errors"][0].as_str().unwrap();
    assert_eq!(error, "\"www.pem\": www.pem: there is no certificate in PEM form in it");
    fs::remove_file(rig.folder.path().join("www.key")).unwrap();
    tls.look();
    tls.look();
    assert!(tls.status()["not_used"]["errors"][0].as_str().unwrap().contains("No such file"));
    rig.pair("www", &["good.test"]);
    tls.look();
    tls.look();
    assert_eq!(*shown(&tls), [Box::<str>::from("good.test")]);
    assert_eq!(tls.status()["not_used"], Value::Null);
}

#[test]
fn the_rule_for_clients_has_an_identity() {
    let rig = Rig::new();
    let id =
        |settings: Settings| rig.tls(settings).ok().unwrap().current().trust.as_ref().unwrap().id;
    let first = id(rig.asking(&[]));
    assert_eq!(id(rig.asking(&[])), first);
    rig.pair("www", &["another.test"]);
    assert_eq!(id(rig.asking(&[])), first);
    rig.write("a.crl", &list(&rig.authority, 2100));
    assert_ne!(id(rig.asking(&["a.crl"])), first);
    let mut optional = rig.asking(&[]);
    optional.clients.as_mut().unwrap().asked = Asked::Optional;
    assert_ne!(id(optional), first);
    rig.write("ca.pem", &authority("theirs").0.pem());
    assert_ne!(id(rig.asking(&[])), first);
}

#[test]
fn sessions_come_back_only_where_no_certificate_is_asked_for() {
    let rig = Rig::new();
    let tls = rig.tls(rig.settings()).ok().unwrap();
    let config = tls.current().config.clone();
    assert!(config.ticketer.enabled() && config.send_tls13_tickets > 0);
    let tls = rig.tls(rig.asking(&[])).ok().unwrap();
    let config = tls.current().config.clone();
    assert!(!config.ticketer.enabled() && config.send_tls13_tickets == 0);
    assert!(!config.session_storage.can_cache());
}

#[test]
fn listeners_with_other_rules_are_told_apart() {
    let rig = Rig::new();
    let of = |settings| rig.tls(settings).ok().map(Arc::new);
    let (plain, asking) = (of(rig.settings()), of(rig.asking(&[])));
    assert!(!do_rules_differ(&[]));
    assert!(!do_rules_differ(&[None, plain.clone(), of(rig.settings())]));
    assert!(!do_rules_differ(&[asking.clone(), None]));
    assert!(do_rules_differ(&[plain, asking]));
}
