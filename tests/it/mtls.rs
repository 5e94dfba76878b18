//! Client certificates: who gets in, who does not and why, and what the upstream is told of them.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, Ia5String,
    NameConstraints, SanType, date_time_ymd,
};
use rustls::version::{TLS12, TLS13};

use crate::support::{
    Authority, Client, Gateway, Request, Response, Signed, Upstream, as_authority, blank, hash_of,
    run_tollgate, wait_until,
};

const YAML: &str = "
listeners:
  - name: https
    address: $HTTP
    tls: {certificates: [$CERT], client_certificate: $ASKED, client_ca: $CA, $MORE}
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  cn: {mtls: {consumer: {field: subject_cn}}}
  dns: {mtls: {consumer: {field: san_dns}}}
  uri: {mtls: {consumer: {field: san_uri}}}
  whole: {mtls: {consumer: {field: fingerprint}}}
  any: {mtls: {consumer: {field: subject_cn, unknown: allow}}}
consumers:
  acme:
    groups: [partners]
    subjects: [billing, billing.test, 'spiffe://test/billing', $FINGERPRINT]
    api_keys: [{id: k, hash: '$HASH'}]
  globex: {subjects: [globex.test]}
routes:
  - {id: open, match: {paths: [/]}, public: true, upstream: up}
  - {id: cn, match: {paths: [/cn]}, auth: [cn], upstream: up}
  - {id: dns, match: {paths: [/dns]}, auth: [dns], upstream: up}
  - {id: uri, match: {paths: [/uri]}, auth: [uri], upstream: up}
  - {id: whole, match: {paths: [/whole]}, auth: [whole], upstream: up}
  - {id: any, match: {paths: [/any]}, auth: [any], upstream: up}
  - {id: key, match: {paths: [/key]}, auth: [api_key, cn], upstream: up}
";

struct Rig {
    authority: Authority,
    clients: Authority,
    /// The certificate of the consumer `acme`.
    billing: Signed,
    upstream: Upstream,
    gateway: Gateway,
}

impl Rig {
    fn new(asked: &str, more: impl FnOnce(&Authority) -> String) -> Self {
        let (authority, clients) = (Authority::new(), Authority::named("the clients' authority"));
        let billing = clients.client("billing", |params| {
            params.subject_alt_names = vec![dns("Billing.test"), uri("spiffe://test/billing")];
        });
        let upstream = Upstream::echo();
        let cert = authority.pair("www", &authority.sign("a.test"));
        let gateway = Gateway::start(
            YAML,
            &[
                ("CERT", &*cert),
                ("ASKED", asked),
                ("CA", &clients.ca()),
                ("MORE", &more(&clients)),
                ("UP", &upstream.url()),
                ("FINGERPRINT", &billing.fingerprint()),
                ("HASH", &hash_of("the key")),
            ],
        );
        Self { authority, clients, billing, upstream, gateway }
    }

    fn asking(asked: &str) -> Self {
        Self::new(asked, |_| String::new())
    }

    fn client(&self) -> Client {
        Client::new(&self.authority).without_resumption()
    }

    fn get(&self, client: &Client, path: &str) -> Result<Response, String> {
        let request = Request::new(self.gateway.address, "GET", path).host("a.test");
        client.send(self.gateway.address, "a.test", &request)
    }

    /// The reasons for which handshakes have failed so far, each as often as it was one.
    fn failures(&self) -> Vec<String> {
        let metrics = self.gateway.metrics();
        let lines = metrics.lines().filter_map(|line| {
            let (_, rest) = line.split_once("result=\"failed\",reason=\"")?;
            let (reason, count) = rest.split_once("\"} ")?;
            Some(vec![reason.to_owned(); count.parse().ok()?])
        });
        lines.flatten().collect()
    }

    #[track_caller]
    fn check_accepted(&self, client: &Client, path: &str) {
        let response = self.get(client, path);
        assert_eq!(response.as_ref().map(|it| it.status), Ok(200), "{path}: {response:?}");
    }

