//! Clients that speak HTTP/2: a stream has no chunks of its own there.
use super::{speech::TEXT, vendors::Vendor};
use crate::{
    http2::{post, runtime, send},
    support::Gateway,
};

#[test]
fn a_stream_over_http_2_comes_to_its_end() {
    let stub = Vendor::Anthropic.start();
    let yaml = format!(
        "listeners: [{{name: http, address: $HTTP, h2c: true}}]\n\
         routes:\n  - {{id: ai, match: {{paths: [/*]}}, public: true, llm: {{models: [smart]}}}}\n\
         llm:\n  providers:\n    anthropic: {{api: anthropic, url: \"{}\", keys: [{{id: k, secret: {}}}]}}\n  \
         models:\n    smart: {{targets: [{{provider: anthropic, model: m}}]}}\n",
        stub.url(),
        Vendor::Anthropic.secret(),
    );
    let gateway = Gateway::start(&yaml, &[]);
    let body = r#"{"model":"smart","stream":true,"messages":[{"role":"user","content":"a"}]}"#;
    let frames = [body];
    let asked = send(gateway.address, post("/v1/chat/completions"), &frames);
    let (status, headers, body) = runtime().block_on(asked);
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(!headers.contains_key("transfer-encoding"), "{headers:?}");
    assert!(text.contains(TEXT[1]) && text.ends_with("data: [DONE]\n\n"), "{text}");
    let frames = [r#"{"model":"nothing","messages":[]}"#, ""];
    let asked = send(gateway.address, post("/v1/chat/completions"), &frames);
    assert_eq!(runtime().block_on(asked).0, 404);
}
