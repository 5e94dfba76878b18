//! Broken configurations and what the operator reads about them: `NAME.yaml` and `NAME.txt` in
//! `tests/config_errors`. `UPDATE_GOLDEN=1 cargo test --test config_errors` writes the texts anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use tollgate::{config, gateway::Shared, reload};

const FOLDER: &str = "tests/config_errors";

/// What is shown for the configuration `text`; empty when nothing is wrong.
fn problems_of(text: &str, file: &str) -> String {
    let shared = Shared::new().unwrap();
    let folder = Path::new(FOLDER);
    match reload::check(config::parse(text, file, folder), folder, &shared) {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

#[test]
fn every_broken_file_is_explained_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names: Vec<String> = fs::read_dir(FOLDER)
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .strip_suffix(".yaml")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 80, "only {} cases", names.len());
    let mut different = Vec::new();
    for name in names {
        let text = fs::read_to_string(format!("{FOLDER}/{name}.yaml")).unwrap();
        let shown = problems_of(&text, &format!("{name}.yaml"));
        assert!(!shown.is_empty(), "nothing is wrong with {name}.yaml");
        let golden = format!("{FOLDER}/{name}.txt");
        if update {
            fs::write(&golden, &shown).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != shown {
            different.push(format!("--- {name}\n{shown}"));
        }
    }
    assert!(different.is_empty(), "UPDATE_GOLDEN=1 writes these:\n{}", different.join("\n"));
}
