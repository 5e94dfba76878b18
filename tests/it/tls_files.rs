//! Certificates that change while the gateway runs: on disk, and in its configuration.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::support::{
    Authority, Client, Gateway, Request, Signed, Upstream, run_tollgate, wait_until,
};

const YAML: &str = "
listeners: [{name: https, address: $HTTP, tls: {certificates: [$CERT], $MORE}}]
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

struct Rig {
    authority: Authority,
    first: Signed,
    _upstream: Upstream,
    gateway: Gateway,
}

impl Rig {
    fn new() -> Self {
        let authority = Authority::new();
        let first = authority.sign("a.test");
        let upstream = Upstream::saying("ok");
        let variables =
            [("CERT", &*authority.pair("www", &first)), ("MORE", ""), ("UP", &*upstream.url())];
        let gateway = Gateway::start(YAML, &variables);
        Self { authority, first, _upstream: upstream, gateway }
    }

    fn client(&self) -> Client {
        Client::new(&self.authority).without_resumption()
    }

    fn shown(&self) -> Vec<u8> {
        self.client().connect(self.gateway.address, "a.test").unwrap().settled.shown
    }

    fn swaps(&self, result: &str) -> f64 {
        self.gateway.metric("tollgate_tls_file_changes_total", &[("result", result)])
    }

    fn not_used(&self) -> serde_json::Value {
        self.gateway.status()["tls"]["https"]["not_used"].clone()
    }
}

#[test]
fn a_renewed_certificate_is_in_use_without_a_failed_handshake() {
    let rig = Rig::new();
    let (address, client) = (rig.gateway.address, rig.client());
    let is_done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..3)
        .map(|_| {
            let (is_done, served, client) = (is_done.clone(), served.clone(), client.clone());
            thread::spawn(move || {
                while !is_done.load(Ordering::Acquire) {
                    let response = client.get(address, "a.test");
                    assert_eq!(response.map(|it| it.status), Ok(200));
                    served.fetch_add(1, Ordering::AcqRel);
                }
            })
        })
        .collect();
    // One that is open stays open through all of it.
    let mut kept = rig.client().connect(address, "a.test").unwrap();
    let request = Request::new(address, "GET", "/").host("a.test");
    for round in 0..3 {
        let new = rig.authority.sign("a.test");
        rig.authority.pair("www", &new);
        wait_until("the new one is shown", || rig.shown() == new.der().to_vec());
        assert_eq!(kept.connection.send(&request).unwrap().status, 200, "round {round}");
    }
    is_done.store(true, Ordering::Release);
    for thread in load {
        thread.join().unwrap();
    }
    assert!(served.load(Ordering::Acquire) > 100, "{served:?}");
    wait_until("the swaps are counted", || rig.swaps("success") == 3.0);
    assert_eq!(rig.swaps("failure"), 0.0);
    let failed = rig.gateway.metric("tollgate_tls_handshakes_total", &[("result", "failed")]);
    assert!(failed <= 0.0, "{failed}");
}

#[test]
fn a_broken_file_changes_nothing_and_is_told() {
    let rig = Rig::new();
    assert!(rig.not_used().is_null());
    rig.authority.file("www.pem", "not a certificate");
    wait_until("the change is noticed", || rig.swaps("failure") == 1.0);
    assert_eq!(rig.shown(), rig.first.der().to_vec());
    let said = rig.not_used()["errors"][0].as_str().unwrap().to_owned();
    assert!(said.contains("listeners[0].tls.certificates[0].cert"), "{said}");
    assert!(said.contains("there is no certificate in PEM form in it"), "{said}");
    let log = rig.gateway.said();
    assert!(log.contains("the changed TLS files are not used, the old ones go on"), "{log}");
    // A key of another certificate, as when one of two files was copied.
    rig.authority.file("www.pem", &rig.first.certificate.pem());
    rig.authority.file("www.key", &rig.authority.sign("a.test").key.serialize_pem());
    wait_until("the other key is noticed", || rig.swaps("failure") == 2.0);
    assert!(rig.not_used()["errors"][0].as_str().unwrap().contains("not the key of"));
    assert_eq!(rig.shown(), rig.first.der().to_vec());
    // A reload would need them, and says the same; what runs goes on.
    let response = rig.gateway.reload();
    assert_eq!(response.status, 422, "{}", response.text());
    assert!(response.text().contains("not the key of"), "{}", response.text());
    assert_eq!(rig.shown(), rig.first.der().to_vec());
    let new = rig.authority.sign("a.test");
    rig.authority.pair("www", &new);
    wait_until("the new one is shown", || rig.shown() == new.der().to_vec());
    assert!(rig.not_used().is_null());
}

