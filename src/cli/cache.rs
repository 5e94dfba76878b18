//! `tollgate cache purge`: removes stored responses from a running process, at once.
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{AdminArguments, Outcome};
use crate::admin::client::Client;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Remove stored responses.
    Purge(Purge),
}

#[derive(Debug, Args)]
pub struct Purge {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    admin: AdminArguments,
}

/// Exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Every variant of one URL, such as https://shop.example.com/catalogue/7?page=1.
    #[arg(long)]
    url: Option<String>,
    /// All whose URL begins so.
    #[arg(long)]
    prefix: Option<String>,
    /// All that carry this tag.
    #[arg(long)]
    tag: Option<String>,
    /// All of one route, by its id.
    #[arg(long)]
    route: Option<String>,
    #[arg(long)]
    all: bool,
}

impl Which {
    fn question(&self) -> Value {
        let named = [
            ("url", &self.url),
            ("prefix", &self.prefix),
            ("tag", &self.tag),
            ("route", &self.route),
        ];
        let named = named.into_iter().find_map(|(key, value)| Some(json!({key: value.as_ref()?})));
        named.unwrap_or_else(|| json!({"all": self.all}))
    }
}

pub fn run(verb: &Verb) -> Outcome {
    let Verb::Purge(Purge { which, admin }) = verb;
    let address = match admin.address() {
        Ok(address) => address,
        Err(outcome) => return outcome,
    };
    match Client::new(&address, admin.token()).post("/api/cache/purge", &which.question()) {
        Ok(answer) if answer.get("lasting") == Some(&Value::Bool(false)) => Outcome::failure(
            1,
            "purged, but the cache on disk cannot be written to: after a restart it may be back; \
             `tollgate status` says why"
                .to_owned(),
        ),
        Ok(answer) => Outcome::success(match answer.get("entries").and_then(Value::as_u64) {
            Some(1) => "purged 1 entry".to_owned(),
            Some(entries) => format!("purged {entries} entries"),
            None => "purged".to_owned(),
        }),
        Err(why) => Outcome::failure(1, format!("not purged: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        which: Which,
    }

    #[test]
    fn exactly_one_is_asked_for() {
        let check = |line: &[&str], expected: Option<Value>| {
            let line = std::iter::once("purge").chain(line.iter().copied());
            let found = Line::try_parse_from(line).ok().map(|it| it.which.question());
            assert_eq!(found, expected);
        };
        check(&["--url", "http://a.test/"], Some(json!({"url": "http://a.test/"})));
        check(&["--tag", "t"], Some(json!({"tag": "t"})));
        check(&["--all"], Some(json!({"all": true})));
        check(&[], None);
        check(&["--all", "--tag", "t"], None);
    }
}
