//! What the operator wrote: from text to raw structs, with every problem named by its place. What
//! the words mean is the compile stage's business. Does no more than read the named files.
use std::{fmt, fs::File, io::Read, path::Path as FilePath};

use sha2::{Digest, Sha256};

mod brought;
mod decode;
mod effective;
mod interpolate;
mod locate;
pub mod raw;
mod tree;
mod word;
mod yaml;

pub use effective::effective;
pub use locate::Source;

use crate::diagnostic::{Diagnostic, MOST, Path, Place, Problems, render};

/// Longest configuration file, in bytes.
const LONGEST: u64 = 64 << 20;

/// A document of others that is JSON or YAML: keys that are numbers there, such as `200:`, are texts.
///
/// # Errors
/// What is wrong with it.
pub fn document(text: &str) -> Result<serde_json::Value, String> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|why| why.to_string())?;
    as_json(value)
}

fn as_json(value: serde_yaml::Value) -> Result<serde_json::Value, String> {
    use serde_yaml::Value;
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(it) => it.into(),
        Value::Number(it) => serde_json::to_value(it).map_err(|why| why.to_string())?,
        Value::String(it) => it.into(),
        Value::Sequence(items) => {
            items.into_iter().map(as_json).collect::<Result<Vec<_>, _>>()?.into()
        }
        Value::Mapping(members) => {
            let member = |(name, value)| match name {
                Value::String(name) => Ok((name, as_json(value)?)),
                Value::Number(name) => Ok((name.to_string(), as_json(value)?)),
                _ => Err("a key is neither a text nor a number".to_owned()),
            };
            let members = members.into_iter().map(member);
            serde_json::Value::Object(members.collect::<Result<_, _>>()?)
        }
        Value::Tagged(it) => as_json(it.value)?,
    })
}

/// A configuration that could be read whole.
pub struct Loaded {
    pub config: raw::Config,
    pub source: Source,
    pub revision: Revision,
}

/// What was wrong with one that could not.
pub struct Failure {
    /// Never empty; at most one more than are shown.
    pub diagnostics: Vec<Diagnostic>,
    pub source: Source,
    /// What could be read, for finding further problems in it and for nothing else: what was
    /// wrong is absent or empty here. `None` if the text is not YAML.
    pub partial: Option<Box<raw::Config>>,
}

impl Failure {
    /// Adds problems found in `partial`, save those that only follow from what was missing there.
    #[must_use]
    pub fn with(mut self, further: Problems) -> Self {
        let mut known: Vec<Path> =
            self.diagnostics.iter().map(|known| known.path.clone()).collect();
        // What was meant is not missing besides.
        known.extend(self.diagnostics.iter().filter_map(Diagnostic::meant));
        let follows =
            |path: &Path| known.iter().any(|known| known.contains(path) || path.contains(known));
        self.diagnostics.extend(further.0.into_iter().filter(|problem| !follows(&problem.path)));
        self.diagnostics.truncate(MOST + 1);
        self
    }
}

// Both without the configuration, whose words may be secrets.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("diagnostics", &self.diagnostics).finish_non_exhaustive()
    }
}

/// As `diagnostic::render` shows it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(&self.diagnostics, &self.source))
    }
}

impl std::error::Error for Failure {}

/// Names one content of a configuration: the first 12 hexadecimal digits of a SHA-256 over its
/// text and every value that `${…}` brought in, so that a changed secret is a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Revision {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a configuration that will not run.
    #[must_use]
    pub const fn none() -> Self {
        Self(String::new())
    }

    fn of(hash: Sha256) -> Self {
        Self(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What file names in `file` are relative to. The parent of a bare name is no path at all.
#[must_use]
pub fn folder_of(file: &FilePath) -> &FilePath {
    let parent = file.parent().filter(|it| !it.as_os_str().is_empty());
    parent.unwrap_or(FilePath::new("."))
}

/// Reads the file at `path`. Relative paths in it are relative to its folder.
///
/// # Errors
/// Every problem of the file, or that it cannot be read, is longer than 64 MiB or is not UTF-8.
pub fn load(path: &FilePath) -> Result<Loaded, Failure> {
    let file = path.display().to_string();
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(why) => return Err(unreadable(&file, "", Problem::of(why))),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &file, folder_of(path)),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let before = String::from_utf8_lossy(valid);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            let problem = Problem {
                at: Some(Place { line, column }),
                message: "the file is not UTF-8 from here on".to_owned(),
                hint: Some("save it as UTF-8 text"),
            };
            Err(unreadable(&file, &String::from_utf8_lossy(&bytes), problem))
        }
    }
}