    /// No answer, the alert where there is one, and the reason that stands in the metrics and the log.
    #[track_caller]
    fn check_refused(&self, what: &str, client: &Client, reason: &str) {
        let (before, served) = (self.failures(), self.upstream.count());
        let refused = self.get(client, "/");
        assert!(refused.is_err(), "{what}: {refused:?}");
        let mut after = Vec::new();
        wait_until(&format!("{what} is counted"), || {
            after = self.failures();
            after.len() > before.len()
        });
        before
            .iter()
            .for_each(|old| drop(after.remove(after.iter().position(|it| it == old).unwrap())));
        assert_eq!(after, [reason], "{what}");
        assert_eq!(self.upstream.count(), served, "{what}");
    }
}

fn ia5(text: &str) -> Ia5String {
    Ia5String::try_from(text).unwrap()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(ia5(name))
}

fn uri(name: &str) -> SanType {
    SanType::URI(ia5(name))
}

#[test]
fn a_certificate_is_whose_it_says() {
    let rig = Rig::asking("optional");
    let billing = rig.client().showing(&rig.billing);
    for (path, id) in [
        ("/cn", "billing"),
        ("/dns", "billing.test"),
        ("/uri", "spiffe://test/billing"),
        ("/whole", &*rig.billing.fingerprint()),
        ("/any", "billing"),
        ("/key", "billing"),
    ] {
        rig.check_accepted(&billing, path);
        let seen = rig.upstream.last();
        assert_eq!(seen.header("x-consumer-username"), Some("acme"), "{path}");
        assert_eq!(seen.header("x-consumer-groups"), Some("partners"), "{path}");
        assert_eq!(seen.header("x-credential-identifier"), Some(id), "{path}");
    }
    let log = rig.gateway.access_log(6);
    assert_eq!((&log[0]["consumer"], &log[0]["authenticator"]), (&"acme".into(), &"cn".into()));
    // Over HTTP/2 and TLS 1.2 alike; `connection` has no certificate of the one before.
    let old = Client::trusting(&[&rig.authority], &[&TLS12]).showing(&rig.billing);
    rig.check_accepted(&old, "/cn");
    let response = rig.get(&rig.client(), "/cn").unwrap();
    response.assert_problem(401, "credential_required");
    let challenges = response.headers.all("www-authenticate");
    assert_eq!(challenges, ["ClientCertificate realm=\"tollgate\""]);
}

#[test]
fn optional_lets_others_in_and_required_does_not() {
    let rig = Rig::asking("optional");
    rig.check_accepted(&rig.client(), "/");
    rig.check_accepted(&rig.client().showing(&rig.billing), "/");
    let keyed = Request::new(rig.gateway.address, "GET", "/key").host("a.test");
    let keyed = keyed.header("X-API-Key", "the key");
    let response = rig.client().send(rig.gateway.address, "a.test", &keyed).unwrap();
    assert_eq!(response.status, 200);

    let rig = Rig::asking("required");
    rig.check_accepted(&rig.client().showing(&rig.billing), "/");
    rig.check_refused("no certificate", &rig.client(), "certificate_missing");
}

