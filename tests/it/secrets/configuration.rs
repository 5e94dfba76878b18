//! What the operator writes: secrets in the file, in the environment and in files, in configurations
//! that are fine and in such that are not.
use std::fs;

use super::{Sinks, Vault};
use crate::support::{Gateway, Upstream, hash_of, run_tollgate_with, wait_until};

/// Where a secret may stand in a configuration, `@` for it. Each is wrong in a way that makes the
/// place, or the line, or the value part of the message.
const WRONG: &[&str] = &[
    "consumers: {a: {api_keys: [{id: k, hash: '@'}]}}",
    "consumers: {a: {api_keys: [{id: k, hash: 'sha256:@'}]}}",
    "consumers: {a: {api_keys: [{id: k, hash: '@', expires: never}]}}",
    "consumers: {a: {api_keys: [{id: k, hash: [@]}]}}",
    "consumers: {a: {api_keys: [{id: k, hash: {@: 1}}]}}",
    "consumers: {a: {basic: [{username: a, password_hash: '@'}]}}",
    "consumers: {a: {basic: [{username: a, password_hash: '$argon2id$@'}]}}",
    "consumers: {a: {basic: [{username: a, password_hash: '@', more: 1}]}}",
    "consumers: {a: {signature_keys: [{id: k, algorithm: hmac-sha256, secret: '@', expires: never}]}}",
    "consumers: {a: {signature_keys: [{id: k, algorithm: hmac, secret: '@'}]}}",
    "consumers: {a: {signature_keys: [{id: k, algorithm: ed25519, secret: '@'}]}}",
    "consumers: {a: {signature_keys: [{algorithm: hmac-sha256, secret: '@'}]}}",
    "admin: {address: '127.0.0.1:1', tokens: [{id: a, hash: '@', role: admin}]}",
    "admin: {address: '127.0.0.1:1', tokens: [{id: a, hash: '@', role: king}]}",
    "upstreams: {up: {endpoints: [{url: 'http://user:@@127.0.0.1:1'}]}}",
    "upstreams: {up: {endpoints: [{url: 'http://user:@@127.0.0.1:1', wait: 1}]}}",
];

/// What is taken from the environment or a file is not shown, wherever it stands.
const WRONG_ELSEWHERE: &[&str] = &[
    "version: '@'",
    "server: {grace_period: '@'}",
    "server: {trusted_proxies: ['@']}",
    "server: {workers: '@'}",
    "listeners: [{name: a, address: '@'}]",
    "listeners: [{name: 'a @', address: '127.0.0.1:1'}]",
    "telemetry: {access_log: {format: '@'}}",
    "upstreams: {up: {endpoints: [{url: '@'}]}}",
    "upstreams: {up: {endpoints: [{url: 'https://127.0.0.1:1'}], tls: {key: '@', cert: '@'}}}",
    "consumers: {a: {plan: '@'}}",
    "consumers: {a: {groups: ['a\n@']}}",
    "consumers: {a: {api_keys: [{id: 'a @', hash: '$HASH'}]}}",
    "consumers: {a: {signature_keys: [{id: k, algorithm: '@', secret: '$HASH'}]}}",
    "consumers: {a: {signature_keys: [{id: k, algorithm: ed25519, public_key_file: '@'}]}}",
    "authenticators: {a: {signature: {components: ['@']}}}",
    "authenticators: {a: {signature: {label: 'A @', max_age: '@'}}}",
    "routes: [{id: a, match: {paths: ['@']}, public: true, respond: {status: 200}}]",
    "routes: [{id: a, match: {paths: ['~(@']}, public: true, respond: {status: 200}}]",
    "routes: [{id: a, match: {hosts: ['/@']}, public: true, respond: {status: 200}}]",
    "routes: [{id: a, match: {paths: [/a]}, auth: ['@'], upstream: '@'}]",
    "routes: [{id: a, match: {paths: [/a]}, public: true, redirect: {to: '@'}}]",
    "routes: [{id: a, match: {paths: [/a]}, mode: '@', public: true, respond: {status: 200}}]",
];

/// The three ways in which a value gets into a configuration.
fn written(line: &str, secret: &str, way: usize) -> String {
    let value = ["$SECRET", "${env:PLANTED}", "${file:given-secret}"][way];
    // The second sign of `user:@@host` is its own.
    let line = line.replace("@@", "$SECRET\u{1}").replace('@', "$SECRET").replace('\u{1}', "@");
    line.replace("$SECRET", value).replace("$SECRET", secret).replace("$HASH", HASH)
}

