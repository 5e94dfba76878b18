//! Who may pass by a signature (RFC 9421), and what the others are told. Bodies: `signature_body`.
use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    Gateway, Request, Response, Signature, Signer, Upstream, content_digest, now, reply,
    run_tollgate, skip, wait_until,
};

const SECRET: &str = "what acme and the gateway both know, and nobody else";

const GUARDED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  signed: {signature: {}}
  once: {signature: {components: ['@method', '@path'], max_age: 1h, require_nonce: true}}
  fresh: {signature: {components: ['@method'], require_nonce: true}}
  labelled: {signature: {components: ['@method'], label: sig1, tag: gate}}
consumers:
  acme:
    groups: [partners]
    signature_keys:
      - {id: k1, algorithm: hmac-sha256, secret: '$SECRET'}
      - {id: gone, algorithm: hmac-sha256, secret: 'gone: $SECRET', expires: 2020-01-01T00:00:00Z}
      - {id: own-ed25519, algorithm: ed25519, public_key_file: $DIR/ed25519.pem}
      - {id: own-p256, algorithm: ecdsa-p256-sha256, public_key_file: $DIR/p256.pem}
  umbrella:
    signature_keys: [{id: k2, algorithm: hmac-sha256, secret: 'umbrella: $SECRET'}]