#[test]
fn a_reload_takes_up_what_has_changed_at_once() {
    let rig = Rig::new();
    let new = rig.authority.sign("a.test");
    rig.authority.pair("www", &new);
    assert_eq!(rig.gateway.reload().status, 200);
    assert_eq!(rig.shown(), new.der().to_vec());
}

#[test]
fn a_reload_with_other_certificates_concerns_new_handshakes() {
    let rig = Rig::new();
    let address = rig.gateway.address;
    let request = Request::new(address, "GET", "/").host("a.test");
    let mut kept = rig.client().connect(address, "a.test").unwrap().connection;
    assert_eq!(kept.send(&request).unwrap().status, 200);
    let other = rig.authority.sign("a.test");
    let yaml = YAML.replace("$CERT", &rig.authority.pair("other", &other));
    rig.gateway.reload_with(&yaml);
    assert_eq!(rig.shown(), other.der().to_vec());
    assert_eq!(kept.send(&request).unwrap().status, 200);
    // What was watched before is not any more, and what is now, is.
    let newer = rig.authority.sign("a.test");
    rig.authority.pair("other", &newer);
    wait_until("the new one is shown", || rig.shown() == newer.der().to_vec());
    // A certificate that is asked for from now on is asked of open connections too.
    let yaml = yaml.replace(
        "$MORE",
        &format!("client_certificate: required, client_ca: '{}'", rig.authority.ca()),
    );
    rig.gateway.reload_with(&yaml);
    kept.send(&request).unwrap().assert_problem(421, "misdirected_request");
    kept.assert_closes();
    assert!(rig.client().get(address, "a.test").is_err());
    // And without TLS: new connections speak HTTP, those that are open go on.
    let mut kept = rig.client().showing(&rig.first).connect(address, "a.test").unwrap().connection;
    assert_eq!(kept.send(&request).unwrap().status, 200);
    let plain = yaml.split("tls:").next().unwrap().trim_end_matches(", ").to_owned()
        + "}]\n"
        + yaml.split_once("}}]\n").unwrap().1;
    rig.gateway.reload_with(&plain);
    assert_eq!(rig.gateway.get("/").status(), 200);
    kept.send(&request).unwrap().assert_problem(421, "misdirected_request");
}

#[test]
fn expiry_and_state_can_be_watched() {
    let rig = Rig::new();
    let status = rig.gateway.status();
    let tls = &status["tls"]["https"];
    assert_eq!(tls["certificates"][0]["names"][0], "a.test", "{tls}");
    assert_eq!(tls["certificates"][0]["expires"], "4096-01-01T00:00:00Z", "{tls}");
    assert_eq!(tls["client_certificate"], "none");
    let file = tls["certificates"][0]["file"].as_str().unwrap();
    let labels = [("listener", "https"), ("certificate", file)];
    let expires = rig.gateway.metric("tollgate_tls_certificate_expiry_seconds", &labels);
    assert_eq!(expires, 67_090_118_400.0);
}

