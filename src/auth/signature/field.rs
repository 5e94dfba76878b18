//! `Signature-Input` and `Signature` (RFC 9421 section 4): two dictionaries of RFC 8941 that agree on
//! their labels. Read strictly and within bounds; what they say is judged by `Signature`.
use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{
    BareItemFromInput, Integer, KeyRef, Parser, StringRef, Version, key_ref,
    visitor::{
        DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor,
    },
};
use smallvec::SmallVec;

use super::component::Component;

/// Bytes of one of the two fields, all its lines together.
const LONGEST: usize = 4096;
const LABELS: usize = 8;
/// Each costs a look through the headers or the query.
const COMPONENTS: usize = 24;

/// What is wrong with a field; says nothing of what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub &'static str);

/// One member of `Signature-Input`.
#[derive(Debug)]
pub struct Input<'a> {
    pub label: &'a KeyRef,
    pub components: Vec<Component>,
    pub parameters: Parameters<'a>,
    /// The first thing that is wrong with it. It matters for the signature that is chosen only:
    /// those of others may use what is refused here.
    fault: Option<Fault>,
}

/// The parameters of a signature (section 2.3), each of its own type.
#[derive(Debug, Default)]
pub struct Parameters<'a> {
    pub created: Option<i64>,
    pub expires: Option<i64>,
    pub nonce: Option<Cow<'a, StringRef>>,
    pub alg: Option<Cow<'a, StringRef>>,
    pub keyid: Option<Cow<'a, StringRef>>,
    pub tag: Option<Cow<'a, StringRef>>,
    /// All of them in the order in which they came, which the signature is over.
    ordered: SmallVec<[(&'a KeyRef, BareItemFromInput<'a>); 6]>,
}

impl<'a> Input<'a> {
    const fn new(label: &'a KeyRef) -> Self {
        let parameters = Parameters {
            created: None,
            expires: None,
            nonce: None,
            alg: None,
            keyid: None,
            tag: None,
            ordered: SmallVec::new_const(),
        };
        Self { label, components: Vec::new(), parameters, fault: None }
    }

    fn blame(&mut self, fault: &'static str) {
        self.fault.get_or_insert(Fault(fault));
    }

    /// The value of `@signature-params` (section 2.3), written anew.
    pub fn write_params(&self, to: &mut String) {
        to.push('(');
        for (index, component) in self.components.iter().enumerate() {
            if index > 0 {
                to.push(' ');
            }
            to.push_str(&component.to_string());
        }
        to.push(')');
        for (key, value) in &self.parameters.ordered {
            to.push(';');
            to.push_str(key.as_str());
            to.push('=');
            let _ = sfv::ItemSerializer::with_buffer(to).bare_item(value).finish();
        }
    }
}

/// Which signature is ours. Without a label and a tag the request must have one signature only.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub label: Option<Box<str>>,
    pub tag: Option<Box<str>>,
}

impl Wanted {
    fn takes(&self, input: &Input<'_>) -> bool {
        let tag = input.parameters.tag.as_ref().map(|it| it.as_str());
        self.label.as_deref().is_none_or(|it| it == input.label.as_str())
            && self.tag.as_deref().is_none_or(|it| tag == Some(it))
    }

    const fn takes_any(&self) -> bool {
        self.label.is_none() && self.tag.is_none()
    }
}

/// Why no signature could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Malformed(Fault),
    /// Several signatures could be meant.
    Ambiguous,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Malformed(fault)
    }
}

impl From<&'static str> for Refused {
    fn from(fault: &'static str) -> Self {
        Self::Malformed(Fault(fault))
    }
}

/// The lines of a field as one value (RFC 9110 section 5.3); `None` without any.
///
/// # Errors
/// They are too long.
pub fn joined<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<Cow<'a, [u8]>>, Fault> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let Some(first) = lines.next() else { return Ok(None) };
    let mut whole = Cow::Borrowed(first);
    for line in lines {
        let whole = whole.to_mut();
        whole.extend_from_slice(b", ");
        whole.extend_from_slice(line);
    }
    if whole.len() > LONGEST {
        return Err(Fault("a field is too long"));
    }
    Ok(Some(whole))
}

/// The signature that is ours, with its bytes; `None` if all are somebody else's.
///
/// # Errors
/// The fields cannot be read, or do not agree, or more than one signature could be meant.
pub fn choose<'a>(
    input: &'a [u8],
    signature: &[u8],
    wanted: &Wanted,
) -> Result<Option<(Input<'a>, Vec<u8>)>, Refused> {
    let mut inputs = parse(input, Inputs::default())?;
    let mut signatures = byte_sequences(signature)?;
    if wanted.takes_any() && (inputs.len() > 1 || signatures.len() > 1) {
        return Err(Refused::Ambiguous);
    }
    inputs.retain(|it| wanted.takes(it));
    let Some(input) = inputs.pop() else {
        return if wanted.takes_any() { Err("no signature is described".into()) } else { Ok(None) };
    };
    if !inputs.is_empty() {
        return Err(Refused::Ambiguous);
    }
    if let Some(fault) = input.fault {
        return Err(fault.into());
    }
    signatures.retain(|(label, _)| *label == input.label);
    let bytes = signatures.pop().ok_or("the two fields have no label in common")?.1;
    let bytes = bytes.ok_or("a signature is not a byte sequence")?;
    if !is_canonical(signature, input.label, &bytes) {
        return Err("a signature is not in canonical base64".into());
    }
    Ok(Some((input, bytes)))
}

