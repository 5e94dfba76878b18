//! `GET /api/usage`: what calls of models used, by day, consumer and model, as JSON or CSV;
//! `/api/usage/calls`: the calls themselves; `/api/usage/quotas`: what a consumer has left.
use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, header};
use jiff::{Timestamp, civil::Date, tz::Offset};
use serde_json::{Map, Value, json};

use super::{Identities, failed, query::Query};
use crate::{
    admin::reply::{Problem, Reply},
    flow::clock::Now,
    limit::quota::{Unit, Wanted as Counted},
    llm::price::Cost,
    store::{
        Store,
        ledger::Call,
        report::{By, Group, Sum, Wanted},
    },
};

const DAY: i64 = 86_400;
/// Days that are shown unless others are asked for.
const SHOWN: i64 = 30;

/// Sums, each in its order of members.
pub async fn sums(
    identities: &Identities,
    query: &str,
    headers: &HeaderMap,
) -> Result<Reply, Problem> {
    let known = ["from", "to", "consumer", "model", "by", "format", "limit", "after"];
    let query = Query::parse(query, &known)?;
    let (wanted, by) = (wanted(&query)?, by(&query)?);
    let after = query.get("after").map(|text| {
        group(text).ok_or_else(|| Problem::malformed("`after` is a `next` of this list"))
    });
    let after = after.transpose()?;
    let is_csv = is_csv(&query, headers)?;
    let page = store(identities)?.sums(&wanted, by, after.as_ref()).await.map_err(failed)?;
    let next = page.items.last().filter(|_| page.has_more).map(|it| {
        let Group { day, consumer, model } = &it.group;
        format!("{day},{model},{consumer}")
    });
    let rows: Vec<_> = page.items.iter().map(|it| shown_sum(it, by)).collect();
    Ok(reply(&rows, next, is_csv))
}

pub async fn calls(
    identities: &Identities,
    query: &str,
    headers: &HeaderMap,
) -> Result<Reply, Problem> {
    let query =
        Query::parse(query, &["from", "to", "consumer", "model", "format", "limit", "before"])?;
    let wanted = wanted(&query)?;
    let before = query.get("before").map(|text| {
        text.parse::<i64>().map_err(|_| Problem::malformed("`before` is a `next` of this list"))
    });
    let before = before.transpose()?;
    let is_csv = is_csv(&query, headers)?;
    let page = store(identities)?.calls(&wanted, before).await.map_err(failed)?;
    let next = page.items.last().filter(|_| page.has_more).map(|(id, _)| id.to_string());
    let rows: Vec<_> = page.items.iter().map(|(id, call)| shown_call(*id, call)).collect();
    Ok(reply(&rows, next, is_csv))
}

/// From memory: what this node knows of all nodes.
pub fn quotas(identities: &Identities, query: &str) -> Result<Reply, Problem> {
    let query = Query::parse(query, &["consumer"])?;
    let Some(consumer) = query.get("consumer") else {
        return Err(Problem::malformed("`consumer` is missing"));
    };
    if !identities.is_known(consumer) {
        return Err(Problem::new(404, "not_found"));
    }
    let plan = identities.plan(consumer);
    let bounds = plan.as_deref().and_then(|it| identities.gateway.metering.quotas.get(it));
    let all = bounds.map_or(&[][..], |it| &it.all);
    let counted: Vec<Counted> =
        all.iter().map(|it| Counted { kind: it.kind, limit: it.limit, amount: 0 }).collect();
    let unix = Now::read().unix;
    let states = identities.quotas.of(consumer).states(&counted, unix);
    let items = all.iter().zip(&states).map(|(bound, state)| {
        let amount = |it: u64| match bound.kind.unit {
            Unit::Cost => json!(Cost(it).to_string()),
            Unit::Requests | Unit::Tokens => json!(it),
        };
        json!({
            "limit": &*bound.label,
            "counts": bound.kind.unit.word(),
            "per": bound.kind.period.to_string(),
            "of": amount(state.limit),
            "used": amount(state.used),
            "remaining": amount(state.remaining),
            "reset_seconds": state.reset.as_secs(),
        })
    });
    let items: Vec<Value> = items.collect();
    Ok(Reply::json(200, &json!({"consumer": consumer, "plan": plan, "items": items})))
}

