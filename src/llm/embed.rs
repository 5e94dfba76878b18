//! Texts as vectors: what the vendors that have embeddings ask and answer, read and written each in its
//! own words. Vectors are long: they are read as numbers, and never as a tree.
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::{Api, Dialect, Encoded, put},
    chat::Usage,
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// Texts in one call, at most.
const MOST_TEXTS: usize = 10_000;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub texts: Vec<String>,
    pub dimensions: Option<u64>,
    /// What they are for, in Google's words.
    pub task: Option<String>,
    pub dropped: Vec<String>,
    pub shape: Shape,
}

/// How the client wants the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// OpenAI's way to pack numbers.
    pub is_base64: bool,
    /// Google's `embedContent` answers for one text.
    pub is_single: bool,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub vectors: Vec<Vec<f64>>,
    pub usage: Option<Usage>,
}

/// # Errors
/// It is nothing that could be asked of anybody else.
pub fn decode(api: Api, is_single: bool, body: Value) -> Read<Request> {
    let mut fields = Fields::new(body, At::Root)?;
    let mut request = match api {
        Api::Gemini if is_single => google(fields)?,
        Api::Gemini => googles(&mut fields)?,
        Api::OpenAi | Api::Responses | Api::Anthropic => openais(fields)?,
        Api::Ollama => {
            let texts = texts(&mut fields)?;
            let mut request = Request { texts, ..Request::default() };
            let _ = (fields.take("model"), fields.take("keep_alive"));
            request.dimensions = fields.count("dimensions")?;
            fields.rest(&mut request.dropped);
            request
        }
    };
    request.shape.is_single = is_single;
    if request.texts.is_empty() || request.texts.len() > MOST_TEXTS {
        return Err(Malformed::new(format!("there must be 1 to {MOST_TEXTS} texts")));
    }
    Ok(request)
}

fn texts(fields: &mut Fields<'_>) -> Read<Vec<String>> {
    if !fields.has("input") {
        return Err(fields.wrong("input", "is missing"));
    }
    let why = "must be a text or a list of texts: a vendor's own tokens mean nothing to another";
    fields.texts("input").map_err(|_| At::Key(&At::Root, "input").wrong(why))
}

fn openais(mut fields: Fields<'_>) -> Read<Request> {
    let mut request = Request { texts: texts(&mut fields)?, ..Request::default() };
    request.shape.is_base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(fields.wrong("encoding_format", "must be float or base64")),
    };
    request.dimensions = fields.count("dimensions")?;
    let _ = fields.take("model");
    fields.rest(&mut request.dropped);
    Ok(request)
}

fn google(mut fields: Fields<'_>) -> Read<Request> {
    let mut request = Request::default();
    let _ = fields.take("model");
    let at = fields.at;
    let content = fields.take("content").ok_or_else(|| fields.wrong("content", "is missing"))?;
    let mut content = Fields::new(content, At::Key(&at, "content"))?;
    let mut text = String::new();
    for part in content.list("parts")?.into_iter().flatten() {
        let more = part.get("text").and_then(Value::as_str);
        text.push_str(more.ok_or_else(|| content.wrong("parts", "only text can be translated"))?);
    }
    request.texts.push(text);
    request.task = fields.text("taskType")?;
    request.dimensions = fields.count("outputDimensionality")?;
    fields.rest(&mut request.dropped);
    Ok(request)
}

fn googles(fields: &mut Fields<'_>) -> Read<Request> {
    let list = fields.list("requests")?.ok_or_else(|| fields.wrong("requests", "is missing"))?;
    let place = At::Key(&At::Root, "requests");
    let mut all: Option<Request> = None;
    for (index, value) in list.into_iter().enumerate() {
        let place = At::Item(&place, index);
        let mut one = google(Fields::new(value, place)?)?;
        match &mut all {
            None => all = Some(one),
            Some(all) if all.task == one.task && all.dimensions == one.dimensions => {
                all.texts.append(&mut one.texts);
            }
            Some(_) => return Err(place.wrong("must want what the others want, to be translated")),
        }
    }
    Ok(all.unwrap_or_default())
}

