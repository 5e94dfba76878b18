//! The signature base (RFC 9421 section 2.5): one line a component, exactly as the client sent it.
//! The target is the raw one; what is routed and authorised is made from the same bytes, so a
//! signature cannot be of one path and the request for another.
use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header};
use sfv::{Dictionary, FieldType, KeyRef, Parser, Version};

use super::{
    component::Component,
    field::{Fault, Input},
};
use crate::{auth::Presented, value::query::decode_bytes};

/// Bytes of a field of which one member is covered: it is read once for each.
const LONGEST_DICTIONARY: usize = 4096;

/// The bytes that are signed.
///
/// # Errors
/// A component that is not there, or that has no single value.
pub fn signature_base(input: &Input<'_>, presented: &Presented<'_>) -> Result<String, Fault> {
    let message = Message::new(presented);
    let mut base = String::with_capacity(512);
    for component in &input.components {
        // Writing to a string does not fail.
        let _ = write!(base, "{component}: ");
        message.write(component, &mut base)?;
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    input.write_params(&mut base);
    Ok(base)
}

/// A request as its components see it.
struct Message<'a> {
    presented: &'a Presented<'a>,
    /// Origin-form (RFC 9112 section 3.2.1), or `*`.
    target: &'a str,
}

impl<'a> Message<'a> {
    fn new(presented: &'a Presented<'a>) -> Self {
        let uri = &presented.request.uri;
        let target = uri.path_and_query().map_or(uri.path(), http::uri::PathAndQuery::as_str);
        Self { presented, target: presented.raw_target.unwrap_or(target) }
    }

    fn write(&self, component: &Component, base: &mut String) -> Result<(), Fault> {
        match component {
            Component::Method => base.push_str(self.presented.request.method.as_str()),
            Component::TargetUri => {
                let (authority, target) = (self.authority()?, self.origin_form()?);
                let _ = write!(base, "{}://{authority}{target}", self.presented.scheme);
            }
            Component::Authority => base.push_str(&self.authority()?),
            Component::Scheme => base.push_str(self.presented.scheme),
            Component::RequestTarget => base.push_str(self.target),
            Component::Path => base.push_str(self.path_and_query()?.0),
            Component::Query => {
                base.push('?');
                base.push_str(self.path_and_query()?.1);
            }
            Component::QueryParam(name) => {
                let value = query_param(self.path_and_query()?.1, name)?;
                let _ = write!(base, "{value}");
            }
            Component::Field(name) => self.field(name, base)?,
            Component::Bytes(name) => self.bytes(name, base)?,
            Component::Member(name, key) => base.push_str(&self.member(name, key)?),
        }
        Ok(())
    }

    /// In lower case and without the scheme's own port (RFC 9110 section 4.2.3).
    fn authority(&self) -> Result<Cow<'a, str>, Fault> {
        let request = self.presented.request;
        let named = request.uri.authority().map(http::uri::Authority::as_str);
        let host = request.headers.get(header::HOST).and_then(|it| it.to_str().ok());
        let authority = named.or(host).ok_or(Fault("the request names no host"))?;
        let port = if self.presented.scheme == "https" { ":443" } else { ":80" };
        let authority = authority.strip_suffix(port).unwrap_or(authority);
        Ok(if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(authority.to_ascii_lowercase())
        } else {
            Cow::Borrowed(authority)
        })
    }

    fn origin_form(&self) -> Result<&'a str, Fault> {
        if self.target.starts_with('/') { Ok(self.target) } else { Err(Fault("`*` has no path")) }
    }

    /// The query is empty where there is none (section 2.2.7).
    fn path_and_query(&self) -> Result<(&'a str, &'a str), Fault> {
        let target = self.origin_form()?;
        Ok(target.split_once('?').unwrap_or((target, "")))
    }

    /// Section 2.1: the lines of the field, trimmed, as one.
    fn field(&self, name: &HeaderName, base: &mut String) -> Result<(), Fault> {
        self.lines(name, base, |line, base| {
            let line = line.to_str().map_err(|_| Fault("a covered field is not ASCII"))?;
            base.push_str(line.trim_matches([' ', '\t']));
            Ok(())
        })
    }

    /// Section 2.1.3.
    fn bytes(&self, name: &HeaderName, base: &mut String) -> Result<(), Fault> {
        self.lines(name, base, |line, base| {
            base.push(':');
            STANDARD.encode_string(line.as_bytes().trim_ascii(), base);
            base.push(':');
            Ok(())
        })
    }

    fn lines(
        &self,
        name: &HeaderName,
        base: &mut String,
        mut write: impl FnMut(&HeaderValue, &mut String) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut is_first = true;
        for line in self.presented.headers().get_all(name) {
            if !std::mem::replace(&mut is_first, false) {
                base.push_str(", ");
            }
            write(line, base)?;
        }
        if is_first { Err(Fault("a covered field is not there")) } else { Ok(()) }
    }

    /// Section 2.1.2.
    fn member(&self, name: &HeaderName, key: &str) -> Result<String, Fault> {
        let mut value = String::new();
        self.field(name, &mut value)?;
        if value.len() > LONGEST_DICTIONARY {
            return Err(Fault("a field is too long to cover a member of it"));
        }
        let parser = Parser::new(&value).with_version(Version::Rfc8941);
        let mut members: Dictionary =
            parser.parse().map_err(|_| Fault("a field with `key` is not a dictionary"))?;
        let key = KeyRef::from_str(key).map_err(|_| Fault("not a key"))?;
        let member = members.swap_remove(key).ok_or(Fault("a covered member is not there"))?;
        vec![member].serialize().ok_or(Fault("a covered member is empty"))
    }
}

/// The value of the one parameter of this name, encoded (section 2.2.8).
fn query_param<'a>(query: &'a str, name: &str) -> Result<Encoded<Cow<'a, [u8]>>, Fault> {
    let wanted = decode_bytes(name);
    let mut values = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_bytes(name) == wanted).then_some(value)
    });
    let value = values.next().ok_or(Fault("a covered parameter of the query is not there"))?;
    if values.next().is_some() {
        return Err(Fault("a covered parameter of the query is there twice"));
    }
    let value = decode_bytes(value);
    // Read as text, every invalid byte would be the same replacement character.
    std::str::from_utf8(&value).map_err(|_| Fault("a parameter of the query is not UTF-8"))?;
    Ok(Encoded(value))
}

/// As RFC 9421 section 2.2.8 encodes names and values: all but letters, digits and `*-._`.
pub(super) fn encode(decoded: &[u8]) -> String {
    Encoded(decoded).to_string()
}

struct Encoded<T>(T);

impl<T: AsRef<[u8]>> fmt::Display for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.as_ref() {
            if byte.is_ascii_alphanumeric() || b"*-._".contains(byte) {
                f.write_char(char::from(*byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}
