use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::{Api, Request};
use crate::content::form;

fn document() -> Value {
    json!({
        "openapi": "3.0.3",
        "servers": [{"url": "https://api.example.com/v2/"}],
        "paths": {
            "/orders": {
                "get": {"parameters": [
                    {"$ref": "#/components/parameters/limit"},
                    {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "string", "maxLength": 2}}},
                    {"name": "ids", "in": "query", "explode": false, "schema": {"type": "array", "items": {"type": "integer"}}},
                    {"name": "X-Trace", "in": "header", "required": true, "schema": {"type": "string", "format": "uuid"}},
                    {"name": "flag", "in": "cookie", "schema": {"type": "boolean"}},
                ]},
                "post": {"requestBody": {"required": true, "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/order"}},
                    "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/order"}},
                    "text/*": {},
                }}},
            },
            "/orders/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 1}}],
                "get": {}, "delete": {},
            },
            "/orders/latest": {"get": {}},
        },
        "components": {
            "parameters": {"limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}}},
            "schemas": {"order": {
                "type": "object",
                "required": ["id", "quantity"],
                "properties": {
                    "id": {"type": "string", "readOnly": true},
                    "quantity": {"type": "integer", "minimum": 0, "exclusiveMinimum": true},
                    "note": {"type": "string", "nullable": true},
                    "next": {"$ref": "#/components/schemas/order"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
            }},
        },
    })
}

#[test]
fn an_operation_is_found_by_method_and_path() {
    let api = Api::compile(document()).unwrap();
    let check = |method: Method, path: &str, expected: Option<&[(&str, &str)]>| {
        let found = api.find(&method, path).map(|it| it.variables);
        assert_eq!(found.as_deref(), expected, "{method} {path}");
    };
    check(Method::GET, "/v2/orders", Some(&[]));
    check(Method::HEAD, "/v2/orders", Some(&[]));
    check(Method::PUT, "/v2/orders", None);
    check(Method::GET, "/orders", None);
    check(Method::GET, "/v2/orders/7", Some(&[("id", "7")]));
    check(Method::GET, "/v2/orders/latest", Some(&[]));
    check(Method::DELETE, "/v2/orders/latest", Some(&[("id", "latest")]));
    check(Method::GET, "/v2/orders/", None);
    check(Method::GET, "/v2/orders/7/x", None);
}

