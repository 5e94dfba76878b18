//! `GET /api/audit`: who changed what, newest first.
use serde_json::{Value, json};

use super::{Identities, failed, query::Query};
use crate::{
    admin::reply::{Problem, Reply},
    store::audit::{Entry, Wanted},
};

pub async fn list(identities: &Identities, query: &str) -> Result<Reply, Problem> {
    let query = Query::parse(query, &["limit", "before", "target"])?;
    let limit = query.limit()?;
    let before = query.get("before").map(|text| {
        text.parse::<i64>().map_err(|_| Problem::malformed("`before` is a `next` of this list"))
    });
    let before = before.transpose()?;
    let Some(store) = &identities.store else {
        let detail = "the configuration has no `store`, which would keep it";
        return Err(Problem::new(404, "no_store").detail(detail));
    };
    let target = query.get("target").map(str::to_owned);
    // One more than shown tells whether there is more.
    let wanted = Wanted { before, target, limit: i64::try_from(limit).unwrap_or(0) + 1 };
    let mut entries = store.audit(&wanted).await.map_err(failed)?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| has_more).map(|entry| entry.id.to_string());
    let items: Vec<Value> = entries.iter().map(shown).collect();
    Ok(Reply::json(200, &json!({"items": items, "next": next})))
}

fn shown(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "time": entry.time.to_string(),
        "actor": entry.actor,
        "role": entry.role,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "before": entry.before,
        "after": entry.after,
        "request_id": entry.request_id,
        "source": entry.source,
    })
}
