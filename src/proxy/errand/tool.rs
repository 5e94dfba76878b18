//! A call of a tool that is an operation of an API.
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora::proxy::Session;
use serde_json::{Value, json, value::RawValue};

use super::{Answered, Errand, run};
use crate::{
    content::{
        json::Node,
        openapi::function::{Answer, Function, Piece, Request},
    },
    gateway::operations::Operations,
    proxy::{exchange::Exchange, phases::Proxy},
};

/// A call that can be made.
pub struct Call<'a> {
    function: &'a Function,
    errand: Errand,
    request: Request,
    host: String,
    most_answer: usize,
}

impl<'a> Call<'a> {
    /// For the caller of `exchange`, whose request `session` is.
    ///
    /// # Errors
    /// The result of the call that cannot be made, as JSON: the model that asks for it is to read why.
    pub fn prepare(
        (session, exchange): (&Session, &Exchange),
        operations: &Operations,
        function: &'a Function,
        arguments: Option<&RawValue>,
    ) -> Result<Self, String> {
        let refused = |why: String| written(&Answer::error(why), "");
        let arguments = Node::parse(arguments.map_or("{}", RawValue::get).as_bytes());
        let arguments = arguments
            .map_err(|why| refused(format!("Nothing was called: the arguments: {why}.")))?;
        let request = function.request(&arguments);
        let request = request.map_err(|it| refused(format!("Nothing was called: {it}.")))?;
        let host = operations.host.as_deref().unwrap_or(&exchange.context.host);
        Ok(Self {
            function,
            errand: Errand::for_caller(session, exchange, operations.route.clone()),
            request,
            host: host.to_owned(),
            most_answer: operations.most_answer,
        })
    }

    /// The result of the call in MCP, as JSON. Whatever goes wrong is said in it. Dropped, it ends the
    /// call.
    pub async fn put(
        self,
        proxy: &Proxy,
        trace: &[(HeaderName, HeaderValue)],
        timeout: Duration,
    ) -> String {
        let Self { function, errand, request, host, most_answer } = self;
        let uri = format!("{}://{host}{}", errand.scheme, request.target);
        match run(proxy, errand, &request, (&host, trace), most_answer, timeout).await {
            Ok(Answered { status, media_type, body }) => {
                written(&function.answer(status, media_type.as_deref(), &body), &uri)
            }
            Err(why) => written(&Answer::error(format!("The API was called, but {why}.")), ""),
        }
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
