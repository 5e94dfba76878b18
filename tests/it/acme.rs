//! Certificates ordered from a real authority: Pebble, Let's Encrypt's own server for tests, with its own
//! name server. Both are Debian's package `pebble`; without them these tests say that they are skipped.
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;
use x509_parser::{certificate::X509Certificate, pem::parse_x509_pem, prelude::FromDer};

use crate::support::{Authority, Client, Gateway, free_address, run_tollgate, skip, wait_until};

/// The authority, and whoever tells it where names are.
struct Pebble {
    directory: SocketAddr,
    /// Signs the directory's own certificate.
    authority: Authority,
    processes: Vec<Child>,
    _folder: TempDir,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|it| it.join(program).is_file())
}

impl Pebble {
    /// One that looks for proofs at these ports of 127.0.0.1, whatever the name.
    fn start(http: SocketAddr, tls: SocketAddr) -> Option<Self> {
        if !is_here("pebble") || !is_here("pebble-challtestsrv") {
            skip("no pebble: Debian's package of that name has it");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let own = authority.sign("127.0.0.1");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (directory, management, names) = (free_address(), free_address(), free_address());
        let config = json!({"pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": file("own.pem", &own.certificate.pem()),
            "privateKey": file("own.key", &own.key.serialize_pem()),
            "httpPort": http.port(),
            "tlsPort": tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let config = file("pebble.json", &config.to_string());
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let resolver = quiet(
            Command::new("pebble-challtestsrv")
                .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", ""])
                .args(["-https01", "", "-tlsalpn01", "", "-dns01", &names.to_string()])
                .args(["-management", &free_address().to_string()]),
        );
        let pebble = quiet(
            Command::new("pebble")
                .args(["-config", &config, "-dnsserver", &names.to_string()])
                .env("PEBBLE_VA_NOSLEEP", "1"),
        );
        let processes = vec![resolver, pebble];
        let pebble = Self { directory, authority, processes, _folder: folder };
        wait_until("pebble listens", || std::net::TcpStream::connect(directory).is_ok());
        Some(pebble)
    }

    fn url(&self) -> String {
        format!("https://{}/dir", self.directory)
    }

    fn ca(&self) -> String {
        self.authority.file("ca.pem", &self.authority.certificate.pem())
    }
}

const YAML: &str = "
listeners:
  - {name: http, address: $PLAIN}
  - name: https
    address: $HTTP
    tls: {acme: {directory: '$DIRECTORY', email: ops@example.com, domains: [$DOMAINS],
                 storage: acme, challenge: $CHALLENGE, ca: '$CA'}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, respond: {body: hi}}
";

/// Names and issuer of what stands in the file.
fn read(file: &Path) -> Option<(Vec<String>, String)> {
    let text = fs::read(file).ok()?;
    let start = text.windows(27).position(|it| it == b"-----BEGIN CERTIFICATE-----")?;
    let (_, pem) = parse_x509_pem(&text[start..]).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    let names = certificate.subject_alternative_name().ok()??.value.general_names.iter();
    let mut names: Vec<String> = names.map(|it| it.to_string()).collect();
    names.sort();
    Some((names, certificate.issuer().to_string()))
}

#[track_caller]
fn ordered(challenge: &str) {
    let (http, https) = (free_address(), free_address());
    let Some(pebble) = Pebble::start(http, https) else { return };
    let (url, ca, plain) = (pebble.url(), pebble.ca(), http.to_string());
    let https_text = https.to_string();
    let start = |domains: &'static str| {
        let yaml = YAML.replace("$HTTP", "$TLS");
        let variables = [
            ("PLAIN", &*plain),
            ("TLS", &https_text),
            ("DIRECTORY", &url),
            ("CA", &ca),
            ("CHALLENGE", challenge),
            ("DOMAINS", domains),
        ];
        Gateway::start(&yaml, &variables)
    };
    let gateway = start("a.test, b.test");
    let file = gateway.path("acme/a.test.pem");
    wait_until("the certificate is there", || file.exists());
    let (names, issuer) = read(&file).unwrap();
    assert_eq!(names, ["DNSName(a.test)", "DNSName(b.test)"]);
    assert!(issuer.contains("Pebble"), "{issuer}");
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&gateway.path("acme"))), (0o600, 0o700));
    let orders = |result| [("listener", "https"), ("result", result)];
    gateway.wait_metric("tollgate_acme_orders_total", &orders("success"), |it| it == 1.0);
    // It is taken up without a reload.
    let shown = || gateway.status()["tls"]["https"]["certificates"][0]["names"].clone();
    wait_until("the certificate is in use", || {
        let expiry = gateway.metric("tollgate_tls_certificate_expiry_seconds", &[]);
        shown() == json!(["a.test", "b.test"]) && expiry < 4e9 && issued_is_served(https, &file)
    });
    // Another process finds it, and orders nothing.
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    assert!(issued_is_served(https, &file));
    assert_eq!(gateway.metric("tollgate_acme_orders_total", &orders("success")), 0.0);
    // Another name makes another certificate, with the account that is there.
    let accounts = || {
        let names = fs::read_dir(gateway.path("acme")).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|it| it.starts_with("account-")).collect::<Vec<_>>()
    };
    let before = accounts();
    assert_eq!(before.len(), 1, "{before:?}");
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    gateway.reload_with(&text.replace("a.test, b.test", "a.test, c.test"));
    wait_until("a second certificate is there", || {
        read(&file).is_some_and(|(names, _)| names == ["DNSName(a.test)", "DNSName(c.test)"])
    });
    assert_eq!(accounts(), before);
}

