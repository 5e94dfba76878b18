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
    if target.iter().any(|target| target.chars().any(char::is_control)) {
        return Err(Problem::malformed("`target` is a name such as consumers/acme"));
    }
    let page = store.audit(&Wanted { before, target, limit }).await.map_err(failed)?;
    let next = page.next.map(|next| next.to_string());
    let items: Vec<Value> = page.entries.iter().map(shown).collect();
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
