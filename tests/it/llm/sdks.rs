//! The SDKs that the vendors publish, as clients: `tests/clients/sdk.py` before the stubs.
use std::{env, process::Command};

use super::Scene;
use crate::support::skip;

#[test]
fn the_vendors_own_sdks_are_served() {
    let python = env::var("TOLLGATE_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = "import openai, anthropic, google.genai";
    let has_them = Command::new(&python).args(["-c", import]).output();
    if !has_them.is_ok_and(|it| it.status.success()) {
        skip("the vendors' SDKs are not installed: see tests/clients/README.md");
        return;
    }
    let scene = Scene::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk.py");
    let url = format!("http://{}", scene.gateway.address);
    let output = Command::new(&python).args([script, &url, "any-key"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
}