/// Whether a client is shown what stands in the file.
fn issued_is_served(address: SocketAddr, file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let shown = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "a.test"])
        .stdin(Stdio::null())
        .output();
    let Ok(shown) = shown else { return false };
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    let first = |text: &str| {
        let start = text.find("-----BEGIN CERTIFICATE-----")?;
        let end = text.find("-----END CERTIFICATE-----")?;
        Some(text.get(start..end)?.replace(['\r', '\n'], ""))
    };
    first(&said).is_some() && first(&said) == first(&text)
}

#[test]
fn a_name_is_proved_over_http() {
    ordered("http-01");
}

#[test]
fn a_name_is_proved_in_the_handshake() {
    ordered("tls-alpn-01");
}

/// Whoever cannot prove a name, or reach the authority, serves all the same, and asks again later.
#[test]
fn an_order_that_fails_hurts_nobody() {
    let Some(pebble) = Pebble::start(free_address(), free_address()) else { return };
    let nowhere = format!("https://{}/dir", free_address());
    for directory in [pebble.url(), nowhere] {
        let (plain, ca) = (free_address().to_string(), pebble.ca());
        let variables = [
            ("PLAIN", &*plain),
            ("DIRECTORY", &directory),
            ("CA", &ca),
            ("CHALLENGE", "http-01"),
            ("DOMAINS", "a.test"),
        ];
        let gateway = Gateway::start(YAML, &variables);
        let failed = [("listener", "https"), ("result", "failure")];
        gateway.wait_metric("tollgate_acme_orders_total", &failed, |it| it == 1.0);
        let status = &gateway.status()["tls"]["https"];
        let said = status["acme"]["last_error"].as_str().unwrap().to_owned();
        assert!(said.contains("efused"), "{said}");
        assert!(status["warnings"][0].as_str().unwrap().contains("nobody trusts"), "{status}");
        // A reload does not hurry it.
        gateway.reload_with(&YAML.replace("body: hi", "body: ho"));
        let plain = plain.parse().unwrap();
        let request = crate::support::Request::new(plain, "GET", "/");
        assert_eq!(request.send().text(), "ho");
        assert!(Client::new(&pebble.authority).connect(gateway.address, "a.test").is_err());
        assert_eq!(gateway.metric("tollgate_acme_orders_total", &failed), 1.0);
        assert!(!gateway.path("acme/a.test.pem").exists());
    }
}

#[test]
fn a_check_orders_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = YAML
        .replace("$PLAIN", "127.0.0.1:8080")
        .replace("$HTTP", "127.0.0.1:8443")
        .replace("$DIRECTORY", "https://127.0.0.1:1/dir")
        .replace("$CHALLENGE", "http-01")
        .replace("$DOMAINS", "a.test")
        .replace(", ca: '$CA'", "");
    fs::write(folder.path().join("c.yaml"), format!("version: 1\n{yaml}")).unwrap();
    let exit = run_tollgate(folder.path(), &["check", "-c", "c.yaml"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(!folder.path().join("acme").exists());
}