/// Reads `text`, which is the content of `file`. Relative paths in it are relative to `base_dir`.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, file: &str, base_dir: &FilePath) -> Result<Loaded, Failure> {
    let source = Source::new(file, text);
    let mut problems = Problems::default();
    let mut tree = match yaml::read(source.text(), &mut problems) {
        Ok(tree) => tree,
        Err(fatal) => {
            // Last, and whatever else was found: nothing behind it was read.
            problems.0.truncate(MOST);
            problems.push(fatal);
            return Err(Failure { diagnostics: problems.0, source, partial: None });
        }
    };
    let mut hash = Sha256::new_with_prefix(source.text());
    let origin = interpolate::Origin { base_dir, env: &|name| std::env::var(name) };
    let brought = interpolate::run(&mut tree, &origin, &mut hash, &mut problems);
    let source = source.with(brought);
    match decode::decode(&mut tree, &mut problems) {
        Some(config) if problems.is_empty() => {
            Ok(Loaded { config, source, revision: Revision::of(hash) })
        }
        partial => {
            let partial = partial.map(Box::new);
            Err(Failure { diagnostics: problems.0, source, partial })
        }
    }
}

/// A problem of the whole file.
struct Problem {
    at: Option<Place>,
    message: String,
    hint: Option<&'static str>,
}

impl Problem {
    fn of(message: String) -> Self {
        Self { at: None, message, hint: None }
    }
}

fn unreadable(file: &str, text: &str, problem: Problem) -> Failure {
    let Problem { at, message, hint } = problem;
    let hint = hint.map(str::to_owned);
    let diagnostics = Vec::from([Diagnostic { path: Path::root(), at, message, hint }]);
    Failure { diagnostics, source: Source::new(file, text), partial: None }
}

