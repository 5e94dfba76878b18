//! `store`.
use std::path::Path as FilePath;

use super::words::choice_or;
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    store::{Config, Location, OnOutage},
};

pub(super) fn compile(
    raw: Option<&raw::Store>,
    base_dir: &FilePath,
    at: &Path,
    problems: &mut Problems,
) -> Option<Config> {
    let raw = raw?;
    let location = location(raw, base_dir, at, problems);
    let on_outage = choice_or(
        raw.on_outage.as_ref(),
        OnOutage::Fail,
        &[("fail", OnOutage::Fail), ("start_without", OnOutage::StartWithout)],
        &at.key("on_outage"),
        problems,
    );
    Some(Config { location: location?, on_outage })
}

fn location(
    raw: &raw::Store,
    base_dir: &FilePath,
    at: &Path,
    problems: &mut Problems,
) -> Option<Location> {
    match (&raw.sqlite, &raw.postgres) {
        (Some(raw::Sqlite { path: Some(Word(path)) }), None) => {
            let file =
                if path.is_empty() { FilePath::new("").to_owned() } else { base_dir.join(path) };
            problems.keep(&at.key("sqlite").key("path"), Location::sqlite(&file))
        }
        (None, Some(raw::Postgres { url: Some(Word(url)) })) => {
            problems.keep(&at.key("postgres").key("url"), Location::postgres(url))
        }
        (Some(_), None) => {
            problems.add(&at.key("sqlite"), "`path` is missing: a file, such as tollgate.db");
            None
        }
        (None, Some(_)) => {
            let message = "`url` is missing, such as \"${env:DATABASE_URL}\"";
            problems.add(&at.key("postgres"), message);
            None
        }
        _ => {
            let hint = "write `sqlite: {path: tollgate.db}` or `postgres: {url: …}`";
            problems.add_with_hint(at, "exactly one of `sqlite` and `postgres` is needed", hint);
            None
        }
    }
}
