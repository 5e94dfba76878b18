//! The keys of a running process, over its admin API.
use std::fmt::Write;

use serde_json::{Value, json};

use super::super::{AdminArguments, Outcome};
use crate::admin::client::Client;

pub fn new(
    admin: &AdminArguments,
    consumer: &str,
    id: Option<&str>,
    expires: Option<&str>,
    scopes: &[String],
) -> Outcome {
    let path = format!("/api/consumers/{}/keys", escaped(consumer));
    let body = json!({"id": id, "expires": expires, "scopes": scopes});
    act(admin, |client| client.post(&path, &body), made)
}

pub fn rotate(
    admin: &AdminArguments,
    key: &str,
    overlap: &str,
    id: Option<&str>,
    expires: Option<&str>,
) -> Outcome {
    let mut body = json!({"overlap": overlap, "id": id});
    if let (Some(expires), Some(body)) = (expires, body.as_object_mut()) {
        // Its absence means as long as the old one, its being null would mean for ever.
        body.insert("expires".to_owned(), expires.into());
    }
    act(admin, |client| client.post(&format!("{}/rotate", find(client, key)?), &body), made)
}

pub fn revoke(admin: &AdminArguments, key: &str) -> Outcome {
    let said = |answer: &Value| format!("revoked: {}{}", full_id(answer), unless_in_force(answer));
    act(admin, |client| client.delete(&find(client, key)?), said)
}

pub fn list(
    admin: &AdminArguments,
    filters: [(&str, Option<String>); 4],
    is_json: bool,
) -> Outcome {
    let filters: String = filters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", escaped(&value?))))
        .collect();
    act(
        admin,
        |client| all(client, &filters).map(Value::from),
        |items| {
            if is_json {
                format!("{items:#}")
            } else {
                table(items.as_array().map_or(&[], |it| it))
            }
        },
    )
}

fn act(
    admin: &AdminArguments,
    ask: impl FnOnce(&Client) -> Result<Value, String>,
    say: impl FnOnce(&Value) -> String,
) -> Outcome {
    let client = match admin.client() {
        Ok(client) => client,
        Err(outcome) => return outcome,
    };
    match ask(&client) {
        Ok(answer) => Outcome::success(say(&answer)),
        Err(why) => Outcome::failure(1, format!("tollgate key: {why}")),
    }
}

/// Every page of a list of keys.
fn all(client: &Client, filters: &str) -> Result<Vec<Value>, String> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/api/keys?limit=1000{filters}{after}"))?;
        items.extend(page.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={}", escaped(next)),
            None => return Ok(items),
        }
    }
}

/// The path of a key: of `consumer/id`, or of an id that one consumer alone has.
fn find(client: &Client, key: &str) -> Result<String, String> {
    let path = |consumer: &str, id: &str| {
        format!("/api/consumers/{}/keys/{}", escaped(consumer), escaped(id))
    };
    if let Some((consumer, id)) = key.split_once('/') {
        return Ok(path(consumer, id));
    }
    let found = all(client, &format!("&kind=api_key&id={}", escaped(key)))?;
    match found.as_slice() {
        [] => Err(format!("no consumer has a key `{key}`")),
        [one] => Ok(path(word(one, "consumer"), word(one, "id"))),
        several => {
            let several: Vec<String> = several.iter().map(full_id).collect();
            Err(format!("several consumers have a key `{key}`: say which: {}", several.join(", ")))
        }
    }
}

/// The key, alone on its line for scripts; what is to be known besides goes below.
fn made(answer: &Value) -> String {
    let mut text = format!("{}\n\n# The key is shown this once.\n", word(answer, "key"));
    let expires = answer.get("expires").and_then(Value::as_str).unwrap_or("never");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# id: {}, expires: {expires}", full_id(answer));
    if let Some(old) = answer.get("old") {
        let (id, expires) = (word(old, "id"), word(old, "expires"));
        let _ = writeln!(text, "# the old one, {}/{id}, ends {expires}", word(answer, "consumer"));
    }
    text.push_str(unless_in_force(answer));
    text
}

/// Nobody shall take a key for dead that still opens something.
fn unless_in_force(answer: &Value) -> &'static str {
    match answer.get("in_force") {
        Some(Value::Bool(false)) => {
            "\n# Stored, and not in force yet; it is tried again each second. `tollgate status` says why."
        }
        _ => "",
    }
}

fn full_id(item: &Value) -> String {
    format!("{}/{}", word(item, "consumer"), word(item, "id"))
}

fn word<'v>(item: &'v Value, name: &str) -> &'v str {
    item.get(name).and_then(Value::as_str).unwrap_or("-")
}

const COLUMNS: [&str; 8] =
    ["id", "consumer", "kind", "created", "expires", "last_used", "state", "source"];

fn table(items: &[Value]) -> String {
    let head = COLUMNS.map(|name| name.to_uppercase().replace('_', " "));
    let rows = items.iter().map(|item| COLUMNS.map(|name| word(item, name).to_owned()));
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// For a path or a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let escape = |byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::tests::answering;

    #[test]
    fn keys_stand_in_columns() {
        let item = json!({
            "consumer": "acme", "id": "q4", "kind": "api_key", "source": "store", "state": "active",
            "created": "2026-11-25T12:00:00Z", "expires": null, "last_used": null,
        });
        assert_eq!(
            table(&[item]),
            "ID  CONSUMER  KIND     CREATED               EXPIRES  LAST USED  STATE   SOURCE\n\
             q4  acme      api_key  2026-11-25T12:00:00Z  -        -          active  store\n"
        );
    }

    #[test]
    fn what_is_not_in_force_yet_is_said() {
        let check = |in_force: bool| {
            let answer =
                json!({"consumer": "acme", "id": "q4", "key": "tg_x", "in_force": in_force});
            assert_eq!(made(&answer).contains("not in force yet"), !in_force);
            assert!(made(&answer).starts_with("tg_x\n"));
            assert_eq!(unless_in_force(&answer).is_empty(), in_force);
        };
        check(true);
        check(false);
    }

    #[test]
    fn an_id_alone_must_be_one_consumers() {
        let check = |answer: &str, expected: Result<&str, &str>| {
            let (address, serving) = answering(200, answer);
            let found = find(&Client::new(&address, None), "q4");
            let request = serving.join().unwrap();
            assert!(
                request.starts_with("GET /api/keys?limit=1000&kind=api_key&id=q4 "),
                "{request}"
            );
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        let one = r#"{"items":[{"consumer":"a@b","id":"q4"}],"next":null}"#;
        check(one, Ok("/api/consumers/a%40b/keys/q4"));
        check(r#"{"items":[],"next":null}"#, Err("no consumer has a key `q4`"));
        let two = r#"{"items":[{"consumer":"a","id":"q4"},{"consumer":"b","id":"q4"}]}"#;
        let which = "several consumers have a key `q4`: say which: a/q4, b/q4";
        check(two, Err(which));
    }

    #[test]
    fn a_name_cannot_leave_its_place() {
        assert_eq!(escaped("a/../b?c&d#e ä"), "a%2F..%2Fb%3Fc%26d%23e%20%C3%A4");
    }
}
