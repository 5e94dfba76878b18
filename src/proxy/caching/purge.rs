//! What a purge asks for, read from the admin API: exactly one of `url`, `prefix`, `tag`, `route`, `all`.
use serde::Deserialize;
use serde_json::Value;

use crate::{
    cache::{key, storage::Purge},
    shared::http_client::Url,
    value::{host, path},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    route: Option<String>,
    all: Option<bool>,
}

/// # Errors
/// What is wrong with the question, for people.
pub fn read(question: &Value, rules: path::Rules) -> Result<Purge, String> {
    let one = "exactly one of `url`, `prefix`, `tag`, `route` and `all` is needed";
    let it = Question::deserialize(question).map_err(|why| why.to_string())?;
    let all = it.all.filter(|it| *it).map(|_| Purge::Everything);
    let asked = [
        it.url.map(|text| labelled(&text, rules).map(Purge::Url)),
        it.prefix.map(|text| labelled(&text, rules).map(Purge::Prefix)),
        it.tag.map(|tag| Ok(Purge::Tag(tag))),
        it.route.map(|route| Ok(Purge::Route(route))),
        all.map(Ok),
    ];
    let mut asked = asked.into_iter().flatten();
    match (asked.next(), asked.next()) {
        (Some(purge), None) => purge,
        _ => Err(one.to_owned()),
    }
}

/// A URL as entries are labelled: no scheme, no port, host and path canonical.
fn labelled(text: &str, rules: path::Rules) -> Result<String, String> {
    let wrong =
        |why: String| format!("`{text}` is not a URL such as https://shop.example.com/a: {why}");
    let url = Url::parse(text).map_err(|why| wrong(why.to_string()))?;
    let host = url.host_str().ok_or_else(|| wrong("it names no host".to_owned()))?;
    let host = host::canonical(host).map_err(|why| wrong(why.to_string()))?;
    let path = path::canonicalise(url.path(), rules).map_err(|why| wrong(why.to_string()))?;
    Ok(key::url(&host, &path.path, url.query()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_thing_is_purged() {
        let check = |question: Value, expected: Option<Purge>| {
            let read = read(&question, path::Rules { merge_slashes: true });
            assert_eq!(read.ok(), expected, "{question}");
        };
        let url = |text: &str| Some(Purge::Url(text.to_owned()));
        check(json!({"url": "https://A.test:8443/x/../y?b=1"}), url("a.test/y?b=1"));
        check(json!({"url": "http://a.test"}), url("a.test/"));
        check(json!({"prefix": "http://a.test/x"}), Some(Purge::Prefix("a.test/x".to_owned())));
        check(json!({"tag": "t"}), Some(Purge::Tag("t".to_owned())));
        check(json!({"all": true}), Some(Purge::Everything));
        check(json!({"all": false}), None);
        check(json!({}), None);
        check(json!({"tag": "t", "route": "r"}), None);
        check(json!({"url": "/relative"}), None);
        check(json!({"uri": "http://a.test/"}), None);
        check(json!({"tag": 7}), None);
    }
}