/// Writes what is asked; none for a provider that has no embeddings.
#[must_use]
pub fn encode(dialect: Dialect, request: &Request, model: &str) -> Option<Encoded> {
    let mut dropped = request.dropped.clone();
    if request.task.is_some() && dialect != Dialect::Gemini {
        dropped.push("taskType".to_owned());
    }
    let body = match dialect {
        Dialect::OpenAi | Dialect::Compatible | Dialect::Azure(_) => {
            let mut body =
                json!({"model": model, "input": request.texts, "encoding_format": "float"});
            put(&mut body, "dimensions", request.dimensions);
            body
        }
        Dialect::Mistral => {
            let mut body = json!({"model": model, "input": request.texts});
            put(&mut body, "output_dimension", request.dimensions);
            body
        }
        Dialect::Gemini => {
            let one = |text: &String| {
                let content = json!({"parts": [{"text": text}]});
                let mut one = json!({"model": format!("models/{model}"), "content": content});
                put(&mut one, "taskType", request.task.clone());
                put(&mut one, "outputDimensionality", request.dimensions);
                one
            };
            json!({"requests": request.texts.iter().map(one).collect::<Value>()})
        }
        Dialect::Ollama => {
            let mut body = json!({"model": model, "input": request.texts});
            put(&mut body, "dimensions", request.dimensions);
            body
        }
        Dialect::Anthropic(_) | Dialect::Bedrock => return None,
    };
    Some(Encoded { body, dropped })
}

