//! The functions and operators that an expression may use, with what they take and give. What is
//! not here is not to be had, whatever the library knows.
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::RegexBuilder;

use super::{
    Mistake,
    check::{Checker, optional, unknown},
    types::Type,
};

/// Names of types, as values.
pub const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Each function, and how it is written.
const FUNCTIONS: [(&str, &str); 23] = [
    ("all", "list.all(item, condition)"),
    ("bool", "bool(value)"),
    ("bytes", "bytes(text)"),
    ("contains", "text.contains(\"part\")"),
    ("double", "double(value)"),
    ("dyn", "dyn(value)"),
    ("endsWith", "text.endsWith(\"end\")"),
    ("exists", "list.exists(item, condition)"),
    ("exists_one", "list.exists_one(item, condition)"),
    ("filter", "list.filter(item, condition)"),
    ("has", "has(map.name)"),
    ("hasValue", "optional.hasValue()"),
    ("int", "int(value)"),
    ("map", "list.map(item, value)"),
    ("matches", "text.matches(\"pattern\")"),
    ("or", "optional.or(other)"),
    ("orValue", "optional.orValue(value)"),
    ("size", "size(value)"),
    ("startsWith", "text.startsWith(\"start\")"),
    ("string", "string(value)"),
    ("type", "type(value)"),
    ("uint", "uint(value)"),
    ("value", "optional.value()"),
];

/// Whether the parser makes something else of it, where it is written as it should be.
pub fn is_macro(name: &str) -> bool {
    matches!(name, "all" | "exists" | "exists_one" | "filter" | "has" | "map")
}

/// The most memory that a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// Whether this is an operator of two values, for which [`operate`] knows the types.
pub fn is_operator(name: &str) -> bool {
    const ALL: [&str; 9] = [
        operators::ADD,
        operators::SUBSTRACT,
        operators::MULTIPLY,
        operators::DIVIDE,
        operators::MODULO,
        operators::LESS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::GREATER_EQUALS,
    ];
    ALL.contains(&name)
}

/// What an operator gives, if it takes the two.
pub fn operate(symbol: &str, a: &Type, b: &Type) -> Option<Type> {
    let known = if a.is_any() { b } else { a };
    let is_ordered = || match known {
        Type::Any | Type::Bool | Type::String | Type::Bytes => a.may_equal(b),
        _ => a.is_number() && b.is_number(),
    };
    let is_taken = match symbol {
        "<" | "<=" | ">" | ">=" => return is_ordered().then_some(Type::Bool),
        "+" => match known {
            Type::List(_) => {
                let lists = [a, b].into_iter().all(|it| matches!(it, Type::List(_) | Type::Any));
                return lists.then(|| a.clone().join(b.clone()));
            }
            Type::String | Type::Bytes => true,
            known => known.is_number(),
        },
        "%" => *known != Type::Double && known.is_number(),
        _ => known.is_number(),
    };
    (is_taken && b.is_or_any(known)).then(|| known.clone())
}

/// The result of a function. `types` are those of the target, if there is one, and the arguments.
pub(super) fn call<'a>(
    checker: &mut Checker<'a>,
    node: &'a IdedExpr,
    call: &'a CallExpr,
    types: &[Type],
) -> Result<Type, Mistake> {
    let name = &*call.func_name;
    let text = |it: &Type| it.is_or_any(&Type::String);
    let scalar =
        |it: &Type| it.is_number() || matches!(it, Type::Bool | Type::String | Type::Bytes);
    let found = match (name, call.target.is_some(), types) {
        ("contains" | "startsWith" | "endsWith", true, [a, b]) if text(a) && text(b) => Type::Bool,
        ("matches", _, [a, b]) if text(a) && text(b) => return pattern(checker, node, call),
        ("size", _, [Type::Any | Type::String | Type::Bytes | Type::List(_) | Type::Map(_)]) => {
            Type::Int
        }
        ("type", false, [_]) => Type::Kind,
        ("dyn", false, [_]) => Type::Any,
        ("string", false, [a]) if scalar(a) => Type::String,
        ("int", false, [a]) if a.is_number() || text(a) => Type::Int,
        ("uint", false, [a]) if a.is_number() || text(a) => Type::Uint,
        ("double", false, [a]) if a.is_number() || text(a) => Type::Double,
        ("bool", false, [a]) if text(a) || *a == Type::Bool => Type::Bool,
        ("bytes", false, [a]) if text(a) || *a == Type::Bytes => Type::Bytes,
        ("hasValue", true, [Type::Optional(_)]) => Type::Bool,
        ("value", true, [Type::Optional(of)]) => (**of).clone(),
        ("or", true, [Type::Optional(a), Type::Optional(b)]) => {
            optional((**a).clone().join((**b).clone()))
        }
        ("orValue", true, [Type::Optional(of), other]) => (**of).clone().join(other.clone()),
        _ => return Err(refused(checker, node, name, types)),
    };
    Ok(found)
}

pub(super) fn refused(
    checker: &Checker<'_>,
    node: &IdedExpr,
    name: &str,
    types: &[Type],
) -> Mistake {
    let mut mistake = checker.mistake(node, "");
    // A call is noted at its bracket.
    mistake.offset = checker.parsed.word_before(mistake.offset, name);
    if let Some((_, usage)) = FUNCTIONS.iter().find(|(it, _)| *it == name) {
        let taken = types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        mistake.message = match &*taken {
            "" => format!("`{name}` is not written like this"),
            taken => format!("`{name}` does not take {taken} like this"),
        };
        return mistake.hint(format!("write `{usage}`"));
    }
    mistake.message = format!("unknown function `{name}`");
    unknown(mistake, name, &FUNCTIONS.map(|(name, _)| name))
}

fn pattern<'a>(
    checker: &mut Checker<'a>,
    node: &'a IdedExpr,
    call: &'a CallExpr,
) -> Result<Type, Mistake> {
    let Some(last) = call.args.last() else {
        return Err(checker.mistake(node, "`matches` needs a pattern"));
    };
    let Expr::Literal(LiteralValue::String(pattern)) = &last.expr else {
        let message = "a pattern must be written out: one made from a request could take very long";
        return Err(checker.mistake(last, message));
    };
    match RegexBuilder::new(pattern.inner()).size_limit(PATTERN_BYTES).build() {
        Ok(pattern) => {
            checker.patterns.insert(node.id, pattern);
            Ok(Type::Bool)
        }
        Err(why) => {
            let why = why.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(checker.mistake(last, format!("not a regular expression: {why}")))
        }
    }
}