fn store(identities: &Identities) -> Result<&Store, Problem> {
    let detail = "the configuration has no `store`, which would keep it";
    identities.store.as_deref().ok_or_else(|| Problem::new(404, "no_store").detail(detail))
}

fn wanted(query: &Query) -> Result<Wanted, Problem> {
    let today = Timestamp::now().as_second().div_euclid(DAY);
    let date = |name: &str| {
        let Some(text) = query.get(name) else { return Ok(None) };
        let wrong = || Problem::malformed(format!("`{name}` is a date such as 2026-11-25"));
        // No date has fewer characters, and a time is none.
        let date = text.parse::<Date>().ok().filter(|_| text.len() == 10).ok_or_else(wrong)?;
        let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_err(|_| wrong())?;
        Ok(Some(midnight.as_second().div_euclid(DAY)))
    };
    let to = date("to")?.unwrap_or(today);
    let from = date("from")?.unwrap_or(to - SHOWN + 1);
    if from > to {
        return Err(Problem::malformed("`from` is after `to`"));
    }
    let word = |name: &str| {
        let text = query.get(name).unwrap_or_default();
        match text.chars().any(char::is_control) {
            true => Err(Problem::malformed(format!("`{name}` is a name"))),
            false => Ok(text.to_owned()),
        }
    };
    Ok(Wanted {
        from,
        to,
        consumer: word("consumer")?,
        model: word("model")?,
        limit: query.limit()?,
    })
}

fn by(query: &Query) -> Result<By, Problem> {
    let mut by = By { day: false, consumer: false, model: false };
    for word in query.get("by").unwrap_or("day,consumer,model").split(',') {
        match word {
            "day" => by.day = true,
            "consumer" => by.consumer = true,
            "model" => by.model = true,
            _ => return Err(Problem::malformed("`by` is a list of day, consumer and model")),
        }
    }
    Ok(by)
}

/// A consumer's name may have a comma in it, so it comes last.
fn group(text: &str) -> Option<Group> {
    let mut words = text.splitn(3, ',');
    let day = words.next()?.parse().ok()?;
    let (model, consumer) = (words.next()?.to_owned(), words.next()?.to_owned());
    let is_text = |it: &str| !it.chars().any(char::is_control);
    (is_text(&model) && is_text(&consumer)).then_some(Group { day, consumer, model })
}

fn is_csv(query: &Query, headers: &HeaderMap) -> Result<bool, Problem> {
    if let Some(is_csv) = query.choice("format", &[("json", false), ("csv", true)])? {
        return Ok(is_csv);
    }
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    Ok(accept.is_some_and(|it| it.starts_with("text/csv")))
}

fn date(day: i64) -> String {
    let time = Timestamp::from_second(day.saturating_mul(DAY)).unwrap_or_default();
    Offset::UTC.to_datetime(time).date().to_string()
}

fn dollars(cost: i64) -> String {
    Cost(u64::try_from(cost).unwrap_or(0)).to_string()
}

fn shown_sum(sum: &Sum, by: By) -> Map<String, Value> {
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
    if by.day {
        put("day", json!(date(sum.group.day)));
    }
    if by.consumer {
        put("consumer", json!(sum.group.consumer));
    }
    if by.model {
        put("model", json!(sum.group.model));
    }
    put("calls", json!(sum.calls));
    put("failed", json!(sum.failed));
    put("estimated", json!(sum.estimated));
    put("tokens_in", json!(sum.input));
    put("tokens_cached", json!(sum.cached));
    put("tokens_out", json!(sum.output));
    put("tokens_reasoning", json!(sum.reasoning));
    put("cost_dollars", json!(dollars(sum.cost)));
    row
}

