//! JSON Schema. Compiled once, from the text alone: nothing is fetched and no other file is read.
//! Patterns are matched in linear time, so that no body can make one of them slow.
use jsonschema::{PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::Value;

/// Bytes of a pointer that are said at most: the names in it are the client's.
const LONGEST: usize = 256;

/// Where a value is not what it should be, and by which keyword of the schema. Says no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub pointer: String,
    pub keyword: String,
}

#[derive(Debug)]
pub struct Schema(Validator);

impl Schema {
    /// # Errors
    /// What is wrong with the schema.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .build(schema)
            .map(Self)
            .map_err(|why| match why.instance_path().as_str() {
                "" => why.to_string(),
                at => format!("{at}: {why}"),
            })
    }

    pub(super) const fn of(validator: Validator) -> Self {
        Self(validator)
    }

    /// # Errors
    /// The first fault.
    pub fn check(&self, value: &Value) -> Result<(), Fault> {
        self.0.validate(value).map_err(|error| {
            let mut pointer = error.instance_path().as_str().to_owned();
            let member = match error.kind() {
                ValidationErrorKind::Required { property } => property.as_str(),
                ValidationErrorKind::AdditionalProperties { unexpected } => {
                    unexpected.first().map(String::as_str)
                }
                _ => None,
            };
            if let Some(member) = member {
                pointer.push('/');
                pointer.push_str(&member.replace('~', "~0").replace('/', "~1"));
            }
            if let Some((end, _)) = pointer.char_indices().find(|(at, _)| *at >= LONGEST) {
                pointer.truncate(end);
                pointer.push('…');
            }
            Fault { pointer, keyword: error.kind().keyword().to_owned() }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_says_where_and_by_what_and_no_value() {
        let schema = Schema::compile(&json!({
            "type": "object",
            "required": ["id", "a/b"],
            "additionalProperties": false,
            "properties": {
                "id": {"type": "integer", "minimum": 1},
                "a/b": {},
                "mail": {"format": "email"},
                "code": {"pattern": "^(a+)+$"},
                "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
            },
            "$defs": {"item": {"enum": ["x", "y"]}},
        }))
        .unwrap();
        let check = |mut value: Value, expected: Option<(&str, &str)>| {
            if value.get("a/b").is_none() && value.get("no").is_none() {
                value["a/b"] = json!(1);
            }
            let fault = schema.check(&value).err();
            let found = fault.as_ref().map(|it| (&*it.pointer, &*it.keyword));
            assert_eq!(found, expected, "{value}");
        };
        check(json!({"id": 1}), None);
        check(json!({"id": 18_446_744_073_709_551_615_u64}), None);
        check(json!({"id": 0}), Some(("/id", "minimum")));
        check(json!({"id": "1"}), Some(("/id", "type")));
        check(json!({}), Some(("/id", "required")));
        check(json!({"id": 1, "no": 1}), Some(("/a~1b", "required")));
        check(json!({"id": 1, "x~y": "secret"}), Some(("/x~0y", "additionalProperties")));
        check(json!({"id": 1, "mail": "nobody"}), Some(("/mail", "format")));
        check(json!({"id": 1, "items": ["x", "secret"]}), Some(("/items/1", "enum")));
        let slow = "a".repeat(50_000) + "!";
        check(json!({"id": 1, "code": slow}), Some(("/code", "pattern")));
        let long = json!({"id": 1, "n".repeat(10_000): 1, "a/b": 1});
        assert!(schema.check(&long).unwrap_err().pointer.len() < 300);
    }

    #[test]
    fn what_is_no_schema_or_lies_elsewhere_is_refused() {
        let check = |schema: Value, part: &str| {
            let why = Schema::compile(&schema).unwrap_err();
            assert!(why.contains(part), "{schema}: {why}");
        };
        check(json!({"type": "text"}), "text");
        check(json!({"pattern": "("}), "(");
        check(json!({"pattern": "(?=a)"}), "(?=a)");
        check(json!({"$ref": "https://example.com/a.json"}), "https://example.com/a.json");
        check(json!({"$ref": "other.json"}), "other.json");
        check(json!({"$ref": "file:///etc/passwd"}), "passwd");
        check(json!({"$ref": "#/$defs/none"}), "none");
    }
}
