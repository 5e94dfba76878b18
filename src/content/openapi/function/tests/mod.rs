//! Functions of one document: what they are called with, send and answer.
use http::Method;
use serde_json::{Value, json};

mod answers;
mod hostile;

use super::*;
use crate::content::json::Node;

fn document() -> Value {
    json!({
        "openapi": "3.0.3",
        "servers": [{"url": "https://api.example.com/v2/"}],
        "paths": {
            "/orders": {
                "get": {
                    "operationId": "listOrders", "tags": ["read"], "summary": "List orders",
                    "description": "All of them.\u{7}",
                    "parameters": [
                        {"name": "limit", "in": "query", "description": "How many", "schema": {"type": "integer", "minimum": 0, "exclusiveMinimum": true}},
                        {"name": "filter[tag]", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                        {"name": "where", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                        {"name": "any", "in": "query", "schema": {"type": "object"}},
                        {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                        {"name": "X-Secret", "in": "header", "required": true, "schema": {"type": "string"}},
                        {"name": "flavour", "in": "cookie", "schema": {"type": "string"}},
                    ],
                    "responses": {"200": {"description": "", "content": {"application/json": {
                        "schema": {"type": "array", "items": {"$ref": "#/components/schemas/order"}}}}}},
                },
                "post": {
                    "operationId": "createOrder", "tags": ["write"],
                    "requestBody": {"required": true, "content": {"application/json": {
                        "schema": {"$ref": "#/components/schemas/order"}}}},
                    "responses": {"201": {"$ref": "#/components/responses/order"}, "400": {}},
                },
            },
            "/orders/{id}/parts/{part}.json": {
                "parameters": [{"name": "id", "in": "path", "required": true, "schema": {}}],
                "get": {
                    "parameters": [
                        {"name": "part", "in": "path", "required": true, "schema": {"type": "string"}},
                        {"name": "id", "in": "query", "schema": {"type": "string"}},
                    ],
                },
            },
            "/files/{body}": {"put": {
                "operationId": "putFile",
                "parameters": [{"name": "body", "in": "path", "schema": {"type": "string"}}],
                "requestBody": {"content": {"application/octet-stream": {}}},
            }},
            "/forms": {"post": {"operationId": "sendForm", "requestBody": {"content": {
                "multipart/form-data": {}, "application/x-www-form-urlencoded": {"schema": {"type": "object"}}}}}},
        },
        "components": {
            "responses": {"order": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/order"}}}}},
            "schemas": {"order": {
                "type": "object",
                "required": ["id", "quantity", "pin"],
                "properties": {
                    "id": {"type": "string", "readOnly": true},
                    "pin": {"type": "string", "writeOnly": true},
                    "quantity": {"type": "integer"},
                    "note": {"type": "string", "nullable": true, "example": "soon"},
                    "next": {"$ref": "#/components/schemas/order"},
                    "state": {"$ref": "#/components/schemas/state"},
                },
            }, "state": {"type": "string", "enum": ["new", "sent"], "xml": {}}},
        },
    })
}

fn all() -> Vec<Function> {
    read_with(document(), &Selection::default()).unwrap()
}

fn read_with(document: Value, selection: &Selection) -> Result<Vec<Function>, Vec<Problem>> {
    read(document, selection, &|header| header == "x-secret")
}

fn function(name: &str) -> Function {
    all().into_iter().find(|it| &*it.name == name).unwrap()
}

#[test]
fn operations_become_functions_in_the_order_of_the_document() {
    let names: Vec<_> = all().iter().map(|it| (it.method.to_string(), it.name.clone())).collect();
    let expected = [
        ("GET", "listOrders"),
        ("POST", "createOrder"),
        ("GET", "get_orders_id_parts_part_json"),
        ("PUT", "putFile"),
        ("POST", "sendForm"),
    ];
    assert_eq!(names, expected.map(|(method, name)| (method.to_owned(), name.into())));
    let list = function("listOrders");
    assert_eq!(list.title.as_deref(), Some("List orders"));
    assert_eq!(list.description.as_deref(), Some("All of them."));
    assert_eq!(&*list.path, "/v2/orders");
}

#[test]
fn all_arguments_have_one_schema() {
    let check = |name: &str, expected: Value| assert_eq!(function(name).input, expected, "{name}");
    check(
        "listOrders",
        json!({
            "type": "object",
            "properties": {
                "limit": {"type": "integer", "exclusiveMinimum": 0, "description": "How many"},
                "filter_tag": {"type": "array", "items": {"type": "string"}},
                "where": {"type": "object"},
                "any": {"type": "object"},
                "X-Trace": {"type": "string"},
                "flavour": {"type": "string"},
            },
            "additionalProperties": false,
        }),
    );
    check(
        "createOrder",
        json!({
            "type": "object",
            "properties": {"body": {"$ref": "#/$defs/order"}},
            "required": ["body"],
            "additionalProperties": false,
            "$defs": {"order": {
                "type": "object",
                "required": ["quantity", "pin"],
                "properties": {
                    "pin": {"type": "string", "writeOnly": true},
                    "quantity": {"type": "integer"},
                    "note": {"type": ["string", "null"], "examples": ["soon"]},
                    "next": {"$ref": "#/$defs/order"},
                    "state": {"type": "string", "enum": ["new", "sent"]},
                },
            }},
        }),
    );
    check(
        "get_orders_id_parts_part_json",
        json!({
            "type": "object",
            "properties": {"id": {}, "part": {"type": "string"}, "query_id": {"type": "string"}},
            "required": ["id", "part"],
            "additionalProperties": false,
        }),
    );
    check(
        "putFile",
        json!({
            "type": "object",
            "properties": {
                "body": {"type": "string"},
                "request_body": {"type": "string", "contentEncoding": "base64", "contentMediaType": "application/octet-stream"},
            },
            "required": ["body"],
            "additionalProperties": false,
        }),
    );
}

#[test]
fn a_good_answer_is_described_where_there_is_one_kind_of_it() {
    let list = function("listOrders").output.unwrap();
    assert_eq!(list["type"], "object");
    assert_eq!(list["properties"]["result"]["items"], json!({"$ref": "#/$defs/order"}));
    assert_eq!(list["$defs"]["order"]["required"], json!(["id", "quantity"]));
    assert!(list["$defs"]["order"]["properties"].get("pin").is_none());
    let created = function("createOrder").output.unwrap();
    assert_eq!((&created["type"], &created["$ref"]), (&json!("object"), &json!("#/$defs/order")));
    assert_eq!(function("putFile").output, None);
    let check = |change: &dyn Fn(&mut Value), expected: bool| {
        let mut document = document();
        change(&mut document["paths"]["/orders"]["post"]["responses"]);
        let functions = read_with(document, &Selection::default()).unwrap();
        assert_eq!(functions[1].output.is_some(), expected);
    };
    check(&|_| {}, true);
    check(&|it| it["204"] = json!({}), false);
    check(&|it| *it = json!({"2XX": {"$ref": "#/components/responses/order"}}), true);
    check(&|it| *it = json!({"200": {"content": {"text/plain": {"schema": {}}}}}), false);
    check(
        &|it| *it = json!({"200": {"content": {"text/plain": {}, "application/json": {}}}}),
        false,
    );
}

fn sent(name: &str, arguments: &Value) -> Result<(String, Vec<String>, String), String> {
    let text = arguments.to_string();
    let request = function(name).request(&Node::parse(text.as_bytes()).unwrap());
    let request = request.map_err(|it| it.to_string())?;
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let body = request.body.map(|it| String::from_utf8_lossy(&it).into_owned());
    Ok((request.target, headers.collect(), body.unwrap_or_default()))
}

#[test]
fn a_request_is_built_of_arguments() {
    let check = |name: &str, arguments: Value, target: &str, headers: &[&str], body: &str| {
        let (found, lines, text) = sent(name, &arguments).unwrap();
        assert_eq!((&*found, &*text), (target, body), "{arguments}");
        assert_eq!(lines, headers, "{arguments}");
    };
    check("listOrders", json!({}), "/v2/orders", &[], "");
    check("listOrders", json!({"limit": 5}), "/v2/orders?limit=5", &[], "");
    check(
        "listOrders",
        json!({"filter_tag": ["a b", "c&d=e"], "where": {"a[": "]"}, "any": {"k": true}, "X-Trace": "t", "flavour": "a; b=c"}),
        "/v2/orders?filter%5Btag%5D=a%20b&filter%5Btag%5D=c%26d%3De&where%5Ba%5B%5D=%5D&k=true",
        &["x-trace: t", "cookie: flavour=a%3B%20b%3Dc"],
        "",
    );
    check("listOrders", json!({"filter_tag": [], "any": {}}), "/v2/orders", &[], "");
    check(
        "createOrder",
        json!({"body": {"quantity": 1, "pin": "\u{e9}", "more": [1.50]}}),
        "/v2/orders",
        &["content-type: application/json"],
        "{\"quantity\":1,\"pin\":\"\u{e9}\",\"more\":[1.5]}",
    );
    check(
        "get_orders_id_parts_part_json",
        json!({"id": "../x/?#%\r\n", "part": "..", "query_id": "1&id=2"}),
        "/v2/orders/..%2Fx%2F%3F%23%25%0D%0A/parts/...json?id=1%26id%3D2",
        &[],
        "",
    );
    check(
        "putFile",
        json!({"body": "a", "request_body": "AAH/"}),
        "/v2/files/a",
        &["content-type: application/octet-stream"],
        "\u{0}\u{1}\u{fffd}",
    );
    check(
        "sendForm",
        json!({"body": {"a": "1&b=2", "c": [1, true], "d": {"e": null}, "f": null}}),
        "/v2/forms",
        &["content-type: application/x-www-form-urlencoded"],
        "a=1%26b%3D2&c=1&c=true&d=%7B%22e%22%3Anull%7D",
    );
}

#[test]
fn what_cannot_be_sent_is_said() {
    let check = |name: &str, arguments: Value, part: &str| {
        let why = sent(name, &arguments).unwrap_err();
        assert!(why.contains(part), "{arguments}: {why}");
    };
    check(
        "listOrders",
        json!({"limit": 0}),
        "`limit` is not what its schema asks for: `exclusiveM",
    );
    check("listOrders", json!({"limit": "5"}), "`limit` is not what its schema asks for: `type");
    check("listOrders", json!({"x": 1}), "`x` is not what its schema asks for: `additionalProp");
    check("listOrders", json!({"X-Secret": "a"}), "`X-Secret` is not what");
    check("listOrders", json!({"X-Trace": "a\r\nb: c"}), "`X-Trace` cannot be written in a header");
    check("listOrders", json!({"where": {"a": [1]}}), "`where` is nested deeper");
    check("listOrders", json!({"any": {"limit": 100}}), "`any` names another parameter");
    check("createOrder", json!({}), "`body` is not what its schema asks for: `required`");
    check("createOrder", json!({"body": {"quantity": 1}}), "`body/pin` is not what");
    check("get_orders_id_parts_part_json", json!({"id": "..", "part": "a"}), "cannot be a segment");
    check("get_orders_id_parts_part_json", json!({"id": ".", "part": "a"}), "cannot be a segment");
    check("get_orders_id_parts_part_json", json!({"id": "", "part": "a"}), "must not be empty");
    check("get_orders_id_parts_part_json", json!({"id": null, "part": "a"}), "must not be null");
    check("get_orders_id_parts_part_json", json!({"id": [[1]], "part": "a"}), "nested deeper");
    check("putFile", json!({"body": "a", "request_body": "%"}), "`request_body` is not base64");
    check("sendForm", json!({"body": 1}), "`body` is not what");
}

#[test]
fn styles_lay_values_out() {
    let check = |place: &str, more: Value, value: Value, expected: &str| {
        let mut parameter = json!({"name": "p", "in": place, "required": true, "schema": {}});
        parameter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = if place == "path" { "/x/{p}" } else { "/x" };
        let document =
            json!({"openapi": "3.1.0", "paths": {path: {"get": {"parameters": [parameter]}}}});
        let functions = read_with(document, &Selection::default()).unwrap();
        let text = json!({"p": value}).to_string();
        let found = functions[0].request(&Node::parse(text.as_bytes()).unwrap());
        let found = found.map_or_else(
            |it| it.to_string(),
            |it| match it.headers.first() {
                Some((name, value)) => format!("{name}: {}", value.to_str().unwrap()),
                None => it.target.strip_prefix("/x").unwrap().to_owned(),
            },
        );
        assert_eq!(found, expected, "{place} {more} {value}");
    };
    let (list, map) = (json!(["a", 1, "b,c"]), json!({"k": "v", "l": 2}));
    check("path", json!({}), list.clone(), "/a,1,b%2Cc");
    check("path", json!({}), map.clone(), "/k,v,l,2");
    check("path", json!({"explode": true}), map.clone(), "/k=v,l=2");
    check("path", json!({"style": "label"}), json!("a"), "/.a");
    check("path", json!({"style": "label"}), list.clone(), "/.a,1,b%2Cc");
    check("path", json!({"style": "label", "explode": true}), list.clone(), "/.a.1.b%2Cc");
    check(
        "path",
        json!({"style": "label"}),
        json!("."),
        "the argument `p` cannot be a segment of a path",
    );
    check("path", json!({"style": "matrix"}), json!("a"), "/;p=a");
    check("path", json!({"style": "matrix", "explode": true}), list.clone(), "/;p=a;p=1;p=b%2Cc");
    check("path", json!({"style": "matrix"}), map.clone(), "/;p=k,v,l,2");
    check("query", json!({}), list.clone(), "?p=a&p=1&p=b%2Cc");
    check("query", json!({"explode": false}), list.clone(), "?p=a,1,b%2Cc");
    check("query", json!({"style": "spaceDelimited"}), list.clone(), "?p=a%201%20b%2Cc");
    check("query", json!({"style": "pipeDelimited"}), list.clone(), "?p=a%7C1%7Cb%2Cc");
    check("query", json!({"style": "deepObject"}), map.clone(), "?p%5Bk%5D=v&p%5Bl%5D=2");
    check("query", json!({"explode": false}), map.clone(), "?p=k,v,l,2");
    check(
        "query",
        json!({"schema": null, "content": {"application/json": {"schema": {}}}}),
        map.clone(),
        "?p=%7B%22k%22%3A%22v%22%2C%22l%22%3A2%7D",
    );
    check("header", json!({}), json!(["a", 1]), "p: a,1");
    check("header", json!({}), list, "the argument `p` cannot be written in a header");
    check("header", json!({"explode": true}), map, "p: k=v,l=2");
    check("cookie", json!({"explode": false}), json!(["a", "b;c"]), "cookie: p=a%2Cb%3Bc");
}

#[test]
fn only_what_is_asked_for_is_read() {
    let check = |selection: Selection, expected: Result<&[&str], &str>| {
        let mut document = document();
        // Nobody asks for it.
        document["paths"]["/broken"] =
            json!({"delete": {"operationId": "broken", "parameters": [{}]}});
        match (read_with(document, &selection), expected) {
            (Ok(found), Ok(names)) => {
                let found: Vec<&str> = found.iter().map(|it| &*it.name).collect();
                assert_eq!(found, names, "{selection:?}");
            }
            (Err(found), Err(part)) => {
                assert!(format!("{found:?}").contains(part), "{selection:?}: {found:?}");
            }
            (found, _) => panic!("{selection:?}: {found:?}"),
        }
    };
    let words = |words: &[&str]| words.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    let ids = |it: &[&str]| Selection { ids: words(it), ..Selection::default() };
    check(ids(&["createOrder"]), Ok(&["createOrder"]));
    check(
        ids(&["*Order*", "get_*"]),
        Ok(&["listOrders", "createOrder", "get_orders_id_parts_part_json"]),
    );
    check(ids(&["createOrder", "nothing"]), Err("Unused(Ids, 1)"));
    check(
        ids(&["broken"]),
        Err("operation `broken`: /paths/~1broken/delete/parameters/0: `name` is missing"),
    );
    let methods = vec![Method::GET];
    check(
        Selection { methods: methods.clone(), ..Selection::default() },
        Ok(&["listOrders", "get_orders_id_parts_part_json"]),
    );
    check(
        Selection { methods, tags: words(&["read"]), ..Selection::default() },
        Ok(&["listOrders"]),
    );
    check(
        Selection { methods: vec![Method::PATCH], ..Selection::default() },
        Err("none of its operations"),
    );
    check(
        Selection { tags: words(&["read", "none"]), ..Selection::default() },
        Err("Unused(Tags, 1)"),
    );
    check(
        Selection { paths: words(&["/orders"]), ..Selection::default() },
        Ok(&["listOrders", "createOrder"]),
    );
    check(
        Selection {
            paths: words(&["/orders*"]),
            except: words(&["list*"]),
            ..Selection::default()
        },
        Ok(&["createOrder", "get_orders_id_parts_part_json"]),
    );
    check(
        Selection { paths: words(&["/orders*"]), except: words(&["gone"]), ..Selection::default() },
        Err("Unused(Except, 0)"),
    );
}
