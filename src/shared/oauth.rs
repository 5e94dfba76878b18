//! How we show an authorization server who we are (RFC 6749 section 2.3.1), and forms as it reads them.
//! Not the questions themselves.
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use super::http_client::{Request, Url};
use crate::{content::form, value::secret::Secret};

/// The longest id or secret.
const LONGEST: usize = 4096;

/// Where the client's secret stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    ClientSecretBasic,
    ClientSecretPost,
}

/// Us, as a client that is registered with an authorization server.
#[derive(Clone, Debug)]
pub struct Client {
    id: String,
    secret: Secret<String>,
    /// The value of `Authorization`; none where the secret stands in the form.
    basic: Option<HeaderValue>,
}

impl Client {
    /// # Errors
    /// `id` or `secret` is empty or longer than 4 KiB.
    pub fn new(id: &str, secret: Secret<String>, method: AuthMethod) -> Result<Self, String> {
        if [id, secret.expose()].iter().any(|it| !(1..=LONGEST).contains(&it.len())) {
            return Err(format!("the id and the secret have 1 to {LONGEST} bytes each"));
        }
        let basic = match method {
            AuthMethod::ClientSecretPost => None,
            AuthMethod::ClientSecretBasic => {
                let pair = format!("{}:{}", encode(id), encode(secret.expose()));
                let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
                    .map_err(|why| why.to_string())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { id: id.to_owned(), secret, basic })
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A POST of `fields` that says who asks. The answer is to be JSON; bounds as [`Request::get`].
    #[must_use]
    pub fn post(&self, url: Url, fields: &[(&str, &str)]) -> Request {
        let mut headers = HeaderMap::new();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let mut body = form_of(fields);
        match &self.basic {
            Some(basic) => drop(headers.insert(header::AUTHORIZATION, basic.clone())),
            None => {
                let own = [("client_id", &*self.id), ("client_secret", self.secret.expose())];
                let separator = if body.is_empty() { "" } else { "&" };
                body = format!("{body}{separator}{}", form_of(&own));
            }
        }
        Request { method: Method::POST, headers, body: Bytes::from(body), ..Request::get(url) }
    }
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
fn form_of(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{}={}", encode(name), encode(value));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    form::encode(&mut encoded, text);
    encoded
}

/// Whether an answer says that it is JSON, with whatever parameters.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (lines.next(), lines.next()) else { return false };
    let kind = only.as_bytes().split(|it| *it == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(method: AuthMethod) -> Client {
        Client::new("a b", Secret::new("s:ä&+".to_owned()), method).unwrap()
    }

    #[test]
    fn a_client_shows_its_secret_in_one_place() {
        let url = Url::parse("https://id.test/token").unwrap();
        let fields = [("token", "t/+="), ("hint", "é ~")];
        let request = client(AuthMethod::ClientSecretBasic).post(url.clone(), &fields);
        let encoded = STANDARD.encode("a+b:s%3A%C3%A4%26%2B");
        assert_eq!(request.headers["authorization"], format!("Basic {encoded}"));
        assert_eq!(request.body, "token=t%2F%2B%3D&hint=%C3%A9+%7E");
        let request = client(AuthMethod::ClientSecretPost).post(url.clone(), &fields);
        assert!(!request.headers.contains_key("authorization"));
        let own = "client_id=a+b&client_secret=s%3A%C3%A4%26%2B";
        assert_eq!(request.body, format!("token=t%2F%2B%3D&hint=%C3%A9+%7E&{own}"));
        assert_eq!(client(AuthMethod::ClientSecretPost).post(url, &[]).body, own);
    }

    #[test]
    fn nothing_prints_the_secret() {
        for method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost] {
            let client = client(method);
            let request = client.post(Url::parse("https://id.test/").unwrap(), &[("token", "xyz")]);
            let printed = format!("{client:?} {request:?}");
            for secret in ["s:ä", "s%3A", "xyz", &STANDARD.encode("a+b:s%3A%C3%A4%26%2B")] {
                assert!(!printed.contains(secret), "{printed}");
            }
        }
    }

    #[test]
    fn json_is_known_by_its_type() {
        let check = |lines: &[&'static str], expected: bool| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(line));
            }
            assert_eq!(is_json(&headers), expected, "{lines:?}");
        };
        check(&["application/json"], true);
        check(&["Application/JSON; charset=utf-8"], true);
        check(&["application/token-introspection+jwt"], false);
        check(&["application/jsonp"], false);
        check(&["text/html"], false);
        check(&["application/json", "text/html"], false);
        check(&[], false);
    }
}
