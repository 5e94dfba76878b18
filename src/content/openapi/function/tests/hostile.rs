//! Documents and arguments of somebody who means harm.
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Selection, read_with, sent};

#[test]
fn hostile_documents_end_in_a_sentence() {
    let of = |schema: Value, schemas: Value| {
        json!({"openapi": "3.1.0",
            "paths": {"/x": {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}},
            "components": {"schemas": schemas}})
    };
    let check = |document: Value, part: &str| {
        let problems = read_with(document, &Selection::default()).unwrap_err();
        assert!(format!("{problems:?}").contains(part), "{problems:?} instead of {part}");
    };
    let to = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    check(of(to("a"), json!({"a": to("b"), "b": to("a")})), "references lead in circles");
    check(
        of(
            to("a"),
            json!({"a": {"$ref": "#/components/schemas/b", "title": "x"}, "b": {"$ref": "#/components/schemas/a", "title": "y"}}),
        ),
        "references lead in circles",
    );
    check(of(to("none"), json!({})), "there is no `#/components/schemas/none`");
    check(
        of(json!({"$ref": "https://evil.test/a"}), json!({})),
        "references lead within the document",
    );
    check(
        of(json!({"$ref": "file:///etc/passwd"}), json!({})),
        "references lead within the document",
    );
    check(of(json!({"properties": {"a": {"$id": "x"}}}), json!({})), "`$id` is not supported");
    check(of(json!({"pattern": "(?=a)"}), json!({})), "its schemas");
    check(of(json!({"type": "text"}), json!({})), "its schemas");
    check(of(json!({"properties": {"a": 1}}), json!({})), "not a schema");
    let mut deep = json!({});
    for _ in 0..60 {
        deep = json!({"items": deep});
    }
    check(of(deep, json!({})), "more than 48 deep");
    check(
        of(json!({"enum": (0..30_000).collect::<Vec<_>>()}), json!({})),
        "more than 20000 values",
    );
    check(of(json!({"enum": ["x".repeat(300 << 10)]}), json!({})), "longer than 256 KiB");
    // Each doubles the one before it.
    let mut schemas = serde_json::Map::new();
    for level in 0..40 {
        let next = to(&format!("s{}", level + 1));
        schemas.insert(format!("s{level}"), json!({"allOf": [next, next]}));
    }
    schemas.insert("s40".to_owned(), json!({"type": "string"}));
    let doubling = read_with(of(to("s0"), Value::Object(schemas)), &Selection::default()).unwrap();
    assert!(doubling[0].input.to_string().len() < 64 << 10);
    let mut paths = serde_json::Map::new();
    for number in 0..100_000 {
        paths.insert(format!("/p{number}"), json!({"get": {}}));
    }
    check(json!({"openapi": "3.1.0", "paths": paths}), "100000 operations are asked for");
}

#[test]
fn paths_and_parameters_that_make_no_request_are_refused() {
    let check = |document: Value, part: &str| {
        let problems = read_with(document, &Selection::default()).unwrap_err();
        assert!(format!("{problems:?}").contains(part), "{problems:?} instead of {part}");
    };
    check(json!({"openapi": "2.0"}), "3.0 or 3.1");
    check(json!({"openapi": "3.1.0"}), "none of its operations");
    let path = |path: &str, parameters: Value| json!({"openapi": "3.1.0", "paths": {path: {"get": {"parameters": parameters}}}});
    let id = json!([{"name": "id", "in": "path"}]);
    check(path("/a/{id}", json!([])), "`id` is not among its parameters");
    check(path("/a", id.clone()), "does not stand in it");
    check(path("/a/{id", id.clone()), "a `{` without its `}`");
    check(path("/../{id}", id.clone()), "a segment of dots");
    check(path("/a?b={id}", id.clone()), "is not a path");
    check(path("a/{id}", id), "begins with `/`");
    check(
        path("/a", json!([{"name": "a", "in": "query", "style": "matrix"}])),
        "`matrix` is not for this place",
    );
    check(path("/a", json!([{"name": "a b", "in": "cookie"}])), "not the name of a cookie");
    check(path("/a", json!([{"name": "a b", "in": "header"}])), "not a header");
}

proptest! {
    /// Whatever the arguments are, the path has as many segments, the query as many pairs, and each
    /// says what was given.
    #[test]
    fn no_argument_leaves_its_place(
        id in "\\PC{1,12}|[./%\\\\?#&=;\r\n\u{0} ]{1,6}",
        part in "\\PC{1,12}|[./%\\\\?#&=;\r\n\u{0} ]{1,6}",
        query in "\\PC{0,12}|[./%?#&=;+\r\n ]{0,6}",
    ) {
        let arguments = json!({"id": id, "part": part, "query_id": query});
        match sent("get_orders_id_parts_part_json", &arguments) {
            Ok((target, ..)) => {
                let (path, pairs) = target.split_once('?').unwrap();
                let segments: Vec<&str> = path.split('/').collect();
                prop_assert_eq!(segments.len(), 6);
                let decoded = |raw: &str| crate::value::query::decode(raw).into_owned();
                prop_assert_eq!(decoded(segments[3]), id);
                prop_assert_eq!(decoded(segments[5]), format!("{part}.json"));
                prop_assert_eq!(decoded(pairs.strip_prefix("id=").unwrap()), query);
                prop_assert!(!pairs.contains('&') && target.bytes().all(|it| it.is_ascii_graphic()));
                prop_assert!(target.parse::<http::Uri>().is_ok());
            }
            Err(_) => prop_assert!(id == "." || id == "..", "{:?}", id),
        }
    }
}
