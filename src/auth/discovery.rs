//! An issuer's metadata: OpenID Connect Discovery 1.0, and RFC 8414 where the issuer has only that.
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::json;
use crate::shared::http_client::{self, Client, Request, Url};

/// What an issuer says of itself; its `issuer` is the one that was asked for.
#[derive(Clone, Debug)]
pub struct Metadata {
    issuer: Url,
    members: Map<String, Value>,
}

impl Metadata {
    /// # Errors
    /// It is not such a document, or another issuer's.
    pub fn parse(text: &[u8], issuer: &str) -> Result<Self, String> {
        let members = json::object(text).map_err(|why| format!("the metadata is {why}"))?;
        // Letter by letter (RFC 8414 section 3.3): one issuer must not speak for another.
        if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(format!("the metadata is not of the issuer {issuer}"));
        }
        Ok(Self { issuer: http_client::endpoint(issuer)?, members })
    }

    /// Where its keys are.
    ///
    /// # Errors
    /// As of [`Self::endpoint`].
    pub fn jwks_uri(&self) -> Result<Url, String> {
        self.endpoint("jwks_uri")
    }

    /// The URL in the member `name`, such as `token_endpoint`.
    ///
    /// # Errors
    /// It is missing, not https, or on this machine although the issuer is not.
    pub fn endpoint(&self, name: &str) -> Result<Url, String> {
        let text = self.members.get(name).and_then(Value::as_str);
        let text = text.ok_or_else(|| format!("the metadata has no `{name}`"))?;
        let url = http_client::endpoint(text).map_err(|why| format!("`{name}`: {why}"))?;
        if is_loopback(&url) && !is_loopback(&self.issuer) {
            return Err(format!("`{name}` is on this machine, and the issuer is not"));
        }
        Ok(url)
    }

    /// Any other member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where the metadata of an issuer may be, the likelier first. OpenID Connect appends to the path of the
/// issuer, RFC 8414 section 3 puts itself between host and path.
///
/// # Errors
/// `issuer` is not an https URL without query and fragment.
pub fn urls(issuer: &str) -> Result<[Url; 2], String> {
    let url = http_client::endpoint(issuer)?;
    if url.query().is_some() {
        return Err("an issuer has no query".to_owned());
    }
    let path = url.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = url.clone();
        url.set_path(&path);
        url
    };
    Ok([
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ])
}

/// Asks at the first place, and at the second if there is nothing at the first.
///
/// # Errors
/// There is no good document of this issuer.
pub async fn fetch(client: &Client, issuer: &str) -> Result<Metadata, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let mut status = StatusCode::NOT_FOUND;
    for url in urls(issuer)? {
        let request = Request { headers: headers.clone(), ..Request::get(url) };
        let answer = client.send(request).await.map_err(|why| format!("the metadata: {why}"))?;
        status = answer.status;
        match status {
            StatusCode::OK => return Metadata::parse(&answer.body, issuer),
            StatusCode::NOT_FOUND => {}
            _ => break,
        }
    }
    Err(format!("the metadata: the answer has the status {}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_asked_for_where_it_may_be() {
        let check = |issuer: &str, expected: Result<[&str; 2], &str>| {
            let found = urls(issuer).map(|urls| urls.map(|it| it.to_string()));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (found, _) => panic!("{issuer}: {found:?}"),
            }
        };
        let host = "https://id.test/.well-known";
        check(
            "https://id.test",
            Ok([
                &format!("{host}/openid-configuration"),
                &format!("{host}/oauth-authorization-server"),
            ]),
        );
        check(
            "https://id.test/tenant/",
            Ok([
                "https://id.test/tenant/.well-known/openid-configuration",
                &format!("{host}/oauth-authorization-server/tenant"),
            ]),
        );
        check("http://id.test/", Err("https"));
        check("https://id.test/?a=b", Err("query"));
        check("id.test", Err("not a URL"));
    }

    #[test]
    fn an_issuer_speaks_for_itself_only() {
        let check = |issuer: &str, text: &str, expected: Result<&str, &str>| {
            let found = Metadata::parse(text.as_bytes(), issuer).and_then(|it| it.jwks_uri());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_str(), expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        let id = "https://id.test";
        let keys = "\"jwks_uri\":\"https://keys.test/a\"";
        check(id, &format!("{{\"issuer\":\"{id}\",{keys}}}"), Ok("https://keys.test/a"));
        check(id, &format!("{{\"issuer\":\"{id}/\",{keys}}}"), Err("not of the issuer"));
        check(
            id,
            &format!("{{\"issuer\":\"https://evil.test\",{keys}}}"),
            Err("not of the issuer"),
        );
        check(id, &format!("{{\"issuer\":[\"{id}\"],{keys}}}"), Err("not of the issuer"));
        check(id, &format!("{{{keys}}}"), Err("not of the issuer"));
        check(id, &format!("{{\"issuer\":\"x\",\"issuer\":\"{id}\",{keys}}}"), Err("stands twice"));
        check(id, &format!("{{\"issuer\":\"{id}\"}}"), Err("no `jwks_uri`"));
        let with = |uri: &str| format!("{{\"issuer\":\"{id}\",\"jwks_uri\":\"{uri}\"}}");
        check(id, &with("http://keys.test/a"), Err("https"));
        check(id, &with("http://127.0.0.1:8500/a"), Err("on this machine"));
        check(id, &with("https://localhost/a"), Err("on this machine"));
        check(id, &with("file:///etc/passwd"), Err("`file` is not https"));
        check(id, "<html>", Err("not JSON"));
        let here = "http://127.0.0.1:9000";
        let text = format!("{{\"issuer\":\"{here}\",\"jwks_uri\":\"{here}/keys\"}}");
        check(here, &text, Ok("http://127.0.0.1:9000/keys"));
    }
}
