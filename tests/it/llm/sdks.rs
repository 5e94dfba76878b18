//! The SDKs that the vendors publish, as clients: `tests/clients/sdk.py` and `sdk.mjs` before the stubs.
use std::{env, process::Command};

use super::Scene;
use crate::support::skip;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// Each before a gateway of its own: what the last of one was refused cools down keys.
fn check(command: &mut Command, more: &[&str]) {
    let scene = Scene::start();
    let url = format!("http://{}", scene.gateway.address);
    let output = command.args([&url, "any-key"]).args(more).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
}

/// Whether this Python has these packages.
fn has(python: &str, packages: &str) -> bool {
    let found = Command::new(python).args(["-c", &format!("import {packages}")]).output();
    found.is_ok_and(|it| it.status.success())
}

#[test]
fn the_sdks_for_python_are_served() {
    let python = env::var("TOLLGATE_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !has(&python, "openai, anthropic, google.genai, mistralai.client, ollama") {
        skip("the vendors' SDKs for Python are not installed: see tests/clients/README.md");
        return;
    }
    check(Command::new(python).arg(format!("{CLIENTS}/sdk.py")), &[]);
}

#[test]
fn an_old_sdk_of_anthropic_is_served() {
    let python = env::var("TOLLGATE_SDK_PYTHON_OLD").unwrap_or_default();
    if !has(&python, "anthropic") {
        skip("Anthropic's SDK 0.x for Python is not installed: see tests/clients/README.md");
        return;
    }
    check(Command::new(python).arg(format!("{CLIENTS}/sdk.py")), &["Anthropic"]);
}

#[test]
fn the_sdks_for_node_are_served() {
    let folder = env::var("TOLLGATE_SDK_NODE").unwrap_or_default();
    let node = Command::new("node").arg("--version").output();
    if folder.is_empty() || !node.is_ok_and(|it| it.status.success()) {
        skip("the vendors' SDKs for Node.js are not installed: see tests/clients/README.md");
        return;
    }
    let script = format!("{CLIENTS}/sdk.mjs");
    check(Command::new("node").arg(script).current_dir(folder), &[]);
}