routes:
  - {id: signed, match: {paths: [/orders/*]}, auth: [signed], upstream: up}
  - {id: once, match: {paths: [/once]}, auth: [once], upstream: up}
  - {id: passed, match: {paths: [/passed]}, auth: [signed], pass_credentials: true, upstream: up}
  - {id: kept, match: {paths: [/kept]}, auth: [fresh], upstream: up, cache: {stale_while_revalidate: 60s}}
  - {id: either, match: {paths: [/either]}, auth: [labelled, api_key], upstream: up}
";

/// A key pair: what the client has, and the PEM of what the gateway has.
fn pair(of: &'static rcgen::SignatureAlgorithm) -> (Vec<u8>, String) {
    let pair = rcgen::KeyPair::generate_for(of).unwrap();
    (pair.serialize_der(), pair.public_key_pem())
}

/// The client's halves of the two public keys, and where the others are.
struct Pairs {
    signers: [(&'static str, Signer); 2],
    _folder: tempfile::TempDir,
}

fn guarded(upstream: &Upstream) -> (Gateway, Pairs) {
    let folder = tempfile::tempdir().unwrap();
    let (ed25519, p256) = (pair(&rcgen::PKCS_ED25519), pair(&rcgen::PKCS_ECDSA_P256_SHA256));
    std::fs::write(folder.path().join("ed25519.pem"), ed25519.1).unwrap();
    std::fs::write(folder.path().join("p256.pem"), p256.1).unwrap();
    let yaml = GUARDED.replace("$DIR", folder.path().to_str().unwrap());
    let gateway = Gateway::start(&yaml, &[("UP", &upstream.url()), ("SECRET", SECRET)]);
    let signers = [("own-ed25519", Signer::Ed25519(ed25519.0)), ("own-p256", Signer::P256(p256.0))];
    (gateway, Pairs { signers, _folder: folder })
}

fn acme() -> Signer {
    Signer::Hmac(SECRET.to_owned())
}

/// A signature of what the authenticator `signed` asks for, for a request without a body.
fn covering(gateway: &Gateway, keyid: &str, method: &str, target: &str) -> Signature {
    let uri = format!("http://{}{target}", gateway.address);
    Signature::by(keyid).cover("@method", method).cover("@target-uri", &uri)
}

fn get(gateway: &Gateway, target: &str) -> Request {
    covering(gateway, "k1", "GET", target).on(gateway.get(target), &acme())
}

#[track_caller]
fn assert_unauthorised(response: &Response) {
    response.assert_problem(401, "credential_invalid");
    let accept = r#"sig1=("@method" "@target-uri" "content-digest");created;keyid"#;
    assert_eq!(response.header("accept-signature"), Some(accept), "{response:?}");
    let challenges = response.headers.all("www-authenticate");
    assert_eq!(challenges, ["HTTPSig realm=\"tollgate\""], "{response:?}");
}

#[test]
fn every_key_of_a_consumer_signs() {
    let upstream = Upstream::saying("ok");
    let (gateway, pairs) = guarded(&upstream);
    assert_eq!(get(&gateway, "/orders/1?a=%20").status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/orders/1?a=%20");
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!(seen.header("x-consumer-groups"), Some("partners"));
    assert_eq!(seen.header("x-credential-identifier"), Some("k1"));
    for (keyid, signer) in &pairs.signers {
        let signature = covering(&gateway, keyid, "GET", "/orders/1");
        assert_eq!(signature.on(gateway.get("/orders/1"), signer).status(), 200, "{keyid}");
        assert_eq!(upstream.last().header("x-credential-identifier"), Some(*keyid));
    }
    let umbrella = covering(&gateway, "k2", "GET", "/orders/1");
    let signer = Signer::Hmac(format!("umbrella: {SECRET}"));
    assert_eq!(umbrella.on(gateway.get("/orders/1"), &signer).status(), 200);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("umbrella"));
    let labels = [("authenticator", "signed"), ("result", "accepted")];
    gateway.wait_metric("tollgate_auth_total", &labels, |it| it == 4.0);
}

#[test]
fn signatures_stay_here_unless_the_route_passes_them_and_digests_go_on() {
    let upstream = Upstream::saying("ok");
    let (gateway, _pairs) = guarded(&upstream);
    for (target, stays) in [("/orders/1", false), ("/passed", true)] {
        let digest = content_digest(b"hello");
        let signature = covering(&gateway, "k1", "POST", target).cover("content-digest", &digest);
        let request = gateway.request("POST", target).body("hello");
        let request = request.header("Content-Digest", &digest);
        assert_eq!(signature.on(request, &acme()).status(), 200, "{target}");
        let seen = upstream.last();
        assert_eq!(seen.header("signature").is_some(), stays, "{target}");
        assert_eq!(seen.header("signature-input").is_some(), stays, "{target}");
        assert_eq!(seen.header("content-digest"), Some(&*digest));
        assert_eq!(seen.body, b"hello");
    }
}

#[test]
fn what_is_wrong_with_a_signature_does_not_show() {
    let upstream = Upstream::saying("ok");
    let (gateway, _pairs) = guarded(&upstream);
    let target = "/orders/1";
    let sign = |signature: Signature, secret: &str| {
        signature.on(gateway.get(target), &Signer::Hmac(secret.to_owned()))
    };
    let good = || covering(&gateway, "k1", "GET", target);
    let gone = format!("gone: {SECRET}");
    let uri = format!("http://{}{target}", gateway.address);
    let made_at = |created| {
        let it = Signature::made_at("k1", created);
        it.cover("@method", "GET").cover("@target-uri", &uri)
    };
    let cases = [
        ("wrong", sign(good(), "another secret")),
        ("wrong", sign(covering(&gateway, "k2", "GET", target), SECRET)),
        ("wrong", sign(covering(&gateway, "k1", "PUT", target), SECRET)),
        ("wrong", sign(covering(&gateway, "k1", "GET", "/orders/2"), SECRET)),
        ("key_unknown", sign(covering(&gateway, "nobody", "GET", target), SECRET)),
        ("expired", sign(covering(&gateway, "gone", "GET", target), &gone)),
        ("expired", sign(made_at(now() - 120), SECRET)),
        ("not_yet_valid", sign(made_at(now() + 120), SECRET)),
        ("algorithm", sign(good().param(";alg=\"ed25519\""), SECRET)),
        ("malformed", sign(Signature::by("k1").cover("@method", "GET"), SECRET)),
        ("malformed", sign(good().cover("x-nothing", ""), SECRET)),
        ("malformed", gateway.get(target).header("Signature", "sig1=:AA==:")),
        ("malformed", gateway.get(target).header("Signature-Input", "sig1=()")),
        ("duplicate", good().on(sign(good(), SECRET).header("Signature", "b=:AA==:"), &acme())),
    ];
    let mut answers = Vec::new();
    for (reason, request) in &cases[..13] {
        let response = request.send();
        assert_unauthorised(&response);
        let mut problem = response.json();
        problem["request_id"].take();
        answers.push(problem);
        let line = gateway.logged(&response);
        let cause = line["cause"].as_str().unwrap_or_default().to_owned();
        assert!(cause.starts_with(reason), "{reason}: {line}");
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    // A label twice, over two lines each.
    assert_unauthorised(&cases[13].1.send());
    assert_eq!(upstream.heads(), 0);
    let everything = gateway.access_log(14).iter().map(ToString::to_string).collect::<String>()
        + &gateway.said()
        + &gateway.metrics()
        + &gateway.status().to_string();
    for secret in [SECRET, "sig1=", "AA=="] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
}

#[test]
fn without_a_signature_the_client_is_told_what_to_sign() {
    let upstream = Upstream::saying("ok");
    let (gateway, _pairs) = guarded(&upstream);
    let response = gateway.get("/orders/1").send();
    response.assert_problem(401, "credential_required");
    let accept = r#"sig1=("@method" "@target-uri" "content-digest");created;keyid"#;
    assert_eq!(response.header("accept-signature"), Some(accept), "{response:?}");
    // Beside another method each asks in its own header.
    let response = gateway.get("/either").send();
    let accept = r#"sig1=("@method");created;keyid;tag="gate""#;
    assert_eq!(response.header("accept-signature"), Some(accept), "{response:?}");
    let challenges = response.headers.all("www-authenticate");
    assert_eq!(challenges[0], "HTTPSig realm=\"tollgate\"", "{response:?}");
    assert!(challenges[1].starts_with("Bearer"), "{response:?}");
    // A signature that is meant for somebody else is none of ours.
    let other = Signature::by("k1").cover("@method", "GET").param(";tag=\"door\"");
    other.on(gateway.get("/either"), &acme()).send().assert_problem(401, "credential_required");
    let ours = Signature::by("k1").cover("@method", "GET").param(";tag=\"gate\"");
    assert_eq!(ours.on(gateway.get("/either"), &acme()).status(), 200);
}

/// What is signed is the target that was sent; what is routed and forwarded is made of it.
#[test]
fn a_target_is_signed_as_it_is_sent() {
    let upstream = Upstream::saying("ok");
    let (gateway, _pairs) = guarded(&upstream);
    for (raw, canonical) in [
        ("/orders/x/../1?b=%2E", "/orders/1?b=%2E"),
        ("/public/../orders/1", "/orders/1"),
        ("//orders//%31", "/orders/1"),
    ] {
        assert_eq!(get(&gateway, raw).status(), 200, "{raw}");
        assert_eq!(upstream.last().target, canonical);
        // The one for the other is no signature.
        let signature = covering(&gateway, "k1", "GET", raw);
        assert_unauthorised(&signature.on(gateway.get(canonical), &acme()).send());
        let signature = covering(&gateway, "k1", "GET", canonical);
        assert_unauthorised(&signature.on(gateway.get(raw), &acme()).send());
    }
    // A path that is not of this route is not, however it is spelled.
    let signature = covering(&gateway, "k1", "GET", "/orders/../secret");
    let response = signature.on(gateway.get("/orders/../secret"), &acme()).send();
    response.assert_problem(404, "route_unknown");
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_nonce_is_good_once_also_after_a_reload() {
    let upstream = Upstream::saying("ok");
    let (gateway, _pairs) = guarded(&upstream);
    let signed = |nonce: &str| {
        let signature = Signature::by("k1").cover("@method", "GET").cover("@path", "/once");
        let signature = signature.param(&format!(";nonce=\"{nonce}\""));
        signature.on(gateway.get("/once"), &acme())
    };
    let first = signed("a nonce of its own");
    assert_eq!(first.status(), 200);
    first.send().assert_problem(401, "credential_invalid");
    signed("a nonce of its own").send().assert_problem(401, "credential_invalid");
    let text = std::fs::read_to_string(gateway.config_file()).unwrap();
    gateway.reload_with(&(text + "# another revision\n"));
    first.send().assert_problem(401, "credential_invalid");
    assert_eq!(signed("another nonce").status(), 200);
    signed("short").send().assert_problem(401, "credential_invalid");
    let none = Signature::by("k1").cover("@method", "GET").cover("@path", "/once");
    none.on(gateway.get("/once"), &acme()).send().assert_problem(401, "credential_invalid");
    let labels = [("authenticator", "once"), ("reason", "replayed")];
    gateway.wait_metric("tollgate_auth_total", &labels, |it| it == 3.0);
    assert_eq!(upstream.count(), 2);
}

/// Explaining says what would happen, and uses nothing up.
#[test]
fn explaining_leaves_a_nonce_as_it_is() {
    let upstream = Upstream::saying("ok");
    let (gateway, _pairs) = guarded(&upstream);
    let signature = Signature::by("k1").cover("@method", "GET").cover("@path", "/once");
    let signature = signature.param(";nonce=\"0123456789\"");
    let [input, bytes] = signature.fields(&acme().sign(signature.base().as_bytes()));
    let file = gateway.config_file();
    let header = |(name, value): &(&str, String)| format!("{name}: {value}");
    let (input, bytes) = (header(&input), header(&bytes));
    for _ in 0..2 {
        let arguments =
            ["explain", "-c", file.to_str().unwrap(), "--live", "-H", &input, "-H", &bytes];
        let exit = run_tollgate(&gateway.path("."), &[&arguments[..], &["GET", "/once"]].concat());
        assert_eq!(exit.code, Some(0), "{}", exit.said());
        assert!(exit.stdout.contains("acme"), "{}", exit.said());
    }
    assert_eq!(signature.on(gateway.get("/once"), &acme()).status(), 200);
}

/// The gateway renews what it keeps with a request that has passed already, nonce and all.
#[test]
fn a_nonce_does_not_keep_a_stale_response_from_being_renewed() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| {
        let body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst));
        reply(200, body).with("cache-control", "public, max-age=0")
    });
    let (gateway, _pairs) = guarded(&upstream);
    let send = |nonce: &str| {
        let signature = Signature::by("k1").cover("@method", "GET");
        let signature = signature.param(&format!(";nonce=\"nonce number {nonce}\""));
        signature.on(gateway.get("/kept"), &acme()).send()
    };
    assert_eq!(send("1").text(), "answer 0");
    assert_eq!(send("2").text(), "answer 0");
    wait_until("it is renewed", || upstream.count() == 2);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("acme"));
}

/// Runs a program on `input`; `None` if it is not installed.
fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    use std::io::Write;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return None,
        child => child.unwrap(),
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// OpenSSL's own keys and signatures, of each kind.
#[test]
fn another_implementation_signs() {
    if piped("openssl", &["version"], b"").is_none() {
        skip("openssl is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str], input: &[u8]| piped("openssl", arguments, input).unwrap();
    let mut keys = String::new();
    let kinds = [
        ("ed25519", "ED25519", ""),
        ("ecdsa-p256-sha256", "EC", "ec_paramgen_curve:P-256"),
        ("ecdsa-p384-sha384", "EC", "ec_paramgen_curve:P-384"),
        ("rsa-pss-sha512", "RSA", "rsa_keygen_bits:2048"),
        ("rsa-v1_5-sha256", "RSA", "rsa_keygen_bits:2048"),
    ];
    for (algorithm, kind, option) in kinds {
        let (private, public) = (file(algorithm), file(&format!("{algorithm}.pub")));
        let mut arguments = vec!["genpkey", "-algorithm", kind, "-out", &private];
        if !option.is_empty() {
            arguments.extend(["-pkeyopt", option]);
        }
        openssl(&arguments, b"");
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public], b"");
        keys +=
            &format!("{{id: {algorithm}, algorithm: {algorithm}, public_key_file: {public}}}, ");
    }
    keys += &format!("{{id: hmac-sha256, algorithm: hmac-sha256, secret: '{SECRET}'}}");
    let upstream = Upstream::saying("ok");
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators: {signed: {signature: {}}}
consumers: {acme: {signature_keys: [$KEYS]}}
routes: [{id: all, match: {paths: [/*]}, auth: [signed], upstream: up}]
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url()), ("KEYS", &keys)]);
    for algorithm in kinds.map(|(algorithm, ..)| algorithm).into_iter().chain(["hmac-sha256"]) {
        let signature =
            covering(&gateway, algorithm, "GET", "/a?b=c").param(&format!(";alg=\"{algorithm}\""));
        let base = signature.base();
        let (key, path) = (file(algorithm), file("base"));
        std::fs::write(&path, &base).unwrap();
        let digest = |hash: &str, options: &[&str]| {
            let arguments = [&["dgst", hash, "-binary", "-sign", &key][..], options, &[&path]];
            openssl(&arguments.concat(), b"")
        };
        let bytes = match algorithm {
            "hmac-sha256" => {
                openssl(&["dgst", "-sha256", "-binary", "-hmac", SECRET], base.as_bytes())
            }
            "ed25519" => {
                openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &path], b"")
            }
            "ecdsa-p256-sha256" => fixed(&digest("-sha256", &[]), 32),
            "ecdsa-p384-sha384" => fixed(&digest("-sha384", &[]), 48),
            "rsa-pss-sha512" => {
                let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:64"];
                digest("-sha512", &pss)
            }
            _ => digest("-sha256", &[]),
        };
        let sign = |bytes: &[u8]| {
            let fields = signature.fields(bytes);
            fields
                .into_iter()
                .fold(gateway.get("/a?b=c"), |it, (name, value)| it.header(name, &value))
        };
        assert_eq!(sign(&bytes).status(), 200, "{algorithm}");
        assert_eq!(upstream.last().header("x-credential-identifier"), Some(algorithm));
        let mut wrong = bytes;
        *wrong.last_mut().unwrap() ^= 1;
        assert_unauthorised(&sign(&wrong).send());
    }
}

/// The two numbers of a DER signature side by side, each of `length` bytes.
fn fixed(der: &[u8], length: usize) -> Vec<u8> {
    let mut fixed = Vec::new();
    // SEQUENCE and its length, which is below 128 for these curves.
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(rest[1].into());
        let digits = &number[number.iter().position(|it| *it != 0).unwrap()..];
        fixed.extend(std::iter::repeat_n(0, length - digits.len()));
        fixed.extend_from_slice(digits);
        rest = after;
    }
    fixed
}
