//! JSON pointers (RFC 6901) and what is done at them. Beyond the RFC, `*` is every item of a list;
//! in an object it is the member of that name, as in the RFC.
use std::fmt;

use super::json::{Member, Node};

/// Where something stands, from the root down; never the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    parents: Box<[Box<str>]>,
    last: Box<str>,
}

/// A value is in the way: a text, say, where an object or a list would have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is a value in the way")]
pub struct InTheWay;

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.parents.iter().chain(std::iter::once(&self.last));
        tokens
            .into_iter()
            .try_for_each(|it| write!(f, "/{}", it.replace('~', "~0").replace('/', "~1")))
    }
}

impl Pointer {
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(tokens) = text.strip_prefix('/') else {
            return Err("a JSON pointer begins with `/`, such as /meta/tenant".to_owned());
        };
        let mut parents = tokens.split('/').map(token).collect::<Result<Vec<_>, _>>()?;
        // A text that is split has one part at least.
        let last = parents.pop().unwrap_or_default();
        Ok(Self { parents: parents.into(), last })
    }

    /// Whether both stand in the same object.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.parents == other.parents
    }

    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.parents.iter().chain(std::iter::once(&self.last)).any(|it| &**it == "*")
    }

    /// Whether one of them stands at or within the other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let tokens = |it: &Self| [&*it.parents, std::slice::from_ref(&it.last)].concat();
        tokens(self).iter().zip(&tokens(other)).all(|(a, b)| a == b)
    }

    /// Takes out what stands there; what does not stand there need not be taken out.
    pub fn remove(&self, root: &mut Node<'_>) {
        each(root, &self.parents, &mut |parent| match parent {
            Node::Object(members) => members.retain(|it| it.name != *self.last),
            Node::Array(items) if &*self.last == "*" => items.clear(),
            Node::Array(items) => {
                if let Some(at) = index(&self.last).filter(|at| *at < items.len()) {
                    items.remove(at);
                }
            }
            Node::Scalar(_) => {}
        });
    }

    /// Puts `value` there, in place of what stands there, and makes the objects that are missing on the
    /// way. In a list, the index after the last and `-` put it at the end.
    ///
    /// # Errors
    /// Something else is in the way.
    pub fn set<'a>(&self, root: &mut Node<'a>, value: &Node<'a>) -> Result<(), InTheWay> {
        set(root, &self.parents, &self.last, value)
    }

    /// Moves what stands here to `target`, in place of what stands there. Beside each other, the order
    /// of the members stays.
    ///
    /// # Errors
    /// Something else is in the way.
    pub fn rename(&self, target: &Self, root: &mut Node<'_>) -> Result<(), InTheWay> {
        if self == target {
            return Ok(());
        }
        if self.is_beside(target) {
            let mut is_fine = true;
            each(root, &self.parents, &mut |parent| match parent {
                Node::Object(members) => {
                    if members.iter().any(|it| it.name == *self.last) {
                        members.retain(|it| it.name != *target.last);
                        for it in members.iter_mut().filter(|it| it.name == *self.last) {
                            it.rename(&target.last);
                        }
                    }
                }
                Node::Array(items) => {
                    is_fine &= index(&self.last).is_none_or(|at| at >= items.len());
                }
                Node::Scalar(_) => {}
            });
            return if is_fine { Ok(()) } else { Err(InTheWay) };
        }
        let mut found = None;
        each(root, &self.parents, &mut |parent| found = take(parent, &self.last));
        match found {
            Some(value) => target.set(root, &value),
            None => Ok(()),
        }
    }
}

fn take<'a>(parent: &mut Node<'a>, last: &str) -> Option<Node<'a>> {
    match parent {
        Node::Object(members) => {
            let at = members.iter().position(|it| it.name == *last)?;
            Some(members.remove(at).value)
        }
        Node::Array(items) => {
            let at = index(last).filter(|at| *at < items.len())?;
            Some(items.remove(at))
        }
        Node::Scalar(_) => None,
    }
}

