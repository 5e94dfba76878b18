//! What is said to servers besides what is asked, and what they say of themselves.
use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::{
    leg::Fault,
    speak::{Call, Visit, Voice},
    talk::{self, in_header},
};
use crate::{
    gateway::mcp::Known,
    mcp::{Object, Version, meta, object::quoted, version::Era},
};

pub fn discovered(said: &RawValue) -> Option<Known> {
    let said = Object::read(said.get()).ok()?;
    let versions: Vec<String> = said.get("supportedVersions")?;
    let version = versions.iter().filter_map(|it| Version::named(it)).max()?;
    (version.era() == Era::Modern).then(|| known(version, &said))
}

pub fn initialized(said: &RawValue) -> Option<Known> {
    let said = Object::read(said.get()).ok()?;
    let version = Version::named(&said.text("protocolVersion")?)?;
    (version.era() == Era::Legacy).then(|| known(version, &said))
}

fn known(version: Version, said: &Object<'_>) -> Known {
    let capabilities = said.raw("capabilities").map_or("{}", RawValue::get);
    let instructions = said.text("instructions").filter(|it| it.len() <= 16 << 10);
    Known {
        version,
        capabilities: capabilities.into(),
        instructions: instructions.map(|it| it.into_owned().into()),
        older: None,
    }
}

fn malformed(why: String) -> Fault {
    Fault::malformed(why)
}

/// Each request says who asks, and what that can.
///
/// # Errors
/// They are no object.
pub fn modern_params(params: Option<&str>, voice: &Voice<'_>) -> Result<String, Fault> {
    let params = Object::read(params.unwrap_or("{}")).map_err(malformed)?;
    let said = params.object("_meta").unwrap_or_default();
    let version = quoted(Version::V2026July.word());
    let said = said.with(&[
        (meta::VERSION, Some(&version)),
        (meta::CLIENT, Some(voice.info)),
        (meta::CAPABILITIES, Some(voice.capabilities)),
    ]);
    Ok(params.with(&[("_meta", Some(&said))]))
}

/// Older servers know nothing of it, and are told it when a session begins.
///
/// # Errors
/// They are no object.
pub fn legacy_params(params: &str) -> Result<String, Fault> {
    let params = Object::read(params).map_err(malformed)?;
    let Some(said) = params.object("_meta") else { return Ok(params.with(&[])) };
    let none = None::<&str>;
    let said = said.with(&[
        (meta::VERSION, none),
        (meta::CLIENT, none),
        (meta::CAPABILITIES, none),
        (meta::LOG_LEVEL, none),
    ]);
    let said = Some(said.as_str()).filter(|it| *it != "{}");
    Ok(params.with(&[("_meta", said), ("inputResponses", none), ("requestState", none)]))
}

pub fn trace(voice: &Voice<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(voice.trace.len() + 4);
    headers.extend_from_slice(voice.trace);
    headers
}

pub fn modern_headers(call: &Call<'_>, voice: &Voice<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = trace(voice);
    let version = HeaderValue::from_static(Version::V2026July.word());
    headers.push((talk::VERSION.clone(), version));
    headers.extend(HeaderValue::from_str(call.method).ok().map(|it| (talk::METHOD.clone(), it)));
    let name = call.name.and_then(in_header);
    headers.extend(name.map(|it| (talk::NAME.clone(), it)));
    headers
}

pub fn visit_headers(visit: &Visit, voice: &Voice<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = trace(voice);
    let version = HeaderValue::from_static(visit.version.word());
    headers.push((talk::VERSION.clone(), version));
    let session = visit.session.as_deref().and_then(|it| HeaderValue::from_str(it).ok());
    headers.extend(session.map(|it| (talk::SESSION.clone(), it)));
    headers
}
