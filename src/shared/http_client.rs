//! The client for third parties that the configuration names (identity providers, verifiers). Everything
//! is bounded: time, size of the answer, no redirects, no proxy from the environment, https unless
//! loopback. Upstreams of routes are Pingora's, not this one's.
use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

pub use reqwest::Url;

/// An absolute URL to a third party.
///
/// # Errors
/// It is not one, has user information or a fragment, or speaks plain http to another machine.
pub fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|why| format!("`{text}` is not a URL: {why}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have no user information and no fragment".to_owned());
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err("must be https: plain http is for loopback only".to_owned()),
        other => Err(format!("`{other}` is not https")),
    }
}

/// One request to a third party.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From the start to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the answer's body at most.
    pub most_bytes: usize,
}

/// Without headers and body: secrets stand in both.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.method, self.url.host_str().unwrap_or_default())
    }
}

impl Request {
    /// A GET without headers, 5 s, at most 1 MiB.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
            most_bytes: 1 << 20,
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer. Never holds a header or a body of the request.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("{0}")]
    Failed(String),
}

/// Shared by all; keeps connections open between requests.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

impl Client {
    /// Trusts the system's certificates; a system without any can reach loopback only.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new() -> Result<Self, String> {
        Self::trusting(&[])
    }

    /// The same, which trusts these authorities too.
    ///
    /// # Errors
    /// One of them is none, or as `new`.
    pub fn trusting(authorities: &[CertificateDer<'static>]) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        // A system without certificates is fine until somebody is asked over https; the handshake
        // then says why.
        let _ = pingora::tls::load_platform_certs_incl_env_into_store(&mut roots);
        for authority in authorities {
            roots.add(authority.clone()).map_err(|why| why.to_string())?;
        }
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map(Self).map_err(|why| why.to_string())
    }

    /// The answer, whatever its status; redirects are not followed.
    ///
    /// # Errors
    /// There is no whole answer within the bounds.
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let Request { method, url, headers, body, timeout, most_bytes } = request;
        let sent = self.0.request(method, url).headers(headers).body(body).send();
        let exchange = async {
            let mut response = sent.await.map_err(|why| failed(&why))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut body = BytesMut::new();
            while let Some(chunk) = response.chunk().await.map_err(|why| failed(&why))? {
                if body.len() + chunk.len() > most_bytes {
                    return Err(Failure::TooLarge(most_bytes));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer { status, headers, body: body.freeze() })
        };
        let answer = tokio::time::timeout(timeout, exchange).await;
        answer.unwrap_or(Err(Failure::Timeout(timeout)))
    }

    /// As [`Self::send`], for a request that may be carried out twice: once more where the exchange broke
    /// off, since a connection that was kept open may have been closed at the same moment. Both together
    /// take no longer than `timeout`.
    ///
    /// # Errors
    /// There is no whole answer within the bounds.
    pub async fn ask(&self, mut request: Request) -> Result<Answer, Failure> {
        let whole = request.timeout;
        let began = tokio::time::Instant::now();
        match self.send(request.clone()).await {
            Err(Failure::Failed(_)) => {
                request.timeout = whole.saturating_sub(began.elapsed());
                let again = self.send(request).await;
                again.map_err(|why| match why {
                    Failure::Timeout(_) => Failure::Timeout(whole),
                    other => other,
                })
            }
            other => other,
        }
    }
}

/// The innermost reason: the outer ones repeat the URL, whose query may hold something secret.
fn failed(error: &reqwest::Error) -> Failure {
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    Failure::Failed(match reason.downcast_ref::<reqwest::Error>() {
        Some(_) => "the exchange failed".to_owned(),
        None => reason.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_in_clear() {
        let check =
            |text: &str, is_fine: bool| assert_eq!(endpoint(text).is_ok(), is_fine, "{text}");
        check("https://id.example.com/token", true);
        check("http://127.0.0.1:9000/verify", true);
        check("http://[::1]/", true);
        check("http://localhost:1/", true);
        check("http://id.example.com/", false);
        check("http://127.0.0.1.evil.test/", false);
        check("https://user:word@id.example.com/", false);
        check("https://id.example.com/#a", false);
        check("ftp://127.0.0.1/", false);
        check("/relative", false);
    }
}
