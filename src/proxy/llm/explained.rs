//! What a route that models answer does, for `explain`.
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::answers;
use crate::{
    gateway::llm::{Llm, Model, Target},
    llm::guard::{Rule, Side},
};

pub fn explain(llm: &Llm, said: &mut Map<String, Value>) {
    said.insert("models".to_owned(), models(llm));
    if let Some(prompt) = &llm.prompt {
        let output = prompt.output.as_ref().map(|it| &it.checked.schema);
        let shown = json!({"name": &*prompt.name, "input": prompt.input.schema, "output": output});
        said.insert("prompt".to_owned(), shown);
    }
    said.insert("guards".to_owned(), guards(llm));
}

/// Who would be asked for each model, in which order. The body of the request says which model.
fn models(llm: &Llm) -> Value {
    let named = |target: &Target| format!("{}/{}", target.provider.name, target.model);
    let weighed = |it: &Target| {
        let api = it.provider.dialect.word();
        json!({"target": named(it), "api": api, "weight": it.weight})
    };
    let model = |(name, model): (&Arc<str>, &Arc<Model>)| {
        let said = json!({
            "targets": model.targets.iter().map(weighed).collect::<Value>(),
            "fallback": model.fallback.iter().map(named).collect::<Value>(),
            "cache": model.recall.as_ref().map(answers::shown),
        });
        (name.to_string(), said)
    };
    Value::Object(llm.models.iter().map(model).collect())
}

/// What is looked for in what is asked and answered, in its order.
fn guards(llm: &Llm) -> Value {
    let sides = |rule: &Rule| {
        let on = Side::ALL.into_iter().filter(|(_, side)| rule.is_on(*side));
        on.map(|(word, _)| word).collect::<Vec<_>>()
    };
    let shown =
        llm.guards.all().iter().map(
            |rule| json!({"guard": &*rule.name, "action": rule.action.word(), "on": sides(rule)}),
        );
    shown.collect()
}
