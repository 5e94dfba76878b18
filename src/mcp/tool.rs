//! A tool that we describe ourselves. Those of other servers stay as their servers wrote them.
use serde_json::{Map, Value};

use super::catalogue::Item;

/// What a client is told of a tool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tool {
    /// Among the tools of its server.
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    /// JSON Schema 2020-12, of an object.
    pub input_schema: Value,
    pub output_schema: Option<Value>,
    /// `readOnlyHint` and the like.
    pub annotations: Option<Value>,
    pub meta: Option<Value>,
}

impl Tool {
    #[must_use]
    pub fn item(&self) -> Item {
        let mut json = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                json.insert(key.to_owned(), value);
            }
        };
        put("name", Some(self.name.clone().into()));
        put("title", self.title.clone().map(Value::from));
        put("description", self.description.clone().map(Value::from));
        put("inputSchema", Some(self.input_schema.clone()));
        put("outputSchema", self.output_schema.clone());
        put("annotations", self.annotations.clone());
        put("_meta", self.meta.clone());
        let json = Value::Object(json).to_string();
        Item { name: self.name.as_str().into(), json: json.into() }
    }
}
