//! From the schemas of OpenAPI to JSON Schema 2020-12, in which they are compiled.
use serde_json::{Map, Value, json};

/// Makes all that stands in the document JSON Schema 2020-12; what looks like a schema and is none
/// (an example) decides nothing.
pub(super) fn translate(value: &mut Value, is_3_0: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|it| translate(it, is_3_0)),
        Value::Object(map) => {
            if is_3_0 {
                from_3_0(map);
            }
            map.values_mut().for_each(|it| translate(it, is_3_0));
        }
        _ => {}
    }
}

fn from_3_0(map: &mut Map<String, Value>) {
    // What stands beside a reference is ignored there, and is not in JSON Schema.
    if map.get("$ref").is_some_and(Value::is_string) {
        map.retain(|name, _| name == "$ref");
        return;
    }
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        match map.get(exclusive) {
            Some(Value::Bool(true)) => {
                if let Some(number) = map.remove(bound) {
                    map.insert(exclusive.to_owned(), number);
                } else {
                    map.remove(exclusive);
                }
            }
            Some(Value::Bool(false)) => drop(map.remove(exclusive)),
            _ => {}
        }
    }
    if map.get("nullable") == Some(&Value::Bool(true)) {
        if let Some(Value::String(kind)) = map.get("type").cloned() {
            map.insert("type".to_owned(), json!([kind, "null"]));
        }
        if let Some(Value::Array(values)) = map.get_mut("enum")
            && !values.contains(&Value::Null)
        {
            values.push(Value::Null);
        }
    }
}

/// What only responses have is not required of requests.
pub(super) fn forget_read_only(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget_read_only),
        Value::Object(map) => {
            require_no_read_only(map);
            map.values_mut().for_each(forget_read_only);
        }
        _ => {}
    }
}

fn require_no_read_only(map: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = map.get("properties") else { return };
    let is_read_only = |name: &Value| {
        let property = name.as_str().and_then(|it| properties.get(it));
        property.is_some_and(|it| it.get("readOnly") == Some(&Value::Bool(true)))
    };
    let Some(Value::Array(required)) = map.get("required") else { return };
    let left: Vec<Value> = required.iter().filter(|it| !is_read_only(it)).cloned().collect();
    map.insert("required".to_owned(), Value::Array(left));
}
