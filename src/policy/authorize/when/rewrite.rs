//! Makes patterns once: a call of `matches` becomes one of a function that holds its pattern. The
//! library would compile the pattern anew for each request.
use std::{collections::BTreeMap, sync::Arc};

use cel::{
    Context as Scope,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use regex::Regex;

/// Patterns by the node of the call.
pub type Patterns = BTreeMap<u64, Regex>;

/// # Errors
/// A function that cannot be declared.
pub fn rewrite(
    expression: &mut IdedExpr,
    patterns: &Patterns,
    functions: &mut Scope<'static, 'static>,
) -> Result<(), String> {
    let mut left = vec![expression];
    while let Some(node) = left.pop() {
        if let Some(pattern) = patterns.get(&node.id).cloned()
            && let Expr::Call(call) = &mut node.expr
        {
            // No name of the language has a `#`.
            call.func_name = format!("matches#{}", node.id);
            let text = call.target.take().map(|it| *it);
            call.args = text.into_iter().chain(call.args.drain(..)).take(1).collect();
            let matches = move |text: Arc<String>| pattern.is_match(&text);
            functions.add_function(&call.func_name, matches).map_err(|why| why.to_string())?;
        }
        match &mut node.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
            Expr::Call(call) => {
                left.extend(call.target.as_deref_mut());
                left.extend(&mut call.args);
            }
            Expr::Comprehension(it) => {
                left.extend([&mut it.iter_range, &mut it.accu_init, &mut it.loop_cond]);
                left.extend([&mut it.loop_step, &mut it.result]);
            }
            Expr::List(list) => left.extend(&mut list.elements),
            Expr::Map(map) => map.entries.iter_mut().for_each(|it| entry(&mut it.expr, &mut left)),
            Expr::Select(select) => left.push(&mut select.operand),
            Expr::Struct(it) => {
                it.entries.iter_mut().for_each(|it| entry(&mut it.expr, &mut left));
            }
        }
    }
    Ok(())
}

fn entry<'a>(entry: &'a mut EntryExpr, left: &mut Vec<&'a mut IdedExpr>) {
    match entry {
        EntryExpr::StructField(field) => left.push(&mut field.value),
        EntryExpr::MapEntry(entry) => left.extend([&mut entry.key, &mut entry.value]),
    }
}
