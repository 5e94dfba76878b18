//! Keys and consumers at run time.
mod api;
mod backends;
mod beside_the_file;
mod cli;
mod faults;
mod nodes;
mod usage;
mod uses;

use serde_json::Value;

use crate::support::{Gateway, Request, Response};

/// One route that any key opens; the admin address is the harness's.
const KEYED: &str = "
routes:
  - {id: keyed, match: {paths: [/*]}, auth: [api_key], respond: {status: 200, body: in}}
";

/// A gateway whose store is a file in its own folder.
fn with_sqlite(more: &str) -> Gateway {
    Gateway::start(&format!("store: {{sqlite: {{path: store.db}}}}\n{more}{KEYED}"), &[])
}

fn ask(gateway: &Gateway, method: &str, path: &str) -> Request {
    gateway.admin(method, path)
}

/// A request with a body of JSON.
fn send(gateway: &Gateway, method: &str, path: &str, body: &str) -> Response {
    json(gateway, method, path, body).send()
}

fn json(gateway: &Gateway, method: &str, path: &str, body: &str) -> Request {
    gateway.admin(method, path).header("Content-Type", "application/json").body(body)
}

#[track_caller]
fn create(gateway: &Gateway, consumer: &str) {
    let body = format!(r#"{{"name":"{consumer}"}}"#);
    let response = send(gateway, "POST", "/api/consumers", &body);
    assert_eq!(response.status, 201, "{}", response.text());
}

/// A new key of a consumer; the key itself.
#[track_caller]
fn new_key(gateway: &Gateway, consumer: &str, id: &str) -> String {
    let path = format!("/api/consumers/{consumer}/keys");
    let response = send(gateway, "POST", &path, &format!(r#"{{"id":"{id}"}}"#));
    assert_eq!(response.status, 201, "{}", response.text());
    response.json()["key"].as_str().unwrap().to_owned()
}

/// What the route answers to a key.
fn opens(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("/").header("X-API-Key", key).status()
}

/// The items of a list.
#[track_caller]
fn items(gateway: &Gateway, path: &str) -> Vec<Value> {
    let response = ask(gateway, "GET", path).send();
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.json()["items"].as_array().unwrap().clone()
}

/// One member of each item of a list.
#[track_caller]
fn words(gateway: &Gateway, path: &str, member: &str) -> Vec<String> {
    let word = |item: Value| item[member].as_str().unwrap_or("-").to_owned();
    items(gateway, path).into_iter().map(word).collect()
}
