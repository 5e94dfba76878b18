//! A call of a tool that is an operation of an API.
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora::proxy::Session;
use serde_json::{Value, json, value::RawValue};

use super::{Answered, Errand, run};
use crate::{
    content::{
        json::Node,
        openapi::function::{Answer, Function, Piece},
    },
    gateway::operations::Operations,
    proxy::{exchange::Exchange, phases::Proxy},
};

/// Calls `function` for the caller of `exchange`; what is answered is the result of a call in MCP, as JSON.
/// Whatever goes wrong is said in it: the model that called is to read it.
pub async fn call(
    proxy: &Proxy,
    (session, exchange): (&Session, &Exchange),
    operations: &Operations,
    function: &Function,
    arguments: Option<&RawValue>,
    trace: &[(HeaderName, HeaderValue)],
    timeout: Duration,
) -> String {
    let arguments = match Node::parse(arguments.map_or("{}", RawValue::get).as_bytes()) {
        Ok(arguments @ Node::Object(_)) => arguments,
        Ok(_) => return written(&Answer::error("The arguments must be an object."), ""),
        Err(why) => {
            return written(&Answer::error(format!("The arguments cannot be read: {why}.")), "");
        }
    };
    let request = match function.request(&arguments) {
        Ok(request) => request,
        Err(mistake) => {
            return written(&Answer::error(format!("Nothing was called: {mistake}.")), "");
        }
    };
    let host = operations.host.as_deref().unwrap_or(&exchange.context.host);
    let errand = Errand::for_caller(session, exchange, operations.route.clone());
    let uri = format!("{}://{host}{}", errand.scheme, request.target);
    match run(proxy, errand, &request, (host, trace), operations.most_answer, timeout).await {
        Ok(Answered { status, media_type, body }) => {
            written(&function.answer(status, media_type.as_deref(), &body), &uri)
        }
        Err(why) => written(&Answer::error(format!("The API was called, but {why}.")), ""),
    }
}

/// `uri` is where what is no text came from.
fn written(answer: &Answer, uri: &str) -> String {
    let piece = |piece: &Piece| -> Value {
        match piece {
            Piece::Text(text) => json!({"type": "text", "text": text}),
            Piece::Image { media_type, data } => {
                json!({"type": "image", "data": data, "mimeType": media_type})
            }
            Piece::Audio { media_type, data } => {
                json!({"type": "audio", "data": data, "mimeType": media_type})
            }
            Piece::Blob { media_type, data } => json!({
                "type": "resource",
                "resource": {"uri": uri, "mimeType": media_type, "blob": data},
            }),
        }
    };
    let content: Vec<Value> = answer.pieces.iter().map(piece).collect();
    let content = Value::Array(content);
    // The API's own text: numbers as it wrote them.
    let structured = answer.structured.as_ref();
    let structured =
        structured.map(|it| format!(",\"structuredContent\":{it}")).unwrap_or_default();
    format!("{{\"content\":{content}{structured},\"isError\":{}}}", answer.is_error)
}