/// RFC 6901 section 4.
fn token(text: &str) -> Result<Box<str>, String> {
    let mut parts = text.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = if let Some(rest) = part.strip_prefix('0') {
            ('~', rest)
        } else if let Some(rest) = part.strip_prefix('1') {
            ('/', rest)
        } else {
            return Err("a `~` is written `~0`, and a `/` within a name `~1`".to_owned());
        };
        out.push(escaped);
        out.push_str(rest);
    }
    Ok(out.into())
}

/// Without leading zeros.
fn index(token: &str) -> Option<usize> {
    let is_plain = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| is_plain)
}

/// Shows `visit` every value that `parents` leads to.
fn each<'a>(root: &mut Node<'a>, parents: &[Box<str>], visit: &mut impl FnMut(&mut Node<'a>)) {
    let Some((first, rest)) = parents.split_first() else { return visit(root) };
    match root {
        Node::Object(members) => {
            if let Some(member) = members.iter_mut().find(|it| it.name == **first) {
                each(&mut member.value, rest, visit);
            }
        }
        Node::Array(items) if &**first == "*" => {
            items.iter_mut().for_each(|item| each(item, rest, visit));
        }
        Node::Array(items) => {
            if let Some(item) = index(first).and_then(|at| items.get_mut(at)) {
                each(item, rest, visit);
            }
        }
        Node::Scalar(_) => {}
    }
}

fn set<'a>(
    root: &mut Node<'a>,
    parents: &[Box<str>],
    last: &str,
    value: &Node<'a>,
) -> Result<(), InTheWay> {
    let Some((first, rest)) = parents.split_first() else { return put(root, last, value) };
    match root {
        Node::Object(members) => {
            if let Some(member) = members.iter_mut().find(|it| it.name == **first) {
                return set(&mut member.value, rest, last, value);
            }
            let mut inner = Node::Object(Vec::new());
            set(&mut inner, rest, last, value)?;
            let mut member = Member::new(first, Node::Array(Vec::new()));
            member.value = inner;
            members.push(member);
            Ok(())
        }
        Node::Array(items) if &**first == "*" => {
            items.iter_mut().try_for_each(|item| set(item, rest, last, value))
        }
        Node::Array(items) => {
            let item = index(first).and_then(|at| items.get_mut(at)).ok_or(InTheWay)?;
            set(item, rest, last, value)
        }
        Node::Scalar(_) => Err(InTheWay),
    }
}

