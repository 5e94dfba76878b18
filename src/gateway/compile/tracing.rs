//! `telemetry.tracing`.
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::words::choice_or;
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::tracing::{Collector, Tracing},
    shared::http_client::{self, Url},
    telemetry::tracing::Sampler,
};

/// Of a hundred requests one.
const SHARE: u32 = Sampler::WHOLE / 100;
const SERVICE: &str = "tollgate";

pub(super) fn compile(
    raw: Option<&raw::Tracing>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Arc<Tracing>> {
    let raw = raw?;
    let share = raw
        .sample
        .as_ref()
        .map_or(Some(SHARE), |Word(text)| problems.keep(&at.key("sample"), share(text)));
    let follows_anybody = choice_or(
        raw.parent.as_ref(),
        false,
        &[("trusted", false), ("any", true)],
        &at.key("parent"),
        problems,
    );
    let headers = headers(raw, &at.key("headers"), problems);
    let service = raw.service.as_ref().map_or(SERVICE, |Word(text)| text.as_str());
    if service.is_empty() || service.len() > 255 || service.contains(char::is_control) {
        problems.add(&at.key("service"), "is a name of 1 to 255 characters");
    }
    let Some(Word(text)) = &raw.otlp else {
        problems.add(at, "`otlp` is missing: the collector, such as http://127.0.0.1:4318");
        return None;
    };
    let url = problems.keep(&at.key("otlp"), url(text, !headers.is_empty()))?;
    let sampler = Sampler { share: share?, follows_anybody };
    let collector = Collector { url, headers, service: service.to_owned() };
    Some(Arc::new(Tracing { sampler, collector }))
}

/// Where OTLP over HTTP has its traces below the address of a collector; one that ends so is that.
fn url(text: &str, has_headers: bool) -> Result<Url, String> {
    const PATH: &str = "/v1/traces";
    let mut url = Url::parse(text).map_err(|why| format!("`{text}` is not a URL: {why}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("is a URL such as http://127.0.0.1:4318: OTLP over HTTP".to_owned());
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.query().is_some() || url.fragment().is_some() {
        return Err("has no user, no query and no fragment: secrets go into `headers`".to_owned());
    }
    if has_headers {
        http_client::endpoint(text).map_err(|why| format!("`headers` may be secret: {why}"))?;
    }
    if !url.path().ends_with(PATH) {
        let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(url)
}

/// `0.01`: a part of one, with at most nine decimals.
fn share(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{}` is not a number from 0 to 1 such as 0.01", text.escape_debug());
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    if !is_digits(whole) || !is_digits(decimals) || decimals.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let decimals: u64 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
    let parts = whole.saturating_mul(u64::from(Sampler::WHOLE)).saturating_add(decimals);
    u32::try_from(parts).ok().filter(|it| *it <= Sampler::WHOLE).ok_or_else(wrong)
}

fn headers(raw: &raw::Tracing, at: &Path, problems: &mut Problems) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, Word(value)) in raw.headers.iter().flatten() {
        let at = at.key(name);
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| format!("`{}` is not a header name", name.escape_debug()));
        let own = ["content-type", "content-length", "host", "transfer-encoding", "connection"];
        let parsed = parsed.and_then(|it| match own.contains(&it.as_str()) {
            true => Err(format!("`{it}` is set by the gateway")),
            false => Ok(it),
        });
        let value =
            HeaderValue::from_str(value).map_err(|_| "is not the value of a header".to_owned());
        if let (Some(name), Some(mut value)) =
            (problems.keep(&at, parsed), problems.keep(&at, value))
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_one() {
        let check = |text: &str, expected| assert_eq!(share(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("1", Some(Sampler::WHOLE));
        check("1.0", Some(Sampler::WHOLE));
        check("0.01", Some(10_000_000));
        check("0.000000001", Some(1));
        check("1.000000001", None);
        check("0.0000000001", None);
        check("2", None);
        check("-1", None);
        check("1e-3", None);
        check("10%", None);
        check(".5", None);
        check("", None);
        check("99999999999999999999", None);
    }

    #[test]
    fn a_collector_is_named_with_or_without_its_path() {
        let check = |text: &str, has_headers, expected: Option<&str>| {
            let url = url(text, has_headers).ok();
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{text}");
        };
        check("http://127.0.0.1:4318", false, Some("http://127.0.0.1:4318/v1/traces"));
        check("http://collector:4318/", false, Some("http://collector:4318/v1/traces"));
        check("https://a.test/otlp", true, Some("https://a.test/otlp/v1/traces"));
        check("https://a.test/otlp/v1/traces", true, Some("https://a.test/otlp/v1/traces"));
        check("http://collector:4318", true, None);
        check("http://127.0.0.1:4318", true, Some("http://127.0.0.1:4318/v1/traces"));
        check("grpc://a.test", false, None);
        check("http://user:word@a.test", false, None);
        check("http://a.test/?key=1", false, None);
        check("a.test:4318", false, None);
    }
}
