//! Another implementation of TLS on the other side.
use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use super::Rig;
use crate::support::{Authority, Gateway, Upstream, wait_until};

/// What another implementation makes of it.
#[test]
fn openssl_agrees_and_cannot_renegotiate() {
    let rig = Rig::new(&["a.test"], "", "header_timeout: 1s");
    let ca = rig.authority.ca();
    let address = rig.address().to_string();
    let run = |more: &[&str], input: &[u8]| {
        let child = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", "a.test", "-CAfile", &ca])
            .args(["-verify_return_error", "-verify_hostname", "a.test"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.ok()?;
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(said) = run(&[version, "-quiet"], request) else {
            eprintln!("SKIPPED: openssl is not installed");
            return;
        };
        assert!(said.contains("HTTP/1.1 200"), "{version}: {said}");
        assert!(said.contains("Verification: OK") || said.contains("verify return:1"), "{said}");
    }
    let said = run(&["-tls1_2"], b"R\n").unwrap();
    let (before, after) = said.split_once("RENEGOTIATING").unwrap();
    assert!(before.contains("verify return:1"), "{said}");
    // Refused by an alert, or by the end of the connection; no second handshake shows a certificate.
    assert!(after.contains("error:") && !after.contains("verify return"), "{said}");
    rig.assert_served();
}

/// A real answer about the certificate, made by openssl, is shown along, and the next one in its place.
#[test]
fn an_ocsp_answer_is_stapled_and_watched() {
    let (authority, upstream) = (Authority::new(), Upstream::echo());
    let pair = authority.pair("www", &authority.sign("a.test"));
    let file = |name: &str, text: &str| authority.file(name, text);
    let (ca, key) = (authority.ca(), file("ca.key", &authority.key.serialize_pem()));
    let folder = std::path::Path::new(&ca).parent().unwrap().to_owned();
    let answer = |state: &str, out: &str| {
        let script = format!(
            "serial=$(openssl x509 -in www.pem -noout -serial | cut -d= -f2) && \
             printf '{state}\\t%s\\tunknown\\t/CN=a.test\\n' \"$serial\" >index.txt && \
             openssl ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey {key} -issuer ca.pem \
             -cert www.pem -ndays 7 -respout {out} >ocsp.log 2>&1"
        );
        let status = Command::new("sh").args(["-c", &script]).current_dir(&folder).status();
        status.is_ok_and(|it| it.success())
    };
    if !answer("V\\t21000101000000Z\\t", "www.ocsp") {
        crate::support::skip("openssl makes no OCSP answer here");
        return;
    }
    let ocsp = folder.join("www.ocsp").display().to_string();
    let certificates = pair.replace('}', &format!(", ocsp: '{ocsp}'}}"));
    let url = upstream.url();
    let variables = [("CERTS", &*certificates), ("MORE", ""), ("LIMITS", ""), ("UP", &*url)];
    let gateway = Gateway::start(super::YAML, &variables);
    let shown = || {
        let run = Command::new("openssl")
            .args(["s_client", "-connect", &gateway.address.to_string(), "-servername", "a.test"])
            .args(["-CAfile", &ca, "-status"])
            .stdin(Stdio::null())
            .output();
        String::from_utf8_lossy(&run.unwrap().stdout).into_owned()
    };
    let said = shown();
    assert!(said.contains("Cert Status: good"), "{said}");
    assert!(answer("R\\t21000101000000Z\\t240101000000Z", "new.ocsp"));
    fs::rename(folder.join("new.ocsp"), &ocsp).unwrap();
    wait_until("the next answer is shown", || shown().contains("Cert Status: revoked"));
    // Without one it is served all the same, and said.
    fs::remove_file(&ocsp).unwrap();
    wait_until("nothing is stapled", || shown().contains("no response sent"));
    let warnings = gateway.status()["tls"]["https"]["warnings"].to_string();
    assert!(warnings.contains("nothing is stapled"), "{warnings}");
}
