//! The documentation is true: its configurations compile, its links lead somewhere, its commands are
//! there. That it names every metric and every error is tested where those are made.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tollgate::{config, gateway::Shared, reload};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder with this extension, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == extension));
    files.sort();
    files
}

/// Every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = [files("docs", "md"), files("docs/authentication", "md")].concat();
    paths.extend(["README.md", "CHANGELOG.md", "load-tests/README.md"].map(|it| root().join(it)));
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// What stands between ``` and ```, each with the word behind the first; and all that does not.
fn fenced(text: &str) -> (Vec<(String, String)>, String) {
    let (mut blocks, mut prose) = (Vec::new(), String::new());
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(word), None) => open = Some((word.trim().to_owned(), String::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((word, body))) => open = Some((word, body + line + "\n")),
            (None, None) => prose = prose + line + "\n",
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    (blocks, prose)
}

#[test]
fn blocks_are_found() {
    let (blocks, prose) = fenced("a\n```yaml\nb: 1\nc: 2\n```\nd\n```\ne\n```\n");
    let expected = [("yaml", "b: 1\nc: 2\n"), ("", "e\n")];
    assert_eq!(blocks, expected.map(|(word, body)| (word.to_owned(), body.to_owned())));
    assert_eq!(prose, "a\nd\n");
}

#[track_caller]
fn check(text: &str, file: &Path) {
    let base = file.parent().unwrap();
    let loaded = config::parse(text, &file.display().to_string(), base);
    if let Err(problems) = reload::check(loaded, base, &Shared::new().unwrap()) {
        panic!("{}", problems.join("\n"));
    }
}

#[test]
fn every_configuration_compiles() {
    let examples = files("conf", "yaml");
    assert!(examples.len() >= 3, "{examples:?}");
    for path in examples {
        check(&fs::read_to_string(&path).unwrap(), &path);
    }
    for (path, text) in documents() {
        for (word, body) in fenced(&text).0 {
            if word == "yaml" && body.starts_with("version:") {
                check(&body, &path);
            }
        }
    }
}

/// Targets of `[…](target)`, those on other hosts left out.
fn links(prose: &str) -> Vec<&str> {
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// The anchors of the headings, as code hosts make them.
fn anchors(prose: &str) -> Vec<String> {
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|it| it.is_alphanumeric() || "-_".contains(*it)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for (path, text) in documents() {
        let prose = fenced(&text).1;
        for link in links(&prose) {
            count += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !fragment.is_empty() {
                let there = fenced(&fs::read_to_string(target).unwrap()).1;
                let is_there = anchors(&there).iter().any(|it| it == fragment);
                assert!(is_there, "{}: {link} has no such heading", path.display());
            }
        }
    }
    assert!(count >= 8, "{count} links: they are not found any more");
}

fn help(words: &[&str]) -> Option<String> {
    let tollgate = env!("CARGO_BIN_EXE_tollgate");
    let output = Command::new(tollgate).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// The words after `tollgate` in a line of shell, up to a comment, a prompt left out.
fn command(line: &str) -> Option<Vec<&str>> {
    let mut words = line.split_whitespace().take_while(|it| !it.starts_with('#'));
    let first = words.find(|it| *it != "$")?;
    (first == "tollgate").then(move || words.collect())
}

#[test]
fn every_command_is_there() {
    let mut seen = Vec::new();
    for (path, text) in documents() {
        for (word, body) in fenced(&text).0 {
            if !matches!(&*word, "sh" | "console") {
                continue;
            }
            for words in body.lines().filter_map(command) {
                let what = format!("{}: tollgate {}", path.display(), words.join(" "));
                let verbs =
                    if matches!(words[0], "key" | "cache") { &words[..2] } else { &words[..1] };
                let help = help(verbs).unwrap_or_else(|| panic!("{what}: no such command"));
                for option in words.iter().filter(|it| it.starts_with('-')) {
                    let is_there = help.split_whitespace().any(|it| {
                        it.trim_end_matches(',').split('=').next() == option.split('=').next()
                    });
                    assert!(is_there, "{what}: there is no {option} in\n{help}");
                }
                seen.push(verbs.join(" "));
            }
        }
    }
    for verb in ["check", "run", "reload", "status", "explain", "key new"] {
        assert!(seen.iter().any(|it| it == verb), "README.md does not show `tollgate {verb}`");
    }
}
