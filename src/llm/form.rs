//! A form with files in it (`multipart/form-data`, RFC 7578), as OpenAI takes audio and pictures: which
//! model it names, and the same form with another name in its place. The files are not looked at.
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::fields::Malformed;

/// Parts of a form, at most: OpenAI's have some ten fields and up to 16 pictures.
const MOST_PARTS: usize = 64;
/// What stands before the content of a part.
const LONGEST_HEAD: usize = 8 << 10;

/// The fields of a form that say something to a gateway.
#[derive(Debug)]
pub struct Form<'a> {
    body: &'a [u8],
    model: Range<usize>,
    pub is_stream: bool,
}

/// The word between the parts, if this is a form.
#[must_use]
pub fn boundary(content_type: &str) -> Option<&str> {
    let mut pieces = content_type.split(';');
    if !pieces.next()?.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    pieces.find_map(|piece| {
        let (name, value) = piece.trim().split_once('=')?;
        let value = value.trim().trim_matches('"');
        let is_fine = (1..=70).contains(&value.len());
        (name.trim().eq_ignore_ascii_case("boundary") && is_fine).then_some(value)
    })
}

impl<'a> Form<'a> {
    /// # Errors
    /// It is none, or names no model or two.
    pub fn read(body: &'a [u8], boundary: &str) -> Result<Self, Malformed> {
        let wrong = |why: &str| Malformed::new(format!("the form is malformed: {why}"));
        let line = format!("--{boundary}");
        let after = format!("\r\n{line}");
        let finder = memmem::Finder::new(&after);
        let mut at = match body.starts_with(line.as_bytes()) {
            true => line.len(),
            false => {
                finder.find(body).map(|it| it + after.len()).ok_or_else(|| wrong("no boundary"))?
            }
        };
        let (mut model, mut is_stream, mut parts) = (None, false, 0);
        while !rest(body, at).starts_with(b"--") {
            parts += 1;
            if parts > MOST_PARTS {
                return Err(wrong("it has too many parts"));
            }
            let head = rest(body, at);
            let near = head.get(..LONGEST_HEAD).unwrap_or(head);
            let end = memmem::find(near, b"\r\n\r\n").ok_or_else(|| wrong("a part has no head"))?;
            let content = at + end + 4;
            let length = finder.find(rest(body, content));
            let length = length.ok_or_else(|| wrong("a part has no end"))?;
            let value = content..content + length;
            let text = body.get(value.clone()).unwrap_or_default();
            match name(head.get(..end).unwrap_or_default()) {
                Some(b"model") if model.is_some() => return Err(wrong("`model` stands twice")),
                Some(b"model") => model = Some(value),
                Some(b"stream") => is_stream = text.eq_ignore_ascii_case(b"true"),
                _ => {}
            }
            at = content + length + after.len();
        }
        let missing = || Malformed { place: "model".to_owned(), why: "is missing".to_owned() };
        Ok(Self { body, model: model.ok_or_else(missing)?, is_stream })
    }

    /// # Errors
    /// It is no text.
    pub fn model(&self) -> Result<String, Malformed> {
        let bytes = self.body.get(self.model.clone()).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| Malformed { place: "model".to_owned(), why: "is not UTF-8".to_owned() })
    }

    /// The same form for this model.
    #[must_use]
    pub fn naming(&self, model: &str) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len() + model.len());
        out.extend_from_slice(self.body.get(..self.model.start).unwrap_or_default());
        out.extend_from_slice(model.as_bytes());
        out.extend_from_slice(rest(self.body, self.model.end));
        out.into()
    }
}

fn rest(body: &[u8], at: usize) -> &[u8] {
    body.get(at..).unwrap_or_default()
}

/// Of the field, by the head of its part.
fn name(head: &[u8]) -> Option<&[u8]> {
    let lines = head.split(|it| *it == b'\n').map(<[u8]>::trim_ascii);
    let mut disposition = lines.filter(|it| {
        let name = b"content-disposition:";
        it.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name))
    });
    let line = disposition.next()?;
    line.split(|it| *it == b';').map(<[u8]>::trim_ascii).find_map(|piece| {
        let value = piece.strip_prefix(b"name=")?;
        let inside = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
        Some(inside.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\u{0}\r\n-- name=\"model\"\r\n--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n--b--\r\n";

    #[test]
    fn the_model_is_found_and_nothing_else_changed() {
        let form = Form::read(FORM.as_bytes(), "b").unwrap();
        assert_eq!((form.model().unwrap(), form.is_stream), ("whisper".to_owned(), true));
        assert_eq!(form.naming("m"), FORM.replace("whisper", "m").as_bytes());
    }

    #[test]
    fn what_is_no_form_says_why() {
        let check = |body: &str, part: &str| {
            let why = Form::read(body.as_bytes(), "b").unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        };
        check("", "no boundary");
        check("--b\r\n", "no head");
        check("--b\r\nA: b\r\n\r\nx", "no end");
        check("--b\r\nA: b\r\n\r\nx\r\n--b--", "model: is missing");
        check(&FORM.replace("stream", "model"), "stands twice");
        let part = "A: b\r\n\r\nx\r\n--b\r\n";
        check(&format!("--b\r\n{}", part.repeat(MOST_PARTS + 1)), "too many parts");
    }

    #[test]
    fn a_form_is_known_by_its_type() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(boundary(text), expected);
        check("multipart/form-data; boundary=b", Some("b"));
        check("Multipart/Form-Data; charset=x; Boundary=\"b c\"", Some("b c"));
        check("multipart/form-data", None);
        check("multipart/form-data; boundary=", None);
        check("application/json; boundary=b", None);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(--b|\r\n|\r\n\r\n|name=\"model\"|content-disposition: |;|a){0,30}") {
            if let Ok(form) = Form::read(text.as_bytes(), "b") {
                let named = form.naming("other");
                prop_assert!(Form::read(&named, "b").is_ok_and(|it| it.model().unwrap() == "other"));
            }
        }
    }
}