/// Whatever is wrong, the handshake ends without a request; which it was stands in metrics and log.
#[test]
fn certificates_that_do_not_hold_get_nowhere() {
    let revoked = std::cell::OnceCell::new();
    let rig = Rig::new("optional", |clients| {
        let stolen = revoked.get_or_init(|| clients.client("billing", |_| {}));
        format!("client_crl: ['{}']", clients.file("clients.crl", &clients.list(&[stolen], 2100)))
    });
    let clients = &rig.clients;
    let (others, namesake) = (Authority::new(), Authority::named("the clients' authority"));
    let intermediate = clients.intermediate("an intermediate");
    let no_authority = clients.client("not an authority", |_| {});
    let by_no_authority = signed_by(&no_authority, billing);
    let unsettled = |change: fn(&mut CertificateParams)| clients.client("billing", change);
    let cases: Vec<(&str, Signed, Vec<&Signed>, &str)> = vec![
        ("of another authority", others.client("billing", |_| {}), vec![], "certificate_unknown"),
        (
            "of one of the same name",
            namesake.client("billing", |_| {}),
            vec![],
            "certificate_invalid",
        ),
        ("signed by itself", Signed::alone(billing), vec![], "certificate_unknown"),
        ("an authority of its own", Signed::alone(own_authority), vec![], "certificate_invalid"),
        ("an authority's own", unsettled(as_authority), vec![], "certificate_invalid"),
        (
            "expired",
            unsettled(|it| it.not_after = date_time_ymd(2020, 1, 1)),
            vec![],
            "certificate_expired",
        ),
        (
            "not valid yet",
            unsettled(|it| it.not_before = date_time_ymd(3000, 1, 1)),
            vec![],
            "certificate_expired",
        ),
        ("for servers alone", unsettled(for_servers), vec![], "certificate_invalid"),
        (
            "with a critical extension of its own",
            unsettled(critical),
            vec![],
            "certificate_invalid",
        ),
        (
            "without its intermediate",
            intermediate.client("billing", |_| {}),
            vec![],
            "certificate_unknown",
        ),
        ("by who is no authority", by_no_authority, vec![&no_authority], "certificate_invalid"),
    ];
    for (what, own, above, reason) in &cases {
        let chain: Vec<_> =
            std::iter::once(own).chain(above.iter().copied()).map(Signed::der).collect();
        rig.check_refused(what, &rig.client().showing_chain(&chain, own), reason);
    }
    let stolen = revoked.get().unwrap();
    rig.check_refused("revoked", &rig.client().showing(stolen), "certificate_revoked");
    let old = Client::trusting(&[&rig.authority], &[&TLS12]).showing(stolen);
    rig.check_refused("revoked, in TLS 1.2", &old, "certificate_revoked");
    // The intermediate has no list that could say whether its certificates are revoked.
    let below = intermediate.client("billing", |_| {});
    let chain = [below.der(), intermediate.certificate.der().clone()];
    let client = rig.client().showing_chain(&chain, &below);
    rig.check_refused("of unknown status", &client, "certificate_status");
    // A certificate that was seen on the way is of no use without its key.
    for version in [&TLS12, &TLS13] {
        let thief = Client::trusting(&[&rig.authority], &[version]);
        let thief = thief.showing_chain(&[rig.billing.der()], &Signed::alone(billing));
        rig.check_refused("with another's key", &thief, "certificate_invalid");
    }
    let garbage = rig.client().showing_chain(&[b"garbage".to_vec().into()], &rig.billing);
    rig.check_refused("garbage", &garbage, "certificate_invalid");
    rig.check_accepted(&rig.client().showing(&rig.billing), "/cn");
    let log = rig.gateway.access_log(15);
    let causes: Vec<&str> = log.iter().filter_map(|it| it["cause"].as_str()).collect();
    for cause in ["certificate_revoked", "certificate_unknown", "certificate_expired"] {
        assert!(causes.contains(&cause), "{cause}: {causes:?}");
    }
    assert_eq!(log[0]["protocol"], "TLS");
}

fn billing(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::CommonName, "billing");
}

fn own_authority(params: &mut CertificateParams) {
    billing(params);
    as_authority(params);
}

fn for_servers(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

fn critical(params: &mut CertificateParams) {
    let mut extension =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
}

fn signed_by(issuer: &Signed, change: impl FnOnce(&mut CertificateParams)) -> Signed {
    let mut params = blank();
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer.certificate, &issuer.key).unwrap();
    Signed { certificate, key }
}

