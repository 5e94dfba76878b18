//! From the text of an expression to its tree, within bounds. The parser of `cel` recurses and may
//! panic, so it runs on a thread of its own, with a stack that the longest text cannot exhaust.
use std::{sync::LazyLock, thread};

use cel::{
    Env, ParseErrors,
    common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo},
};

use super::Mistake;

/// Longest expression, in bytes.
pub const LONGEST: usize = 2048;
/// Most operators, names and values of one expression, macros expanded.
const MOST_NODES: usize = 512;
/// Deepest nesting: each level of evaluating takes some stack of the thread that serves.
const DEEPEST: usize = 48;
/// For the parser, which recurses once for each operator of a chain such as `1+1+…`.
const STACK: usize = 64 << 20;

/// Macros and functions of the language; whatever else is declared is declared by each expression.
pub static ENV: LazyLock<std::sync::Arc<Env>> = LazyLock::new(|| Env::stdlib().into());

/// A tree whose size and depth are within bounds, and where its nodes stand in the text.
#[derive(Debug)]
pub struct Parsed {
    pub expression: IdedExpr,
    source: SourceInfo,
}

impl Parsed {
    /// Where the last `word` before `offset` begins, both in characters; `offset` if there is none.
    pub fn word_before(&self, offset: usize, word: &str) -> usize {
        let before: String = self.source.source.chars().take(offset).collect();
        let at = before.rfind(word).and_then(|at| before.get(..at));
        at.map_or(offset, |before| before.chars().count())
    }

    /// Where a node stands, in characters.
    pub fn offset(&self, node: u64) -> usize {
        // The library counts bytes.
        let start = self.source.offset_for(node).and_then(|(start, _)| usize::try_from(start).ok());
        let before = start.and_then(|start| self.source.source.get(..start));
        before.map_or(0, |before| before.chars().count())
    }
}

/// # Errors
/// The first mistake of the text.
pub fn parse(text: &str) -> Result<Parsed, Mistake> {
    if text.trim().is_empty() {
        return Err(Mistake::at(0, "the expression is empty"));
    }
    if text.len() > LONGEST {
        return Err(Mistake::at(0, format!("the expression is longer than {LONGEST} bytes")));
    }
    let parse = || {
        let parsed = ENV.parser().parse_with_source_info(text);
        let (expression, source) = parsed.map_err(|errors| syntax(text, &errors))?;
        let parsed = Parsed { expression, source };
        bounded(&parsed).map(|()| parsed)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("expression".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, parse) {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(Mistake::at(0, "the expression cannot be understood"))),
            Err(why) => Err(Mistake::at(0, format!("no thread to read the expression: {why}"))),
        }
    })
}

/// The parser's first complaint of what is written; others mostly follow from it.
fn syntax(text: &str, errors: &ParseErrors) -> Mistake {
    const SYNTAX: &str = "Syntax error: ";
    let mut all = errors.errors.iter();
    let Some(error) = all.clone().find(|it| it.msg.starts_with(SYNTAX)).or_else(|| all.next())
    else {
        return Mistake::at(0, "not an expression");
    };
    let (line, column) = error.pos;
    let before = text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0));
    let lines: usize = before.map(|line| line.chars().count()).sum();
    let offset = lines + usize::try_from(column - 1).unwrap_or(0);
    let message = error.msg.strip_prefix(SYNTAX).unwrap_or(&error.msg);
    // What it would have expected is half the grammar.
    let message = message.split(" expecting ").next().unwrap_or(message);
    if let Some(token) = message.strip_prefix("token recognition error at: '") {
        let token = token.trim_end_matches('\'').trim();
        let mistake = Mistake::at(offset, format!("`{token}` means nothing here"));
        return if token == "=" { mistake.hint("write `==`") } else { mistake };
    }
    let message = message.replace("'<EOF>'", "the end").replace("<EOF>", "the end");
    Mistake::at(offset, format!("not an expression: {message}"))
}

/// Refuses what would take too much stack or time. Keeps its own stack on the heap.
fn bounded(parsed: &Parsed) -> Result<(), Mistake> {
    let mut left = vec![(&parsed.expression, 1)];
    let mut nodes = 0;
    while let Some((node, depth)) = left.pop() {
        nodes += 1;
        if nodes > MOST_NODES {
            let message = format!("the expression has more than {MOST_NODES} parts");
            return Err(Mistake::at(0, message));
        }
        if depth > DEEPEST {
            let message = format!("the expression is nested deeper than {DEEPEST} levels");
            return Err(Mistake::at(parsed.offset(node.id), message));
        }
        left.extend(children(node).into_iter().map(|child| (child, depth + 1)));
    }
    Ok(())
}

fn children(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(it) => {
            vec![&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|it| entry(&it.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(it) => it.entries.iter().flat_map(|it| entry(&it.expr)).collect(),
    }
}

fn entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