fn read(path: &FilePath) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read the file: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LONGEST {
        return Err("the file is longer than 64 MiB".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_here(text: &str) -> Result<Loaded, Failure> {
        parse(text, "t.yaml", FilePath::new("."))
    }

    #[test]
    fn a_bare_name_lies_in_the_folder_at_hand() {
        let check = |file: &str, expected: &str| {
            assert_eq!(folder_of(FilePath::new(file)), FilePath::new(expected), "{file}");
        };
        check("gateway.yaml", ".");
        check("./gateway.yaml", ".");
        check("a/gateway.yaml", "a");
        check("/gateway.yaml", "/");
    }

    #[test]
    fn a_revision_is_the_content() {
        let revision = |text| parse_here(text).unwrap().revision;
        assert_eq!(revision("version: 1"), revision("\u{feff}version: 1"));
        assert_ne!(revision("version: 1"), revision("version: 2"));
        let shown = revision("version: 1").to_string();
        assert!(shown.len() == 12 && shown.bytes().all(|b| b.is_ascii_hexdigit()), "{shown}");
    }

    #[test]
    fn a_changed_secret_file_is_a_new_revision() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        write("t.yaml", "version: ${file:s}\n");
        write("s", "1\n");
        let file = folder.path().join("t.yaml");
        let first = load(&file).unwrap();
        assert_eq!(first.config.version, Some(1));
        write("s", "2\n");
        let second = load(&file).unwrap();
        assert_eq!(second.config.version, Some(2));
        assert_ne!(first.revision, second.revision);
        write("s", "1");
        assert_eq!(load(&file).unwrap().revision, first.revision);
    }

    fn check_load(content: &[u8], expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        std::fs::write(&file, content).unwrap();
        let shown = load(&file).unwrap_err().to_string();
        let shown = shown.replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_file_that_is_no_text_is_told() {
        check_load(
            b"version: 1\n# \xc3\xa4 \xff\n",
            "t.yaml:2:5: the file is not UTF-8 from here on\n  2 | # ä \u{fffd}\n    |     ^\n  \
             hint: save it as UTF-8 text\n",
        );
        let missing = load(FilePath::new("/no/such/file.yaml")).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such/file.yaml: cannot read the file: No such file"));
        let folder = load(FilePath::new("/")).unwrap_err().to_string();
        assert!(folder.starts_with("/: cannot read the file: "), "{folder}");
    }

    #[test]
    fn further_problems_are_added_unless_they_follow_from_known_ones() {
        let failure = parse_here("routes: [{id: a, colour: b}, {id: b}]").unwrap_err();
        let partial = failure.partial.as_ref().unwrap();
        assert_eq!(partial.routes.as_ref().map(Vec::len), Some(2));
        let mut further = Problems::default();
        let routes = Path::root().key("routes");
        further.add(&Path::root(), "nobody listens");
        further.add(&routes.index(0), "neither auth nor public");
        further.add(&routes.index(0).key("id"), "too short");
        further.add(&routes.index(1), "neither auth nor public");
        let shown: Vec<_> =
            failure.with(further).diagnostics.iter().map(|it| it.path.to_string()).collect();
        assert_eq!(shown, ["routes[0].colour", "routes[0].id", "routes[1]"]);
    }

    #[test]
    fn debug_output_has_no_secret() {
        for text in
            ["admin: {tokens: [{hash: hunter2}]}", "admin: {tokens: [{hash: hunter2, x: 1}]}"]
        {
            assert!(!format!("{:?}", parse_here(text)).contains("hunter2"));
        }
    }

    #[test]
    fn ten_thousand_consumers_are_read_and_all_their_faults_bounded() {
        use std::fmt::Write;
        let mut text = "version: 1\nconsumers:\n".to_owned();
        for n in 0..10_000 {
            let _ = write!(text, "  c{n}:\n    plan: gold\n    api_keys:\n");
            for key in 0..3 {
                let _ = writeln!(text, "      - {{id: k{key}, hash: \"sha256:{n:064x}\"}}");
            }
        }
        let loaded = parse_here(&text).unwrap();
        assert_eq!(loaded.config.consumers.map(|all| all.len()), Some(10_000));
        let failure = parse_here(&text.replace("plan:", "plans:")).unwrap_err();
        assert_eq!(failure.diagnostics.len(), MOST + 1);
        assert_eq!(failure.to_string().lines().count(), MOST * 4 + 1);
    }

    const VALID: &str = r#"version: 1
server: {workers: 0, grace_period: 30s, trusted_proxies: [10.0.0.0/8]}
upstreams: &u
  orders:
    endpoints:
      - {url: "http://10.0.0.1:8080", weight: 2}
    hash_on: {header: X-Session}
consumers:
  acme:
    basic: [{username: a, password_hash: '$argon2id$x'}]
    api_keys:
      - id: a
        hash: >-
          sha256:00
routes:
- id: orders   # note
  match: {paths: [/orders, "~^/v[0-9]+$"]}
  auth: [api_key]
  upstream: "${env:HOME}$${x}"
"#;

    fn read_and_show(text: &str) {
        match parse_here(text) {
            Ok(loaded) => drop(effective(&loaded.source)),
            Err(failure) => {
                assert!(!failure.diagnostics.is_empty());
                assert!(!failure.to_string().is_empty());
                drop(effective(&failure.source));
            }
        }
    }

    #[test]
    fn the_text_to_be_mutated_is_valid() {
        let shown = effective(&parse_here(VALID).unwrap().source);
        assert!(!shown.contains("argon2id") && !shown.contains("sha256"), "{shown}");
        parse_here(&shown.replace("\"…\"", "x")).unwrap();
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            read_and_show(&text);
        }

        #[test]
        fn no_yaml_like_text_panics(text in r#"([-?:,\[\]{}#&*!|>'"%@ \n\t]|[a-c1~$]|: |\n  |- |\$\{|: "|\r|\u{feff}|é){0,60}"#) {
            read_and_show(&text);
        }

        #[test]
        fn no_mutated_configuration_panics(
            edits in prop::collection::vec(
                (0..VALID.len(), 0_usize..12, r#"[-?:,\[\]{}#&*!|>'"%@ \n\t\r$~a0é]{0,4}"#), 1..6)
        ) {
            let mut text: Vec<char> = VALID.chars().collect();
            for (at, removed, inserted) in edits {
                let at = at.min(text.len());
                let end = (at + removed).min(text.len());
                text.splice(at..end, inserted.chars());
            }
            read_and_show(&text.into_iter().collect::<String>());
        }
    }
}
