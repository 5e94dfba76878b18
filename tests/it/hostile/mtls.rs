//! Client certificates: what is no proof ends the handshake, and what proves somebody whom nobody knows is
//! refused like any other credential. Chains and lists are in `tests/it/mtls.rs`.
use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, date_time_ymd};

use crate::support::{
    Authority, Client, Gateway, Request, Signed, Upstream, as_authority, wait_until,
};

pub struct Shown {
    server: Authority,
    ours: Authority,
    other: Authority,
    revoked: Signed,
    gateway: Gateway,
    upstream: Upstream,
}

const CONFIG: &str = "
listeners:
  - name: https
    address: $HTTP
    tls: {certificates: [$CERT], client_certificate: optional, client_ca: $CA, client_crl: ['$CRL']}
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators: {machines: {mtls: {consumer: {field: subject_cn}}}}
consumers: {acme: {subjects: [billing]}}
routes: [{id: all, match: {paths: [/*]}, auth: [machines], upstream: up}]
";

fn scene() -> Shown {
    let (server, ours) = (Authority::new(), Authority::named("the clients' authority"));
    let other = Authority::named("another authority");
    let revoked = ours.client("billing", |_| {});
    let crl = ours.file("revoked.pem", &ours.list(&[&revoked], 2100));
    let upstream = Upstream::saying("ok");
    let cert = server.pair("www", &server.sign("a.test"));
    let (ca, up) = (ours.ca(), upstream.url());
    let variables = [("CERT", &*cert), ("CA", &*ca), ("CRL", &crl), ("UP", &up)];
    let gateway = Gateway::start(CONFIG, &variables);
    Shown { server, ours, other, revoked, gateway, upstream }
}

/// What becomes of a connection.
#[derive(Clone, Copy)]
pub enum End {
    /// The handshake fails, and is counted under this reason.
    Handshake(&'static str),
    /// 401 with this code, and this in the log.
    Refused(&'static str, &'static str),
}

pub struct Case {
    what: &'static str,
    end: End,
    client: fn(&Shown) -> Client,
}

const fn no_proof(what: &'static str, reason: &'static str, client: fn(&Shown) -> Client) -> Case {
    Case { what, end: End::Handshake(reason), client }
}

const fn bad(what: &'static str, cause: &'static str, client: fn(&Shown) -> Client) -> Case {
    Case { what, end: End::Refused("credential_invalid", cause), client }
}

fn client(it: &Shown) -> Client {
    Client::new(&it.server).without_resumption()
}

fn billing(it: &Shown, change: fn(&mut CertificateParams)) -> Client {
    client(it).showing(&it.ours.client("billing", change))
}

fn named(it: &Shown, name: &str) -> Client {
    client(it).showing(&it.ours.client(name, |_| {}))
}

fn alone(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::CommonName, "billing");
}

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case { what: "none", end: End::Refused("credential_required", ""), client },
    no_proof("expired", "certificate_expired", |it| billing(it, |its| its.not_after = date_time_ymd(2020, 1, 1))),
    no_proof("not valid yet", "certificate_expired", |it| billing(it, |its| its.not_before = date_time_ymd(2099, 1, 1))),
    no_proof("of another authority", "certificate_unknown", |it| client(it).showing(&it.other.client("billing", |_| {}))),
    no_proof("signed by itself", "certificate_unknown", |it| client(it).showing(&Signed::alone(alone))),
    no_proof("of an authority that is signed by itself", "certificate_invalid", |it| client(it).showing(&Signed::alone(|its| { alone(its); as_authority(its); }))),
    no_proof("revoked", "certificate_revoked", |it| client(it).showing(&it.revoked)),
    no_proof("for servers alone", "certificate_invalid", |it| billing(it, |its| its.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
    no_proof("with another's key", "certificate_invalid", |it| client(it).showing_chain(&[it.ours.client("billing", |_| {}).der()], &Signed::alone(alone))),
    no_proof("no certificate at all", "certificate_invalid", |it| client(it).showing_chain(&[b"garbage".to_vec().into()], &it.revoked)),
    no_proof("with an extension that nobody knows and that must be", "certificate_invalid", |it| billing(it, |its| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        its.custom_extensions = vec![extension];
    })),
    bad("of nobody", "unknown", |it| named(it, "nobody")),
    bad("in other letters", "unknown", |it| named(it, "Billing")),
    bad("a name for a database", "unknown", |it| named(it, "' OR 1=1 --")),
    bad("a name for a format", "unknown", |it| named(it, "%s%n{}")),
    bad("a path", "unknown", |it| named(it, "../billing")),
    bad("a name with NUL", "malformed", |it| named(it, "billing\0.evil")),
    bad("a name that would break a header", "malformed", |it| named(it, "billing\r\nX-Admin: 1")),
    bad("a name beyond ASCII", "malformed", |it| named(it, "b\u{131}lling")),
    bad("with spaces around it", "malformed", |it| named(it, " billing ")),
    bad("without a name", "malformed", |it| named(it, "")),
    bad("a name of 10,000 letters", "", |it| named(it, &"b".repeat(10_000))),
];

#[test]
fn certificates_of_attackers() {
    let it = scene();
    let get = |client: &Client| {
        let request = Request::new(it.gateway.address, "GET", "/").host("a.test");
        client.send(it.gateway.address, "a.test", &request)
    };
    let mut wrong = Vec::new();
    for Case { what, end, client } in CASES {
        let ended = get(&client(&it));
        match (end, ended) {
            (End::Handshake(reason), Err(_)) => {
                let labels = [("result", "failed"), ("reason", *reason)];
                let earlier = CASES.iter().take_while(|it| it.what != *what);
                let same = |it: &&Case| matches!(it.end, End::Handshake(other) if other == *reason);
                let count = earlier.filter(same).count() + 1;
                it.gateway
                    .wait_metric("tollgate_tls_handshakes_total", &labels, |it| it == count as f64);
            }
            (End::Refused(code, cause), Ok(response)) => {
                let challenges = response.headers.all("www-authenticate");
                if response.status != 401 || challenges != ["ClientCertificate realm=\"tollgate\""]
                {
                    wrong.push(format!("{what}: {response:?}"));
                    continue;
                }
                let line = it.gateway.logged(&response);
                let said = line["cause"].as_str().unwrap_or_default();
                if line["code"] != *code || !said.starts_with(cause) {
                    wrong.push(format!("{what}: {line}"));
                }
            }
            (_, ended) => wrong.push(format!("{what}: {ended:?}")),
        }
        assert_eq!(it.upstream.count(), 0, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    wait_until("what is good passes", || {
        get(&named(&it, "billing")).map(|it| it.status) == Ok(200)
    });
}
