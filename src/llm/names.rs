//! Names of tools: where a provider's rules are narrower than the client's, a tool goes by another name
//! on its way there, and comes back under its own.
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::{
    api::Dialect,
    chat::{Event, Part, Request, Response, ToolChoice},
};

/// What a provider takes as a name.
struct Rule {
    longest: usize,
    /// Besides letters and digits.
    marks: &'static str,
    /// Whether it may begin with anything but a letter and `_`.
    any_start: bool,
}

const fn rule(dialect: Dialect) -> Option<Rule> {
    match dialect {
        Dialect::OpenAi
        | Dialect::Azure(_)
        | Dialect::Compatible
        | Dialect::Mistral
        | Dialect::Bedrock => Some(Rule { longest: 64, marks: "_-", any_start: true }),
        Dialect::Anthropic(_) => Some(Rule { longest: 128, marks: "_-", any_start: true }),
        Dialect::Gemini => Some(Rule { longest: 64, marks: "_-.:", any_start: false }),
        Dialect::Ollama => None,
    }
}

impl Rule {
    fn takes(&self, name: &str) -> bool {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || self.marks.contains(c);
        let begins = |c: char| self.any_start || c.is_ascii_alphabetic() || c == '_';
        (1..=self.longest).contains(&name.len())
            && name.chars().all(is_fine)
            && name.starts_with(begins)
    }

    /// As much of the name as fits, and what tells it from every other: the same each time, because the
    /// conversation repeats it.
    fn fit(&self, name: &str) -> String {
        let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let mut fitted = String::new();
        if !self.any_start && !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            fitted.push('_');
        }
        let fine =
            |c: char| if c.is_ascii_alphanumeric() || self.marks.contains(c) { c } else { '_' };
        fitted.extend(name.chars().map(fine).take(self.longest.saturating_sub(10)));
        for byte in hash.iter().take(4) {
            fitted.push_str(&format!("{byte:02x}"));
        }
        fitted
    }
}

/// What the provider calls the tools whose names it would not take: each with its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(HashMap<String, String>);

impl Names {
    /// Gives tools other names where this provider does not take theirs.
    #[must_use]
    pub fn fit(dialect: Dialect, request: &mut Request) -> Self {
        let mut names = Self::default();
        let Some(rule) = rule(dialect) else { return names };
        let mut fit = |name: &mut String| {
            if !rule.takes(name) {
                let own = std::mem::take(name);
                *name = rule.fit(&own);
                names.0.insert(name.clone(), own);
            }
        };
        request.tools.iter_mut().for_each(|it| fit(&mut it.name));
        if let Some(ToolChoice::Tool(name)) = &mut request.tool_choice {
            fit(name);
        }
        for part in request.messages.iter_mut().flat_map(|it| &mut it.parts) {
            match part {
                Part::ToolCall(call) => fit(&mut call.name),
                Part::ToolResult(result) => fit(&mut result.name),
                _ => {}
            }
        }
        names
    }

    fn restore(&self, name: &mut String) {
        if let Some(own) = self.0.get(name) {
            name.clone_from(own);
        }
    }

    /// In an answer.
    pub fn restore_response(&self, response: &mut Response) {
        for part in &mut response.parts {
            if let Part::ToolCall(call) = part {
                self.restore(&mut call.name);
            }
        }
    }

    /// In a piece of one.
    pub fn restore_event(&self, event: &mut Event) {
        if let Event::ToolCall { name, .. } = event {
            self.restore(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{
        api::anthropic::Version,
        chat::{Message, Object, Role, Tool, ToolCall, ToolResult},
    };

    fn request(name: &str) -> Request {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: None,
            parameters: None,
            is_strict: None,
        };
        let call = ToolCall {
            id: "1".to_owned(),
            name: name.to_owned(),
            arguments: Object::new(),
            signature: None,
        };
        let result = ToolResult {
            id: "1".to_owned(),
            name: name.to_owned(),
            parts: Vec::new(),
            is_error: false,
        };
        Request {
            tools: vec![tool(name), tool("plain")],
            tool_choice: Some(ToolChoice::Tool(name.to_owned())),
            messages: vec![
                Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)] },
                Message { role: Role::User, parts: vec![Part::ToolResult(result)] },
            ],
            ..Request::default()
        }
    }

    fn check(dialect: Dialect, name: &str, expected: Option<&str>) {
        let mut fitted = request(name);
        let names = Names::fit(dialect, &mut fitted);
        let there = fitted.tools[0].name.clone();
        match expected {
            None => assert_eq!(there, name),
            Some(start) => {
                assert!(there.starts_with(start) && there != name, "{there}");
                assert!(rule(dialect).unwrap().takes(&there), "{there}");
            }
        }
        // The same everywhere, and back again.
        assert_eq!(fitted, {
            let mut same = request(&there);
            same.tools[1].name = "plain".to_owned();
            same
        });
        let mut event = Event::ToolCall { id: String::new(), name: there, signature: None };
        names.restore_event(&mut event);
        assert!(matches!(event, Event::ToolCall { name: own, .. } if own == name));
    }

    #[test]
    fn tools_go_by_names_that_are_taken_and_come_back_under_their_own() {
        check(Dialect::OpenAi, "get_weather-2", None);
        check(Dialect::OpenAi, "crm.search:v1", Some("crm_search_v1"));
        check(Dialect::OpenAi, &"a".repeat(65), Some("aaaa"));
        check(Dialect::OpenAi, "wetter_für", Some("wetter_f_r"));
        let anthropic = Dialect::Anthropic(Version::V2023);
        check(anthropic, &"a".repeat(128), None);
        check(anthropic, &"a".repeat(129), Some("aaaa"));
        check(Dialect::Gemini, "crm.search:v1", None);
        check(Dialect::Gemini, "2nd", Some("_2nd"));
        check(Dialect::Gemini, "", Some("_"));
        check(Dialect::Ollama, "anything at all", None);
    }

    #[test]
    fn two_names_that_look_alike_stay_two() {
        let rule = rule(Dialect::OpenAi).unwrap();
        assert_ne!(rule.fit("a.b"), rule.fit("a:b"));
        assert_ne!(rule.fit(&"a".repeat(70)), rule.fit(&"a".repeat(71)));
    }
}
