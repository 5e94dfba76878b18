//! One message of a client: which era it speaks, in which session, and whether its headers say what its
//! body says. Nothing is decided by a header that the body could contradict.
use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use crate::{
    gateway::mcp::Hub,
    mcp::{
        Error, Message, Object, Version,
        error::Code,
        meta,
        sealed::{self, Owner, Session},
        version::Era,
    },
};

pub static VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
pub static TRACE: [HeaderName; 2] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// What a client can that a server may make use of, as bits: servers may offer other things by it.
const CAPABILITIES: [(&str, u8); 3] = [("elicitation", 1), ("sampling", 2), ("roots", 4)];

/// In which terms a client speaks.
pub struct Talk {
    pub era: Era,
    pub version: Version,
    /// Of the legacy era; none in `initialize`.
    pub session: Option<Session>,
    /// What the client can, as JSON.
    pub capabilities: String,
    pub bits: u8,
    /// Who the client says it is, as JSON.
    pub info: String,
    /// Its trace, for the servers to go on with.
    pub trace: Vec<(HeaderName, HeaderValue)>,
}

impl Talk {
    /// # Errors
    /// What the client is told.
    pub fn read(
        message: &Message<'_>,
        headers: &HeaderMap,
        hub: &Hub,
        owner: Owner<'_>,
        now: u64,
        is_ended: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let header = single(headers, &VERSION)?;
        let params = match message {
            Message::Request { params, .. } | Message::Notification { params, .. } => *params,
            Message::Response { .. } => None,
        };
        let params = params.map(|it| Object::read(it.get())).transpose();
        let params = params.map_err(|why| Error::params(format!("`params`: {why}")))?;
        let said = params.as_ref().and_then(|it| it.object("_meta"));
        let claimed = said.as_ref().and_then(|it| it.raw(meta::VERSION));
        let is_modern_header =
            header.is_some_and(|it| Version::named(it).is_some_and(|it| it.era() == Era::Modern));
        let mut talk = match message {
            Message::Request { method, .. } if claimed.is_some() || is_modern_header => {
                modern(method, params.as_ref(), said.as_ref(), headers)?
            }
            Message::Notification { .. } if claimed.is_some() || is_modern_header => {
                Self::new(Version::V2026July, "{}", "{}")
            }
            Message::Response { .. } if is_modern_header => {
                let why = "clients send no responses in this version";
                return Err(Error::new(Code::InvalidRequest, why));
            }
            Message::Request { method, .. } if method == "initialize" => {
                initialize(params.as_ref(), header)?
            }
            _ => legacy(headers, header, hub, owner, now, is_ended)?,
        };
        let trace = TRACE.iter();
        talk.trace = trace.filter_map(|it| Some((it.clone(), headers.get(it)?.clone()))).collect();
        Ok(talk)
    }

    /// The same for a request without a body: those are of sessions.
    ///
    /// # Errors
    /// What the client is told.
    pub fn of_session(
        headers: &HeaderMap,
        hub: &Hub,
        owner: Owner<'_>,
        now: u64,
        is_ended: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let header = single(headers, &VERSION)?;
        if header.and_then(Version::named).is_some_and(|it| it.era() == Era::Modern) {
            let why = "this version has no sessions: POST each request";
            return Err(Error::new(Code::InvalidRequest, why).status(405));
        }
        legacy(headers, header, hub, owner, now, is_ended)
    }

    pub fn new(version: Version, capabilities: &str, info: &str) -> Self {
        let bits = match Object::read(capabilities) {
            Ok(object) => CAPABILITIES
                .iter()
                .filter(|it| object.raw(it.0).is_some())
                .fold(0, |all, it| all | it.1),
            Err(_) => 0,
        };
        // What a server lists may differ by the version that it is asked in.
        let bits = if version.era() == Era::Legacy { bits | 8 } else { bits };
        Self {
            era: version.era(),
            version,
            session: None,
            capabilities: capabilities.to_owned(),
            bits,
            info: info.to_owned(),
            trace: Vec::new(),
        }
    }
}

/// A header that may stand once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Error> {
    let mut lines = headers.get_all(name).iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        let why = format!("the header {name} stands twice");
        return Err(Error::new(Code::HeaderMismatch, why).status(400));
    }
    let text = first.map(|it| it.to_str().map_err(|_| ())).transpose();
    text.map_err(|()| {
        Error::new(Code::HeaderMismatch, format!("the header {name} is not ASCII")).status(400)
    })
}

fn modern(
    method: &str,
    params: Option<&Object<'_>>,
    said: Option<&Object<'_>>,
    headers: &HeaderMap,
) -> Result<Talk, Error> {
    let lacks = |what: &str| {
        Error::params(format!("`_meta` lacks `{what}`, which each request needs")).status(400)
    };
    let said = said.ok_or_else(|| lacks(meta::VERSION))?;
    let claimed = said.text(meta::VERSION).ok_or_else(|| lacks(meta::VERSION))?;
    let mismatch = |name: &HeaderName| {
        let why = format!("the header {name} does not say what the body says");
        Error::new(Code::HeaderMismatch, why)
    };
    if single(headers, &VERSION)? != Some(&*claimed) {
        return Err(mismatch(&VERSION));
    }
    let version = Version::named(&claimed).filter(|it| it.era() == Era::Modern);
    let version = version.ok_or_else(|| Error::version(&claimed))?;
    let can = said.raw(meta::CAPABILITIES).filter(|it| it.get().starts_with('{'));
    let can = can.ok_or_else(|| lacks(meta::CAPABILITIES))?;
    if single(headers, &METHOD)? != Some(method) {
        return Err(mismatch(&METHOD));
    }
    if let Some(key) = named_by(method) {
        let name = params.and_then(|it| it.text(key));
        let header = single(headers, &NAME)?.map(plain).transpose()?;
        if name.is_some() && header != name {
            return Err(mismatch(&NAME));
        }
    }
    let info = said.raw(meta::CLIENT).map(RawValue::get);
    Ok(Talk::new(version, &Session::bounded(Some(can.get())), &Session::bounded(info)))
}

