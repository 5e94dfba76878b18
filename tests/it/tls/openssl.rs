//! Another implementation of TLS on the other side.
use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::Rig;

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