#[derive(Deserialize)]
struct OpenAis {
    data: Vec<OpenAi>,
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct OpenAi {
    #[serde(default)]
    index: usize,
    embedding: Vec<f64>,
}

#[derive(Deserialize)]
struct Googles {
    embeddings: Vec<Google>,
    #[serde(rename = "usageMetadata")]
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct Google {
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Ollama {
    embeddings: Vec<Vec<f64>>,
    prompt_eval_count: Option<u64>,
}

/// Reads the answer to so many texts.
///
/// # Errors
/// It is none.
pub fn decode_response(dialect: Dialect, body: &[u8], texts: usize) -> Read<Response> {
    let wrong = |why: serde_json::Error| Malformed::new(why.to_string());
    let of = |input: u64| Some(Usage { input, ..Usage::default() });
    let number = |usage: Option<&Value>, key: &str| usage?.get(key)?.as_u64();
    let response = match dialect {
        Dialect::Gemini => {
            let read: Googles = serde_json::from_slice(body).map_err(wrong)?;
            let usage = number(read.usage.as_ref(), "promptTokenCount").and_then(of);
            Response { vectors: read.embeddings.into_iter().map(|it| it.values).collect(), usage }
        }
        Dialect::Ollama => {
            let read: Ollama = serde_json::from_slice(body).map_err(wrong)?;
            Response { vectors: read.embeddings, usage: read.prompt_eval_count.and_then(of) }
        }
        _ => {
            let mut read: OpenAis = serde_json::from_slice(body).map_err(wrong)?;
            read.data.sort_by_key(|it| it.index);
            let usage = number(read.usage.as_ref(), "prompt_tokens").and_then(of);
            Response { vectors: read.data.into_iter().map(|it| it.embedding).collect(), usage }
        }
    };
    if response.vectors.len() != texts {
        let why = format!("{} vectors for {texts} texts", response.vectors.len());
        return Err(Malformed::new(why));
    }
    Ok(response)
}

/// Writes the answer for a client.
#[must_use]
pub fn encode_response(api: Api, shape: Shape, model: &str, response: &Response) -> Value {
    let input = response.usage.map_or(0, |it| it.input);
    match api {
        Api::Gemini => {
            let mut all = response.vectors.iter().map(|it| json!({"values": it}));
            match shape.is_single {
                true => json!({"embedding": all.next()}),
                false => json!({"embeddings": all.collect::<Value>()}),
            }
        }
        Api::Ollama => json!({
            "model": model, "embeddings": response.vectors, "total_duration": 0,
            "load_duration": 0, "prompt_eval_count": input,
        }),
        Api::OpenAi | Api::Responses | Api::Anthropic => {
            let one = |(index, vector): (usize, &Vec<f64>)| {
                let vector = if shape.is_base64 { packed(vector) } else { json!(vector) };
                json!({"object": "embedding", "index": index, "embedding": vector})
            };
            json!({
                "object": "list", "model": model,
                "data": response.vectors.iter().enumerate().map(one).collect::<Value>(),
                "usage": {"prompt_tokens": input, "total_tokens": input},
            })
        }
    }
}

/// Numbers of 32 bits, the least byte first.
fn packed(vector: &[f64]) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "models think in 32 bits")]
    let bytes: Vec<u8> = vector.iter().flat_map(|it| (*it as f32).to_le_bytes()).collect();
    Value::String(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::api::anthropic::Version;

    fn asked(api: Api, is_single: bool, body: Value) -> Request {
        decode(api, is_single, body).unwrap()
    }

    #[test]
    fn texts_are_read_and_written_in_every_vendors_words() {
        let openai = json!({"model": "m", "input": ["a", "b"], "dimensions": 2, "user": "u"});
        let openai = asked(Api::OpenAi, false, openai);
        assert_eq!(
            (&*openai.texts, openai.dimensions),
            (&["a".to_owned(), "b".to_owned()][..], Some(2))
        );
        assert_eq!(openai.dropped, ["user"]);
        let one = |text: &str| json!({"model": "models/x", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2});
        let gemini = asked(Api::Gemini, false, json!({"requests": [one("a"), one("b")]}));
        let ollama = json!({"model": "m", "input": ["a", "b"], "dimensions": 2});
        let ollama = asked(Api::Ollama, false, ollama);
        for read in [&gemini, &ollama] {
            assert_eq!((&read.texts, read.dimensions), (&openai.texts, openai.dimensions));
        }
        let body = |dialect| encode(dialect, &gemini, "m").unwrap().body;
        assert_eq!(
            body(Dialect::OpenAi),
            json!({"model": "m", "input": ["a", "b"], "encoding_format": "float", "dimensions": 2})
        );
        assert_eq!(
            body(Dialect::Mistral),
            json!({"model": "m", "input": ["a", "b"], "output_dimension": 2})
        );
        assert_eq!(
            body(Dialect::Ollama),
            json!({"model": "m", "input": ["a", "b"], "dimensions": 2})
        );
        assert_eq!(asked(Api::Gemini, false, body(Dialect::Gemini)).texts, openai.texts);
        assert!(encode(Dialect::Anthropic(Version::V2023), &gemini, "m").is_none());
        let single = asked(Api::Gemini, true, one("a"));
        assert!(single.shape.is_single && single.texts == ["a"]);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let check = |api, body: Value, part: &str| {
            let why = decode(api, false, body).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        };
        check(Api::OpenAi, json!({"model": "m"}), "input: is missing");
        check(Api::OpenAi, json!({"input": [[1, 2]]}), "input: must be a text");
        check(Api::OpenAi, json!({"input": []}), "1 to 10000 texts");
        check(Api::OpenAi, json!({"input": "a", "encoding_format": "x"}), "encoding_format");
        check(Api::Gemini, json!({"requests": [{}]}), "requests[0].content: is missing");
        let one = |task: &str| json!({"content": {"parts": []}, "taskType": task});
        let mixed = json!({"requests": [one("A"), one("B")]});
        check(Api::Gemini, mixed, "requests[1]: must want what");
    }

    #[test]
    fn vectors_are_read_and_written_in_every_vendors_words() {
        let usage = Some(Usage { input: 5, ..Usage::default() });
        let vectors = vec![vec![0.25, -1.0], vec![1e-7, 2.0]];
        let expected = Response { vectors, usage };
        let check = |dialect, api, body: Value, usage: Option<Usage>| {
            let read = decode_response(dialect, body.to_string().as_bytes(), 2).unwrap();
            let expected = Response { usage, ..expected.clone() };
            assert_eq!(read, expected);
            let shape = Shape::default();
            let written = encode_response(api, shape, "m", &expected).to_string();
            assert_eq!(decode_response(dialect, written.as_bytes(), 2).unwrap(), expected);
            assert!(decode_response(dialect, written.as_bytes(), 3).is_err());
        };
        let backwards = json!({
            "data": [{"index": 1, "embedding": [1e-7, 2]}, {"index": 0, "embedding": [0.25, -1]}],
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        });
        check(Dialect::OpenAi, Api::OpenAi, backwards, usage);
        let google = json!({"embeddings": [{"values": [0.25, -1]}, {"values": [1e-7, 2]}]});
        check(Dialect::Gemini, Api::Gemini, google, None);
        let ollama = json!({"embeddings": [[0.25, -1], [1e-7, 2]], "prompt_eval_count": 5});
        check(Dialect::Ollama, Api::Ollama, ollama, usage);
        let packed = Shape { is_base64: true, is_single: false };
        let written = encode_response(Api::OpenAi, packed, "m", &expected);
        assert_eq!(written["data"][0]["embedding"], "AACAPgAAgL8=");
        let single = Shape { is_single: true, is_base64: false };
        let written = encode_response(Api::Gemini, single, "m", &expected);
        assert_eq!(written, json!({"embedding": {"values": [0.25, -1.0]}}));
    }
}