/// The parser takes base64 without padding and with stray bits, so that one signature could be
/// written in several ways.
fn is_canonical(field: &[u8], label: &KeyRef, bytes: &[u8]) -> bool {
    let mut written = format!("{}=", label.as_str());
    let _ = sfv::ItemSerializer::with_buffer(&mut written).bare_item(bytes).finish();
    memchr::memmem::find(field, written.as_bytes()).is_some()
}

/// A dictionary of byte sequences: `Signature`, `Content-Digest`.
///
/// # Errors
/// It is no dictionary, has too many members, or one twice.
pub fn byte_sequences(field: &[u8]) -> Result<Members<'_>, Fault> {
    parse(field, ByteSequences::default())
}

fn parse<'a, V>(field: &'a [u8], visitor: V) -> Result<V::Out, Fault>
where
    V: DictionaryVisitor<'a>,
{
    Parser::new(field)
        .with_version(Version::Rfc8941)
        .parse_dictionary_with_visitor(visitor)
        .map_err(|_| Fault("a field is not a dictionary of RFC 8941, or has more than its bounds"))
}

#[derive(Default)]
struct Inputs<'a>(Vec<Input<'a>>);

impl<'a> DictionaryVisitor<'a> for Inputs<'a> {
    type Out = Vec<Input<'a>>;
    type Error = Fault;

    fn entry(&mut self, label: &'a KeyRef) -> Result<impl EntryVisitor<'a>, Fault> {
        if self.0.len() == LABELS || self.0.iter().any(|it| it.label == label) {
            return Err(Fault("too many labels, or one twice"));
        }
        self.0.push(Input::new(label));
        self.0.last_mut().ok_or(Fault("no label"))
    }

    fn finish(self) -> Result<Self::Out, Fault> {
        Ok(self.0)
    }
}

impl<'a> EntryVisitor<'a> for &mut Input<'a> {
    type Error = Fault;

    fn item(self) -> Result<impl ItemVisitor<'a>, Fault> {
        self.blame("a signature is not described by a list of components");
        Ok(Ignored)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'a>, Fault> {
        Ok(self)
    }
}

impl<'a> InnerListVisitor<'a> for &mut Input<'a> {
    type Error = Fault;

    fn item(&mut self) -> Result<impl ItemVisitor<'a>, Fault> {
        if self.components.len() == COMPONENTS {
            return Err(Fault("too many components"));
        }
        Ok(&mut **self)
    }

    fn finish(self) -> Result<impl ParameterVisitor<'a>, Fault> {
        Ok(self)
    }
}

impl<'a> ItemVisitor<'a> for &mut Input<'a> {
    type Out = ();
    type Error = Fault;

    fn bare_item(
        self,
        name: BareItemFromInput<'a>,
    ) -> Result<impl ParameterVisitor<'a, Out = ()>, Fault> {
        Ok(Identifier { input: self, name, parameters: SmallVec::new() })
    }
}

/// A component identifier that is being read.
struct Identifier<'i, 'a> {
    input: &'i mut Input<'a>,
    name: BareItemFromInput<'a>,
    parameters: SmallVec<[(&'a KeyRef, BareItemFromInput<'a>); 1]>,
}

impl<'a> ParameterVisitor<'a> for Identifier<'_, 'a> {
    type Out = ();
    type Error = Fault;

