//! What is changed in a JSON text: members leave, get other names, and are set, in this order.
use serde_json::{Value, json};

use super::{json::Node, pointer::Pointer};
use crate::value::template::{Template, Values};

/// What is set.
#[derive(Clone, Debug)]
pub enum Setting {
    /// Filled in, it is a string.
    Text(Template),
    /// As it stands: a number, a list, …
    Json(Node<'static>),
}

#[derive(Clone, Debug, Default)]
pub struct Edits {
    pub remove: Box<[Pointer]>,
    pub rename: Box<[(Pointer, Pointer)]>,
    pub set: Box<[(Pointer, Setting)]>,
}

/// What is set, for one request; `None` where a template has no value.
pub type Filled = Vec<Option<Node<'static>>>;

impl Edits {
    #[must_use]
    pub fn fill(&self, values: &Values<'_>) -> Filled {
        let fill = |(_, setting): &(Pointer, Setting)| match setting {
            Setting::Text(template) => template.fill(values).map(|it| Node::string(&it)),
            Setting::Json(node) => Some(node.clone()),
        };
        self.set.iter().map(fill).collect()
    }

    /// In words, as they would be for one request.
    #[must_use]
    pub fn shown(&self, filled: &Filled) -> Value {
        let texts = |node: &Option<Node<'_>>| match node {
            Some(node) => json!(node.to_text()),
            None => json!("(removed: there is no value)"),
        };
        let set = self.set.iter().zip(filled);
        json!({
            "remove": self.remove.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "rename": Value::Object(
                self.rename.iter().map(|(from, to)| (from.to_string(), json!(to.to_string()))).collect()
            ),
            "set": Value::Object(set.map(|((at, _), node)| (at.to_string(), texts(node))).collect()),
        })
    }

    /// What is to be set and has no value is removed: what the sender put there would be taken for it.
    ///
    /// # Errors
    /// Where something is in the way.
    pub fn apply<'a>(&'a self, root: &mut Node<'a>, filled: &'a Filled) -> Result<(), &'a Pointer> {
        for pointer in &self.remove {
            pointer.remove(root);
        }
        for (from, to) in &self.rename {
            from.rename(to, root).map_err(|_| to)?;
        }
        for ((pointer, _), value) in self.set.iter().zip(filled) {
            match value {
                Some(value) => pointer.set(root, &value.borrowed()).map_err(|_| pointer)?,
                None => pointer.remove(root),
            }
        }
        Ok(())
    }
}
