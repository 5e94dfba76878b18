//! An identity provider that lies on demand, and checks what it is told.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tollgate::{auth::decode_query, shared::http_client::Url};

use crate::support::{Behaviour, Upstream, basic_header, reply};

pub const SECRET: &str = "portal-secret-that-must-not-leak";

/// What it says from now on, in place of the truth.
#[derive(Clone, Default)]
pub struct Script {
    /// Claims of ID tokens; `null` leaves one out.
    pub claims: BTreeMap<&'static str, Value>,
    /// Members of the token endpoint's answers; `null` leaves one out.
    pub answer: BTreeMap<&'static str, Value>,
    /// An answer of the token endpoint, whole.
    pub instead: Option<(u16, &'static str)>,
    /// Of the ID token's header.
    pub algorithm: Option<&'static str>,
    pub is_signed_by_another: bool,
    /// In place of the ID token.
    pub id_token: Option<&'static str>,
    /// Seconds that tokens live; 3600 where it is not said.
    pub lifetime: Option<u64>,
    pub refuses_refresh: bool,
}

/// What a code or a refresh token stands for.
#[derive(Clone, Default)]
struct Grant {
    subject: String,
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

#[derive(Default)]
struct State {
    script: Script,
    /// Codes and refresh tokens that are still good.
    grants: BTreeMap<String, Grant>,
    issued: usize,
    /// What the token endpoint was asked that it does not take.
    complaints: Vec<String>,
    secrets: Vec<String>,
}

pub struct Fake {
    pub upstream: Upstream,
    state: Arc<Mutex<State>>,
}

struct Keys {
    ours: EcdsaKeyPair,
    another: EcdsaKeyPair,
}

impl Fake {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let keys = Keys { ours: key(), another: key() };
        let shared = state.clone();
        let upstream = Upstream::start(move |request| {
            let issuer = format!("http://{}", request.header("host").unwrap());
            let mut state = shared.lock().unwrap();
            match request.target.as_str() {
                "/.well-known/openid-configuration" => said(&discovery(&issuer)),
                "/jwks" => said(&json!({"keys": [jwk(&keys.ours)]})),
                "/token" => {
                    let authorization = request.header("authorization").unwrap_or_default();
                    let form = String::from_utf8(request.body.clone()).unwrap();
                    state.token(&issuer, authorization, &form, &keys)
                }
                _ => reply(404, "not here"),
            }
        });
        Self { upstream, state }
    }

    pub fn issuer(&self) -> String {
        self.upstream.url()
    }

    pub fn script(&self, script: Script) {
        self.state.lock().unwrap().script = script;
    }

    /// Logs `subject` in where a browser was sent, and says where it is sent back to.
    #[track_caller]
    pub fn answer(&self, location: &str, subject: &str) -> String {
        let url = Url::parse(location).unwrap();
        assert_eq!(url.path(), "/auth", "{location}");
        let asked: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let of = |name: &str| asked[name].clone();
        assert_eq!((&*of("response_type"), &*of("client_id")), ("code", "portal"));
        assert_eq!(of("code_challenge_method"), "S256");
        assert!(of("scope").split(' ').any(|it| it == "openid"), "{location}");
        let grant = Grant {
            subject: subject.to_owned(),
            nonce: of("nonce"),
            challenge: of("code_challenge"),
            redirect_uri: of("redirect_uri"),
        };
        let code = self.state.lock().unwrap().issue("code", grant);
        format!("{}?code={code}&state={}", of("redirect_uri"), of("state"))
    }

    /// Requests to the token endpoint.
    pub fn asked(&self) -> usize {
        self.upstream.requests().iter().filter(|it| it.target == "/token").count()
    }

    /// Holds that the gateway asked for nothing that it must not ask.
    #[track_caller]
    pub fn assert_content(&self) {
        let complaints = self.state.lock().unwrap().complaints.clone();
        assert!(complaints.is_empty(), "{complaints:?}");
    }

    /// All codes and tokens that were given out.
    pub fn secrets(&self) -> Vec<String> {
        self.state.lock().unwrap().secrets.clone()
    }
}

fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/auth"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "end_session_endpoint": format!("{issuer}/end"),
    })
}

fn said(value: &Value) -> Behaviour {
    reply(200, value.to_string()).with("Content-Type", "application/json")
}

fn error(name: &str) -> Behaviour {
    reply(400, json!({"error": name}).to_string())
}

impl State {
    fn issue(&mut self, kind: &str, grant: Grant) -> String {
        self.issued += 1;
        let word = format!("{kind}-{}-not-for-logs", self.issued);
        self.grants.insert(word.clone(), grant);
        self.secrets.push(word.clone());
        word
    }

    fn token(&mut self, issuer: &str, authorization: &str, form: &str, keys: &Keys) -> Behaviour {
        if let Some((status, body)) = self.script.instead {
            return reply(status, body);
        }
        let pairs = form.split('&').filter_map(|it| it.split_once('='));
        let form: BTreeMap<&str, String> =
            pairs.map(|(name, value)| (name, decode_query(value).into_owned())).collect();
        let of = |name: &str| form.get(name).cloned().unwrap_or_default();
        if authorization != basic_header("portal", SECRET) {
            self.complaints.push("the client does not say who it is".to_owned());
            return error("invalid_client");
        }
        let is_code = of("grant_type") == "authorization_code";
        let word = of(if is_code { "code" } else { "refresh_token" });
        let Some(grant) = self.grants.remove(&word) else {
            self.complaints.push(format!("{word} is not good, or not good any more"));
            return error("invalid_grant");
        };
        if is_code {
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(of("code_verifier")));
            if challenge != grant.challenge || of("redirect_uri") != grant.redirect_uri {
                self.complaints.push("the verifier or the redirect URI is another".to_owned());
                return error("invalid_grant");
            }
        } else if self.script.refuses_refresh {
            return error("invalid_grant");
        }
        self.tokens(issuer, grant, keys)
    }

    fn tokens(&mut self, issuer: &str, grant: Grant, keys: &Keys) -> Behaviour {
        let script = self.script.clone();
        let lifetime = script.lifetime.unwrap_or(3600);
        let mut claims = json!({
            "iss": issuer, "aud": "portal", "sub": grant.subject, "nonce": grant.nonce,
            "iat": unix(), "exp": unix() + lifetime,
            "email": format!("{}@example.com", grant.subject), "groups": ["staff"],
        });
        change(&mut claims, &script.claims);
        let key = if script.is_signed_by_another { &keys.another } else { &keys.ours };
        let id_token = match script.id_token {
            Some(text) => text.to_owned(),
            None => sign(script.algorithm.unwrap_or("ES256"), &claims, key),
        };
        self.secrets.push(id_token.clone());
        let access_token = self.issue("access", Grant::default());
        let refresh_token = self.issue("refresh", grant);
        let mut answer = json!({
            "token_type": "Bearer", "access_token": access_token, "id_token": id_token,
            "refresh_token": refresh_token, "expires_in": lifetime, "scope": "openid email",
        });
        change(&mut answer, &script.answer);
        said(&answer)
    }
}

fn change(value: &mut Value, changes: &BTreeMap<&'static str, Value>) {
    for (name, change) in changes {
        value[*name] = change.clone();
    }
    value.as_object_mut().unwrap().retain(|_, it| !it.is_null());
}

pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": "one", "x": text(x), "y": text(y)})
}

fn sign(algorithm: &str, claims: &Value, key: &EcdsaKeyPair) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": algorithm, "kid": "one"})), part(claims));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