    fn parameter(&mut self, key: &'a KeyRef, value: BareItemFromInput<'a>) -> Result<(), Fault> {
        // Two are too many already.
        if self.parameters.len() < 2 {
            self.parameters.push((key, value));
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Fault> {
        let input = self.input;
        let name = self.name.as_string().ok_or("a component is not a string");
        let given: SmallVec<[_; 1]> =
            self.parameters.iter().map(|(key, value)| (*key, value.into())).collect();
        match name.and_then(|name| Component::new(name.as_str(), &given)) {
            Ok(component) if input.components.contains(&component) => {
                input.blame("a component is covered twice");
            }
            Ok(component) => input.components.push(component),
            Err(fault) => input.blame(fault),
        }
        Ok(())
    }
}

impl<'a> ParameterVisitor<'a> for &mut Input<'a> {
    type Out = ();
    type Error = Fault;

    fn parameter(&mut self, key: &'a KeyRef, value: BareItemFromInput<'a>) -> Result<(), Fault> {
        let parameters = &mut self.parameters;
        if parameters.ordered.iter().any(|(other, _)| *other == key) {
            self.blame("a parameter is there twice");
            return Ok(());
        }
        let is_sound = match key.as_str() {
            "created" => time(&value, &mut parameters.created),
            "expires" => time(&value, &mut parameters.expires),
            "nonce" => text(&value, &mut parameters.nonce),
            "alg" => text(&value, &mut parameters.alg),
            "keyid" => text(&value, &mut parameters.keyid),
            "tag" => text(&value, &mut parameters.tag),
            _ => false,
        };
        if is_sound {
            parameters.ordered.push((key, value));
        } else {
            self.blame("a parameter is not known or not of its type");
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Fault> {
        Ok(())
    }
}

fn time(value: &BareItemFromInput<'_>, to: &mut Option<i64>) -> bool {
    *to = value.as_integer().map(Integer::into).filter(|it| *it >= 0);
    to.is_some()
}

fn text<'a>(value: &BareItemFromInput<'a>, to: &mut Option<Cow<'a, StringRef>>) -> bool {
    if let BareItemFromInput::String(text) = value {
        *to = Some(text.clone());
    }
    to.is_some()
}

/// By their keys; `None` where there is something else than bytes.
pub type Members<'a> = Vec<(&'a KeyRef, Option<Vec<u8>>)>;

#[derive(Default)]
struct ByteSequences<'a>(Members<'a>);

impl<'a> DictionaryVisitor<'a> for ByteSequences<'a> {
    type Out = Members<'a>;
    type Error = Fault;

    fn entry(&mut self, key: &'a KeyRef) -> Result<impl EntryVisitor<'a>, Fault> {
        if self.0.len() == LABELS || self.0.iter().any(|(other, _)| *other == key) {
            return Err(Fault("too many members, or one twice"));
        }
        self.0.push((key, None));
        self.0.last_mut().map(|(_, bytes)| Bytes(bytes)).ok_or(Fault("no member"))
    }

    fn finish(self) -> Result<Self::Out, Fault> {
        Ok(self.0)
    }
}

struct Bytes<'i>(&'i mut Option<Vec<u8>>);

impl<'a> EntryVisitor<'a> for Bytes<'_> {
    type Error = Fault;

    fn item(self) -> Result<impl ItemVisitor<'a>, Fault> {
        Ok(|value: BareItemFromInput<'a>| {
            if let BareItemFromInput::ByteSequence(bytes) = value {
                *self.0 = Some(bytes);
            }
            Ok::<_, Fault>(self)
        })
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'a>, Fault> {
        Ok(Ignored)
    }
}

impl<'a> ParameterVisitor<'a> for Bytes<'_> {
    type Out = ();
    type Error = Fault;

    /// None are defined for either field.
    fn parameter(&mut self, _: &'a KeyRef, _: BareItemFromInput<'a>) -> Result<(), Fault> {
        *self.0 = None;
        Ok(())
    }

    fn finish(self) -> Result<(), Fault> {
        Ok(())
    }
}

/// What a client is asked to sign (section 5.1), as the value of `Accept-Signature`.
#[must_use]
pub fn accept_signature(components: &[Component], wanted: &Wanted) -> Option<HeaderValue> {
    let label = wanted.label.as_deref().unwrap_or("sig1");
    let mut input = Input::new(KeyRef::from_str(label).unwrap_or(key_ref("sig1")));
    input.components = components.to_vec();
    let mut value = format!("{label}=");
    input.write_params(&mut value);
    value.push_str(";created;keyid");
    if let Some(tag) = wanted.tag.as_deref().and_then(|it| StringRef::from_str(it).ok()) {
        value.push_str(";tag=");
        let _ = sfv::ItemSerializer::with_buffer(&mut value).bare_item(tag).finish();
    }
    HeaderValue::from_str(&value).ok()
}

/// What a label may be: the key of a dictionary (RFC 8941 section 3.1.2).
///
/// # Errors
/// A sentence for people.
pub fn check_label(text: &str) -> Result<(), String> {
    let is_sound = text.len() <= 64 && KeyRef::from_str(text).is_ok();
    if is_sound {
        Ok(())
    } else {
        Err("must be lower case letters, digits and `_-.*`, at most 64".to_owned())
    }
}

/// What a tag may be: a string (RFC 8941 section 3.3.3).
///
/// # Errors
/// A sentence for people.
pub fn check_tag(text: &str) -> Result<(), String> {
    let is_sound = !text.is_empty() && text.len() <= 256 && StringRef::from_str(text).is_ok();
    if is_sound { Ok(()) } else { Err("must be 1 to 256 printable ASCII characters".to_owned()) }
}
