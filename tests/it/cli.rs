//! The commands: their exit codes and what people and scripts read from them.
use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{Exit, Gateway, hash_of, key, run_tollgate, run_tollgate_with};

const GOOD: &str = "version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
admin: {address: 127.0.0.1:9900}
upstreams: {orders: {endpoints: [{url: 'http://192.0.2.1:8080'}]}}
consumers:
  acme: {api_keys: [{id: one, hash: '$HASH'}]}
routes:
  - {id: orders, match: {paths: [/orders/*], methods: [GET]}, auth: [api_key], upstream: orders}
  - {id: ping, match: {paths: [/ping]}, public: true, respond: {status: 200, body: pong}}
";

fn good() -> String {
    GOOD.replace("$HASH", &hash_of(&key("one")))
}

/// Runs with `yaml` as `c.yaml` in the working folder.
fn run(yaml: &str, arguments: &[&str]) -> Exit {
    let folder: TempDir = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.yaml"), yaml).unwrap();
    run_tollgate(folder.path(), arguments)
}

#[test]
fn check_accepts_a_good_file_and_does_nothing() {
    // 192.0.2.1 is nobody's and the ports may be taken: neither matters.
    let exit = run(&good(), &["check", "-c", "c.yaml"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn check_says_every_problem_with_its_place() {
    let bad = good()
        .replace("methods: [GET]", "methodz: [GET]")
        .replace("upstream: orders}", "upstream: order}")
        .replace("public: true, ", "")
        .replace("endpoints: [{url: 'http://192.0.2.1:8080'}]", "endpoints: [{url: nonsense}]");
    let exit = run(&bad, &["check", "-c", "c.yaml"]);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    let said = exit.said();
    assert!(said.contains("methodz") && said.contains("methods"), "no hint: {said}");
    assert!(said.contains("c.yaml:8:"), "no line: {said}");

    // What is well-formed but wrong is reported together.
    let wrong = bad.replace("methodz", "methods");
    let exit = run(&wrong, &["check", "-c", "c.yaml"]);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    let said = exit.said();
    for text in ["c.yaml:4:", "c.yaml:8:", "c.yaml:9:", "nonsense", "order", "public"] {
        assert!(said.contains(text), "{text} is missing in {said}");
    }
}

#[test]
fn run_refuses_what_check_refuses() {
    let exit = Gateway::try_start("routes: [{id: a, match: {paths: [/a]}, upstream: b}]\n", &[]);
    let exit = exit.unwrap_err();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.said().contains("routes[0]"), "{exit:?}");
    assert_eq!(run(&good(), &["run", "-c", "missing.yaml"]).code, Some(2));
}

#[test]
fn an_address_that_is_taken_is_a_failure_of_the_run() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = format!(
        "listeners: [{{name: http, address: '{}'}}]\nroutes: []\n",
        taken.local_addr().unwrap()
    );
    let exit = Gateway::try_start(&listeners, &[]).unwrap_err();
    assert!(matches!(exit.code, Some(1 | 2)), "{exit:?}");
}

#[test]
fn nonsense_on_the_command_line_is_usage() {
    for arguments in [&["frobnicate"][..], &["check", "--no-such-flag"], &["explain"]] {
        let exit = run(&good(), arguments);
        assert_eq!(exit.code, Some(2), "{arguments:?}: {exit:?}");
        assert!(!exit.stderr.is_empty(), "{exit:?}");
    }
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"]] {
        assert_eq!(run(&good(), arguments).code, Some(0), "{arguments:?}");
    }
}

#[test]
fn explain_says_what_would_happen() {
    let header = format!("X-API-Key: {}", key("one"));
    for (arguments, code, said) in [
        (&["GET", "http://a.test/ping"][..], 0, &["ping"][..]),
        (&["GET", "http://a.test/orders/1", "-H", &header], 0, &["orders", "acme", "one"]),
        (&["GET", "http://a.test/orders/1"], 3, &["orders", "401"]),
        (&["GET", "http://a.test/orders/1", "-H", "X-API-Key: wrong"], 3, &["401"]),
        (&["DELETE", "http://a.test/orders/1"], 3, &["405"]),
        (&["GET", "http://a.test/nothing"], 3, &["404"]),
        (&["GET", "http://a.test/a%2Fb"], 3, &["400"]),
    ] {
        let all = [&["explain", "-c", "c.yaml"][..], arguments].concat();
        let exit = run(&good(), &all);
        assert_eq!(exit.code, Some(code), "{arguments:?}: {exit:?}");
        for text in said {
            assert!(exit.stdout.contains(text), "{text} is missing in {exit:?}");
        }
        assert!(!exit.said().contains(&key("one")), "a secret in {exit:?}");
    }
    for url in ["", "ftp://a.test/ping", "a.test/ping", "?x"] {
        let exit = run(&good(), &["explain", "-c", "c.yaml", "GET", url]);
        assert_eq!(exit.code, Some(2), "{url}: {exit:?}");
    }
    let all = ["explain", "-c", "c.yaml", "--json", "GET", "http://a.test/ping"];
    let exit = run(&good(), &all);
    let json: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
    assert!(json.to_string().contains("ping"), "{json}");
}

/// The first word of `text` that starts with `prefix`.
fn word<'a>(text: &'a str, prefix: &str) -> &'a str {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}');
    let found = text.split(is_end).find(|word| word.starts_with(prefix));
    found.unwrap_or_else(|| panic!("no {prefix}… in {text}"))
}

#[test]
fn a_new_key_works_where_its_hash_is_pasted() {
    let exit = run("", &["key", "new", "acme"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let said = exit.said();
    let (key, hash) = (word(&said, "tg_").to_owned(), word(&said, "sha256:").to_owned());
    assert!(key.len() >= 30 && hash == hash_of(&key), "{said}");
    let other = run("", &["key", "new", "acme"]).said();
    assert_ne!(word(&other, "tg_"), key);

    let yaml = "
consumers:
  acme: {api_keys: [{id: new, hash: '$HASH'}]}
routes:
  - {id: keyed, match: {paths: [/*]}, auth: [api_key], respond: {status: 200, body: in}}
";
    let gateway = Gateway::start(yaml, &[("HASH", &hash)]);
    assert_eq!(gateway.get("/").header("X-API-Key", &key).status(), 200);
    let bearer = format!("Bearer {key}");
    assert_eq!(gateway.get("/").header("Authorization", &bearer).status(), 200);
}

#[test]
fn the_commands_for_a_running_process_fail_without_one() {
    let admin = crate::support::free_address().to_string();
    let yaml = good().replace("127.0.0.1:9900", &admin);
    for verb in ["reload", "status", "stop"] {
        let exit = run(&yaml, &[verb, "-c", "c.yaml"]);
        assert_eq!(exit.code, Some(1), "{verb}: {exit:?}");
        assert!(exit.stderr.contains(&admin), "{verb}: {exit:?}");
    }
}

#[test]
fn status_and_stop_talk_to_the_running_process() {
    let yaml =
        "routes: [{id: a, match: {paths: [/*]}, public: true, respond: {status: 200, body: a}}]\n";
    let mut gateway = Gateway::start(yaml, &[]);
    let folder = gateway.path("");
    let verb = |verb: &str| run_tollgate(Path::new(&folder), &[verb, "-c", "tollgate.yaml"]);
    let exit = verb("status");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let revision = gateway.revision();
    assert!(exit.stdout.contains(&revision[..8]), "{exit:?} without {revision}");
    assert_eq!(verb("stop").code, Some(0));
    assert_eq!(gateway.wait_exit().code, Some(0));
}

#[test]
fn an_address_on_the_command_line_goes_before_the_file_and_that_before_the_environment() {
    let yaml = "routes: [{id: all, match: {paths: [/*]}, public: true, respond: {body: hi}}]\n";
    let gateway = Gateway::start(yaml, &[]);
    let (admin, nowhere) = (gateway.admin.to_string(), crate::support::free_address().to_string());
    let wrong = gateway.path("wrong.yaml");
    fs::write(&wrong, format!("version: 1\nadmin: {{address: '{nowhere}'}}\n")).unwrap();
    let (right, wrong) = (gateway.config_file(), wrong);
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let check = |environment: &str, arguments: &[&str], expected: i32| {
        let arguments = [&["status"], arguments].concat();
        let variables = [("TOLLGATE_ADMIN", environment)];
        let exit = run_tollgate_with(&gateway.path(""), &variables, &arguments);
        assert_eq!(exit.code, Some(expected), "{environment} {arguments:?}: {exit:?}");
    };
    check(&nowhere, &["--admin", &admin], 0);
    check(&nowhere, &["--admin", &admin, "-c", wrong], 0);
    check(&admin, &["--admin", &nowhere, "-c", right], 1);
    check(&nowhere, &["-c", right], 0);
    check(&admin, &["-c", wrong], 1);
    check(&admin, &[], 0);
    check(&nowhere, &[], 1);
}