fn shown_call(id: i64, call: &Call) -> Map<String, Value> {
    let time = Timestamp::from_millisecond(call.time).unwrap_or_default();
    let value = json!({
        "id": id,
        "time": time.to_string(),
        "request_id": call.request_id,
        "consumer": &*call.consumer,
        "credential": &*call.credential,
        "route": &*call.route,
        "model": &*call.model,
        "provider": &*call.provider,
        "provider_model": &*call.target,
        "status": call.status,
        "attempts": call.attempts,
        "tokens_in": call.input,
        "tokens_cached": call.cached,
        "tokens_out": call.output,
        "tokens_reasoning": call.reasoning,
        "tokens_estimated": call.is_estimated,
        "cost_dollars": call.cost.map(dollars),
        "first_token_ms": call.first_token_ms,
        "duration_ms": call.duration_ms,
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

fn reply(rows: &[Map<String, Value>], next: Option<String>, is_csv: bool) -> Reply {
    if !is_csv {
        return Reply::json(200, &json!({"items": rows, "next": next}));
    }
    let reply = Reply::csv(csv(rows));
    // A file has no place for it.
    match next.and_then(|it| HeaderValue::try_from(it).ok()) {
        Some(next) => reply.header(super::NEXT.clone(), next),
        None => reply,
    }
}

/// RFC 4180, the names of the columns first.
fn csv(rows: &[Map<String, Value>]) -> String {
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        for (index, cell) in cells.enumerate() {
            // Writing to a string does not fail.
            let _ = write!(text, "{}{cell}", if index > 0 { "," } else { "" });
        }
        text.push_str("\r\n");
    };
    if let Some(first) = rows.first() {
        line(&mut first.keys().map(|it| cell(&json!(it))));
    }
    for row in rows {
        line(&mut row.values().map(cell));
    }
    text
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => return other.to_string(),
    };
    // A spreadsheet would take it for a formula.
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text };
    if text.contains(['"', ',', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_data_whatever_is_in_it() {
        let check = |text: &str, expected: &str| assert_eq!(cell(&json!(text)), expected, "{text}");
        check("acme", "acme");
        check("a,b", "\"a,b\"");
        check("a\"b", "\"a\"\"b\"");
        check("a\nb", "\"a\nb\"");
        check("=cmd()", "'=cmd()");
        check("@x,y", "\"'@x,y\"");
        assert_eq!(cell(&json!(7)), "7");
        assert_eq!(cell(&json!(-7)), "-7");
        assert_eq!(cell(&Value::Null), "");
    }

    #[test]
    fn where_a_page_ends_the_next_begins() {
        let check = |text: &str, expected: Option<(i64, &str, &str)>| {
            let found = group(text);
            let found = found.as_ref().map(|it| (it.day, &*it.model, &*it.consumer));
            assert_eq!(found, expected, "{text}");
        };
        check("20000,fast,acme", Some((20000, "fast", "acme")));
        check("0,,a,b", Some((0, "", "a,b")));
        for wrong in ["", "x,y,z", "1", "1,2", "1,a\n,b"] {
            check(wrong, None);
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let check = |query: &str, expected: Result<(i64, i64), u16>| {
            let known = ["from", "to", "consumer", "model", "limit"];
            let found = Query::parse(query, &known).and_then(|it| wanted(&it));
            let found = found.map(|it| (it.from, it.to)).map_err(|it| it.status());
            assert_eq!(found, expected, "{query}");
        };
        check("from=1970-01-02&to=1970-01-03", Ok((1, 2)));
        check("to=1970-02-01", Ok((2, 31)));
        check("from=1970-01-03&to=1970-01-02", Err(400));
        for wrong in
            ["from=yesterday", "to=2026-13-01", "from=2026-11-25T00:00:00Z", "consumer=a%0Ab"]
        {
            check(wrong, Err(400));
        }
    }
}
