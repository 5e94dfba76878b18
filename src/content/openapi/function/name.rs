//! Names of functions and arguments: of the characters that the protocols and APIs of models take,
//! each once.
use std::fmt::Write;

use ahash::AHashSet;
use http::Method;
use sha2::{Digest, Sha256};

/// Characters of a function's name: with a prefix, the APIs of models take 64.
const FUNCTION: usize = 48;
/// Characters of an argument's name.
const ARGUMENT: usize = 60;

/// The names that are taken.
#[derive(Default)]
pub(super) struct Names(AHashSet<String>);

impl Names {
    /// A name for the operation `id` that no other has.
    pub fn operation(&mut self, id: &str) -> Box<str> {
        self.free(shortened(&spelled(id, "_-"), id, FUNCTION)).into()
    }

    /// A name for an argument: where it is taken, with the place of the other one before it.
    pub fn argument(&mut self, name: &str, place: &str) -> String {
        if self.0.insert(name.to_owned()) {
            return name.to_owned();
        }
        self.free(format!("{place}_{name}"))
    }

    fn free(&mut self, name: String) -> String {
        if self.0.insert(name.clone()) {
            return name;
        }
        let mut numbered = (2..).map(|number: u32| format!("{name}_{number}"));
        // One of so many is free.
        numbered.find(|it| self.0.insert(it.clone())).unwrap_or(name)
    }
}

/// A name for an operation that has none.
pub(super) fn operation(method: &Method, path: &str) -> String {
    let method = method.as_str().to_ascii_lowercase();
    format!("{method}_{}", spelled(path, "_-"))
}

/// What an argument is called: as its parameter, as far as that can be.
pub(super) fn argument(name: &str) -> String {
    shortened(&spelled(name, "_-."), name, ARGUMENT)
}

/// The letters and digits of a text, and what else is `fine`; one `_` for all between.
fn spelled(text: &str, fine: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || fine.contains(c) {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    let trimmed = out.trim_end_matches('_');
    // Names that begin or end so on purpose are left alone.
    if trimmed.is_empty() || text.ends_with('_') { out } else { trimmed.to_owned() }
}

/// At most `most` characters; what is cut, or has none left, is told apart by its hash.
fn shortened(name: &str, whole: &str, most: usize) -> String {
    if name.len() <= most && !name.is_empty() {
        return name.to_owned();
    }
    let mut out: String = name.chars().take(most - 9).collect();
    out.push('_');
    for byte in Sha256::digest(whole.as_bytes()).iter().take(4) {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_so_that_all_take_them() {
        let check = |id: &str, expected: &str| {
            assert_eq!(&*Names::default().operation(id), expected, "{id}");
        };
        check("listOrders", "listOrders");
        check("orders.list", "orders_list");
        check("Orders/List all!", "Orders_List_all");
        check("../../etc", "etc");
        check("bücher", "b_cher");
        check("_internal_", "_internal_");
        check("日本", "_cf2abf0c");
        assert_eq!(Names::default().operation(&"x".repeat(100)).len(), FUNCTION);
        assert_eq!(operation(&Method::GET, "/orders/{id}/lines"), "get_orders_id_lines");
        assert_eq!(argument("filter[name]"), "filter_name");
        assert_eq!(argument("$top"), "top");
        assert_eq!(argument("a.b-c"), "a.b-c");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names = Names::default();
        let made: Vec<_> = ["a b", "a_b", "a!b"].iter().map(|it| names.operation(it)).collect();
        let expected: [Box<str>; 3] = ["a_b".into(), "a_b_2".into(), "a_b_3".into()];
        assert_eq!(made, expected);
        let mut names = Names::default();
        let made: Vec<_> =
            ["path", "query", "query"].iter().map(|it| names.argument("id", it)).collect();
        assert_eq!(made, ["id", "query_id", "query_id_2"]);
    }
}
