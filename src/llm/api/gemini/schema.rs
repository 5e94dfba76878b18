//! Google's older way to write schemas, as JSON schema: types in capitals, and `nullable`.
use serde_json::{Value, json};

/// Words that hold schemas by name, a schema, or a list of them.
const HOLDERS: [&str; 5] = ["properties", "items", "anyOf", "prefixItems", "additionalProperties"];

/// The same, as JSON schema. The body's own depth bounds how deep it goes.
pub fn from_google(mut schema: Value) -> Value {
    let Some(map) = schema.as_object_mut() else { return schema };
    let is_nullable = map.remove("nullable") == Some(json!(true));
    if let Some(Value::String(kind)) = map.get_mut("type") {
        let lower = kind.to_ascii_lowercase();
        map.insert(
            "type".to_owned(),
            if is_nullable { json!([lower, "null"]) } else { json!(lower) },
        );
    }
    for key in HOLDERS {
        match map.get_mut(key) {
            Some(Value::Object(inner)) if key == "properties" => {
                inner.values_mut().for_each(|it| *it = from_google(it.take()));
            }
            Some(Value::Array(list)) => list.iter_mut().for_each(|it| *it = from_google(it.take())),
            Some(it @ Value::Object(_)) => *it = from_google(it.take()),
            _ => {}
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_small_wherever_they_stand() {
        let google = json!({
            "type": "OBJECT",
            "properties": {
                "type": {"type": "STRING", "nullable": true},
                "list": {"type": "ARRAY", "items": {"type": "INTEGER"}},
            },
            "required": ["type"],
        });
        let expected = json!({
            "type": "object",
            "properties": {
                "type": {"type": ["string", "null"]},
                "list": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["type"],
        });
        assert_eq!(from_google(google), expected);
    }
}