const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn a_wrong_configuration_is_explained_without_its_secrets() {
    let mut vault = Vault::default();
    let folder = tempfile::tempdir().unwrap();
    let all = WRONG.iter().map(|it| (*it, 0)).chain(WRONG_ELSEWHERE.iter().map(|it| (*it, 1)));
    let mut wrong = Vec::new();
    for (line, first) in all {
        let secret = vault.make("", &format!("the secret of `{line}`"));
        fs::write(folder.path().join("given-secret"), &secret).unwrap();
        for way in first..3 {
            let version = if line.starts_with("version:") { "" } else { "version: 1\n" };
            let text = format!("{version}{}\n", written(line, &secret, way));
            fs::write(folder.path().join("tollgate.yaml"), text).unwrap();
            for verb in [
                &["check", "-c", "tollgate.yaml"][..],
                &["check", "-c", "tollgate.yaml", "--print"],
                &["run", "-c", "tollgate.yaml"],
                &["explain", "-c", "tollgate.yaml", "GET", "http://a/"],
            ] {
                let exit = run_tollgate_with(folder.path(), &[("PLANTED", &secret)], verb);
                let found = vault.found(exit.said().as_bytes());
                if exit.code != Some(2) || !found.is_empty() {
                    wrong.push(format!("{verb:?} {:?} {found:?}:\n{}", exit.code, exit.said()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const RUNNING: &str = "
admin: {address: $ADMIN, tokens: [{id: ops, hash: '$TOKEN', role: admin}]}
upstreams:
  up: {endpoints: [{url: $UP}]}
  tls: {endpoints: [{url: 'https://127.0.0.1:1'}], tls: {cert: given-cert.pem, key: given-key.pem}}
consumers:
  acme:
    api_keys: [{id: env, hash: '${env:PLANTED_HASH}'}, {id: file, hash: '${file:given-hash}'}]
routes:
  - {id: any, match: {paths: [/any]}, auth: [api_key], upstream: up}
  - {id: tls, match: {paths: [/tls]}, auth: [api_key], upstream: tls}
";

#[test]
fn a_running_gateway_keeps_what_its_configuration_was_given() {
    let mut vault = Vault::default();
    let (of_env, of_file) =
        (vault.make("tg_", "a key of env"), vault.make("tg_", "a key of a file"));
    let token = vault.make("", "an admin token");
    let (env, file) = (hash_of(&of_env), hash_of(&of_file));
    vault.keep("the hash from the environment", &env[7..]);
    vault.keep("the hash from a file", &file[7..]);
    let made = rcgen::generate_simple_self_signed(vec!["gateway".to_owned()]).unwrap();
    let key = made.key_pair.serialize_pem();
    for line in key.lines().filter(|it| !it.starts_with('-')) {
        vault.keep("a private key", line);
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("hash", &file), ("key.pem", &key), ("cert.pem", &made.cert.pem())] {
        fs::write(folder.path().join(format!("given-{name}")), text).unwrap();
    }
    let upstream = Upstream::saying("ok");
    let before = format!("cp {}/given-* .; export PLANTED_HASH={env};", folder.path().display());
    let variables = [("UP", upstream.url()), ("TOKEN", hash_of(&token))];
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = Gateway::start_under(&before, RUNNING, &variables).unwrap();

    let mut sinks = Sinks(Vec::new());
    for (path, key, status) in
        [("/any", &of_env, 200), ("/any", &of_file, 200), ("/tls", &of_env, 502)]
    {
        let answer = gateway.get(path).header("X-API-Key", key).send();
        assert_eq!(answer.status, status, "{answer:?}");
        sinks.answer(path, &answer);
    }
    let reload = || {
        let bearer = format!("Bearer {token}");
        gateway.admin("POST", "/api/reload").header("Authorization", &bearer).send()
    };
    let answer = reload();
    assert_eq!(answer.status, 200, "{}", answer.text());
    sinks.answer("reload", &answer);
    for (right, wrong) in [
        ("hash: '${env:PLANTED_HASH}'", "hash: '${env:PLANTED_HASH}0'"),
        ("id: env,", "id: '${env:PLANTED_HASH}\\n',"),
        ("given-cert.pem", "given-key.pem"),
        ("key: given-key.pem", "key: given-hash"),
        ("routes:", "routes: '${file:given-key.pem}'\nroute:"),
        ("url: $UP", "url: '${file:given-key.pem}'"),
    ] {
        assert!(RUNNING.contains(right), "{right}");
        gateway.rewrite_config(&RUNNING.replacen(right, wrong, 1));
        let answer = reload();
        assert_eq!(answer.status, 422, "{wrong}: {}", answer.text());
        sinks.answer("a failed reload", &answer);
        sinks.0.extend(Sinks::of(&gateway, &token).0);
    }
    wait_until("the log is written", || gateway.access_log(1).len() >= 3);
    sinks.0.extend(Sinks::of(&gateway, &token).0);
    sinks.upstream(&upstream);
    sinks.assert_has(&["stderr", "access.log", "/metrics", "--print", "upstream /any"]);
    sinks.assert_none_of(&vault);
}
