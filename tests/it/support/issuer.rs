//! An issuer of tokens: keys of its own, a key set that it publishes over HTTP, and metadata.
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::{Behaviour, Upstream, reply};

#[derive(Default)]
struct State {
    keys: BTreeMap<String, Arc<EcdsaKeyPair>>,
    published: Vec<String>,
    /// In place of the key set.
    instead: Option<Behaviour>,
    /// In place of its own name in its metadata.
    other_name: Option<String>,
}

/// A running issuer. Its provider stops when dropped; its keys go on signing.
pub struct Issuer {
    state: Arc<Mutex<State>>,
    provider: Option<Upstream>,
    pub address: SocketAddr,
}

impl Issuer {
    /// Has and publishes these keys.
    pub fn start(keys: &[&str]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let answering = state.clone();
        let provider = Upstream::start(move |request| {
            let state = answering.lock().unwrap();
            let host = format!("http://{}", request.header("host").unwrap());
            match &*request.target {
                "/jwks.json" => state.instead.clone().unwrap_or_else(|| {
                    let keys: Vec<Value> =
                        state.published.iter().map(|id| jwk(id, &state.keys[id])).collect();
                    reply(200, json!({"keys": keys}).to_string())
                }),
                "/.well-known/openid-configuration" => {
                    let name = state.other_name.as_ref().unwrap_or(&host);
                    let uri = format!("{host}/jwks.json");
                    reply(200, json!({"issuer": name, "jwks_uri": uri}).to_string())
                }
                _ => reply(404, ""),
            }
        });
        let issuer = Self { state, address: provider.address, provider: Some(provider) };
        issuer.publish(keys);
        issuer
    }

    /// The `iss` of its tokens.
    pub fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on these are its published keys; those that it does not have yet are made.
    pub fn publish(&self, keys: &[&str]) {
        let mut state = self.state.lock().unwrap();
        for id in keys {
            state.keys.entry((*id).to_owned()).or_insert_with(|| Arc::new(generate()));
        }
        state.published = keys.iter().map(|it| (*it).to_owned()).collect();
    }

    /// From now on this is what it says in place of its key set; `None`: the set again.
    pub fn say(&self, instead: Option<Behaviour>) {
        self.state.lock().unwrap().instead = instead;
    }

    /// From now on its metadata is of this issuer.
    pub fn pretend(&self, name: &str) {
        self.state.lock().unwrap().other_name = Some(name.to_owned());
    }

    /// Goes away; connections are refused.
    pub fn stop(&mut self) {
        self.provider = None;
    }

    /// How often its key set was asked for.
    pub fn fetches(&self) -> usize {
        let requests = self.provider.as_ref().map(Upstream::requests).unwrap_or_default();
        requests.iter().filter(|it| it.target == "/jwks.json").count()
    }

    /// The usual claims, with these in place of the ones of the same name. No two are the same.
    pub fn claims(&self, changes: Value) -> Value {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.name(), "aud": "orders", "sub": "acme-client", "scope": "orders:read",
            "iat": now, "exp": now + 600, "jti": number.to_string(),
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    /// A good token.
    pub fn token(&self, key: &str) -> String {
        self.sign(key, &json!({"alg": "ES256", "kid": key}), &self.claims(json!({})))
    }

    /// A good token but for these claims.
    pub fn token_with(&self, key: &str, changes: Value) -> String {
        self.sign(key, &json!({"alg": "ES256", "kid": key}), &self.claims(changes))
    }

    pub fn sign(&self, key: &str, header: &Value, claims: &Value) -> String {
        let key = self.state.lock().unwrap().keys[key].clone();
        let encode = |it: &Value| URL_SAFE_NO_PAD.encode(it.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn generate() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

fn jwk(id: &str, key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
        "x": coordinate(1..33), "y": coordinate(33..65),
    })
}
