//! What the service is sent: a GET with the head of the request. Never its body.
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Config;
use crate::{auth::Presented, flow::reserved, shared::http_client::Request};

/// Bytes of an answer's body at most: it may be a page that the client is to see.
const MOST_ANSWER: usize = 64 << 10;

/// Headers of one connection or of the body (RFC 9110 section 7.6.1), and the host, which the service
/// has in `X-Forwarded-Host`. Without `Accept-Encoding` its answer comes as it is.
const NEVER: [HeaderName; 19] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a header of the client's is never sent along: of the connection or of the body, or one that
/// only we may set.
#[must_use]
pub fn is_never_sent(name: &HeaderName) -> bool {
    NEVER.contains(name) || reserved::claim(name.as_str()).is_some()
}

/// The question about `presented`.
pub(super) fn request(config: &Config, presented: &Presented<'_>) -> Request {
    let mut headers = HeaderMap::new();
    match &config.request_headers {
        Some(chosen) => {
            for name in chosen {
                for value in presented.headers().get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        None => {
            let of_the_connection = named(presented.headers());
            for (name, value) in presented.headers() {
                let is_hop =
                    of_the_connection.iter().any(|it| it.eq_ignore_ascii_case(name.as_str()));
                if !is_hop && !is_never_sent(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
    }
    forwarded(&mut headers, presented);
    Request {
        headers,
        timeout: config.timeout,
        most_bytes: MOST_ANSWER,
        ..Request::get(config.url.clone())
    }
}

/// The headers that `Connection` names.
fn named(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|it| it.to_str().ok());
    lines.flat_map(|it| it.split(',')).map(str::trim).collect()
}

fn forwarded(headers: &mut HeaderMap, presented: &Presented<'_>) {
    let request = presented.request;
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let host = request.headers.get(header::HOST).and_then(|it| it.to_str().ok());
    let target = request.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let said = [
        ("x-forwarded-method", request.method.as_str()),
        ("x-forwarded-uri", target),
        ("x-forwarded-host", authority.or(host).unwrap_or(presented.host)),
        ("x-forwarded-proto", presented.scheme),
        ("x-forwarded-for", &presented.client.to_canonical().to_string()),
    ];
    for (name, value) in said {
        // Parts of a request that was parsed already are header values too.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
