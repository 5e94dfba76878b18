//! Requests that a test signs itself: with a base of its own making, so that the gateway's is checked.
mod accepted;
mod body;
mod hostile;
mod keys;
mod random;
mod vectors;

use std::{fmt::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, Uri, request::Parts};
use ring::{hmac, rand::SystemRandom, signature as sig};
use sha2::{Digest, Sha256};

use super::{key::Algorithm, *};
use crate::flow::identity::{Consumer, Credential, Kind, Label};

const NOW: u64 = 1_618_884_500;
const CREATED: u64 = NOW - 20;
const SECRET: &str = "a secret that two parties share, of 32 bytes or more";

/// The private halves of the keys that [`known`] knows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Private {
    Hmac(Vec<u8>),
    /// PKCS #8.
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl Private {
    fn sign(&self, base: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let ecdsa = |algorithm, pkcs8: &[u8]| {
            let pair = sig::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).unwrap();
            pair.sign(&random, base).unwrap().as_ref().to_vec()
        };
        match self {
            Self::Hmac(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), base).as_ref().to_vec()
            }
            Self::Ed25519(pkcs8) => {
                let pair = sig::Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).unwrap();
                pair.sign(base).as_ref().to_vec()
            }
            Self::P256(pkcs8) => ecdsa(&sig::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8),
            Self::P384(pkcs8) => ecdsa(&sig::ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8),
        }
    }
}

/// A key pair: what the client has, and the PEM of what the gateway has.
struct Pair {
    private: Private,
    pem: String,
    algorithm: Algorithm,
}

fn pair(algorithm: Algorithm) -> Pair {
    let (of, private): (_, fn(Vec<u8>) -> Private) = match algorithm {
        Algorithm::Ed25519 => (&rcgen::PKCS_ED25519, Private::Ed25519),
        Algorithm::EcdsaP256Sha256 => (&rcgen::PKCS_ECDSA_P256_SHA256, Private::P256),
        Algorithm::EcdsaP384Sha384 => (&rcgen::PKCS_ECDSA_P384_SHA384, Private::P384),
        _ => panic!("{algorithm:?} is not made here"),
    };
    let made = rcgen::KeyPair::generate_for(of).unwrap();
    Pair { private: private(made.serialize_der()), pem: made.public_key_pem(), algorithm }
}

fn credential(consumer: &str, id: &str, expires: Option<u64>) -> Arc<Credential> {
    let consumer = Arc::new(Consumer {
        index: 0,
        name: Label::new(consumer).unwrap(),
        groups: Box::default(),
        plan: None,
        groups_header: None,
    });
    Arc::new(Credential {
        id: Label::new(id).unwrap(),
        full_id: format!("{}/{id}", consumer.name.as_str()).into(),
        consumer: Some(consumer),
        claims: None,
        kind: Kind::SignatureKey,
        last_use: None,
        expires,
        scopes: Box::default(),
        scope_header: None,
    })
}

/// `k1` of acme and `k2` of umbrella with shared secrets, `old` of acme with one that has expired.
fn known(pairs: &[(&str, &Pair)]) -> Keys {
    let mut keys = Keys::default();
    for (consumer, id, secret, expires) in [
        ("acme", "k1", SECRET.to_owned(), None),
        ("umbrella", "k2", SECRET.to_uppercase(), None),
        ("acme", "old", format!("old {SECRET}"), Some(NOW)),
    ] {
        let key = Key::shared(secret.as_bytes(), credential(consumer, id, expires)).unwrap();
        assert!(keys.insert(id, key).is_none());
    }
    for (id, pair) in pairs {
        let credential = credential("acme", id, None);
        let key = Key::public(pair.pem.as_bytes(), pair.algorithm, credential).unwrap();
        assert!(keys.insert(id, key).is_none());
    }
    keys
}

fn config() -> Config {
    let components = ["@method", "@target-uri", "content-digest"];
    Config {
        components: components.iter().map(|it| Component::parse(it).unwrap()).collect(),
        max_age: Duration::from_secs(60),
        clock_skew: Duration::from_secs(5),
        require_nonce: false,
        wanted: Wanted::default(),
    }
}

fn with(config: Config, keys: Keys) -> Signature {
    Signature::new(config, Arc::new(keys), Arc::new(Nonces::new().unwrap()))
}

fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// A request before it is signed.
#[derive(Clone, Debug)]
struct Draft {
    method: &'static str,
    scheme: &'static str,
    host: String,
    /// As the client sends it.
    target: String,
    /// As the gateway makes it.
    canonical: String,
    headers: Vec<(String, Vec<u8>)>,
    has_body: bool,
    label: &'static str,
    /// Identifiers as they stand in `Signature-Input`.
    components: Vec<String>,
    /// With the semicolon before each.
    params: String,
    /// What the test says that a component is worth, before what the draft says.
    values: Vec<(String, String)>,
    private: Private,
}

impl Draft {
    /// A POST with a body, and a signature of acme's `k1` that is good.
    fn new() -> Self {
        Self {
            method: "POST",
            scheme: "https",
            host: "API.example.com:8443".to_owned(),
            target: "/orders?id=7&a=b%20c".to_owned(),
            canonical: "/orders?id=7&a=b%20c".to_owned(),
            headers: vec![
                ("content-digest".to_owned(), digest(b"hello").into_bytes()),
                ("date".to_owned(), b"Tue, 20 Apr 2021 02:07:55 GMT".to_vec()),
            ],
            has_body: true,
            label: "sig1",
            components: ["\"@method\"", "\"@target-uri\"", "\"content-digest\"", "\"date\""]
                .map(str::to_owned)
                .to_vec(),
            params: format!(";created={CREATED};keyid=\"k1\""),
            values: Vec::new(),
            private: Private::Hmac(SECRET.into()),
        }
    }

