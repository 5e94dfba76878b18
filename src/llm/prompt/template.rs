//! The texts of a prompt: `{input.NAME}` stands for a value of the caller's, `{{` and `}}` are braces.
use serde_json::{Map, Value};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Input(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// There is no such variable.
    Unknown(String),
    /// For people.
    Wrong(String),
}

impl Template {
    /// # Errors
    /// What is wrong, given the names of all inputs.
    pub fn parse(text: &str, inputs: &[&str]) -> Result<Self, Mistake> {
        let wrong = |why: &str| Mistake::Wrong(why.to_owned());
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(inner) = from.strip_prefix('{') {
                let (name, after) = inner
                    .split_once('}')
                    .ok_or_else(|| wrong("a `{` is not closed; write `{{` for a brace"))?;
                let input = name.strip_prefix("input.").filter(|it| inputs.contains(it));
                let input = input.ok_or_else(|| Mistake::Unknown(name.to_owned()))?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(Part::Input(input.into()));
                rest = after;
            } else {
                return Err(wrong("a `}` closes nothing; write `}}` for a brace"));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self(parts.into()))
    }

    /// The names of the inputs that it uses.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Input(name) => Some(&**name),
            Part::Text(_) => None,
        })
    }

    /// The text with these values. One that was left out is nothing; a list is a line each.
    #[must_use]
    pub fn fill(&self, input: &Map<String, Value>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Input(name) => match input.get(&**name) {
                    None | Some(Value::Null) => {}
                    Some(Value::String(text)) => out.push_str(text),
                    Some(Value::Array(list)) => {
                        let lines = list.iter().map(|it| it.as_str().unwrap_or_default());
                        out.push_str(&lines.collect::<Vec<_>>().join("\n"));
                    }
                    Some(other) => out.push_str(&other.to_string()),
                },
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_stand_where_their_names_do() {
        let input = json!({"a": "{input.b}", "b": 1.5, "c": ["x", "y"], "d": true});
        let check = |text: &str, expected: Result<&str, &str>| {
            let filled = Template::parse(text, &["a", "b", "c", "d", "e"])
                .map(|it| it.fill(input.as_object().unwrap()))
                .map_err(|why| match why {
                    Mistake::Unknown(it) | Mistake::Wrong(it) => it,
                });
            match expected {
                Ok(text) => assert_eq!(filled.as_deref(), Ok(text)),
                Err(part) => assert!(filled.is_err_and(|it| it.contains(part)), "{text}"),
            }
        };
        check("", Ok(""));
        check("plain", Ok("plain"));
        check("{input.a} {input.b} {input.d}", Ok("{input.b} 1.5 true"));
        check("{{{input.c}}}", Ok("{x\ny}"));
        check("[{input.e}]", Ok("[]"));
        check("{input.f}", Err("input.f"));
        check("{a}", Err("a"));
        check("{input.a", Err("not closed"));
        check("a}", Err("closes nothing"));
    }
}