/// Verified, and yet of nobody: the answer is the same whatever it is, and the log says which.
#[test]
fn names_that_are_nobodys_are_refused_alike() {
    let rig = Rig::asking("optional");
    let second_cn = DnType::CustomDnType(vec![2, 5, 4, 3]);
    let cn = |name: &str| {
        let name = name.to_owned();
        rig.clients.client("", |it| it.distinguished_name.push(DnType::CommonName, name))
    };
    let san =
        |names: &[SanType]| rig.clients.client("x", |it| it.subject_alt_names = names.to_vec());
    let cases: Vec<(&str, Signed, &str)> = vec![
        ("/cn", cn("stranger"), "unknown"),
        ("/cn", cn("Billing"), "unknown"),
        ("/cn", cn("billing\0.evil.test"), "malformed"),
        ("/cn", cn("billing\n"), "malformed"),
        ("/cn", cn(" billing"), "malformed"),
        ("/cn", cn("bіlling"), "malformed"),
        ("/cn", cn("billing\u{200b}"), "malformed"),
        ("/cn", cn(""), "malformed"),
        ("/cn", cn("../../etc/passwd"), "unknown"),
        ("/cn", cn("' OR 1=1 --"), "unknown"),
        ("/cn", cn(&"a".repeat(2000)), "malformed"),
        (
            "/cn",
            rig.clients.client("billing", |it| it.distinguished_name.push(second_cn, "admin")),
            "malformed",
        ),
        ("/dns", san(&[]), "malformed"),
        ("/dns", san(&[dns("*.test")]), "malformed"),
        ("/dns", san(&[dns("billing.test\0.evil")]), "malformed"),
        ("/dns", san(&[dns("other.test")]), "unknown"),
        ("/dns", san(&[dns("billing.test"), dns("globex.test")]), "duplicate"),
        ("/dns", san(&[uri("billing.test")]), "malformed"),
        ("/dns", san(&[SanType::Rfc822Name(ia5("billing@test"))]), "malformed"),
        ("/uri", san(&[uri("spiffe://test/billing/../admin")]), "unknown"),
        ("/uri", san(&[uri("spiffe://test/billing\r\nX: y")]), "malformed"),
        ("/whole", cn("billing"), "unknown"),
        ("/key", cn("stranger"), "unknown"),
    ];
    let mut expected = None;
    for (number, (path, signed, reason)) in cases.iter().enumerate() {
        let what = format!("case {number}, {path}");
        let response = rig.get(&rig.client().showing(signed), path).unwrap();
        response.assert_problem(401, "credential_invalid");
        let challenges = response.headers.all("www-authenticate");
        assert!(challenges.contains(&"ClientCertificate realm=\"tollgate\""), "{response:?}");
        let mut said = response.json();
        said["request_id"] = "".into();
        assert_eq!(*expected.get_or_insert_with(|| said.clone()), said, "{what}");
        let cause = rig.gateway.logged(&response)["cause"].clone();
        let cause = cause.as_str().unwrap();
        assert!(cause.starts_with(reason), "{what}: {cause}");
        assert!(cause.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{what}: {cause}");
    }
    assert_eq!(rig.upstream.count(), 0);
    // Where strangers are let in, a name that cannot be read still is none.
    rig.check_accepted(&rig.client().showing(&cn("stranger")), "/any");
    assert_eq!(rig.upstream.last().header("x-credential-identifier"), Some("stranger"));
    assert_eq!(rig.upstream.last().header("x-consumer-username"), None);
    let nameless = rig.get(&rig.client().showing(&cn("a\0b")), "/any").unwrap();
    nameless.assert_problem(401, "credential_invalid");
}

#[test]
fn an_intermediate_s_certificates_are_good_with_its_own() {
    let rig = Rig::asking("required");
    let intermediate = rig.clients.intermediate("an intermediate");
    let own = intermediate.client("billing", |_| {});
    let chain = [own.der(), intermediate.certificate.der().clone()];
    rig.check_accepted(&rig.client().showing_chain(&chain, &own), "/cn");
    rig.check_refused("without it", &rig.client().showing(&own), "certificate_unknown");
    // What an authority may sign for is the authority above it to say.
    let narrow = rig.clients.client("narrow", |params| {
        as_authority(params);
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.test".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    for (name, reason) in [("b.other.test", None), ("billing.test", Some("certificate_invalid"))] {
        let own = signed_by(&narrow, |params| params.subject_alt_names = vec![dns(name)]);
        let client = rig.client().showing_chain(&[own.der(), narrow.der()], &own);
        match reason {
            None => rig.check_accepted(&client, "/"),
            Some(reason) => rig.check_refused("outside its names", &client, reason),
        }
    }
}

#[test]
fn a_session_does_not_come_back_without_its_certificate() {
    for asked in ["optional", "required"] {
        let rig = Rig::asking(asked);
        for version in [&TLS12, &TLS13] {
            let client = Client::trusting(&[&rig.authority], &[version]).showing(&rig.billing);
            for _ in 0..3 {
                let mut connected = client.connect(rig.gateway.address, "a.test").unwrap();
                assert!(!connected.settled.is_resumed, "{asked} {version:?}");
                let request = Request::new(rig.gateway.address, "GET", "/cn").host("a.test");
                assert_eq!(connected.connection.send(&request).unwrap().status, 200);
            }
        }
    }
}

/// A list that changes reaches connections that are open already, and those only whom it concerns.
#[test]
fn a_revoked_certificate_ends_on_open_connections_too() {
    let rig = Rig::new("optional", |clients| {
        format!("client_crl: ['{}']", clients.file("clients.crl", &clients.list(&[], 2100)))
    });
    let other = rig.clients.client("billing", |_| {});
    let open =
        |signed| rig.client().showing(signed).connect(rig.gateway.address, "a.test").unwrap();
    let (mut stolen, mut kept) = (open(&rig.billing).connection, open(&other).connection);
    let request = Request::new(rig.gateway.address, "GET", "/cn").host("a.test");
    assert_eq!(stolen.send(&request).unwrap().status, 200);
    assert_eq!(kept.send(&request).unwrap().status, 200);
    rig.clients.file("clients.crl", &rig.clients.list(&[&rig.billing], 2100));
    let mut refused = None;
    wait_until("the list is in use", || {
        let response = stolen.send(&request).unwrap();
        (response.status != 200).then(|| refused = Some(response)).is_some()
    });
    let refused = refused.unwrap();
    refused.assert_problem(421, "misdirected_request");
    assert_eq!(refused.header("connection"), Some("close"));
    stolen.assert_closes();
    assert_eq!(kept.send(&request).unwrap().status, 200);
    rig.check_refused("revoked", &rig.client().showing(&rig.billing), "certificate_revoked");
}

#[test]
fn a_certificate_that_expires_ends_on_open_connections_too() {
    let rig = Rig::asking("optional");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3);
    let seconds = i64::try_from(now.as_secs()).unwrap();
    let short = rig.clients.client("billing", |params| {
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_after = epoch + Duration::from_secs(seconds.unsigned_abs());
    });
    let client = rig.client().showing(&short);
    let mut connection = client.connect(rig.gateway.address, "a.test").unwrap().connection;
    let request = Request::new(rig.gateway.address, "GET", "/cn").host("a.test");
    assert_eq!(connection.send(&request).unwrap().status, 200);
    let mut last = None;
    wait_until("it expires", || {
        let response = connection.send(&request).unwrap();
        let has_ended = response.status != 200;
        last = Some(response);
        has_ended
    });
    last.unwrap().assert_problem(421, "misdirected_request");
    rig.check_refused("expired", &client, "certificate_expired");
}

/// Whoever puts a certificate into a header is only a client that has written a header.
#[test]
fn headers_about_certificates_are_nobodys_proof() {
    let rig = Rig::asking("optional");
    for header in ["X-Client-Cert", "X-SSL-Client-Verify", "X-Forwarded-Client-Cert", "Client-Cert"]
    {
        let request = Request::new(rig.gateway.address, "GET", "/cn").host("a.test");
        let request = request.header(header, "billing").header("X-Consumer-Username", "acme");
        let response = rig.client().send(rig.gateway.address, "a.test", &request).unwrap();
        response.assert_problem(401, "credential_required");
    }
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn explain_knows_what_a_certificate_would_do() {
    let rig = Rig::asking("optional");
    let config = rig.gateway.config_file().display().to_string();
    let explain = |signed: &Signed, path: &str| {
        let file = rig.clients.file("shown.pem", &signed.certificate.pem());
        let url = format!("https://a.test{path}");
        let exit = run_tollgate(
            &rig.gateway.path(""),
            &["explain", "-c", &config, "--cert", &file, "GET", &url],
        );
        (exit.code, exit.said())
    };
    let (code, said) = explain(&rig.billing, "/dns");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("consumer: acme") && said.contains("credential: billing.test"), "{said}");
    assert!(said.contains("x-forwarded-proto: https"), "{said}");
    let (code, said) = explain(&rig.clients.client("stranger", |_| {}), "/cn");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no consumer has the subject stranger"), "{said}");
    let (code, said) = explain(&Authority::new().client("billing", |_| {}), "/cn");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("certificate_unknown"), "{said}");
}