fn put<'a>(parent: &mut Node<'a>, last: &str, value: &Node<'a>) -> Result<(), InTheWay> {
    match parent {
        Node::Object(members) => match members.iter_mut().find(|it| it.name == *last) {
            Some(member) => member.value = value.clone(),
            None => {
                let mut member = Member::new(last, Node::Array(Vec::new()));
                member.value = value.clone();
                members.push(member);
            }
        },
        Node::Array(items) if last == "*" => items.iter_mut().for_each(|it| *it = value.clone()),
        Node::Array(items) => {
            let at = if last == "-" { Some(items.len()) } else { index(last) };
            match at {
                Some(at) if at == items.len() => items.push(value.clone()),
                Some(at) => *items.get_mut(at).ok_or(InTheWay)? = value.clone(),
                None => return Err(InTheWay),
            }
        }
        Node::Scalar(_) => return Err(InTheWay),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Pointer {
        Pointer::parse(text).unwrap()
    }

    fn node(text: &str) -> Node<'_> {
        Node::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn pointers_are_read_by_the_rfc() {
        let check = |text: &str, parents: &[&str], last: &str| {
            let pointer = at(text);
            assert_eq!(pointer.parents.iter().map(|it| &**it).collect::<Vec<_>>(), parents);
            assert_eq!((&*pointer.last, pointer.to_string()), (last, text.to_owned()));
        };
        check("/a", &[], "a");
        check("/", &[], "");
        check("/a/b", &["a"], "b");
        check("/a~1b/m~0n/~01", &["a/b", "m~n"], "~1");
        check("//", &[""], "");
        for text in ["", "a", "#/a", "/~", "/a~2", "/~a"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_named_leaves() {
        let check = |pointer: &str, text: &str, expected: &str| {
            let mut root = node(text);
            at(pointer).remove(&mut root);
            assert_eq!(root.to_text(), expected, "{pointer} of {text}");
        };
        check("/b", r#"{"a":1,"b":2,"c":3}"#, r#"{"a":1,"c":3}"#);
        check("/a/b", r#"{"a":{"b":2,"c":3}}"#, r#"{"a":{"c":3}}"#);
        check("/a", r#"{"\u0061":1}"#, "{}");
        check("/x/y", r#"{"a":1}"#, r#"{"a":1}"#);
        check("/a/b", r#"{"a":"b"}"#, r#"{"a":"b"}"#);
        check("/1", "[1,2,3]", "[1,3]");
        check("/01", "[1,2,3]", "[1,2,3]");
        check("/-", "[1,2,3]", "[1,2,3]");
        check("/*", "[1,2,3]", "[]");
        check("/*/s", r#"[{"s":1,"t":2},{"s":3},4]"#, r#"[{"t":2},{},4]"#);
        check("/a/*/s", r#"{"a":[{"s":1}]}"#, r#"{"a":[{}]}"#);
        check("/*", r#"{"*":1,"a":2}"#, r#"{"a":2}"#);
        check("/0", r#"{"0":1}"#, "{}");
        check("/a", "1", "1");
    }

    #[test]
    fn what_is_set_stands_there() {
        let check = |pointer: &str, text: &str, expected: Option<&str>| {
            let mut root = node(text);
            let is_set = at(pointer).set(&mut root, &node("true"));
            assert_eq!(
                is_set.ok().map(|()| root.to_text()).as_deref(),
                expected,
                "{pointer} {text}"
            );
        };
        check("/a", "{}", Some(r#"{"a":true}"#));
        check("/a", r#"{"a":1,"b":2}"#, Some(r#"{"a":true,"b":2}"#));
        check("/m/t", r#"{"a":1}"#, Some(r#"{"a":1,"m":{"t":true}}"#));
        check("/m/t/u", r#"{"m":{}}"#, Some(r#"{"m":{"t":{"u":true}}}"#));
        check("/m/t", r#"{"m":"text"}"#, None);
        check("/m/t", r#"{"m":null}"#, None);
        check("/a", "1", None);
        check("/-", "[1]", Some("[1,true]"));
        check("/1", "[1]", Some("[1,true]"));
        check("/0", "[1]", Some("[true]"));
        check("/2", "[1]", None);
        check("/a", "[1]", None);
        check("/*/a", r#"[{},{"a":1}]"#, Some(r#"[{"a":true},{"a":true}]"#));
        check("/*/a", "[{},1]", None);
        check("/*", "[1,2]", Some("[true,true]"));
        check("/a\"b", "{}", Some(r#"{"a\"b":true}"#));
    }

    #[test]
    fn what_is_renamed_stands_where_it_stood() {
        let check = |from: &str, to: &str, text: &str, expected: Option<&str>| {
            let mut root = node(text);
            let moved = at(from).rename(&at(to), &mut root);
            assert_eq!(
                moved.ok().map(|()| root.to_text()).as_deref(),
                expected,
                "{from} {to} {text}"
            );
        };
        check("/a", "/b", r#"{"x":0,"a":1,"y":2}"#, Some(r#"{"x":0,"b":1,"y":2}"#));
        check("/a", "/b", r#"{"a":1,"b":2}"#, Some(r#"{"b":1}"#));
        check("/a", "/b", r#"{"b":2}"#, Some(r#"{"b":2}"#));
        check("/a", "/a", r#"{"a":2}"#, Some(r#"{"a":2}"#));
        check("/a", "/m/b", r#"{"a":[1]}"#, Some(r#"{"m":{"b":[1]}}"#));
        check("/a/0", "/b", r#"{"a":[1,2]}"#, Some(r#"{"a":[2],"b":1}"#));
        check("/a", "/m/b", r#"{"a":1,"m":2}"#, None);
        check("/*/a", "/*/b", r#"[{"a":1},{"a":2}]"#, Some(r#"[{"b":1},{"b":2}]"#));
        check("/0", "/1", "[1,2]", None);
    }

    #[test]
    fn overlapping() {
        let check = |a: &str, b: &str, expected: bool| {
            assert_eq!(at(a).overlaps(&at(b)), expected, "{a} {b}");
            assert_eq!(at(b).overlaps(&at(a)), expected, "{b} {a}");
        };
        check("/a", "/a/b", true);
        check("/a", "/a", true);
        check("/a", "/ab", false);
        check("/a/b", "/a/c", false);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("s")), Just(json!(null))];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                proptest::collection::btree_map("[ab01]", inner, 0..3)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        })
    }

    fn model_remove(root: &mut Value, pointer: &str) {
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        match root.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.shift_remove(last)),
            Some(Value::Array(list)) => {
                if let Some(at) = index(last).filter(|at| *at < list.len()) {
                    list.remove(at);
                }
            }
            _ => {}
        }
    }

    fn parsed(node: &Node<'_>) -> Value {
        serde_json::from_str(&node.to_text()).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_model(value in values(), pointer in "(/[ab01]){1,3}", to in "(/[ab01]){1,3}") {
            let text = value.to_string();
            let (pointer, target) = (at(&pointer), at(&to));
            let mut root = node(&text);
            pointer.remove(&mut root);
            let mut model = value.clone();
            model_remove(&mut model, &pointer.to_string());
            prop_assert_eq!(parsed(&root), model.clone());

            let mut root = node(&text);
            match pointer.set(&mut root, &node("\"new\"")) {
                Ok(()) => {
                    let read = parsed(&root);
                    prop_assert_eq!(read.pointer(&pointer.to_string()), Some(&json!("new")));
                    // Without it, and what was made for it, all is as it was without it.
                    if value.pointer(&pointer.to_string()).is_some() {
                        let mut without = read;
                        model_remove(&mut without, &pointer.to_string());
                        prop_assert_eq!(without, model);
                    }
                }
                Err(InTheWay) => prop_assert!(value.pointer(&pointer.to_string()).is_none()),
            }

            let mut root = node(&text);
            let found = value.pointer(&pointer.to_string()).cloned();
            let moved = pointer.rename(&target, &mut root);
            match found {
                Some(found) if moved.is_ok() && !pointer.overlaps(&target) => {
                    let is_list = value.pointer(pointer.to_string().rsplit_once('/').unwrap().0)
                        .is_some_and(Value::is_array);
                    // What follows in a list moves up, and the target may be within it.
                    if !is_list {
                        let read = parsed(&root);
                        prop_assert_eq!(read.pointer(&target.to_string()), Some(&found));
                        prop_assert_eq!(read.pointer(&pointer.to_string()), None);
                    }
                }
                None => prop_assert_eq!(parsed(&root), value),
                _ => {}
            }
        }

        #[test]
        fn nothing_panics(text in "[{}:,\"a0\\[\\]1*]{0,20}", pointer in "[/a0*~-]{0,8}") {
            if let (Ok(mut root), Ok(pointer)) = (Node::parse(text.as_bytes()), Pointer::parse(&pointer)) {
                let value = Node::string("x");
                let _ = pointer.set(&mut root, &value);
                let _ = pointer.rename(&at("/a/0"), &mut root);
                pointer.remove(&mut root);
            }
        }
    }
}