    fn covering(components: &[&str]) -> Self {
        let components = components.iter().map(|it| (*it).to_owned()).collect();
        Self { components, ..Self::new() }
    }

    fn cover(mut self, component: &str, value: &str) -> Self {
        self.components.push(component.to_owned());
        self.values.push((component.to_owned(), value.to_owned()));
        self
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    fn target(mut self, target: &str, canonical: &str) -> Self {
        (self.target, self.canonical) = (target.to_owned(), canonical.to_owned());
        self
    }

    /// In place of what [`Draft::new`] has.
    fn params(mut self, params: &str) -> Self {
        params.clone_into(&mut self.params);
        self
    }

    fn also(mut self, param: &str) -> Self {
        self.params.push_str(param);
        self
    }

    fn with_key(mut self, keyid: &str, private: &Private) -> Self {
        self.private = private.clone();
        self.params(&format!(";created={CREATED};keyid=\"{keyid}\""))
    }

    /// Section 2 of RFC 9421, as far as the tests use it without saying the value.
    fn value(&self, component: &str) -> String {
        let authority = self.host.to_lowercase();
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        if let Some((_, value)) = self.values.iter().find(|(other, _)| other == component) {
            return value.clone();
        }
        match component.trim_matches('"') {
            "@method" => self.method.to_owned(),
            "@target-uri" => format!("{}://{authority}{}", self.scheme, self.target),
            "@authority" => authority,
            "@scheme" => self.scheme.to_owned(),
            "@request-target" => self.target.clone(),
            "@path" => path.to_owned(),
            "@query" => format!("?{query}"),
            "host" => self.host.clone(),
            name => {
                let lines = self.headers.iter().filter(|(other, _)| other == name);
                let lines: Vec<_> = lines
                    .map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned())
                    .collect();
                lines.join(", ")
            }
        }
    }

    fn base(&self) -> String {
        let mut base = String::new();
        for component in &self.components {
            writeln!(base, "{component}: {}", self.value(component)).unwrap();
        }
        base + "\"@signature-params\": " + &self.input()
    }

    fn input(&self) -> String {
        format!("({}){}", self.components.join(" "), self.params)
    }

    fn sign(self) -> Signed {
        let signature = self.private.sign(self.base().as_bytes());
        self.send(&signature)
    }

    /// With these bytes for a signature.
    fn send(self, signature: &[u8]) -> Signed {
        let signature = format!("{}=:{}:", self.label, STANDARD.encode(signature));
        let input = format!("{}={}", self.label, self.input());
        let uri: Uri = self.canonical.parse().unwrap();
        let mut request = http::Request::builder().method(self.method).uri(uri);
        request = request.header("host", &self.host);
        for (name, value) in &self.headers {
            request = request.header(name, value.as_slice());
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let raw_target = (self.target != self.canonical).then_some(self.target);
        let mut signed = Signed { parts, raw_target, scheme: self.scheme, has_body: self.has_body };
        signed.set("signature-input", &input);
        signed.set("signature", &signature);
        signed
    }
}

/// A request as it arrives.
#[derive(Clone, Debug)]
struct Signed {
    parts: Parts,
    raw_target: Option<String>,
    scheme: &'static str,
    has_body: bool,
}

impl Signed {
    fn set(&mut self, name: &str, value: &str) {
        let name: HeaderName = name.parse().unwrap();
        self.parts.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }

    fn get(&self, name: &str) -> String {
        self.parts.headers[name].to_str().unwrap().to_owned()
    }

    /// The two fields changed after signing.
    fn fields(mut self, edit: impl Fn(String, String) -> (String, String)) -> Self {
        let (input, signature) = edit(self.get("signature-input"), self.get("signature"));
        self.set("signature-input", &input);
        self.set("signature", &signature);
        self
    }

    fn input(self, edit: impl Fn(String) -> String) -> Self {
        self.fields(|input, signature| (edit(input), signature))
    }

    fn signature(self, edit: impl Fn(String) -> String) -> Self {
        self.fields(|input, signature| (input, edit(signature)))
    }

    fn append(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.parts.headers.append(name, value.parse().unwrap());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.parts.headers.remove(name).unwrap();
        self
    }

    fn edit(mut self, edit: impl Fn(&mut Parts)) -> Self {
        edit(&mut self.parts);
        self
    }

    fn verdict(&self, method: &Signature) -> Result<Option<Accepted>, Refused> {
        let presented = Presented {
            raw_target: self.raw_target.as_deref(),
            scheme: self.scheme,
            has_body: self.has_body,
            ..Presented::bare(&self.parts)
        };
        let now = Duration::from_secs(NOW);
        method.authenticate(&presented, Now { monotonic: now, unix: now })
    }

    #[track_caller]
    fn assert_accepted(&self, method: &Signature) -> Accepted {
        match self.verdict(method) {
            Ok(Some(accepted)) => accepted,
            other => panic!("{other:?} for {:?}", self.parts.headers),
        }
    }

    fn reason(&self, method: &Signature) -> Result<bool, Reason> {
        self.verdict(method).map(|it| it.is_some()).map_err(|it| it.reason)
    }
}