#[test]
fn parameters_are_what_the_document_says() {
    let api = Api::compile(document()).unwrap();
    let check = |path: &str,
                 query: &str,
                 lines: &[(&'static str, &str)],
                 expected: Option<(&str, &str)>| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let found = api.find(&Method::GET, path).unwrap();
        let request =
            Request { query: Some(query), headers: &headers, variables: &found.variables };
        let fault = found.operation.check(&request).err();
        let said = fault.as_ref().map(|it| (&*it.pointer, &*it.keyword));
        assert_eq!(said, expected, "{path} {query} {lines:?}");
    };
    let trace = ("x-trace", "67e55044-10b1-426f-9247-bb680e5fe0c8");
    check("/v2/orders", "", &[trace], None);
    check("/v2/orders", "", &[], Some(("header/X-Trace", "required")));
    check("/v2/orders", "", &[("x-trace", "1")], Some(("header/X-Trace", "format")));
    check("/v2/orders", "", &[trace, trace], Some(("header/X-Trace", "single")));
    check("/v2/orders", "limit=100&other=1", &[trace], None);
    check("/v2/orders", "limit=101", &[trace], Some(("query/limit", "maximum")));
    check("/v2/orders", "limi%74=101", &[trace], Some(("query/limit", "maximum")));
    check("/v2/orders", "limit=", &[trace], Some(("query/limit", "type")));
    check("/v2/orders", "limit=%31%20", &[trace], Some(("query/limit", "type")));
    check("/v2/orders", "limit=1&limit=2", &[trace], Some(("query/limit", "single")));
    check("/v2/orders", "limit=%ff", &[trace], Some(("query/limit", "encoding")));
    check("/v2/orders", "tag=a&tag=bb", &[trace], None);
    check("/v2/orders", "tag=a&tag=ccc", &[trace], Some(("query/tag/1", "maxLength")));
    check("/v2/orders", "ids=1,2", &[trace], None);
    check("/v2/orders", "ids=1,x", &[trace], Some(("query/ids/1", "type")));
    check("/v2/orders", "", &[trace, ("cookie", "a=b; flag=true")], None);
    check("/v2/orders", "", &[trace, ("cookie", "flag=yes")], Some(("cookie/flag", "type")));
    check("/v2/orders/7", "", &[], None);
    check("/v2/orders/0", "", &[], Some(("path/id", "minimum")));
    check("/v2/orders/7+1", "", &[], Some(("path/id", "type")));
}

#[test]
fn bodies_are_what_the_document_says() {
    let api = Api::compile(document()).unwrap();
    let found = api.find(&Method::POST, "/v2/orders").unwrap();
    let body = found.operation.body.as_ref().unwrap();
    assert!(body.is_required && body.content("image/png").is_none());
    assert!(body.content("Text/Plain").is_some_and(|it| !it.is_read("text/plain")));
    let content = body.content("application/JSON").unwrap();
    let schema = content.schema.as_ref().filter(|_| content.is_read("application/json")).unwrap();
    let check = |value: Value, expected: Option<(&str, &str)>| {
        let fault = schema.check(&value).err();
        assert_eq!(fault.as_ref().map(|it| (&*it.pointer, &*it.keyword)), expected, "{value}");
    };
    check(json!({"quantity": 1, "note": null, "next": {"quantity": 2}}), None);
    check(json!({"quantity": 0}), Some(("/quantity", "exclusiveMinimum")));
    check(json!({"quantity": 1, "note": 1}), Some(("/note", "type")));
    check(json!({"quantity": 1, "next": {}}), Some(("/next/quantity", "required")));
    let typed = |form: &str| content.typed(form::to_json(form.as_bytes()).unwrap()).to_text();
    assert_eq!(typed("quantity=2&tags=a&x=1"), r#"{"quantity":2,"tags":["a"],"x":"1"}"#);
    assert_eq!(typed("quantity=two&tags=a&tags=b"), r#"{"quantity":"two","tags":["a","b"]}"#);
}

#[test]
fn what_is_not_understood_is_said() {
    let check = |change: &dyn Fn(&mut Value), part: &str| {
        let mut document = document();
        change(&mut document);
        let why = Api::compile(document).err().unwrap_or_default();
        assert!(why.contains(part), "{why} instead of {part}");
    };
    let parameter = "/paths/~1orders/get/parameters/1";
    check(&|it| it["openapi"] = json!("2.0"), "3.0 or 3.1");
    check(&|it| it["paths"] = json!({}), "no paths");
    check(&|it| it["paths"]["x"] = json!({}), "begins with `/`");
    check(&|it| it["paths"]["/a.{b}"] = json!({}), "whole segment");
    check(&|it| it["servers"][0]["url"] = json!("/{stage}"), "variables");
    check(
        &|it| *it.pointer_mut(parameter).unwrap() = json!({"$ref": "other.yaml#/a"}),
        "within the document",
    );
    check(
        &|it| *it.pointer_mut(parameter).unwrap() = json!({"$ref": "#/none"}),
        "there is no `#/none`",
    );
    check(&|it| it.pointer_mut(parameter).unwrap()["style"] = json!("deepObject"), "deepObject");
    check(&|it| it.pointer_mut(parameter).unwrap()["in"] = json!("body"), "not a place");
    check(
        &|it| {
            it["components"]["schemas"]["order"]["properties"]["a"] =
                json!({"$ref": "https://a.test/x"})
        },
        "a.test",
    );
    check(
        &|it| it["components"]["schemas"]["order"]["properties"]["a"] = json!({"pattern": "("}),
        "(",
    );
}