#[test]
fn check_warns_of_what_should_not_stay_so() {
    let authority = Authority::new();
    let old = authority.sign_with("a.test", |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let folder = tempfile::tempdir().unwrap();
    let yaml = "version: 1
listeners:
  - {name: https, address: 127.0.0.1:1, tls: {certificates: [$CERT]}}
routes: [{id: all, match: {paths: [/*]}, public: true, respond: {status: 200}}]
";
    let write = |signed: &Signed, mode: u32| {
        let yaml = yaml.replace("$CERT", &authority.pair("old", signed));
        std::fs::write(folder.path().join("c.yaml"), &yaml).unwrap();
        let key = yaml.split("key: '").nth(1).unwrap().split('\'').next().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(key, mode).unwrap();
        let exit = run_tollgate(folder.path(), &["check", "-c", "c.yaml"]);
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(exit.stdout.contains("ok, revision"), "{exit:?}");
        exit.stderr
    };
    let said = write(&old, 0o644);
    for text in [
        "c.yaml:3:",
        "listeners[0].tls.certificates[0].cert: warning: ",
        "the certificate has expired at 2020-01-01T00:00:00Z",
        "listeners[0].tls.certificates[0].key: warning: ",
        "everybody on this machine can read the key",
    ] {
        assert!(said.contains(text), "{text} is missing in {said}");
    }
    assert_eq!(write(&authority.sign("a.test"), 0o600), "");
}

/// Two listeners that ask different things of their clients are two doors: what one has let in does
/// not get to the hosts of the other.
#[test]
fn a_connection_is_for_the_hosts_of_its_certificate_where_the_rules_differ() {
    let authority = Authority::new();
    let upstream = Upstream::saying("ok");
    let yaml = "
listeners:
  - {name: open, address: $HTTP, tls: {certificates: [$OPEN]}}
  - name: closed
    address: $CLOSED
    tls: {certificates: [$SECRET], client_certificate: required, client_ca: $CA}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let closed = crate::support::free_address();
    let open_pair = authority.pair(
        "open",
        &authority.sign_with("open.test", |params| {
            params.subject_alt_names.push(rcgen::SanType::DnsName("also.test".try_into().unwrap()));
        }),
    );
    let variables = [
        ("OPEN", &*open_pair),
        ("SECRET", &authority.pair("secret", &authority.sign("secret.test"))),
        ("CLOSED", &closed.to_string()),
        ("CA", &authority.ca()),
        ("UP", &upstream.url()),
    ];
    let gateway = Gateway::start(yaml, &variables);
    let client = Client::new(&authority);
    let ask = |client: &Client, address, name: &str, host: &str| {
        let mut connected = client.connect(address, name).unwrap();
        let request = Request::new(address, "GET", "/").host(host);
        let status = connected.connection.send(&request).unwrap().status;
        if status == 421 {
            connected.connection.assert_closes();
        }
        status
    };
    for (name, host, expected) in [
        ("open.test", "open.test", 200),
        ("open.test", "OPEN.test:443", 200),
        ("open.test", "also.test", 200),
        ("open.test", "secret.test", 421),
        ("also.test", "secret.test", 421),
        ("open.test", "unknown.test", 421),
    ] {
        assert_eq!(ask(&client, gateway.address, name, host), expected, "{name} {host}");
    }
    assert_eq!(
        ask(&client.clone().without_sni(), gateway.address, "open.test", "secret.test"),
        421
    );
    let known = client.clone().showing(&authority.client("billing", |_| {}));
    assert_eq!(ask(&known, closed, "secret.test", "secret.test"), 200);
    assert_eq!(ask(&known, closed, "secret.test", "open.test"), 421);
    // A session of one listener is none on the other.
    let shared = client.showing(&authority.client("billing", |_| {}));
    assert_eq!(ask(&shared, gateway.address, "open.test", "open.test"), 200);
    assert!(shared.connect(gateway.address, "open.test").unwrap().settled.is_resumed);
    assert!(!shared.connect(closed, "secret.test").unwrap().settled.is_resumed);
    // Of connections that end at the same time, either may be written down first.
    let log = gateway.access_log(7);
    let is_said = |line: &serde_json::Value| {
        line["host"] == "secret.test"
            && line["cause"].as_str().is_some_and(|it| it.contains("SNI: open.test"))
    };
    assert!(log.iter().any(is_said), "{log:?}");
}