/// The member of `params` that `Mcp-Name` repeats.
#[must_use]
pub fn named_by(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        _ => None,
    }
}

const SENTINEL: (&str, &str) = ("=?base64?", "?=");

/// What a header says that may be in Base64.
fn plain(value: &str) -> Result<Cow<'_, str>, Error> {
    let inside = value.strip_prefix(SENTINEL.0).and_then(|it| it.strip_suffix(SENTINEL.1));
    let Some(inside) = inside else { return Ok(Cow::Borrowed(value)) };
    let decoded = STANDARD.decode(inside).ok().and_then(|it| String::from_utf8(it).ok());
    decoded.map(Cow::Owned).ok_or_else(|| {
        Error::new(Code::HeaderMismatch, "the header mcp-name is no Base64 of a text").status(400)
    })
}

/// A name as it may stand in a header.
#[must_use]
pub fn in_header(name: &str) -> Option<HeaderValue> {
    let is_plain = name.bytes().all(|it| matches!(it, b' '..=b'~'))
        && name.trim() == name
        && !name.starts_with(SENTINEL.0);
    let text = match is_plain {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("{}{}{}", SENTINEL.0, STANDARD.encode(name), SENTINEL.1)),
    };
    HeaderValue::from_str(&text).ok()
}

fn initialize(params: Option<&Object<'_>>, header: Option<&str>) -> Result<Talk, Error> {
    if header.is_some_and(|it| Version::named(it).is_none()) {
        return Err(Error::version(header.unwrap_or_default()).status(400));
    }
    let lacks = |what: &str| Error::params(format!("`initialize` lacks `{what}`"));
    let params = params.ok_or_else(|| lacks("protocolVersion"))?;
    let asked = params.text("protocolVersion").ok_or_else(|| lacks("protocolVersion"))?;
    let can = params.raw("capabilities").filter(|it| it.get().starts_with('{'));
    let can = can.ok_or_else(|| lacks("capabilities"))?;
    let info = params.raw("clientInfo").filter(|it| it.get().starts_with('{'));
    let info = info.ok_or_else(|| lacks("clientInfo"))?;
    let (can, info) = (Session::bounded(Some(can.get())), Session::bounded(Some(info.get())));
    Ok(Talk::new(Version::negotiated(&asked), &can, &info))
}

fn legacy(
    headers: &HeaderMap,
    version: Option<&str>,
    hub: &Hub,
    owner: Owner<'_>,
    now: u64,
    is_ended: impl Fn(&str) -> bool,
) -> Result<Talk, Error> {
    let known = version.map(|it| Version::named(it).ok_or_else(|| Error::version(it)));
    known.transpose().map_err(|it| it.status(400))?;
    let Some(sealed) = single(headers, &SESSION)? else {
        let why = "the header mcp-session-id is missing: begin with `initialize`";
        return Err(Error::new(Code::InvalidRequest, why));
    };
    // One answer for whatever is wrong with it.
    let session = Session::open(&hub.sealer, owner, sealed)
        .filter(|it| now.saturating_sub(it.begun) < sealed::SESSION && !is_ended(&it.nonce));
    let Some(session) = session else {
        let why = "there is no such session: begin anew with `initialize`";
        return Err(Error::new(Code::InvalidRequest, why).status(404));
    };
    let settled = Version::named(&session.version).unwrap_or(Version::V2025March);
    let mut talk = Talk::new(settled, &session.capabilities, &session.info);
    talk.session = Some(session);
    Ok(talk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_header() {
        let check = |name: &str, expected: Option<&str>| {
            let header = in_header(name).unwrap();
            assert_eq!(plain(header.to_str().unwrap()).unwrap(), name);
            if let Some(expected) = expected {
                assert_eq!(header, expected);
            }
        };
        check("search", Some("search"));
        check("file:///a b", Some("file:///a b"));
        check("größe", Some("=?base64?Z3LDtsOfZQ==?="));
        check(" a", None);
        check("a\r\nb", None);
        check("=?base64?x?=", None);
        assert!(plain("=?base64?%%?=").is_err());
    }

    #[test]
    fn what_a_client_can_is_seen() {
        let check = |can: &str, expected| {
            assert_eq!(Talk::new(Version::V2026July, can, "{}").bits, expected, "{can}");
            assert_eq!(Talk::new(Version::V2025June, can, "{}").bits, expected + 8, "{can}");
        };
        check("{}", 0);
        check("{\"elicitation\":{},\"roots\":{}}", 5);
        check("{\"sampling\":null}", 0);
        check("[]", 0);
    }
}
